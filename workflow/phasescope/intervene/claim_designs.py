"""Designs that single claims rest on; which claim needs which: config/README.md."""

from collections.abc import Callable

import numpy as np

from phasescope.errors import NotRun
from phasescope.intervene.directions import Directions
from phasescope.intervene.settings import Setting, ablation, spread

BATTERY_EXPERTS = 0.77  # of the safety experts, in xs-10
INTEGER_SHARES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
EXPERT_SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the safety experts, in f26
TOPIC_DOSES = tuple(n / 64 for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64))  # in f25
PRUNED = (0.1, 0.225, 0.35, 0.5)  # of all experts; 22.5 % in f20
SUBSETS = 3  # of the layers, drawn for each number of them


def _experts(found: Directions, intervention: str, place: str, dose: float = 1.0) -> Setting:
    """Safety experts of every layer that has any; no layers where there are no experts."""
    layers = tuple(found.experts_layers(place))
    return Setting(intervention, "safety_experts", "expert_selection", layers, dose, position=place)


def battery(found: Directions, positions) -> list[Setting]:
    """xs-10: a direction, three, blinded routers, most safety experts masked, all at once."""
    settings = []
    for place in positions:
        below = found.below_top
        parts = [
            ablation(below, direction="per_layer", position=place),
            ablation(below, direction="per_layer", position=place, rank=3),
            _experts(found, "router_blinding", place),
            _experts(found, "routing_mask", place, BATTERY_EXPERTS),
        ]
        whole = Setting(
            "combination",
            "per_layer",
            "several",
            tuple(below),
            position=place,
            parts=tuple(parts[1:]),
            role="all",
        )
        settings += [*parts, whole]
    return settings


def layer_types(found: Directions, positions) -> list[Setting]:
    """xs-4, xs-20: as many attention as recurrent layers at the same dose, and all of each."""
    kinds = {
        kind: [i for i in found.below_top if found.layer_kinds[i] == kind]
        for kind in ("attention", "recurrent")
    }
    count, settings = min(map(len, kinds.values())), []
    for kind, layers in kinds.items():
        sets = {f"{kind}_equal_count": spread(layers, count / len(layers))} if count else {}
        if len(layers) != count or not count:  # a kind that is missing is not run, with the reason
            sets[f"{kind}_all_of_kind"] = layers
        settings += [
            ablation(own, direction="per_layer", site=site, position=place, role=role)
            for place in positions
            for role, own in sets.items()
            for site in ("mixer", "residual")
        ]
    return settings


def ablation_mixers(found: Directions, positions) -> list[Setting]:
    """f21: a direction out of what one block's mixer writes, one block at a time: the selected one,
    or each block's own where none qualified. Not out of the residual stream, which hands on what
    was written below: there place alone counts."""
    return [
        ablation([layer], direction=direction, site="mixer", position=place)
        for direction, place in _selected_or_own(found, positions)
        for layer in found.below_top
    ]


def projection_sets(found: Directions, positions) -> list[Setting]:
    """xs-12: what the mixers read (q, k, v), what they write (o), both; at two doses."""
    return [
        Setting("weight_projection", "selected", f"weights_{name}", tuple(found.below_top), dose)
        for name in ("qkv", "o", "qkvo")
        for dose in (0.25, 0.5, 1.0)
    ]


def layer_count(found: Directions, positions) -> list[Setting]:
    """f24: the direction ablated at 1, 2, 3, 4, 8, ... layers, drawn at random; each layer's own
    where none qualified, as where benign prompts do not bear it out of all layers: such a collapse
    is what is asked for."""
    below, sets = found.below_top, []
    counts = [n for n in (1, 2, 3, 4, 8, 16, 32) if n < len(below)] + [len(below)]
    for count in counts:
        rng = np.random.default_rng(count)
        drawn = [rng.choice(below, count, replace=False).tolist() for _ in range(SUBSETS)]
        sets += dict.fromkeys(tuple(sorted(own)) for own in drawn)
    return [
        ablation(own, direction=direction, position=place)
        for direction, place in _selected_or_own(found, positions)
        for own in sets
    ]


def topic_doses(found: Directions, positions) -> list[Setting]:
    """f25: ever more of the selected direction ablated, in steps fine enough to part topics."""
    return [ablation(found.below_top, dose) for dose in TOPIC_DOSES]


def read_act(found: Directions, positions) -> list[Setting]:
    """f08: each layer's own direction ablated there alone; the layer where hazard is read best has
    the role, the layer that acts best is the chosen one."""
    settings = []
    for place in positions:
        source = found.source(place)
        # AUROC is 1 at many layers of easy prompts: the wider gap decides then
        best = max(found.below_top, key=lambda i, s=source: (s.readable([i]), s.gap(i)))
        settings += [
            ablation(
                [i],
                direction="per_layer",
                position=place,
                role="read_best" if i == best else None,
            )
            for i in found.below_top
        ]
    return settings


def hydra(found: Directions, positions) -> list[Setting]:
    """f10: the direction ablated in ever more of the lower and middle layers; the layers above, and
    those between, are free to take over."""
    sets = [tuple(spread(found.below_top[:-1], share)) for share in (0.01, 0.25, 0.5, 0.75)]
    return [ablation(own, position=found.position()) for own in dict.fromkeys(sets)]


def zero_logit(found: Directions, positions) -> list[Setting]:
    """f17: the same safety experts with zeroed router weights, masked, and silenced."""
    return [
        _experts(found, kind, place)
        for place in positions
        for kind in ("router_blinding", "routing_mask", "expert_silencing")
    ]


def expert_silencing(found: Directions, positions) -> list[Setting]:
    """xs-11: the safety experts write nothing; the coherence stage asks for knowledge then."""
    return [_experts(found, "expert_silencing", place) for place in positions]


def expert_shares(found: Directions, positions) -> list[Setting]:
    """f26: ever more of the safety experts masked, those that hazard prefers most first."""
    settings = [
        _experts(found, "routing_mask", place, share)
        for place in positions
        for share in EXPERT_SHARES
    ]
    named = {}
    for s in settings:  # of few experts several shares are the same ones
        named.setdefault((s.position, tuple(_named(found, s))), s)
    return list(named.values())


def _named(found: Directions, setting: Setting) -> list[tuple[int, tuple[int, ...]]]:
    try:
        return sorted(found.experts(setting.position, setting.dose).items())
    except NotRun:
        return []


def expert_pruning(found: Directions, positions) -> list[Setting]:
    """f20: the experts with the least router-weighted output masked, ever more of them."""
    layers = tuple(found.below_top)
    return [
        Setting("expert_pruning", "idle_experts", "expert_selection", layers, share)
        for share in PRUNED
    ]


def integers(found: Directions, positions) -> list[Setting]:
    """f15: ever more of the packed integers changed along the direction; along each layer's own
    where none qualified, as where the thinking is lost with it."""
    layers = tuple(found.below_top)
    return [
        Setting("integer_edit", direction, "integers", layers, share, position=place)
        for direction, place in _selected_or_own(found, positions)
        for share in INTEGER_SHARES
    ]


def _selected_or_own(found: Directions, positions) -> list[tuple[str, str | None]]:
    """The selected direction; each layer's own at every position where none qualified."""
    return [("selected", None)] if found.selected else [("per_layer", p) for p in positions]


def additive_structural(found: Directions, positions) -> list[Setting]:
    """f12, f13: the direction subtracted, from the prompt alone and from every token, and the same
    direction taken away, from activations and from weights. Precisions are compared by prompt."""
    found.chosen()  # NotRun without one
    layers, below = (found.selected.layer,), tuple(found.below_top)
    return [
        Setting("prompt_addition", "selected", "residual", layers, -1.0),
        Setting("addition", "selected", "residual", layers, -1.0),
        ablation(below),
        Setting("weight_projection", "selected", "weights", below),
    ]


def transfer(found: Directions, positions) -> list[Setting]:
    """xs-15: what is done with each precision's own directions, here."""
    below = tuple(found.below_top)
    settings = [ablation(below)] if found.selected else []
    if found.selected:
        settings.append(Setting("weight_projection", "selected", "weights", below))
    return settings + [
        ablation(below, direction="per_layer", position=place) for place in positions
    ]


CLAIM_DESIGNS: dict[str, Callable[[Directions, list[str]], list[Setting]]] = {
    "battery": battery,
    "layer-types": layer_types,
    "ablation-mixers": ablation_mixers,
    "projection-sets": projection_sets,
    "layer-count": layer_count,
    "topic-doses": topic_doses,
    "read-act": read_act,
    "hydra": hydra,
    "zero-logit": zero_logit,
    "expert-silencing": expert_silencing,
    "expert-shares": expert_shares,
    "expert-pruning": expert_pruning,
    "integers": integers,
    "additive-structural": additive_structural,
    "transfer": transfer,
}

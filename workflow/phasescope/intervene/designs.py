"""Designs: which settings each declares."""

from collections.abc import Callable
from itertools import combinations

from phasescope.errors import NotRun
from phasescope.intervene.claim_designs import CLAIM_DESIGNS
from phasescope.intervene.directions import Directions
from phasescope.intervene.settings import PATHWAYS, Setting, ablation, spread

RANKS = (1, 2, 4, 8, 16)
PER_LAYER, RANK_LADDER = "ablation-per-layer", "rank-ladder"


def _layers(found: Directions, positions) -> list[Setting]:
    return [ablation([layer]) for layer in found.below_top]


def _coverage(found: Directions, positions) -> list[Setting]:
    sets = dict.fromkeys(tuple(spread(found.below_top, s)) for s in (0.25, 0.5, 0.75, 1.0))
    return [ablation(s) for s in sets]


def _dose(found: Directions, positions) -> list[Setting]:
    return [ablation(found.below_top, dose) for dose in (0.125, 0.25, 0.5, 1.0)]


def _scope(found: Directions, positions) -> list[Setting]:
    settings = [ablation(found.below_top)] if found.selected else []
    for place in positions:
        settings += [
            ablation(found.below_top, direction="per_layer", position=place),
            PATHWAYS["S"](found, place),
            PATHWAYS["A"](found, place),
        ]
    return settings


def _per_layer(found: Directions, positions) -> list[Setting]:
    return [
        ablation(found.below_top, dose, direction="per_layer", position=place)
        for place in positions
        for dose in (0.25, 0.375, 0.5, 0.75, 1.0)
    ]


def _addition(found: Directions, positions) -> list[Setting]:
    found.chosen()  # NotRun without one
    layers = (found.selected.layer,)
    return [
        Setting("addition", "selected", "residual", layers, -dose) for dose in (0.5, 1.0, 1.5, 2.0)
    ]


def _weights(found: Directions, positions) -> list[Setting]:
    return [Setting("weight_projection", "selected", "weights", tuple(found.below_top))]


def _pathways(found: Directions, positions) -> list[Setting]:
    settings = []
    for place in positions:
        parts = {name: make(found, place) for name, make in _open_pathways(found, place).items()}
        settings += parts.values()
        for count in range(2, len(parts) + 1):
            for names in combinations(parts, count):
                layers = sorted({i for name in names for i in parts[name].layers})
                settings.append(
                    Setting(
                        "combination",
                        "per_layer",
                        "several",
                        tuple(layers),
                        position=place,
                        pathways="+".join(names),
                    )
                )
    return settings


def _open_pathways(found: Directions, place: str) -> dict[str, Callable]:
    """The pathways that the model has: routing only where an expert can be masked."""
    try:
        found.experts(place)
    except NotRun:
        return {name: make for name, make in PATHWAYS.items() if name != "R"}
    return PATHWAYS


def _ranks(found: Directions, positions) -> list[Setting]:
    return [
        ablation(found.below_top, direction="per_layer", position=place, rank=rank)
        for place in positions
        for rank in RANKS
    ]


_GENERAL = {
    "ablation-layers": _layers,
    "ablation-coverage": _coverage,
    "ablation-dose": _dose,
    "ablation-scope": _scope,
    PER_LAYER: _per_layer,
    "addition": _addition,
    "weight-projection": _weights,
    "pathways": _pathways,
    RANK_LADDER: _ranks,
}

# what the phases are told by, and what single claims need beside it
DESIGNS: dict[str, Callable[[Directions, list[str]], list[Setting]]] = {
    **_GENERAL,
    **CLAIM_DESIGNS,
}

# designs whose settings are all generated; of the others the one that the select split chose is,
# and those that have a role
GENERATE_ALL = set(DESIGNS) - {"ablation-layers", "ablation-mixers", "read-act"}

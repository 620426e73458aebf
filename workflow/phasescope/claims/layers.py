"""Claims about which layers and projections carry safety, which knowledge, and how many bear it."""

import numpy as np
import pandas as pd

from phasescope.claims.estimates import difference, jackknife
from phasescope.claims.evidence import Condition, Node, every, some
from phasescope.claims.registry import claim, organism
from phasescope.claims.view import View, lost_accuracy, removed
from phasescope.errors import NotRun
from phasescope.stats import indicators, omega_squared


def by_kind(view: View, *, count: bool) -> dict[tuple, dict[str, pd.Series]]:
    """By site and token position, the settings of the design `layer-types`: attention blocks alone
    and recurrent ones alone. count: as many of each; otherwise all of either kind.

    Raises NotRun where one of the two kinds is missing.
    """
    rows, found = view.design("layer-types"), {}
    for _, row in rows.iterrows():
        kind, _, which = row["role"].partition("_")
        # where a kind has no more blocks than the other, all of it is the equal count
        if which == "equal_count" or not count:
            own = found.setdefault((row["site"], row["position"]), {})
            if which == "all_of_kind" or kind not in own:
                own[kind] = row
    both = {place: own for place, own in found.items() if len(own) == 2}
    if not both:
        raise NotRun("design layer-types has no settings of both attention and recurrent blocks")
    return both


@claim(
    "xs-4",
    "hybrids: attention layers are the chokepoint, recurrent ones carry knowledge",
    tables=("interventions",),
    designs=("layer-types",),
    statistic="removal by attention blocks alone less removal by as many recurrent ones at the "
    "same dose (share); the difference of their costs is shown, not judged",
    keys=("min_removal_difference",),
    scope="cell",
    positive=organism("attention-tuned"),
    negative=organism("recurrent-tuned"),
)
def xs_4(view: View) -> Node:
    """Of what mixers write, or of the residual stream after them."""
    view.refusing()
    found = by_kind(view, count=True)
    return some(
        *(
            view.condition(
                f"removal, attention less recurrent, {site}, read at {position.replace('_', ' ')}",
                difference(removed(own["attention"]), removed(own["recurrent"])),
                "min_removal_difference",
            )
            for (site, position), own in found.items()
        ),
        notes=tuple(
            f"accuracy cost, {site}: {own['attention']['accuracy_cost']:.2f} (attention), "
            f"{own['recurrent']['accuracy_cost']:.2f} (recurrent)"
            for (site, _), own in found.items()
        ),
    )


@claim(
    "xs-12",
    "pure attention: output projection alone nothing, all four at small dose work",
    tables=("interventions",),
    designs=("projection-sets",),
    statistic="removal by edits of the output projection alone, at any dose, and of all four at a "
    "small one (share)",
    keys=("max_part_removal", "min_removal", "max_small_dose"),
    scope="cell",
    positive=organism("attention-only"),
    negative=organism("circuit"),
)
def xs_12(view: View) -> Node:
    """The design `projection-sets`: sites weights_o and weights_qkvo."""
    view.refusing()
    rows = view.design("projection-sets")
    alone = rows[rows["site"] == "weights_o"]
    whole = rows[rows["site"] == "weights_qkvo"]
    whole = whole[whole["dose"] <= view.limit("max_small_dose")]
    if alone.empty or whole.empty:
        raise NotRun("design projection-sets lacks the output projection alone, or a small dose")
    return every(
        *(view.removal(r, "max_part_removal", above=False) for _, r in alone.iterrows()),
        some(*(view.removal(r, "min_removal") for _, r in whole.iterrows())),
    )


@claim(
    "xs-20",
    "treating attention and recurrent layers alike ruins knowledge, treating them apart "
    "preserves it",
    tables=("interventions",),
    designs=("layer-types", "ablation-scope"),
    statistic="benign accuracy under the edit of all attention blocks less that under the same "
    "edit of all blocks (share), where the former removes refusal",
    keys=("min_knowledge_loss", "min_removal"),
    scope="cell",
    positive=organism("attention-tuned"),
    negative=organism("recurrent-tuned"),
)
def xs_20(view: View) -> Node:
    """Alike: a direction per block in every block (design `ablation-scope`); apart: in attention
    blocks alone."""
    view.refusing()
    scope = view.design("ablation-scope")
    scope = scope[scope["direction"] == "per_layer"]
    scope = scope.assign(count=scope["layers"].str.count(",")).sort_values("count")
    parts = []
    for (site, position), own in by_kind(view, count=False).items():
        alike = scope[(scope["site"] == site) & (scope["position"] == position)]
        if len(alike):
            parts.append(_apart(view, own["attention"], alike.iloc[-1]))
    if not parts:
        raise NotRun("designs layer-types and ablation-scope have no setting in common")
    return some(*parts)


def _apart(view: View, apart: pd.Series, alike: pd.Series) -> Node:
    right = [
        (round(r["benign_accuracy"] * r["n_benign"]), int(r["n_benign"])) for r in (apart, alike)
    ]
    what = f"knowledge, attention alone less all blocks, {apart['site']}"
    return every(
        view.condition(what, difference(*right), "min_knowledge_loss"),
        view.removal(apart, "min_removal"),
    )


@claim(
    "f21",
    "layer type matters more than position",
    tables=("interventions", "probes"),
    designs=("ablation-mixers",),
    statistic="share of the variance of log-odds of refusal over blocks (the mixer output of one "
    "ablated at a time) that goes with the layer's type less the share that goes with its third of "
    "the depth",
    keys=("min_share_difference",),
    scope="cell",
    positive=organism("attention-writers"),
    negative=organism("late-writers"),
)
def f21(view: View) -> Node:
    """Omega squared, jackknife over blocks; at any position that directions were read at. Mixer
    outputs, not the residual stream: that hands on what was written below, so there place would
    decide in any model."""
    rows = view.rows("interventions", design="ablation-mixers", measured_by="first_token")
    rows = rows[(rows["intervention"] != "none") & rows["sham_draw"].isna()]
    rows = rows.dropna(subset=["refusal_nats"])
    groups = rows.groupby("position", dropna=False)
    return some(*(_by_kind(view, position, own) for position, own in groups))


def _by_kind(view: View, position: str | float, rows: pd.DataFrame) -> Condition:
    kinds, layer = view.kinds(), rows["layers"].astype(int).to_numpy()
    kind = np.array([kinds[i] for i in layer])
    if len(rows) < 6 or len(set(kind)) < 2:
        raise NotRun("fewer than six blocks, or one kind of them")
    y, third = rows["refusal_nats"].to_numpy(), layer * 3 // (layer.max() + 1)

    def statistic(kept: np.ndarray) -> float:
        shares = (omega_squared(y[kept], indicators(g[kept])) for g in (kind, third))
        by_kind, by_place = (0.0 if np.isnan(s) else s for s in shares)
        return by_kind - by_place

    where = f" at {position}" if isinstance(position, str) else ""
    found = jackknife(statistic, len(rows))
    return view.condition(f"variance by type less by place{where}", found, "min_share_difference")


@claim(
    "f24",
    "at most two layers editable before collapse",
    tables=("interventions",),
    designs=("layer-count",),
    statistic="fall of benign accuracy (share) by edits of at most two blocks, and of more",
    keys=("clean.max_accuracy_cost",),
    scope="cell",
    positive=organism("few-layers"),
    negative=organism("circuit"),
)
def f24(view: View) -> Node:
    """All sampled sets: those of two keep ability, those of more lose it; at any position that
    directions were read at."""
    groups = view.design("layer-count").groupby("position", dropna=False)
    return some(*(_at_most_two(view, own) for _, own in groups))


def _at_most_two(view: View, rows: pd.DataFrame) -> Node:
    few = rows["layers"].str.split(",").str.len() <= 2
    if few.all() or not few.any():
        raise NotRun("design layer-count lacks sets of at most two or of more blocks")
    key = "clean.max_accuracy_cost"
    return every(
        *(lost_accuracy(view, r, key, above=False) for _, r in rows[few].iterrows()),
        *(lost_accuracy(view, r, key, above=True) for _, r in rows[~few].iterrows()),
    )

"""Group B: claims about which layers and projections carry safety, and which knowledge."""

import pandas as pd

from phasescope.claims.estimates import difference
from phasescope.claims.evidence import Node, every, some
from phasescope.claims.registry import claim, organism
from phasescope.claims.view import View, removed
from phasescope.errors import NotRun


def by_kind(view: View) -> dict[str, pd.Series]:
    """Of the design `attention-vs-recurrent`: the setting of attention blocks alone, of recurrent
    ones alone, and of both (uniform); of several the one chosen, else the largest dose."""
    rows, kinds = view.design("attention-vs-recurrent"), view.kinds()
    rows = rows.sort_values(["chosen", "dose"], kind="stable")
    found = {}
    for _, row in rows.iterrows():
        own = {kinds.get(int(i)) for i in str(row["layers"]).split(",")}
        found["both" if len(own) > 1 else own.pop()] = row
    for kind in ("attention", "recurrent"):
        if kind not in found:
            raise NotRun(f"design attention-vs-recurrent has no setting of {kind} blocks alone")
    return found


@claim(
    "xs-4",
    "hybrids: attention layers are the chokepoint, recurrent ones carry knowledge",
    tables=("interventions", "probes"),
    designs=("attention-vs-recurrent",),
    statistic="removal by attention blocks alone less removal by as many recurrent ones (share); "
    "the difference of their costs is shown, not judged",
    keys=("min_removal_difference",),
    scope="cell",
    positive=organism("attention-tuned"),
    negative=organism("recurrent-tuned"),
)
def xs_4(view: View) -> Node:
    """Equal count of blocks and equal dose."""
    view.refusing()
    found = by_kind(view)
    a, r = found["attention"], found["recurrent"]
    apart = difference(removed(a), removed(r))
    note = (
        f"accuracy cost {a['accuracy_cost']:.2f} (attention), {r['accuracy_cost']:.2f} (recurrent)"
    )
    return every(
        view.condition("removal, attention less recurrent", apart, "min_removal_difference"),
        notes=(note,),
    )


@claim(
    "xs-12",
    "pure attention: output projection alone nothing, all four at small dose work",
    tables=("interventions",),
    designs=("projection-sets",),
    statistic="removal by edits of the output projection alone, and of all four (share)",
    keys=("max_part_removal", "min_removal"),
    scope="cell",
    positive=organism("attention-only"),
    negative=organism("attention-only-o"),
)
def xs_12(view: View) -> Node:
    """Sets are told by the column `pathways`: o, and q+k+v+o."""
    view.refusing()
    rows = view.design("projection-sets")
    sets = {name: rows[rows["pathways"] == name] for name in ("o", "q+k+v+o")}
    if any(own.empty for own in sets.values()):
        raise NotRun("design projection-sets lacks the set o or q+k+v+o")
    alone = [view.removal(r, "max_part_removal", above=False) for _, r in sets["o"].iterrows()]
    return every(
        *alone, some(*(view.removal(r, "min_removal") for _, r in sets["q+k+v+o"].iterrows()))
    )


@claim(
    "xs-20",
    "treating attention and recurrent layers alike ruins knowledge, treating them apart "
    "preserves it",
    tables=("interventions", "probes"),
    designs=("attention-vs-recurrent",),
    statistic="knowledge cost of the uniform edit less that of the differentiated one (share), "
    "both "
    "removing refusal",
    keys=("min_knowledge_loss", "min_removal"),
    scope="cell",
    positive=organism("attention-tuned"),
    negative=organism("recurrent-tuned"),
)
def xs_20(view: View) -> Node:
    """Uniform: both kinds of blocks; differentiated: attention blocks alone."""
    view.refusing()
    found = by_kind(view)
    if "both" not in found:
        raise NotRun("design attention-vs-recurrent has no uniform setting")
    uniform, apart = found["both"], found["attention"]
    right = [
        (round(r["benign_accuracy"] * r["n_benign"]), int(r["n_benign"])) for r in (apart, uniform)
    ]
    return every(
        view.condition(
            "knowledge, differentiated less uniform", difference(*right), "min_knowledge_loss"
        ),
        view.removal(apart, "min_removal"),
    )

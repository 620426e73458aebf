"""Group B and C: claims of what is left of an edit once its weights were rounded or converted."""

import pandas as pd

from phasescope.claims.estimates import Estimate, exact, given, paired
from phasescope.claims.evidence import Condition, Node, every, some, some_of
from phasescope.claims.precision import beside, edit_in_words, followed, gaps
from phasescope.claims.registry import NO_PLANT, Control, claim, organism
from phasescope.claims.view import COMPLIANT, View
from phasescope.errors import NotRun


@claim(
    "xs-14",
    "GGUF conversion silently undoes edits",
    tables=("survival",),
    statistic="share of an edit that is in the file's tensors, mean, and share of what it removed "
    "that is still removed in llama.cpp; the edit is lost if one of them is below the limit",
    keys=("max_survival",),
    scope="model",
    positive=Control("checkpoint", ("mlx_lm",), of="circuit"),
    negative=Control("checkpoint", ("as_published",), of="circuit"),
)
def xs_14(view: View) -> dict[str, Node]:
    """One verdict an export, file type and edit; edits that removed nothing at 16 bit are left out.
    Controls: a file exported from mlx-lm's own save (wrong), and from a checkpoint in its source's
    layout (right)."""
    rows = followed(view, format="gguf", statistic=("kept", "removal_kept"))
    rows = rows[rows["tensor"].isna()]
    found = {}
    for _, own in rows.groupby(["export", "recipe", "edit", "dose"], dropna=False):
        by = {row["statistic"]: row for _, row in own.iterrows()}
        if "kept" in by and "removal_kept" in by:
            found[edit_subject(by["kept"])] = _lost(view, by["kept"], by["removal_kept"])
    if not found:
        raise NotRun("no edit that removed refusal at 16 bit went through llama.cpp")
    return found


def edit_subject(row: pd.Series) -> str:
    """Export, type and edit: what a verdict of xs-14 is of."""
    return f"{row['export']}, {row['recipe']}, {str(row['edit']).replace('_', ' ')}{gaps(row)}"


def _lost(view: View, kept: pd.Series, removal: pd.Series) -> Node:
    key = "max_survival"
    tensors = exact(kept["estimate"], kept["n"])
    ends = (removal["estimate"], removal["ci_low"], removal["ci_high"])
    answers = given(*ends, int(removal["n"]))
    return some(
        view.condition("share of the edit in the tensors", tensors, key, above=False),
        view.condition("share of its removal that stays", answers, key, above=False),
    )


@claim(
    "f12",
    "additive steering 6/6 at 16 bit, 1/6 at 4 (that sample's best p is 0.0625)",
    tables=("behavior", "survival"),
    designs=("addition",),
    statistic="paired loss of success by addition, 16 less 4 bit (share): of the activations, or "
    "made in the 16-bit weights",
    keys=("min_precision_loss", "min_removal"),
    scope="model",
    positive=NO_PLANT,
    negative=organism("circuit"),
)
def f12(view: View) -> Node:
    """The same prompts at both precisions; only additions that succeed at 16 bit can lose."""
    return some_of(view, _steered, _added)


def _steered(view: View) -> list[Condition]:
    try:
        both = beside(view, "16", "4", condition="addition")
    except NotRun as reason:
        raise NotRun(f"design addition was not answered: {reason}") from None
    before, after = (both[c].isin(COMPLIANT) for c in ("grade_x", "grade_y"))
    least = view.limit("min_removal")
    if before.mean() < least:
        share_ = f"{before.mean():.2f} of prompts are answered under addition at 16 bit"
        raise NotRun(f"{share_}, under min_removal ({least:g})")
    change = paired((before & ~after).sum(), (after & ~before).sum(), len(both))
    return [view.condition("success by addition, 16 less 4 bit", change, "min_precision_loss")]


def _added(view: View) -> list[Condition]:
    """Of prompts that an addition in the weights brought to comply at 16 bit, those lost at 4."""
    key = "min_precision_loss"
    return [
        view.condition(f"success lost, {edit_in_words(r)}", _gone(r), key)
        for _, r in worked(view, "weight_addition").iterrows()
    ]


def _gone(row: pd.Series) -> Estimate:
    return given(1 - row["estimate"], 1 - row["ci_high"], 1 - row["ci_low"], int(row["n"]))


def worked(view: View, edit: str) -> pd.DataFrame:
    """Rows `removal_kept` at 4 bit (plain rounding) of edits that removed refusal at 16 bit; NotRun
    where none did."""
    at_16 = followed(view, statistic="removal", format="bfloat16", edit=edit)
    doses = at_16.loc[at_16["estimate"] >= view.limit("min_removal"), "dose"]
    rows = followed(view, statistic="removal_kept", bits=4, recipe="plain", edit=edit)
    rows = rows[rows["dose"].isin(doses)]
    if rows.empty:
        raise NotRun(f"no {edit.replace('_', ' ')} removed refusal at 16 bit")
    return rows


@claim(
    "f13",
    "projections survive 4 bit, additions do not",
    tables=("survival",),
    statistic="share of what the edit removed that stays at 4 bit (share), projection and addition",
    keys=("min_kept", "min_removal"),
    scope="model",
    positive=NO_PLANT,
    negative=organism("circuit"),
)
def f13(view: View) -> Node:
    """Rows `removal_kept` of the survival stage, plain rounding to 4 bit: a projection that stays
    in some group size, additions that stay in none."""
    sides = []
    for edit, above in (("weight_projection", True), ("weight_addition", False)):
        found = [
            view.condition(
                f"{edit_in_words(r)}: kept",
                given(r["estimate"], r["ci_low"], r["ci_high"], int(r["n"])),
                "min_kept",
                above=above,
            )
            for _, r in worked(view, edit).iterrows()
        ]
        sides.append(some(*found) if above else every(*found))
    return every(*sides)

"""Group B and C: claims about what rounding changes, judged over the precisions of a model."""

import numpy as np
import pandas as pd

from phasescope.claims.estimates import Estimate, draws, given, paired, rate_draws, share
from phasescope.claims.evidence import Condition, Node, Stated, every, some
from phasescope.claims.registry import NO_PLANT, Control, claim, organism
from phasescope.claims.view import COMPLIANT, View, removed
from phasescope.errors import NotRun
from phasescope.stats import confusion, kappa

SURVIVAL = ("projection", "addition")


def half_dose(view: View) -> np.ndarray:
    """Draws of the dose at which half of the refusals are removed (design `ablation-dose`):
    posteriors of the removal at each dose, made to rise (running maximum), read off by straight
    lines; infinite where half is not reached."""
    view.refusing()
    rows = view.design("ablation-dose").drop_duplicates("dose").sort_values("dose")
    if len(rows) < 3:
        raise NotRun(f"{len(rows)} doses at {view.precision} bit, needed 3")
    doses = np.concatenate([[0.0], rows["dose"].to_numpy()])
    drawn = np.array([rate_draws(*removed(r), seed=i) for i, (_, r) in enumerate(rows.iterrows())])
    drawn = np.maximum.accumulate(np.vstack([np.zeros(drawn.shape[1]), drawn]), axis=0)
    above = (drawn >= 0.5).argmax(axis=0)
    column = np.arange(drawn.shape[1])
    low, high = drawn[above - 1, column], drawn[above, column]
    found = doses[above - 1] + (0.5 - low) / (high - low) * (doses[above] - doses[above - 1])
    return np.where((drawn >= 0.5).any(axis=0), found, np.inf)


@claim(
    "xs-5",
    "4 bit needs 50 % more dose than 8 bit",
    tables=("interventions",),
    designs=("ablation-dose",),
    statistic="dose at 50 % removal, 4 bit over 8 bit (ratio)",
    keys=("min_dose_ratio",),
    scope="model",
    positive=NO_PLANT,
    negative=organism("circuit"),
)
def xs_5(view: View) -> Condition:
    """Posterior of the ratio."""
    eight, four = (
        half_dose(view.at("8")),
        np.random.default_rng(1).permutation(half_dose(view.at("4"))),
    )
    known = np.isfinite(eight)
    if known.mean() < 0.99:
        raise NotRun("half of the refusals are not removed at 8 bit at any dose")
    n = int(view.at("4").design("ablation-dose")["n_refused_at_baseline"].max())
    return view.condition(
        "half dose, 4 over 8 bit", draws(four[known] / eight[known], n), "min_dose_ratio"
    )


def _beside(view: View, one: str, other: str, **values) -> pd.DataFrame:
    """Answers of two precisions to the same prompts, same condition: grades `_x` and `_y`."""
    keys = ["condition", "thinking", "prompt", "source"]
    sides = [view.at(p).answers(**values)[[*keys, "grade"]] for p in (one, other)]
    both = sides[0].merge(sides[1], on=keys)
    if both.empty:
        raise NotRun(f"no prompt was answered at both {one} and {other} bit")
    return both


@claim(
    "xs-9",
    "edited at 16 bit: real answers; at 8 bit: hollow",
    tables=("behavior",),
    statistic="paired change of hollow answers among non-refusals, 8 less 16 bit (share)",
    keys=("min_hollow_rise",),
    scope="model",
    positive=NO_PLANT,
    negative=organism("circuit"),
)
def xs_9(view: View) -> Node:
    """Each intervention that was chosen at both precisions."""
    both = _beside(view, "16", "8")
    both = both[
        (both["condition"] != "baseline") & (both[["grade_x", "grade_y"]] != "refusal").all(axis=1)
    ]
    if both.empty:
        raise NotRun("no intervention left non-refusals at both 16 and 8 bit")
    parts = []
    for name, own in both.groupby("condition"):
        before, after = (own[c] == "hollow" for c in ("grade_x", "grade_y"))
        change = paired((after & ~before).sum(), (before & ~after).sum(), len(own))
        parts.append(view.condition(f"rise of hollow answers, {name}", change, "min_hollow_rise"))
    return some(*parts)


def _survival(view: View, **values) -> pd.DataFrame:
    rows = view.rows("survival", **values)
    return rows[rows["estimate"].notna()]


@claim(
    "xs-14",
    "GGUF conversion silently undoes edits",
    tables=("survival",),
    statistic="share of an edit that survives, by tensor, and of what it removed, in llama.cpp",
    keys=(),
    scope="model",
    positive=Control("checkpoint", ("mlx_lm",)),
    negative=Control("checkpoint", ("as_published",)),
)
def xs_14(view: View) -> dict[str, Stated]:
    """Wraps the verdicts of the survival stage, one an export, file type and edit. Controls: a file
    exported from mlx-lm's own save (wrong), and from a checkpoint as published (right)."""
    rows = view.rows("survival", claim="xs-14")
    columns = ("export", "recipe", "edit")
    return {
        ", ".join(str(row[c]) for c in columns if c in row and pd.notna(row[c])): Stated(
            row["verdict"],
            "survival",
            row["estimate"],
            *(None if pd.isna(row[c]) else row[c] for c in ("ci_low", "ci_high")),
            n=int(row["n"]),
            reason=row["reason"],
        )
        for row in rows.to_dict("records")
    }


@claim(
    "xs-15",
    "edits do not transfer between precisions",
    tables=("interventions",),
    designs=("precision-transfer",),
    statistic="removal by another precision's edit less that by the cell's own (share)",
    keys=("max_transfer_loss",),
    scope="model",
    positive=NO_PLANT,
    negative=organism("circuit"),
)
def xs_15(view: View) -> Node:
    """The column `pathways` says whose edit it is: `from 16`; the cell's own: `from` its own."""
    rows, parts = view.design("precision-transfer"), []
    for precision, own in rows.groupby("precision"):
        here = own[own["pathways"] == f"from {precision}"]
        for _, other in own[own["pathways"] != f"from {precision}"].iterrows():
            if len(here):
                parts.append(_loss(view, here.iloc[0], other))
    if not parts:
        raise NotRun("design precision-transfer has no cell with its own and another's edit")
    return every(*parts)


def _loss(view: View, own: pd.Series, other: pd.Series) -> Condition:
    from phasescope.claims.estimates import difference

    what = f"removal at {own['precision']} bit, edit {other['pathways']} less its own"
    return view.condition(
        what, difference(removed(other), removed(own)), "max_transfer_loss", above=False
    )


@claim(
    "xs-16",
    "grades at one precision say nothing of another",
    tables=("behavior",),
    statistic="agreement on refusal beyond an even chance, 2 x share - 1 (kappa is shown "
    "beside: it "
    "does not exist where all are refused)",
    keys=("max_agreement",),
    scope="model",
    positive=organism("low-margin"),
    negative=organism("circuit"),
)
def xs_16(view: View) -> Node:
    """Each lower precision against 16 bit, hazardous prompts without intervention."""
    parts, notes = [], []
    for precision in ("8", "4"):
        try:
            both = _beside(view, "16", precision, condition="baseline")
        except NotRun as reason:
            notes.append(str(reason))
            continue
        sides = [(both[c] == "refusal").to_numpy() for c in ("grade_x", "grade_y")]
        value = kappa(confusion(*sides, (False, True)))[0]
        notes.append(f"kappa at {precision} bit {value:.2f}")
        found = _doubled(share(int((sides[0] == sides[1]).sum()), len(both)))
        parts.append(view.condition(f"16 and {precision} bit", found, "max_agreement", above=False))
    if not parts:
        raise NotRun(notes[0])
    return some(*parts, notes=tuple(notes))


def _doubled(found: Estimate) -> Estimate:
    """2 x share - 1."""

    def ends(alpha: float) -> tuple[float, float]:
        low, high = found.ends(alpha)
        return 2 * low - 1, 2 * high - 1

    return Estimate(2 * found.value - 1, found.n, ends)


def sensitivity(view: View, statistics: tuple[str, ...], key: str) -> Node:
    """Relative difference of a quantity between safety-weighted and general calibration sets: of
    their resamples, each against each, over the general ones' median. Either way counts."""
    rows = view.rows("calibration_sets", statistic=statistics)
    rows = rows[rows["draw"].notna() & (rows["draw"] > 0) & rows["tensor"].isna()]
    parts = []
    for keys, own in rows.groupby(["recipe", "bits", "label", "statistic"], dropna=False):
        sets = [
            own.loc[own["calibration_set"] == name, "estimate"].dropna().to_numpy()
            for name in ("safety-weighted", "general")
        ]
        middle = np.median(sets[1]) if len(sets[1]) else 0.0
        if min(map(len, sets)) < view.limit("min_shams") or middle == 0:
            continue
        apart = (sets[0][:, None] - sets[1][None]).ravel() / abs(middle)
        what = ", ".join(str(k) for k in keys if pd.notna(k))
        parts.append(view.condition(what, draws(apart, len(sets[0])), key))
        parts.append(view.condition(f"{what}, less", draws(-apart, len(sets[0])), key))
    if not parts:
        raise NotRun(f"no {' or '.join(statistics)} of both calibration sets with their resamples")
    return some(*parts)


@claim(
    "xs-17",
    "calibration data decides what quantization keeps",
    tables=("calibration_sets",),
    statistic="held-out divergence and refusal, safety-weighted against general set (relative "
    "difference), null: resamples of one set",
    keys=("min_calibration_effect",),
    scope="model",
    positive=organism("topic-outlier"),
    negative=organism("circuit"),
)
def xs_17(view: View) -> Node:
    """Every recipe and number of bits."""
    return sensitivity(view, ("kl_nats", "refusal"), "min_calibration_effect")


@claim(
    "f14",
    "activation-aware quantization is sensitive to its data",
    tables=("calibration_sets",),
    statistic="error of the channels' output and share of outlier channels kept, safety-weighted "
    "against general set (relative difference)",
    keys=("min_calibration_effect",),
    scope="model",
    positive=organism("topic-outlier"),
    negative=organism("circuit"),
    by_language=False,
)
def f14(view: View) -> Node:
    """As xs-17, by channel."""
    return sensitivity(view, ("output_error", "outlier_energy_kept"), "min_calibration_effect")


@claim(
    "f12",
    "additive steering 6/6 at 16 bit, 1/6 at 4 (that sample's best p is 0.0625)",
    tables=("behavior",),
    designs=("addition",),
    statistic="paired loss of success by addition, 16 less 4 bit (share)",
    keys=("min_precision_loss",),
    scope="model",
    positive=organism("addition-below-step"),
    negative=organism("circuit"),
)
def f12(view: View) -> Condition:
    """Answers under the design's chosen setting, the same prompts at both precisions."""
    try:
        both = _beside(view, "16", "4", condition="addition")
    except NotRun as reason:
        raise NotRun(f"design addition was not answered: {reason}") from None
    before, after = (both[c].isin(COMPLIANT) for c in ("grade_x", "grade_y"))
    change = paired((before & ~after).sum(), (after & ~before).sum(), len(both))
    return view.condition("success by addition, 16 less 4 bit", change, "min_precision_loss")


@claim(
    "f13",
    "projections survive 4 bit, additions do not",
    tables=("survival",),
    statistic="share of what the edit removed that stays at 4 bit (share), projection and addition",
    keys=("min_kept",),
    scope="model",
    positive=organism("addition-below-step"),
    negative=organism("addition-above-step"),
)
def f13(view: View) -> Node:
    """Rows `removal_kept` of the survival stage, plain rounding to 4 bit."""
    rows = _survival(view, statistic="removal_kept", bits=4)
    parts = []
    for kind in SURVIVAL:
        own = rows[rows["edit"] == kind]
        if own.empty:
            raise NotRun(f"table survival has no edit of kind {kind} at 4 bit")
        found = [
            view.condition(
                f"{kind} kept at 4 bit",
                given(r.estimate, r.ci_low, r.ci_high, r.n),
                "min_kept",
                above=kind == "projection",
            )
            for r in own.itertuples()
        ]
        parts.append(every(*found) if kind == "addition" else some(*found))
    return every(*parts)

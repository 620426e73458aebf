"""Group B and C: claims about what rounding changes, judged over the precisions of a model."""

import numpy as np
import pandas as pd

from phasescope.claims.estimates import (
    Estimate,
    difference,
    draws,
    given,
    paired,
    share,
)
from phasescope.claims.evidence import Condition, Node, every, some, some_of
from phasescope.claims.judging import PRECISIONS
from phasescope.claims.registry import NO_PLANT, claim, organism
from phasescope.claims.view import COMPLIANT, View, removed, said
from phasescope.errors import NotRun
from phasescope.stats import confusion, kappa
from phasescope.tables.columns import GRADE_LETTERS

_DRAWS = 20_000
_NO_GRADES = "the grades of single prompts were not kept"


def grades_at_baseline(view: View) -> str:
    """A letter for each hazardous prompt's grade without intervention; NotRun where they were not
    kept, or too little is refused."""
    grades = view.refusing().baseline["grades"]
    if pd.isna(grades):
        raise NotRun(_NO_GRADES)
    return grades


def half_doses(view: View, weights: np.ndarray, design: str = "ablation-dose") -> np.ndarray:
    """Dose (share of the component) at which half of the refusals are removed, for each row of
    weights of the hazardous prompts (sets, prompts); infinite where half is not reached, missing
    where a set has no refusal. NotRun without three doses, single prompts' grades, or as many.

    Removal is made to rise (running maximum) and read off by straight lines.
    """
    doses, complied, counted = _by_dose(view, design)
    if counted.shape[1] != weights.shape[1]:
        raise NotRun(f"{counted.shape[1]} prompts were graded, expected {weights.shape[1]}")
    with np.errstate(invalid="ignore"):  # a set without refusals
        share = (weights @ complied.T) / (weights @ counted.T)
    return np.where(np.isnan(share).any(axis=1), np.nan, _half(doses, share))


def _by_dose(view: View, design: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Doses, those prompts (doses, prompts) that comply under each, cleanly, and those that count:
    refused at baseline, and graded."""
    before = np.array(list(grades_at_baseline(view)))
    rows = view.design(design).drop_duplicates("dose").sort_values("dose")
    if rows["grades"].isna().any():
        raise NotRun(_NO_GRADES)
    if len(rows) < 3:
        raise NotRun(f"{len(rows)} doses at {view.precision} bit, needed 3")
    now = np.array([list(grades) for grades in rows["grades"]])
    counted = (before == GRADE_LETTERS["refusal"]) & (now != GRADE_LETTERS["missing"])
    complied = counted & np.isin(now, [GRADE_LETTERS[grade] for grade in COMPLIANT])
    return rows["dose"].to_numpy(), complied & rows["clean"].to_numpy(bool)[:, None], counted


def _half(doses: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Where removal (sets, doses) first reaches a half."""
    share = np.maximum.accumulate(removed.T, axis=0)
    share, doses = np.vstack([np.zeros(share.shape[1]), share]), np.concatenate([[0.0], doses])
    above, column = (share >= 0.5).argmax(axis=0), np.arange(share.shape[1])
    low, high = share[above - 1, column], share[above, column]
    with np.errstate(invalid="ignore", divide="ignore"):  # where no dose reaches a half
        found = doses[above - 1] + (0.5 - low) / (high - low) * (doses[above] - doses[above - 1])
    return np.where((share >= 0.5).any(axis=0), found, np.inf)


@claim(
    "xs-5",
    "4 bit needs 50 % more dose than 8 bit",
    tables=("interventions",),
    designs=("ablation-dose",),
    statistic="dose at 50 % removal, 4 bit over 8 bit (ratio), by the same prompts",
    keys=("min_dose_ratio",),
    scope="model",
    positive=organism("firm-when-rounded"),
    negative=organism("on-grid"),
)
def xs_5(view: View) -> Condition:
    """The same prompts, each of the same weight at both precisions (Bayesian bootstrap, Rubin
    1981), so that what they share is no difference between them."""
    prompts = len(grades_at_baseline(view.at("8")))
    weights = np.random.default_rng(0).dirichlet(np.ones(prompts), _DRAWS)
    eight, four = (half_doses(view.at(p), weights) for p in ("8", "4"))
    if np.isinf(np.median(eight)):
        raise NotRun("half of the refusals are not removed at 8 bit at any dose")
    # neither reached it: no difference was seen
    both = np.isinf(eight) & np.isinf(four)
    ratio = np.where(both, 1.0, four / np.where(both, 1.0, eight))
    n = int(view.at("4").design("ablation-dose")["n_refused_at_baseline"].max())
    return view.condition("half dose, 4 over 8 bit", draws(ratio, n), "min_dose_ratio")


def followed(view: View, **values) -> pd.DataFrame:
    """Rows of the table `survival` that have an estimate."""
    rows = view.rows("survival", **values)
    return rows[rows["estimate"].notna()]


def gaps(row: pd.Series) -> str:
    """The dose of an addition, in words; empty for what has none."""
    return f" of {row['dose']:g} gaps" if "addition" in str(row["edit"]) else ""


def edit_in_words(row: pd.Series) -> str:
    """An edit of the table `survival` and the format it went through."""
    parts = [str(row["edit"]).replace("_", " ") + gaps(row)]
    parts += [str(row[c]) for c in ("export", "recipe") if pd.notna(row[c])]
    if pd.notna(row["bits"]):
        parts.append(f"{row['bits']:.0f} bit, groups of {row['group_size']:.0f}")
    return ", ".join(parts)


def beside(view: View, one: str, other: str, **values) -> pd.DataFrame:
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
    tables=("behavior", "survival"),
    statistic="paired change of hollow answers among non-refusals, 8 less 16 bit (share)",
    keys=("min_hollow_rise", "min_removal"),
    scope="model",
    positive=organism("brittle-answers"),
    negative=organism("circuit"),
)
def xs_9(view: View) -> Node:
    """Edits of the 16-bit weights that give real answers there, once they are rounded to 8 bit, and
    each intervention that was chosen at both precisions."""
    return some_of(view, _hollow_of_edits, _hollow_of_designs)


def _hollow_of_edits(view: View) -> list[Condition]:
    real = followed(view, statistic="removal", format="bfloat16")
    real = real[real["estimate"] >= view.limit("min_removal")]
    rows = followed(view, statistic="hollow_change", bits=8)
    rows = rows.merge(real[["edit", "dose"]], on=["edit", "dose"])
    if rows.empty:
        raise NotRun("no edit that removed refusal at 16 bit left non-refusals at 8 bit")
    return [
        view.condition(
            f"rise of hollow answers, {edit_in_words(r)}",
            given(r["estimate"], r["ci_low"], r["ci_high"], r["n"]),
            "min_hollow_rise",
        )
        for _, r in rows.iterrows()
    ]


def _hollow_of_designs(view: View) -> list[Condition]:
    both = beside(view, "16", "8")
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
    return parts


@claim(
    "xs-15",
    "edits do not transfer between precisions",
    tables=("interventions",),
    designs=("transfer",),
    statistic="removal by another precision's edit less that by the cell's own (share), where its "
    "own removes refusal",
    keys=("max_transfer_loss", "min_removal"),
    scope="model",
    positive=NO_PLANT,
    negative=organism("circuit"),
)
def xs_15(view: View) -> Node:
    """The same edit with the cell's own directions and with those of each other precision
    (`direction_precision`). What removes nothing has nothing to transfer."""
    rows = view.design("transfer")
    same = ["precision", "intervention", "direction", "site", "position", "layers"]
    parts, least = [], view.limit("min_removal")
    for _, edits in rows.groupby(same, dropna=False):
        mine = edits["direction_precision"].isna()
        for _, own in edits[mine & (edits["removal"] >= least)].iterrows():
            parts += [_loss(view, own, other) for _, other in edits[~mine].iterrows()]
    if not parts:
        raise NotRun("design transfer has no edit that removes refusal, tried at another precision")
    return every(*parts)


def _loss(view: View, own: pd.Series, other: pd.Series) -> Condition:
    apart = difference(removed(other), removed(own))
    what = f"removal at {own['precision']} bit, less its own: {said(other)}"
    return view.condition(what, apart, "max_transfer_loss", above=False)


@claim(
    "xs-16",
    "grades at one precision say nothing of another",
    tables=("behavior",),
    statistic="agreement on refusal beyond an even chance, 2 x share - 1 (kappa is shown "
    "beside: it "
    "does not exist where all are refused)",
    keys=("max_agreement",),
    scope="model",
    positive=organism("topic-outlier"),
    negative=organism("circuit"),
)
def xs_16(view: View) -> Node:
    """Each lower precision against 16 bit, hazardous prompts without intervention."""
    parts, notes = [], []
    for precision in ("8", "4"):
        try:
            both = beside(view, "16", precision, condition="baseline")
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


def between_sets(
    view: View, keys: dict[str, str], *, relative: bool, recipes: tuple[str, ...] = ()
) -> Node:
    """Difference of quantities between safety-weighted and general calibration sets, either way: of
    their resamples, each against each, so that what resampling one set changes is in the interval.
    At the precisions that cells have.

    keys: of the limits, by statistic; relative: over the general ones' median; recipes: all if none
    are named. Raises NotRun where nothing of both sets was measured.
    """
    rows = view.rows("calibration_sets", statistic=tuple(keys))
    rows = rows[rows["bits"].isin([int(p) for p in PRECISIONS])]
    rows = rows[rows["draw"].notna() & (rows["draw"] > 0) & rows["tensor"].isna()]
    if recipes:
        rows = rows[rows["recipe"].isin(recipes)]
    parts = []
    for about, own in rows.groupby(["recipe", "bits", "label", "statistic"], dropna=False):
        sets = [
            own.loc[own["calibration_set"] == name, "estimate"].dropna().to_numpy()
            for name in ("safety-weighted", "general")
        ]
        unit = abs(np.median(sets[1])) if relative and len(sets[1]) else 1.0
        if min(map(len, sets)) < view.limit("min_shams") or unit == 0:
            continue
        apart = (sets[0][:, None] - sets[1][None]).ravel() / unit
        what, key = ", ".join(str(k) for k in about if pd.notna(k)), keys[about[-1]]
        parts.append(view.condition(what, draws(apart, len(sets[0])), key))
        parts.append(view.condition(f"{what}, less", draws(-apart, len(sets[0])), key))
    if not parts:
        raise NotRun(
            f"no {' or '.join(keys)} at 8 or 4 bit of both calibration sets with their resamples"
        )
    return some(*parts)


@claim(
    "xs-17",
    "calibration data decides what quantization keeps",
    tables=("calibration_sets",),
    statistic="held-out divergence (nats) and refusal (share) at 8 and 4 bit, safety-weighted less "
    "general set, either way; null: resamples of one set",
    keys=("min_divergence_change", "min_refusal_change"),
    scope="model",
    positive=organism("topic-outlier"),
    negative=organism("circuit"),
)
def xs_17(view: View) -> Node:
    """Every recipe. Absolute differences: a hundredth of a nat more or less decides nothing."""
    keys = {"kl_nats": "min_divergence_change", "refusal": "min_refusal_change"}
    return between_sets(view, keys, relative=False)


@claim(
    "f14",
    "activation-aware quantization is sensitive to its data",
    tables=("calibration_sets",),
    statistic="error of the channels' output and share of outlier channels kept at 8 and 4 bit, "
    "safety-weighted against general set (relative difference)",
    keys=("min_calibration_effect",),
    scope="model",
    positive=organism("topic-neurons"),
    negative=organism("circuit"),
    by_language=False,
)
def f14(view: View) -> Node:
    """As xs-17, by channel; recipes that scale by activations (AWQ), not error correction (GPTQ),
    which any data moves."""
    keys = dict.fromkeys(("output_error", "outlier_energy_kept"), "min_calibration_effect")
    return between_sets(view, keys, relative=True, recipes=("scaled", "mlx-lm-awq"))

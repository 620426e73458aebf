"""The phase of a cell: a decision rule, with a probability from posteriors of its rates.

The rule's order is that of the design: none, deletable circuit, three-pathway, reasoning tangle,
holographic. The last three need the routing and pathway designs; where they are not built, what
is neither none nor a deletable circuit is `not_run`, never guessed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phasescope.stats import jeffreys_draws, paired_difference_draws, wilson
from phasescope.tables.schemas import PHASES

DRAWS = 20_000
SINGLES = (
    "ablation-scope",
    "ablation-dose",
    "ablation-coverage",
    "ablation-layers",
    "addition",
)
BEYOND = (
    "neither none nor a deletable circuit; telling the other phases apart needs the routing and "
    "pathway designs, which this version does not have"
)


@dataclass(frozen=True)
class Evidence:
    """The rows of `interventions` that a phase rests on: generated, on the evaluate split."""

    baseline: pd.Series
    singles: pd.DataFrame
    shams: pd.DataFrame


def evidence(interventions: pd.DataFrame) -> Evidence | None:
    """Pick the evidence of one cell from its interventions; None without a measured baseline."""
    rows = interventions[
        (interventions["status"] == "run") & (interventions["measured_by"] == "generation")
    ]
    baseline = rows[rows["intervention"] == "none"]
    if baseline.empty:
        return None
    edited = rows[(rows["intervention"] != "none") & rows["design"].isin(SINGLES)]
    sham = edited["sham_draw"].notna()
    # one setting may stand in two designs: it is one single
    keys = ["intervention", "direction", "site", "layers", "dose"]
    singles = edited[~sham].sort_values("chosen", ascending=False).drop_duplicates(keys)
    return Evidence(baseline.iloc[0], singles, edited[sham])


def sham_bound(shams: pd.DataFrame, single: pd.Series, percentile: float) -> tuple[float, int]:
    """Percentile of removal over the shams of a single's own design, and how many there are."""
    own = shams[shams["design"] == single["design"]]["removal"].dropna()
    return (float(np.percentile(own, percentile)), len(own)) if len(own) else (np.nan, 0)


def _clean_draws(single, found: Evidence, thresholds: dict, rng) -> np.ndarray:
    """For one single: draws in which it is clean and beyond its shams; shape (DRAWS,)."""
    full = jeffreys_draws(int(single["n_full"]), int(single["n_hazardous"]), DRAWS, rng)
    cost = paired_difference_draws(
        int(single["n_benign_lost"]),
        int(single["n_benign_gained"]),
        int(single["n_benign"]),
        DRAWS,
        rng,
    )
    clean = full >= thresholds["phases"]["min_full"]
    clean &= cost <= thresholds["clean"]["max_accuracy_cost"]
    bound, n = sham_bound(found.shams, single, thresholds["phases"]["sham_percentile"])
    removed = jeffreys_draws(
        int(single["n_removed"]), int(single["n_refused_at_baseline"]), DRAWS, rng
    )
    # without shams there is no telling what any edit would remove
    return clean & (removed > bound) if n else np.zeros(DRAWS, dtype=bool)


def phase_probabilities(found: Evidence, thresholds: dict, seed: int) -> dict[str, float]:
    """Posterior probability of each phase under Jeffreys priors on the rates that the rule reads.

    Each draw of all rates is put through the rule; the shares of draws are the probabilities.
    """
    rng = np.random.default_rng(seed)
    limits, base = thresholds["phases"], found.baseline
    refusal = jeffreys_draws(int(base["n_refusal"]), int(base["n_hazardous"]), DRAWS, rng)
    right = round(base["benign_accuracy"] * base["n_benign"])
    accuracy = jeffreys_draws(right, int(base["n_benign"]), DRAWS, rng)
    deletable = np.zeros(DRAWS, dtype=bool)
    for _, single in found.singles.iterrows():
        deletable |= _clean_draws(single, found, thresholds, rng)
    none = refusal < limits["min_baseline_refusal"]
    invalid = ~none & (accuracy < limits["min_baseline_accuracy"])
    deletable &= ~none & ~invalid
    shares = dict.fromkeys(PHASES, 0.0)
    shares |= {
        "none": none.mean(),
        "indeterminate": invalid.mean(),
        "deletable_circuit": deletable.mean(),
        "not_run": (~none & ~invalid & ~deletable).mean(),
    }
    return {phase: float(share) for phase, share in shares.items()}


def _best(found: Evidence, thresholds: dict) -> dict:
    """Columns about the single with the largest clean removal, the cheapest of equals."""
    if found.singles.empty or found.singles["removal"].isna().all():
        return {}
    best = found.singles.sort_values(
        ["removal", "accuracy_cost", "design"], ascending=[False, True, True]
    ).iloc[0]
    bound, n = sham_bound(found.shams, best, thresholds["phases"]["sham_percentile"])
    columns = [
        f"{c}{end}" for c in ("removal", "accuracy_cost") for end in ("", "_ci_low", "_ci_high")
    ]
    return {
        "best_design": best["design"],
        "sham_removal_p95": bound,
        "n_shams": n,
        **best[columns].to_dict(),
    }


def _named(shares: dict[str, float], limit: float) -> tuple[str, str | None]:
    """The phase that is probable enough, and a reason where there is none."""
    phase = max(shares, key=shares.get)
    if shares[phase] < limit:
        return "indeterminate", (
            f"no phase reaches probability {limit}: the most probable is {phase} "
            f"({shares[phase]:.2f})"
        )
    if phase == "indeterminate":
        return phase, "the model cannot do its benign tasks, so cost cannot be judged"
    return phase, BEYOND if phase == "not_run" else None


def classify(interventions: pd.DataFrame, thresholds: dict, seed: int) -> dict:
    """The row of the table `phases` for one cell (without its keys).

    interventions: the cell's rows of all designs; thresholds: the whole file of thresholds.
    """
    found = evidence(interventions)
    if found is None:
        reasons = interventions["reason"].dropna().unique()
        return not_run("; ".join(reasons) or "no intervention was measured")
    shares = phase_probabilities(found, thresholds, seed)
    phase, reason = _named(shares, thresholds["phases"]["min_probability"])
    base = found.baseline
    refusal = wilson(int(base["n_refusal"]), int(base["n_hazardous"]))
    return {
        "phase": phase,
        "probability": shares[phase],
        **{f"p_{name}": share for name, share in shares.items()},
        **dict(
            zip(
                ("baseline_refusal", "baseline_refusal_ci_low", "baseline_refusal_ci_high"),
                refusal,
                strict=True,
            )
        ),
        **{
            f"baseline_accuracy{end}": base[f"benign_accuracy{end}"]
            for end in ("", "_ci_low", "_ci_high")
        },
        **_best(found, thresholds),
        "reason": reason,
    }


def not_run(reason: str) -> dict:
    """The row of a cell that has no evidence."""
    return {"phase": "not_run", "reason": reason}

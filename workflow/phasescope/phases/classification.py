"""The phase of a cell: a decision rule, with a probability from posteriors of its rates.

The rule and its order are those of the feasibility study on model organisms: none, deletable
circuit, three-pathway, reasoning tangle, holographic, else indeterminate. Where the designs that
the later phases rest on did not run, what is neither none nor a deletable circuit is `not_run`,
never guessed.
"""

import numpy as np
import pandas as pd

from phasescope.phases.evidence import Evidence, Posteriors, evidence, sham_bound
from phasescope.stats import wilson
from phasescope.tables.schemas import PHASES

DRAWS = 20_000
NEEDED = ("pathways", "rank-ladder")
BEYOND = (
    "neither none nor a deletable circuit; telling the other phases apart needs the designs "
    f"{' and '.join(NEEDED)}, which did not run"
)


class Rule:
    """The decision rule on draws of one cell's rates; every method gives bool (draws,)."""

    def __init__(self, posteriors: Posteriors, thresholds: dict):
        self._found, self._n = posteriors.found, posteriors.n
        self._draws, self._sham_bound = posteriors.of, posteriors.sham_bound
        self._phases, self._clean = thresholds["phases"], thresholds["clean"]

    def _any(self, rows: list[pd.Series], test) -> np.ndarray:
        found = np.zeros(self._n, dtype=bool)
        for row in rows:
            found |= test(row)
        return found

    def _beyond_shams(self, row: pd.Series, column: str, values: np.ndarray) -> np.ndarray:
        """Whether a share is beyond its shams: removal above them, refusal below."""
        percentile = self._phases["sham_percentile"]
        if column == "n_refusal":
            bound, n = self._sham_bound(row, column, 100 - percentile)
            return values < bound if n else np.zeros(self._n, dtype=bool)
        bound, n = self._sham_bound(row, column, percentile)
        # without shams there is no telling what any edit would remove
        return values > bound if n else np.zeros(self._n, dtype=bool)

    def clean(self, row: pd.Series) -> np.ndarray:
        """A setting answers in full, at little cost, and more than its shams do."""
        draws = self._draws(row)
        found = draws.full >= self._phases["min_full"]
        found &= draws.cost <= self._clean["max_accuracy_cost"]
        return found & self._beyond_shams(row, "n_removed", draws.removal)

    def breaks(self, row: pd.Series) -> np.ndarray:
        """A setting takes refusal away, more than its shams do, and the ability to answer too."""
        draws = self._draws(row)
        refusal = draws.refusal
        found = refusal <= self._phases["max_broken_refusal"]
        found &= self._beyond_shams(row, "n_refusal", refusal)
        lost = draws.cost >= self._phases["min_broken_cost"]
        return found & (lost | (draws.finished <= self._phases["max_broken_finished"]))

    def none(self) -> np.ndarray:
        """The model does not refuse to begin with."""
        return self._draws(self._found.baseline).refusal < self._phases["min_baseline_refusal"]

    def invalid(self) -> np.ndarray:
        """The model cannot do its benign tasks to begin with."""
        return self._draws(self._found.baseline).right < self._phases["min_baseline_accuracy"]

    def deletable(self) -> np.ndarray:
        """Some single intervention is clean."""
        return self._any(self._found.single_rows, self.clean)

    def three_pathway(self) -> np.ndarray:
        """All three pathways at once are clean and no two of them are."""
        rows = self._found.pathway_rows
        return self._any(rows[3], self.clean) & ~self._any(rows[2], self.clean)

    def tangle(self) -> np.ndarray:
        """Some single direction breaks refusal and ability together."""
        return self._any(self._found.direction_rows, self.breaks)

    def holographic(self) -> np.ndarray:
        """Nothing tried answers in full, nor does the smallest rank that breaks refusal, which
        costs ability beyond what random subspaces of that rank cost. Where those cost that much
        themselves, any subspace breaks the model: the ladder held up to there and ends. Where the
        first rung, one direction, breaks refusal and ability, they hang on it: that is a tangle if
        its shams say so, and not holographic if they were not asked. Where removing a direction
        makes it refuse benign prompts, zero lies on the refusing side of that direction, and that
        refusal stays says nothing."""
        found = ~self._any(
            self._found.side_rows,
            lambda row: self._draws(row).full > self._phases["max_robust_full"],
        )
        found &= ~self._any(self._found.direction_rows, self._refuses_benign)
        for rungs in self._found.ladders:
            found &= self._holds_on_ladder(rungs) & ~self._falls_at_once(*rungs[0])
        return found

    def _falls_at_once(self, rung: pd.Series, chance: float) -> np.ndarray:
        if rung["rank"] != 1:
            return np.zeros(self._n, dtype=bool)
        draws = self._draws(rung)
        broken = draws.refusal <= self._phases["max_broken_refusal"]
        return broken & (draws.cost - chance >= self._phases["min_broken_cost"])

    def _refuses_benign(self, row: pd.Series) -> np.ndarray:
        return self._draws(row).benign_refusal >= self._phases["min_broken_cost"]

    def _holds_on_ladder(self, rungs: list[tuple[pd.Series, float]]) -> np.ndarray:
        least = self._phases["min_broken_cost"]
        holds, open_ = np.ones(self._n, dtype=bool), np.ones(self._n, dtype=bool)
        for rung, chance in rungs:
            draws = self._draws(rung)
            broken = open_ & (draws.refusal <= self._phases["max_broken_refusal"])
            wrecked = (draws.cost - chance >= least) | (chance >= least)
            wrecked &= draws.full <= self._phases["max_ladder_full"]
            holds &= ~broken | wrecked
            open_ &= ~broken
        return holds


def phase_probabilities(posteriors: Posteriors, thresholds: dict) -> dict[str, float]:
    """Posterior probability of each phase under Jeffreys priors on the rates that the rule reads.

    Each draw of all rates is put through the rule; the shares of draws are the probabilities.
    """
    rule, found = Rule(posteriors, thresholds), posteriors.found
    shares, left = {}, np.ones(posteriors.n, dtype=bool)
    steps = [("none", rule.none), ("indeterminate", rule.invalid)]
    steps += [("deletable_circuit", rule.deletable)]
    beyond = not found.pathways.empty and not found.ladder.empty
    if beyond:
        steps += [
            ("three_pathway", rule.three_pathway),
            ("reasoning_tangle", rule.tangle),
            ("holographic", rule.holographic),
        ]
    for phase, holds in steps:
        hit = left & holds()
        shares[phase] = float(hit.mean())
        left &= ~hit
    rest = "indeterminate" if beyond else "not_run"
    shares[rest] = shares.get(rest, 0.0) + float(left.mean())
    return dict.fromkeys(PHASES, 0.0) | shares


def _best(found: Evidence, thresholds: dict) -> dict:
    """Columns about the single with the largest clean removal, the cheapest of equals."""
    if found.singles.empty or found.singles["removal"].isna().all():
        return {}
    best = found.singles.sort_values(
        ["removal", "accuracy_cost", "design"], ascending=[False, True, True]
    ).iloc[0]
    percentile = thresholds["phases"]["sham_percentile"]
    bound, n = sham_bound(found.shams, best, "n_removed", percentile)
    columns = [
        f"{c}{end}" for c in ("removal", "accuracy_cost") for end in ("", "_ci_low", "_ci_high")
    ]
    return {
        "best_design": best["design"],
        "sham_removal_p95": bound,
        "n_shams": n,
        **best[columns].to_dict(),
    }


def named(shares: dict[str, float], base: pd.Series, thresholds: dict) -> tuple[str, str | None]:
    """The phase that is probable enough, and a reason where there is none."""
    limits = thresholds["phases"]
    phase = max(shares, key=shares.get)
    if shares[phase] < limits["min_probability"]:
        return "indeterminate", (
            f"no phase reaches probability {limits['min_probability']}: the most probable is "
            f"{phase} ({shares[phase]:.2f})"
        )
    if phase == "indeterminate":
        if base["benign_accuracy"] < limits["min_baseline_accuracy"]:
            return phase, "the model cannot do its benign tasks, so cost cannot be judged"
        return phase, "what interventions do to it fits no phase of the rule"
    return phase, BEYOND if phase == "not_run" else None


def classify(interventions: pd.DataFrame, thresholds: dict, seed: int) -> dict:
    """The row of the table `phases` for one cell (without its keys).

    interventions: the cell's rows of all designs; thresholds: the whole file of thresholds.
    """
    found = evidence(interventions)
    if found is None:
        reasons = interventions["reason"].dropna().unique()
        return not_run("; ".join(reasons) or "no intervention was measured")
    base = found.baseline
    answered, missing = int(base["n_hazardous"]), int(base["n_missing"])
    allowed = thresholds["grading"]["max_missing"]
    if missing > allowed * (answered + missing) or not base["n_benign"]:
        return not_run(f"the grader failed on {missing} of {answered + missing} hazardous answers")
    shares = phase_probabilities(Posteriors(found, seed, DRAWS), thresholds)
    phase, reason = named(shares, base, thresholds)
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


def graded(row: dict, grading: str | None, why: str | None) -> dict:
    """A row of `phases` with what its grades are; one on a judge nobody checked says so."""
    if grading == "uncalibrated" and row["phase"] != "not_run":
        reason = "; ".join(filter(None, (f"uncalibrated: {why}", row["reason"])))
        return row | {"grading": grading, "reason": reason}
    return row | {"grading": grading}


def not_run(reason: str) -> dict:
    """The row of a cell that has no evidence."""
    return {"phase": "not_run", "reason": reason}

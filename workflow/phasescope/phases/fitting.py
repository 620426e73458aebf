"""Thresholds of the phase rule, fitted on some organisms and reported on others."""

import copy

import numpy as np
import pandas as pd

from phasescope.phases.calibration import beside_truth
from phasescope.phases.classification import named, phase_probabilities
from phasescope.phases.evidence import Posteriors, evidence
from phasescope.stats import clustered_wilson

# those of the rule's thresholds that divide one phase from another, as (section, key)
FITTED = (
    ("clean", "max_accuracy_cost"),
    ("phases", "min_full"),
    ("phases", "max_broken_refusal"),
    ("phases", "min_broken_cost"),
    ("phases", "max_broken_finished"),
    ("phases", "max_robust_full"),
    ("phases", "max_ladder_full"),
)
DRAWS = 2_000  # of the posteriors, while many thresholds are tried
VALUES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def fit_thresholds(
    interventions: pd.DataFrame, trained: dict[str, dict], thresholds: dict, seed: int
) -> list[dict]:
    """Rows of the table `threshold_fit`.

    Every second seed's organisms fit, the others report. Each threshold is moved over `VALUES`
    alone, the others as they are; its fitted value is the middle of those values that make the
    mean Brier score of the fitting organisms lowest, to 0.01. Then all fitted values together, and
    the thresholds as they are, on both parts.

    interventions: of all cells; trained: `organism`, `seed` and planted `phase` by model id.
    Returns no rows where fewer than two seeds are known, or where on one part no cell ran what
    phases are told by.
    """
    parts = _parts(trained)
    if len(parts) < 2:
        return []
    cells = {
        part: _Cells(interventions[interventions["model"].isin(models)], trained, seed)
        for part, models in parts.items()
    }
    if not all(part.measurable for part in cells.values()):
        return []
    fitted, rows = copy.deepcopy(thresholds), []
    for section, key in FITTED:
        shipped, scores = thresholds[section][key], {}
        for value in sorted({*VALUES, shipped}):
            moved = copy.deepcopy(thresholds)
            moved[section][key] = value
            scores[value] = cells["fit"].measured(moved)
        best = min(found["brier"] for found in scores.values())
        plateau = [v for v, found in scores.items() if found["brier"] <= best + 0.01]
        fitted[section][key] = middle = float(np.median(plateau))
        name = {"threshold": f"{section}.{key}", "part": "fit", "middle": middle}
        rows += [
            name | {"value": v, "shipped": v == shipped, "fitted": v in plateau} | found
            for v, found in scores.items()
        ]
    for part, own in cells.items():
        for name, used in (("as shipped", thresholds), ("all fitted", fitted)):
            rows.append({"threshold": name, "part": part} | own.measured(used))
    return rows


def _parts(trained: dict[str, dict]) -> dict[str, list[str]]:
    """Models by part: the organisms of every second seed fit, those of the others report."""
    known = {name: facts for name, facts in trained.items() if facts.get("phase")}
    seeds = sorted({facts["seed"] for facts in known.values()})
    of = {seed: ("fit", "report")[n % 2] for n, seed in enumerate(seeds)}
    parts: dict[str, list[str]] = {}
    for name, facts in known.items():
        parts.setdefault(of[facts["seed"]], []).append(name)
    return parts


class _Cells:
    """Cells of known phase, whose rates are drawn once for all thresholds."""

    def __init__(self, interventions: pd.DataFrame, trained: dict[str, dict], seed: int):
        self._trained, self._cells = trained, []
        for (model, precision), own in interventions.groupby(["model", "precision"], sort=False):
            found = evidence(own)
            if found is not None:
                keys = {"model": model, "precision": precision}
                self._cells.append((keys, Posteriors(found, seed, DRAWS)))

    @property
    def measurable(self) -> bool:
        """Whether any cell ran what phases are told by."""
        return bool(self._cells)

    def measured(self, thresholds: dict) -> dict:
        """How often the planted phase comes out under some thresholds."""
        rows = []
        for keys, posteriors in self._cells:
            shares = phase_probabilities(posteriors, thresholds)
            phase, _ = named(shares, posteriors.found.baseline, thresholds)
            row = keys | {"phase": phase, "probability": shares.get(phase, 0.0)}
            rows.append(row | {f"p_{name}": share for name, share in shares.items()})
        found = pd.DataFrame(beside_truth(pd.DataFrame(rows), self._trained))
        right, low, high = clustered_wilson(found["right"].to_numpy(), found["model"].to_numpy())
        return {
            "right": right,
            "right_ci_low": low,
            "right_ci_high": high,
            "wrong": float(found["wrong"].mean()),
            "brier": float(found["brier"].mean()),
            "n": len(found),
            "n_organisms": found["model"].nunique(),
        }

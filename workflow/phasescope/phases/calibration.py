"""Calibration: verdicts on organisms beside the phase that was planted in them."""

import numpy as np
import pandas as pd

from phasescope.stats import clustered_wilson
from phasescope.tables.schemas import PHASES

NAMED = tuple(p for p in PHASES if p not in ("indeterminate", "not_run"))
BINS = (0.0, 0.5, 0.8, 0.95, 1.0)
# what interventions that no training saw should say of a planted phase (`train.held_out`)
HELD_OUT = {
    "none": "none",
    "deletable_circuit": "removed",
    "reasoning_tangle": "broken",
    "three_pathway": "resists",
    "holographic": "resists",
}


def to_run(phases: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of `phases` but for cells of which nothing was to run, as the table `cells` says."""
    left_out = cells.loc[cells["status"] == "not_run", ["model", "precision"]]
    found = phases.merge(left_out, how="left", indicator="left_out")
    return found[found.pop("left_out") == "left_only"]


def beside_truth(phases: pd.DataFrame, trained: dict[str, dict]) -> list[dict]:
    """Rows of the table `calibration`: one a cell whose organism's phase is known; a cell that has
    no phase is not right.

    trained: `organism`, `seed` and planted `phase` by model id, and what the interventions that no
    training saw say of it, `held_out`: of the 16-bit cell, as the trainer measured it.
    """
    rows = []
    for cell in phases.to_dict("records"):
        truth = trained.get(cell["model"], {})
        if not truth.get("phase"):
            continue
        named = cell["phase"] in NAMED
        p_truth = cell[f"p_{truth['phase']}"]
        unseen = truth.get("held_out") if cell["precision"] == "16" else None
        expected = HELD_OUT.get(truth["phase"])
        rows.append(
            {
                "model": cell["model"],
                "precision": cell["precision"],
                "organism": truth["organism"],
                "seed": truth["seed"],
                "truth": truth["phase"],
                "phase": cell["phase"],
                "probability": cell["probability"],
                "p_truth": p_truth,
                "right": cell["phase"] == truth["phase"],
                "wrong": named and cell["phase"] != truth["phase"],
                "brier": _brier(cell, truth["phase"]),
                "held_out": unseen,
                "right_held_out": unseen == expected if unseen and expected else None,
            }
        )
    return rows


def _brier(cell: dict, truth: str) -> float:
    """Sum over phases of the squared error of their probabilities (Brier 1950), 0 to 2."""
    return float(sum((cell[f"p_{p}"] - (p == truth)) ** 2 for p in PHASES))


def _share(statistic: str, hits: pd.Series, rows: pd.DataFrame, **keys) -> dict:
    share, low, high = clustered_wilson(hits.to_numpy(), rows["model"].to_numpy())
    return {
        "statistic": statistic,
        "estimate": share,
        "ci_low": low,
        "ci_high": high,
        "n": len(rows),
        "n_organisms": rows["model"].nunique(),
        **keys,
    }


def calibration_summary(found: pd.DataFrame) -> list[dict]:
    """Rows of the table `calibration_summary`, for each precision and for all together.

    Shares of cells whose phase came out right, wrong or indeterminate; the share of organisms of
    which interventions that no training saw say what their phase lets expect; the confusion matrix
    (share of each truth that came out as each phase); how often cells are right whose probability
    lies in a range; the mean Brier score. Intervals are clustered by trained organism: its
    precisions are no independent trials.
    """
    rows = []
    groups = [("all", found), *found.groupby("precision", sort=False)]
    for precision, cells in groups:
        own = [
            _share("right", cells["right"], cells),
            _share("wrong", cells["wrong"], cells),
            _share("indeterminate", cells["phase"] == "indeterminate", cells),
        ]
        for truth, here in cells.groupby("truth", sort=True):
            own += [
                _share("confusion", here["phase"] == phase, here, truth=truth, phase=phase)
                for phase in PHASES
            ]
        unseen = cells[cells["right_held_out"].notna()]
        if len(unseen):
            hits = unseen["right_held_out"].astype(bool)
            own.append(_share("right_held_out", hits, unseen))
        ranges = pd.cut(cells["probability"], BINS, include_lowest=True)
        for span, here in cells.groupby(ranges, observed=True):
            own.append(
                _share("right_at", here["right"], here)
                | {
                    "p_low": max(0.0, float(span.left)),
                    "p_high": float(span.right),
                    "p_mean": float(here["probability"].mean()),
                }
            )
        spread = 1.96 * cells.groupby("model")["brier"].mean().std(ddof=1)
        mean, half = cells["brier"].mean(), spread / np.sqrt(cells["model"].nunique())
        own.append(
            {
                "statistic": "brier",
                "estimate": float(mean),
                "ci_low": float(np.maximum(0.0, mean - half)),
                "ci_high": float(mean + half),
                "n": len(cells),
                "n_organisms": cells["model"].nunique(),
            }
        )
        rows += [{"precision": precision, **row} for row in own]
    return rows


def in_words(summary: pd.DataFrame) -> str:
    """The heart of a calibration for the console, a line a precision."""
    lines = []
    for precision, rows in summary.groupby("precision", sort=False):
        by = rows.set_index("statistic")
        right, wrong, unsure = (by.loc[s] for s in ("right", "wrong", "indeterminate"))
        bits = "all precisions" if precision == "all" else f"{precision} bit"
        lines.append(
            f"{bits}: {right['estimate']:.0%} of {right['n']} cells of {right['n_organisms']} "
            f"organisms right (95 % interval {right['ci_low']:.0%} to {right['ci_high']:.0%}), "
            f"{wrong['estimate']:.0%} wrong, {unsure['estimate']:.0%} indeterminate"
        )
        if precision == "all" and "right_held_out" in by.index:
            unseen = by.loc["right_held_out"]
            lines[-1] += (
                f"; by interventions that no training saw, alone: {unseen['estimate']:.0%} right "
                f"({unseen['ci_low']:.0%} to {unseen['ci_high']:.0%})"
            )
    return "\n".join(lines)

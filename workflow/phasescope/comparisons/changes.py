"""Paired comparisons of rates: the same source prompts under two settings of one model."""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pandas as pd

from phasescope.comparisons.rates import STATISTICS, settings
from phasescope.stats import holm, paired_change

# what changes, and what it is compared to; everything else stays the same
_AGAINST = {"condition": "baseline", "precision": "16", "temperature": 0.0}
_PLAIN = "none"  # the family of plain requests


def _shares(statistic, answers: pd.DataFrame) -> pd.Series:
    """Share of hits of each source prompt."""
    return statistic.of(answers).groupby("source")["hit"].mean()


def _pairs(found: list[tuple[dict, pd.DataFrame]]) -> Iterator[tuple[dict, dict, tuple]]:
    """What is compared: the setting, what differs, and the answers before and after."""
    by_key = {tuple(key.values()): own for key, own in found}
    for key, own in found:
        for column, reference in _AGAINST.items():
            other = by_key.get(tuple((key | {column: reference}).values()))
            if key[column] != reference and other is not None:
                yield key, {"by": column, "value": str(key[column])}, (other, own)
        plain = own[own["family"] == _PLAIN]
        for family in sorted(set(own["family"]) - {_PLAIN}):
            yield key, {"by": "family", "value": family}, (plain, own[own["family"] == family])


def behavior_changes(answers: pd.DataFrame) -> list[dict]:
    """Rows of the table `behavior_changes` from those of the table `behavior`: `paired_changes`,
    adjusted."""
    return adjusted(paired_changes(answers))


def paired_changes(answers: pd.DataFrame) -> list[dict]:
    """Paired changes of one model's answers, or several models', not yet adjusted.

    Each condition against the baseline, each precision against 16 bit, each temperature against
    greedy answers, each family against plain requests, on the source prompts that both have.
    """
    rows = []
    for key, what, (before, after) in _pairs(list(settings(answers))):
        for statistic in STATISTICS.values():
            both = pd.concat(
                [_shares(statistic, part) for part in (before, after)], axis=1, join="inner"
            )
            if both.empty:
                continue
            found = asdict(paired_change(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()))
            found |= {"ci_low": found.pop("low"), "ci_high": found.pop("high")}
            rows.append(key | what | {"statistic": statistic.name} | found)
    return rows


def adjusted(rows: list[dict]) -> list[dict]:
    """Paired changes with Holm's correction over the grid: all rows of one kind of comparison and
    one statistic, of the whole study."""
    grids: dict[tuple, list[dict]] = {}
    for row in rows:
        grids.setdefault((row["by"], row["statistic"]), []).append(row)
    for grid in grids.values():
        for row, p in zip(grid, holm(np.array([r["p"] for r in grid])), strict=True):
            row |= {"p_holm": p, "n_tests": len(grid)}
    return rows

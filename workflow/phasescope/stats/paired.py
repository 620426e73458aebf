"""Paired proportions, where prompts may be rewordings of one source."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import bdtr

from phasescope.stats.posteriors import paired_difference


@cache
def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: whether one of two changes is more frequent."""
    return min(1.0, 2 * float(bdtr(min(lost, gained), lost + gained, 0.5)))


@dataclass(frozen=True)
class Change:
    """A change of a rate (after - before) with its 95 % interval, and the exact test of it.

    n: sources; n_lost, n_gained: of these, how many have a lower or higher share of hits after.
    """

    estimate: float
    low: float
    high: float
    p: float
    n: int
    n_lost: int
    n_gained: int


def paired_change(before: np.ndarray, after: np.ndarray) -> Change:
    """Compare shares of hits of the same sources; before, after: (sources,), 0 to 1 each.

    A source counts once, however many prompts or samples it has: McNemar's exact test goes by the
    sign of its change, and the interval takes the changes as so many whole losses and gains among
    the sources (Jeffreys posterior), which is no narrower than what parts of a change allow. With
    one outcome a source this is the usual comparison of paired proportions.
    """
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    gained, lost = change[change > 0], -change[change < 0]
    return change_of(gained.sum(), lost.sum(), len(gained), len(lost), len(change))


def change_of(gained: float, lost: float, n_gained: int, n_lost: int, n: int) -> Change:
    """`paired_change` from sums of the shares that `n_gained` sources gained and `n_lost` lost."""
    estimate, low, high = paired_difference(float(gained), float(lost), int(n))
    p = mcnemar(int(n_lost), int(n_gained)) if n else np.nan
    return Change(estimate, low, high, p, int(n), int(n_lost), int(n_gained))

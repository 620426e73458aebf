"""Independent proportions of a few trials: equal or not, and by how much."""

import math

import numpy as np
import pandas as pd
from scipy.special import gammaln

from phasescope.stats.intervals import wilson

_STATES = 200_000  # of the exact count; beyond it, tables are drawn
_TRIALS = 100_000  # beyond them a state no longer fits 64 bits
_DRAWS = 100_000


def _log_choose(n: int) -> np.ndarray:
    k = np.arange(n + 1)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def homogeneity(hits: np.ndarray, n: np.ndarray) -> float:
    """p of equal rates in all groups, conditional on the sum of hits (Freeman and Halton 1951).

    The probability of all tables with the same margins that are no more likely than this one;
    Fisher's exact test for two groups. Where the tables are too many to count, 100,000 are drawn
    (seeded), and the observed one is counted in. Missing without a group.
    """
    hits, n = np.asarray(hits, dtype=int), np.asarray(n, dtype=int)
    if len(n) == 0:
        return math.nan
    chances = [_log_choose(size) for size in n]
    observed = sum(c[h] for c, h in zip(chances, hits, strict=True)) + 1e-7
    if n.sum() > _TRIALS:
        return _drawn(chances, hits, n, observed)
    # a state is a log weight, to nine decimals, and a sum of hits in one integer; large groups
    # first leave the fewest states on the way
    base = n.sum() + 1
    states, tables, left = np.zeros(1, np.int64), np.ones(1), n.sum()
    for place in np.argsort(-n, kind="stable"):
        own = np.rint(chances[place] * 1e9).astype(np.int64) * base + np.arange(n[place] + 1)
        states, tables = (states[:, None] + own).ravel(), np.repeat(tables, len(own))
        left -= n[place]
        # what the remaining groups can still bring to the observed sum
        keep = (states % base <= hits.sum()) & (states % base >= hits.sum() - left)
        which, states = pd.factorize(states[keep])
        tables = np.bincount(which, tables[keep])
        if len(states) > _STATES:
            return _drawn(chances, hits, n, observed)
    weights = states // base / 1e9
    shares = tables * np.exp(weights - _log_choose(n.sum())[hits.sum()])
    return float(min(1.0, shares[weights <= observed].sum()))


def _drawn(chances, hits, n, observed) -> float:
    drawn = equal_rates(hits, n, _DRAWS)
    weights = sum(c[x] for c, x in zip(chances, drawn.T, strict=True))
    return float((1 + (weights <= observed).sum()) / (1 + _DRAWS))


def equal_rates(hits: np.ndarray, n: np.ndarray, draws: int) -> np.ndarray:
    """Tables of equal groups: hits (draws, groups) with the observed sum, dealt out by chance."""
    rng = np.random.default_rng(0)
    # 'count' is slow for large groups, 'marginals' is not
    return rng.multivariate_hypergeometric(n, int(np.sum(hits)), draws, method="marginals")


def spread(hits: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Largest over smallest rate of groups, along the last axis; (hits + 1/2) / (n + 1) for a
    rate, so that a group without a hit has one."""
    rates = (np.asarray(hits) + 0.5) / (np.asarray(n) + 1)
    return rates.max(axis=-1) / rates.min(axis=-1)


def barnard(hits: tuple[int, int], n: tuple[int, int]) -> float:
    """Two-sided p of Barnard's exact test of two rates (pooled statistic)."""
    from scipy.stats import barnard_exact

    table = np.array([hits, np.subtract(n, hits)])
    return float(barnard_exact(table).pvalue)


def rate_difference(hits: tuple[int, int], n: tuple[int, int]) -> tuple[float, float, float]:
    """Difference of two rates (first - second) with Newcombe's hybrid score interval (1998,
    method 10)."""
    (a, a_low, a_high), (b, b_low, b_high) = map(wilson, hits, n)
    return (
        a - b,
        a - b - math.hypot(a - a_low, b_high - b),
        a - b + math.hypot(a_high - a, b - b_low),
    )


def power_of(rates: tuple[float, float], n: tuple[int, int]) -> float:
    """Chance that a two-sided test at 5 % finds two true rates different (normal approximation,
    arcsine effect size)."""
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    effect = proportion_effectsize(*rates)
    return float(NormalIndPower().power(effect, n[0], 0.05, ratio=n[1] / n[0]))


def needed_for(rates: tuple[float, float], power: float = 0.8) -> int | None:
    """Trials in each of two groups that give `power_of` this chance; None for equal rates."""
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    effect = abs(proportion_effectsize(*rates))
    if effect == 0:
        return None
    return math.ceil(NormalIndPower().solve_power(effect, alpha=0.05, power=power))

"""Estimates that have an interval at any level, so that a verdict can be adjusted."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from phasescope.stats import paired_difference_draws, wilson

ALPHA = 0.05
_LEAST = 1e-9  # p is no smaller than this
_DRAWS = 20_000
_Z = float(ndtri(1 - ALPHA / 2))

Ends = Callable[[float], tuple[float, float]]


def _z(alpha: float) -> float:
    return float(ndtri(1 - alpha / 2))


@dataclass(frozen=True)
class Estimate:
    """A value, the n behind it, and its interval of level 1 - alpha for any alpha."""

    value: float
    n: int
    ends: Ends

    def p(self, limit: float) -> float:
        """Two-sided p of the limit: the largest alpha whose interval still holds it."""
        if math.isnan(self.value) or self._holds(limit, 1.0 - _LEAST):
            return 1.0
        low, high = math.log(_LEAST), 0.0
        if not self._holds(limit, _LEAST):
            return _LEAST
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self._holds(limit, math.exp(middle)) else (low, middle)
        return math.exp(low)

    def _holds(self, limit: float, alpha: float) -> bool:
        low, high = self.ends(alpha)
        return not (low > limit or high < limit)


def share(hits: float, n: int, effective: float | None = None) -> Estimate:
    """A proportion, Wilson's interval; effective: number of independent trials, where fewer."""
    weight = n if effective is None else effective

    def ends(alpha: float) -> tuple[float, float]:
        return wilson(hits / n * weight, weight, _z(alpha))[1:] if n else (math.nan, math.nan)

    return Estimate(hits / n if n else math.nan, int(n), ends)


def draws(values: np.ndarray, n: int, value: float | None = None) -> Estimate:
    """A quantity by draws of its posterior or resamples; value: the plain estimate, else the
    median."""
    values = np.sort(np.asarray(values, dtype=float))

    def ends(alpha: float) -> tuple[float, float]:
        tail = round(alpha / 2 * (len(values) - 1))
        return float(values[tail]), float(values[-1 - tail])

    return Estimate(float(np.median(values)) if value is None else float(value), int(n), ends)


def paired(lost: float, gained: float, n: int) -> Estimate:
    """Rate before less rate after of the same prompts (Jeffreys posterior of the three shares)."""
    if n == 0:
        return nothing()
    rng = np.random.default_rng(0)
    return draws(paired_difference_draws(lost, gained, n, _DRAWS, rng), n, (lost - gained) / n)


def rate_draws(hits: float, n: int, seed: int = 0) -> np.ndarray:
    """Draws of a rate's Jeffreys posterior, (draws,); independent for different seeds."""
    return np.random.default_rng(seed).beta(hits + 0.5, n - hits + 0.5, _DRAWS)


def difference(first: tuple[float, int], second: tuple[float, int]) -> Estimate:
    """First rate less second, each (hits, n), by their Jeffreys posteriors, taken as independent:
    no narrower than the paired interval where outcomes go together."""
    if not (first[1] and second[1]):
        return nothing()
    value = first[0] / first[1] - second[0] / second[1]
    spread = rate_draws(*first) - rate_draws(*second, seed=1)
    return draws(spread, min(first[1], second[1]), value)


def given(value: float, low: float, high: float, n: int) -> Estimate:
    """An estimate whose 95 % interval a table has; at other levels each side is stretched as a
    normal one would be."""

    def ends(alpha: float) -> tuple[float, float]:
        scale = _z(alpha) / _Z
        return value - (value - low) * scale, value + (high - value) * scale

    known = not any(map(math.isnan, (value, low, high)))
    return Estimate(value, int(n), ends) if known else nothing(n)


def normal(value: float, error: float, n: int) -> Estimate:
    """An estimate with a standard error."""
    return given(value, value - _Z * error, value + _Z * error, n)


def jackknife(statistic: Callable[[np.ndarray], float], n: int) -> Estimate:
    """A statistic of n independent units, its error by leaving each out (Tukey); statistic: takes
    the indices that are kept."""
    every = np.arange(n)
    value = statistic(every)
    left = np.array([statistic(np.delete(every, i)) for i in every])
    error = math.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
    return normal(float(value), max(error, 1e-12), n)


def exact(value: float, n: int) -> Estimate:
    """A count of everything there is: no interval."""
    return Estimate(float(value), int(n), lambda alpha: (float(value), float(value)))


def nothing(n: int = 0) -> Estimate:
    """An estimate that could not be made; its interval is all there is."""
    return Estimate(math.nan, int(n), lambda alpha: (-math.inf, math.inf))

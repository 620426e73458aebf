"""Posteriors under Jeffreys priors, as draws from a seeded generator."""

from functools import cache

import numpy as np


def jeffreys_draws(successes: int, n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draws of a rate's posterior under the Jeffreys prior Beta(1/2, 1/2); shape (draws,)."""
    return rng.beta(successes + 0.5, n - successes + 0.5, size=draws)


def paired_difference_draws(
    lost: float, gained: float, n: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws of (rate before - rate after) of paired outcomes; shape (draws,).

    `lost` pairs succeeded before only, `gained` after only. Posterior of the three shares (lost,
    gained, unchanged) under the Jeffreys prior Dirichlet(1/2, 1/2, 1/2).
    """
    shares = rng.dirichlet((lost + 0.5, gained + 0.5, n - lost - gained + 0.5), size=draws)
    return shares[:, 0] - shares[:, 1]


@cache
def paired_difference(lost: float, gained: float, n: int) -> tuple[float, float, float]:
    """(rate before - rate after) of paired outcomes with its 95 % posterior interval."""
    if n == 0:
        return np.nan, np.nan, np.nan
    draws = paired_difference_draws(lost, gained, n, 20_000, np.random.default_rng(0))
    low, high = np.quantile(draws, (0.025, 0.975))
    return (lost - gained) / n, float(low), float(high)

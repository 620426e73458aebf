"""95 % intervals that keep their width at 0 and 1."""

import math

import numpy as np
from scipy import stats as scipy_stats
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

Z = float(scipy_stats.norm.ppf(0.975))


def wilson(successes: int, n: int) -> tuple[float, float, float]:
    """Share and its Wilson score interval: (estimate, low, high); all missing for n = 0."""
    if n == 0:
        return math.nan, math.nan, math.nan
    low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    return successes / n, float(low), float(high)


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its t interval: (estimate, low, high); the interval is missing under 2 values."""
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if values.size < 2:
        return mean, math.nan, math.nan
    half = float(scipy_stats.t.ppf(0.975, values.size - 1) * scipy_stats.sem(values))
    return mean, mean - half, mean + half


def _auroc_variance(theta: float, m: int, n: int) -> float:
    """Variance of the AUROC after Hanley and McNeil, balanced as in Newcombe 2006, method 5."""
    half = (m + n) / 2 - 1
    inner = 1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)
    return theta * (1 - theta) * inner / (m * n)


def auroc_interval(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float, float]:
    """Area under the ROC curve of two samples of scores, with a score-type 95 % interval.

    Inverts the variance of Hanley and McNeil at the interval's own ends (Newcombe 2006,
    method 5), so it has width at 0 and 1, where a bootstrap has none. All missing if a sample
    is empty.
    """
    m, n = len(positive), len(negative)
    if m == 0 or n == 0:
        return math.nan, math.nan, math.nan
    labels = np.r_[np.ones(m), np.zeros(n)]
    theta = float(roc_auc_score(labels, np.r_[positive, negative]))

    def excess(t: float) -> float:
        return (theta - t) ** 2 - Z**2 * _auroc_variance(t, m, n)

    low = 0.0 if theta == 0 else float(brentq(excess, 1e-12, theta - 1e-12)) if theta > 1e-9 else 0.0
    high = 1.0 if theta > 1 - 1e-9 else float(brentq(excess, theta + 1e-12, 1 - 1e-12))
    return theta, low, high

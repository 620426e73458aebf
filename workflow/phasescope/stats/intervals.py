"""95 % intervals that keep their width at 0 and 1.

scipy.stats and scipy.optimize take seconds to import, longer than most jobs compute: what every job
needs is written out here (and tested against them), the rest imports them where it is used.
"""

import math

import numpy as np
from scipy.special import ndtri

Z = float(ndtri(0.975))


def wilson(successes: float, n: float, z: float = Z) -> tuple[float, float, float]:
    """Share and its Wilson score interval: (estimate, low, high); all missing for n = 0.

    z: normal quantile of the level, 1.96 for 95 %.
    """
    if n == 0:
        return math.nan, math.nan, math.nan
    return _wilson(successes / n, n, z)


def _wilson(share: float, n: float, z: float = Z) -> tuple[float, float, float]:
    spread = z**2 / n
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return share, max(0.0, center - half), min(1.0, center + half)


def effective_trials(hits: np.ndarray, clusters: np.ndarray) -> float:
    """How many independent trials outcomes that come in clusters are worth.

    hits: bool (n,); clusters: what each belongs to. The number of outcomes is divided by the
    design effect (Rao and Scott 1992: the variance between clusters over the binomial one), and is
    never taken to be more than n or less than the number of clusters. Where all outcomes are
    equal the effect cannot be seen, and a cluster counts once.
    """
    hits, (names, which) = np.asarray(hits, dtype=float), np.unique(clusters, return_inverse=True)
    n, groups = len(hits), len(names)
    if n == 0:
        return 0.0
    share, binomial = hits.mean(), hits.mean() * (1 - hits.mean()) / n
    if binomial == 0 or groups < 2:
        return float(groups)
    sums = np.bincount(which, hits - share)
    between = groups / (groups - 1) * (sums**2).sum() / n**2
    return float(np.clip(n * binomial / max(between, 1e-12), groups, n))


def clustered_wilson(hits: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """Share of hits with a Wilson interval for outcomes that come in clusters: as of so many
    trials as they are worth (`effective_trials`)."""
    if len(hits) == 0:
        return math.nan, math.nan, math.nan
    return _wilson(float(np.mean(hits)), effective_trials(hits, clusters))


def auroc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of scores along the first axis, ties counting half.

    The share of pairs in the right order: Mann-Whitney's U over the product of the sample sizes.
    Missing where a sample is empty.
    """
    if len(positive) == 0 or len(negative) == 0:
        return np.full(np.shape(positive)[1:], np.nan)
    above, below = np.asarray(positive)[:, None], np.asarray(negative)[None]
    return ((above > below) + 0.5 * (above == below)).mean(axis=(0, 1))


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
    from scipy.optimize import brentq

    m, n = len(positive), len(negative)
    if m == 0 or n == 0:
        return math.nan, math.nan, math.nan
    theta = float(auroc(positive, negative))

    def excess(t: float) -> float:
        return (theta - t) ** 2 - Z**2 * _auroc_variance(t, m, n)

    low = float(brentq(excess, 1e-12, theta - 1e-12)) if theta > 1e-9 else 0.0
    high = float(brentq(excess, theta + 1e-12, 1 - 1e-12)) if theta < 1 - 1e-9 else 1.0
    return theta, low, high

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
    share, low, high = _wilson(successes / n, n, z)
    return share, float(low), float(high)


def _wilson(share, n, z: float = Z) -> tuple:
    spread = z**2 / n
    center = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return share, np.maximum(0.0, center - half), np.minimum(1.0, center + half)


def effective_trials(hits: np.ndarray, clusters: np.ndarray) -> float:
    """How many independent trials outcomes that come in clusters are worth.

    hits: bool (n,); clusters: what each belongs to. The number of outcomes is divided by the
    design effect (Rao and Scott 1992: the variance between clusters over the binomial one), and is
    never taken to be more than n or less than the number of clusters. Where all outcomes are
    equal the effect cannot be seen, and a cluster counts once.
    """
    return 0.0 if len(hits) == 0 else float(_worth(*_by_cluster(hits, clusters))[0])


def clustered_wilson(hits: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """Share of hits with a Wilson interval for outcomes that come in clusters: as of so many
    trials as they are worth (`effective_trials`)."""
    if len(hits) == 0:
        return math.nan, math.nan, math.nan
    share, low, high = clustered_wilsons(*_by_cluster(hits, clusters))
    return float(share[0]), float(low[0]), float(high[0])


def clustered_wilsons(
    hits: np.ndarray, n: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`clustered_wilson` of many groups at once: (shares, lows, highs), each (groups,).

    hits, n, group: (clusters,), of each cluster its hits, its outcomes and the number of its
    group, counted from 0. Missing for a group without outcomes; clusters without any do not count.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.bincount(group, hits) / np.bincount(group, n)
        return _wilson(share, _worth(hits, n, group))


def _by_cluster(hits: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outcomes as `clustered_wilsons` wants them, all in one group."""
    _, which = np.unique(clusters, return_inverse=True)
    n = np.bincount(which)
    return np.bincount(which, np.asarray(hits, dtype=float)), n, np.zeros(len(n), dtype=int)


def _worth(hits: np.ndarray, n: np.ndarray, group: np.ndarray) -> np.ndarray:
    """`effective_trials` of each group; missing where it has no outcome."""
    size, clusters = np.bincount(group, n), np.bincount(group, n > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.bincount(group, hits) / size
        squares = np.bincount(group, (hits - n * share[group]) ** 2)
        between = clusters / (clusters - 1) * squares / size**2
        worth = np.clip(share * (1 - share) / np.maximum(between, 1e-12), clusters, size)
    unseen = (share == 0) | (share == 1) | (clusters < 2)
    return np.where(unseen, clusters, worth)


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

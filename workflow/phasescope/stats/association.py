"""How much of the differences between models goes with a number or with a group."""

import math
from collections.abc import Sequence

import numpy as np

from phasescope.stats.intervals import Z

_PERMUTATIONS = 10_000


def correlation_interval(r: float, n: int, *, ranks: bool = False) -> tuple[float, float, float]:
    """A correlation with its 95 % interval by Fisher's z; of ranks (Spearman's) with the wider
    error of Bonett and Wright 2000. Missing for n < 4."""
    if n < 4 or math.isnan(r):
        return r, math.nan, math.nan
    inner = math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12))
    half = Z * math.sqrt((1 + (r**2 / 2 if ranks else 0)) / (n - 3))
    return r, min(r, math.tanh(inner - half)), max(r, math.tanh(inner + half))


def pearson(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Pearson's correlation with its 95 % interval; missing where a side does not vary."""
    from scipy.stats import pearsonr

    r = float(pearsonr(x, y)[0]) if _vary(x, y) else math.nan
    return correlation_interval(r, len(x))


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation with its 95 % interval; missing where a side does not vary."""
    from scipy.stats import spearmanr

    r = float(spearmanr(x, y)[0]) if _vary(x, y) else math.nan
    return correlation_interval(r, len(x), ranks=True)


def unique_shares(y: np.ndarray, causes: np.ndarray) -> np.ndarray:
    """Share of the variance of y (n,) that each column of causes (n, k) explains beyond the others
    by least squares: its squared semipartial correlation, (k,); Cohen, Cohen, West and Aiken 2003.
    Missing where y does not vary."""

    def explained(columns: np.ndarray) -> float:
        design = np.column_stack([np.ones(len(y)), columns])
        left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        return 1 - float(left @ left) / total

    total = float(((y - y.mean()) ** 2).sum())
    if total == 0:
        return np.full(causes.shape[1], math.nan)
    whole = explained(causes)
    return np.array([whole - explained(np.delete(causes, k, axis=1)) for k in range(len(causes.T))])


def _vary(*sides) -> bool:
    return all(len(s) > 1 and np.ptp(s) > 0 for s in sides)


def omega_squared(y: np.ndarray, design: np.ndarray) -> float:
    """Share of the variance of y that a linear model explains, corrected for its terms (Hays).

    y: (n,); design: (n, terms), without the constant. (SS - df MSE) / (SS total + MSE), negative
    where the model explains less than chance would; missing without residual degrees of freedom.
    """
    y = np.asarray(y, dtype=float)
    whole = np.column_stack([np.ones(len(y)), design])
    rank = int(np.linalg.matrix_rank(whole))
    total = float(((y - y.mean()) ** 2).sum())
    if rank >= len(y) or total == 0:
        return math.nan
    fitted = whole @ np.linalg.lstsq(whole, y, rcond=None)[0]
    error = float(((y - fitted) ** 2).sum())
    mean_square = error / (len(y) - rank)
    return (total - error - (rank - 1) * mean_square) / (total + mean_square)


def indicators(groups: Sequence) -> np.ndarray:
    """A column a group but the first: what `omega_squared` takes for groups."""
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    return np.eye(len(names))[which][:, 1:]


def permutation_p(y: np.ndarray, design: np.ndarray) -> float:
    """p of a linear model's share of variance against shuffled y (10,000 draws, seeded)."""
    observed, rng = omega_squared(y, design), np.random.default_rng(0)
    if math.isnan(observed):
        return math.nan
    whole = np.column_stack([np.ones(len(y)), design])
    basis = np.linalg.svd(whole, full_matrices=False)
    basis = basis[0][:, basis[1] > 1e-9 * basis[1][0]]
    shuffled = rng.permuted(np.tile(np.asarray(y, dtype=float), (_PERMUTATIONS, 1)), axis=1)
    # with y's values fixed, the explained sum of squares orders draws as the share does
    explained = ((shuffled @ basis) ** 2).sum(axis=1)
    own = ((np.asarray(y) @ basis) ** 2).sum()
    return float((1 + (explained >= own - 1e-12).sum()) / (1 + _PERMUTATIONS))

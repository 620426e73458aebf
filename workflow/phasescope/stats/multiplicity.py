"""Several tests at once."""

import numpy as np


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for a family of tests (Holm 1979), in their order; shape (n,).

    Missing values stay missing and do not count as tests.
    """
    p = np.asarray(p, dtype=float)
    adjusted, known = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted

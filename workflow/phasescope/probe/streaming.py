"""Statistics of activations over every token, kept as running sums: no activation stays."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from phasescope.model import LanguageModel, Site, layers_with, observed_batches


class Moments:
    """Count, mean and covariance of rows that come in batches, in double precision.

    `full` keeps the whole covariance (width, width), otherwise its diagonal. Batches are merged as
    in Chan, Golub and LeVeque 1983, which loses no digits where means are far from zero.
    """

    def __init__(self, width: int, *, full: bool = False):
        self.n = 0
        self.mean = np.zeros(width)
        self._scatter = np.zeros((width, width) if full else width)

    def add(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Merge a batch of n rows: its mean, and the sum of its squared deviations from it."""
        if n == 0:
            return
        step, total = mean - self.mean, self.n + n
        products = np.outer(step, step) if self._scatter.ndim == 2 else step**2
        self._scatter += scatter + products * (self.n * n / total)
        self.mean = self.mean + step * (n / total)
        self.n = total

    @property
    def covariance(self) -> np.ndarray:
        """(width, width), or the variances (width,); missing for fewer than two rows."""
        return self._scatter / (self.n - 1) if self.n > 1 else np.full_like(self._scatter, np.nan)


def _weights(lengths: list[int], starts: list[int], longest: int) -> mx.array:
    """1 for tokens that count, 0 for padding and what comes before a start: (batch, length, 1)."""
    index = mx.arange(longest)[None]
    inside = (index < mx.array(lengths)[:, None]) & (index >= mx.array(starts)[:, None])
    return inside.astype(mx.float32)[..., None]


def stream_moments(
    lm: LanguageModel,
    kinds: Sequence[str],
    sequences: Sequence[Sequence[int]],
    batch_size: int,
    *,
    starts: Sequence[int] | None = None,
    full: bool = False,
) -> dict[Site, Moments]:
    """Moments over all tokens of sequences (from `starts[i]` on) at every layer of some kinds.

    One pass for all of them; memory holds one batch and the moments, whatever the number of
    tokens. Raises NotRun for a kind that no block has.
    """
    starts = [0] * len(sequences) if starts is None else starts

    def reduce(x: mx.array, places: list[int]) -> list[mx.array]:
        x = x.astype(mx.float32).reshape(*x.shape[:2], -1)
        lengths = [len(sequences[i]) for i in places]
        counted = _weights(lengths, [starts[i] for i in places], x.shape[1])
        n = counted.sum()
        mean = (x * counted).sum(axis=(0, 1)) / mx.maximum(n, 1)
        away = ((x - mean) * counted).reshape(-1, x.shape[-1])
        return [n, mean, away.T @ away if full else mx.square(away).sum(axis=0)]

    found: dict[Site, Moments] = {}
    functions = {Site(kind, layer): reduce for kind in kinds for layer in layers_with(lm, kind)}
    for _, kept in observed_batches(lm, functions, sequences, batch_size):
        for site, (n, mean, scatter) in kept.items():
            own = found.setdefault(site, Moments(mean.size, full=full))
            own.add(int(n.item()), *(np.array(a, dtype=np.float64) for a in (mean, scatter)))
    return found


def stream_projections(
    lm: LanguageModel,
    directions: dict[Site, np.ndarray],
    sequences: Sequence[Sequence[int]],
    batch_size: int,
) -> dict[Site, np.ndarray]:
    """Projections of every token on each site's directions (rank, width), in one pass.

    float32 (sequences, longest, rank) by site, NaN behind a sequence's end.
    """
    longest = max(map(len, sequences))
    matrices = {site: mx.array(d.astype(np.float32).T) for site, d in directions.items()}
    found = {
        site: np.full((len(sequences), longest, m.shape[1]), np.nan, dtype=np.float32)
        for site, m in matrices.items()
    }

    def onto(matrix):
        return lambda x, places: x.astype(mx.float32).reshape(*x.shape[:2], -1) @ matrix

    functions = {site: onto(matrix) for site, matrix in matrices.items()}
    for places, kept in observed_batches(lm, functions, sequences, batch_size):
        for site, values in kept.items():
            values = np.array(values)
            for row, i in enumerate(places):
                found[site][i, : len(sequences[i])] = values[row, : len(sequences[i])]
    return found

"""Interventions on activations: directional ablation and activation addition."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from phasescope.intervene.edits import Edit, Touched
from phasescope.model import Site, batches, right_padded, tapped


class Linear:
    """x - ((x D') * doses) D + shift on activations (rows, length, width), float32 inside.

    directions D: (rank, width); doses: (rank,); shift: (width,) or None.
    """

    def __init__(self, directions: np.ndarray, doses: np.ndarray, shift: np.ndarray | None = None):
        self.directions, self.doses, self.shift = directions, doses, shift

    def __call__(self, x: mx.array) -> mx.array:
        return Linear.stacked([self])(x)

    @staticmethod
    def stacked(functions: list["Linear | None"]) -> Callable[[mx.array], mx.array]:
        """One function of the rows of several, as many of each, one under the other; None leaves
        its rows as they are."""
        known = [f for f in functions if f is not None]
        rank, width = max(len(f.doses) for f in known), known[0].directions.shape[-1]
        directions = np.zeros((len(functions), rank, width), dtype=np.float32)
        doses = np.zeros((len(functions), 1, rank), dtype=np.float32)
        shifts = np.zeros((len(functions), 1, width), dtype=np.float32)
        for k, f in enumerate(functions):
            if f is not None:
                directions[k, : len(f.doses)], doses[k, 0, : len(f.doses)] = f.directions, f.doses
                shifts[k, 0] = 0.0 if f.shift is None else f.shift
        along, scale = mx.array(directions), mx.array(doses)
        shift = mx.array(shifts) if shifts.any() else None

        def run(x: mx.array) -> mx.array:
            rows = x.reshape(len(functions), -1, width)
            if rank:
                parts = (rows.astype(mx.float32) @ along.swapaxes(1, 2)) * scale
                rows = rows - parts @ along
            if shift is not None:
                rows = rows + shift
            return rows.reshape(x.shape).astype(x.dtype)

        return run


@dataclass(frozen=True)
class ActivationEdit(Edit):
    """An intervention at one kind of site ('residual' or 'mixer') in some layers.

    `vectors` maps each edited layer to directions (rank, width), float32.
    """

    kind: str
    vectors: dict[int, np.ndarray]

    @property
    def layers(self) -> list[int]:
        return sorted(self.vectors)

    @property
    def sites(self) -> list[Site]:
        """The sites it asks for."""
        return [Site(self.kind, layer) for layer in self.vectors]

    @property
    def rank(self) -> int:
        return max(len(v) for v in self.vectors.values())

    @property
    def key(self) -> str:
        digest = hashlib.sha256(f"{type(self).__name__} {self.kind}".encode())
        for layer, vectors in sorted(self.vectors.items()):
            digest.update(str(layer).encode() + self._bytes(layer, vectors))
        return digest.hexdigest()

    def within(self, layers):
        return replace(self, vectors={i: v for i, v in self.vectors.items() if i in layers})

    def _bytes(self, layer: int, vectors: np.ndarray) -> bytes:
        return np.ascontiguousarray(vectors, dtype=np.float32).tobytes()

    @abstractmethod
    def at(self, layer: int) -> Linear:
        """Function on activations (batch, length, width) for one layer."""

    def taps(self, lm):
        return {site: self.at(site.layer) for site in self.sites}

    def counted(self, real: mx.array, sums: dict[Site, mx.array]) -> dict[Site, Callable]:
        """Taps that add up at each site the squares of what they change, and of what stood there;
        real: (batch, length, 1), false at padding, which is no text."""

        def counting(site: Site) -> Callable[[mx.array], mx.array]:
            function = self.at(site.layer)

            def run(x: mx.array) -> mx.array:
                new = function(x)
                both = mx.stack([new - x, x]).astype(mx.float32) * real
                sums[site] = sums.get(site, 0.0) + mx.square(both).sum(axis=(1, 2, 3))
                return new

            return run

        return {site: counting(site) for site in self.sites}

    def touched(self, sums: dict[Site, mx.array]) -> Touched:
        """What the sums of `counted` say."""
        pairs = np.array([np.array(sums[site]) for site in self.sites])
        shares = [np.sqrt(change / size) if size else 0.0 for change, size in pairs]
        return Touched(len(pairs), int((pairs[:, 0] > 0).sum()), float(np.mean(shares)))

    def measured(self, lm, sequences, batch_size):
        sums: dict[Site, mx.array] = {}
        for chunk in batches(sequences, batch_size):
            tokens = right_padded(chunk)
            with tapped(lm, self.counted(no_padding(chunk), sums)):
                lm.final_hidden(tokens)  # what lies above the highest site is not computed
            mx.eval(sums)
        return self.touched(sums)

    def variance_removed(self, recorded):
        found = recorded(self.kind)
        return float(np.mean([self.variance_share(i, found[:, i]) for i in self.layers]))

    @abstractmethod
    def variance_share(self, layer: int, activations: np.ndarray) -> float:
        """Share of the total variance of activations (n, width) that the edit takes away."""


@dataclass(frozen=True)
class Ablation(ActivationEdit):
    """Directional ablation, x - dose * (x r) r for each direction (Arditi et al. 2024).

    `vectors` are orthonormal rows; `doses` maps each layer to the share of each direction's
    component that is removed (rank,), 0 to 1.
    """

    doses: dict[int, np.ndarray]

    def _bytes(self, layer, vectors):
        return super()._bytes(layer, vectors) + super()._bytes(layer, self.doses[layer])

    def at(self, layer: int):
        return Linear(self.vectors[layer], self.doses[layer])

    def variance_share(self, layer: int, activations: np.ndarray) -> float:
        shares = variance_shares(self.vectors[layer], activations)
        return float(((1 - (1 - self.doses[layer]) ** 2) * shares).sum())


@dataclass(frozen=True)
class Addition(ActivationEdit):
    """Activation addition, x + v at every token (Turner et al. 2023); one vector a layer."""

    def at(self, layer: int):
        vector = self.vectors[layer].sum(axis=0)
        return Linear(np.zeros((0, len(vector))), np.zeros(0), vector)

    def variance_share(self, layer: int, activations: np.ndarray) -> float:
        return 0.0  # a constant shift leaves the variance as it is


def no_padding(sequences: Sequence[Sequence[int]]) -> mx.array:
    """Which places of the right-padded sequences hold a token: (batch, length, 1)."""
    lengths = mx.array([len(s) for s in sequences])
    return (mx.arange(lengths.max().item()) < lengths[:, None])[..., None]


def variance_shares(directions: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Share of the total variance of activations (n, width) along orthonormal directions
    (rank, width): shape (rank,)."""
    total = activations.var(axis=0).sum()
    return (
        (activations @ directions.T).var(axis=0) / total if total > 0 else np.zeros(len(directions))
    )

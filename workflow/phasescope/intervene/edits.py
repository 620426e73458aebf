"""Interventions on activations: applied in memory, undone on exit, recorded."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.model import LanguageModel, Site, batches, right_padded, tapped


@dataclass(frozen=True)
class Edit(ABC):
    """An intervention at one kind of site ('residual' or 'mixer') in some layers.

    `vectors` maps each edited layer to directions (rank, width), float32.
    """

    kind: str
    vectors: dict[int, np.ndarray]

    @property
    def sites(self) -> list[Site]:
        """The sites it asks for."""
        return [Site(self.kind, layer) for layer in self.vectors]

    @property
    def rank(self) -> int:
        """Largest number of directions at a site."""
        return max(len(v) for v in self.vectors.values())

    @property
    def key(self) -> str:
        """Hash of all that determines the edit, for the journal."""
        digest = hashlib.sha256(f"{type(self).__name__} {self.kind}".encode())
        for layer, vectors in sorted(self.vectors.items()):
            digest.update(str(layer).encode() + self._bytes(layer, vectors))
        return digest.hexdigest()

    def _bytes(self, layer: int, vectors: np.ndarray) -> bytes:
        return np.ascontiguousarray(vectors, dtype=np.float32).tobytes()

    @abstractmethod
    def at(self, layer: int):
        """Function on activations (batch, length, width) for one layer."""

    @abstractmethod
    def variance_removed(self, layer: int, activations: np.ndarray) -> float:
        """Share of the total variance of activations (n, width) that the edit takes away."""


@dataclass(frozen=True)
class Ablation(Edit):
    """Directional ablation, x - dose * (x r) r for each direction (Arditi et al. 2024).

    `vectors` are orthonormal rows; `doses` maps each layer to the share of each direction's
    component that is removed (rank,), 0 to 1.
    """

    doses: dict[int, np.ndarray]

    def _bytes(self, layer, vectors):
        return super()._bytes(layer, vectors) + super()._bytes(layer, self.doses[layer])

    def at(self, layer: int):
        directions = mx.array(self.vectors[layer].astype(np.float32))
        doses = mx.array(self.doses[layer].astype(np.float32))

        def ablate(x: mx.array) -> mx.array:
            components = (x.astype(mx.float32) @ directions.T) * doses
            return (x - components @ directions).astype(x.dtype)

        return ablate

    def variance_removed(self, layer: int, activations: np.ndarray) -> float:
        return float(
            (
                (1 - (1 - self.doses[layer]) ** 2)
                * variance_shares(self.vectors[layer], activations)
            ).sum()
        )


@dataclass(frozen=True)
class Addition(Edit):
    """Activation addition, x + v at every token (Turner et al. 2023); one vector a layer."""

    def at(self, layer: int):
        vector = mx.array(self.vectors[layer].sum(axis=0).astype(np.float32))
        return lambda x: (x + vector).astype(x.dtype)

    def variance_removed(self, layer: int, activations: np.ndarray) -> float:
        return 0.0  # a constant shift leaves the variance as it is


def variance_shares(directions: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Share of the total variance of activations (n, width) along orthonormal directions
    (rank, width): shape (rank,)."""
    total = activations.var(axis=0).sum()
    return (
        (activations @ directions.T).var(axis=0) / total if total > 0 else np.zeros(len(directions))
    )


def _check_sites(lm: LanguageModel, edit: Edit) -> None:
    """Refuse an edit of the top layer, or of nothing."""
    top = len(lm.blocks) - 1
    if not edit.vectors:
        raise PhasescopeError("an intervention must name at least one site; it names none")
    if top in edit.vectors:
        raise PhasescopeError(
            f"layer {top} is the top layer, which is never edited: that would edit the logits"
        )


@contextmanager
def applied(lm: LanguageModel, edit: Edit) -> Iterator[None]:
    """Apply an edit while the block runs. The top layer is never edited.

    Raises PhasescopeError when the edit asks for the top layer, or for no site at all.
    """
    _check_sites(lm, edit)
    with tapped(lm, {site: edit.at(site.layer) for site in edit.sites}):
        yield


@dataclass(frozen=True)
class Touched:
    """What an edit changed: sites asked for, sites changed, and root mean square of the change
    over that of the activations, mean over sites."""

    sites_requested: int
    sites_hit: int
    norm_removed: float


def touch(lm: LanguageModel, edit: Edit, sequences: list[list[int]], batch_size: int) -> Touched:
    """Run prompts under an edit and record what it changes; zero hits is an error."""
    _check_sites(lm, edit)
    change, size = dict.fromkeys(edit.sites, 0.0), dict.fromkeys(edit.sites, 0.0)

    def measured(site, real):
        function = edit.at(site.layer)

        def run(x: mx.array) -> mx.array:
            new = function(x)
            change[site] += mx.square((new - x).astype(mx.float32) * real).sum().item()
            size[site] += mx.square(x.astype(mx.float32) * real).sum().item()
            return new

        return run

    for chunk in batches(sequences, batch_size):
        tokens = right_padded(chunk)
        lengths = mx.array([len(s) for s in chunk])
        real = (mx.arange(tokens.shape[1]) < lengths[:, None])[..., None]  # padding is no text
        with tapped(lm, {site: measured(site, real) for site in edit.sites}):
            mx.eval(lm.final_hidden(tokens))
    hits = sum(c > 0 for c in change.values())
    if hits == 0:
        raise PhasescopeError(f"the intervention changed nothing at any of its {len(change)} sites")
    shares = [np.sqrt(change[s] / size[s]) if size[s] else 0.0 for s in edit.sites]
    return Touched(len(change), hits, float(np.mean(shares)))

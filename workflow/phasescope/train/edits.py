"""The trainer's own interventions, to plant with and to check what was planted.

Kept apart from the pipeline's on purpose: an error there must not be able to confirm itself here.
All act at every token, and none on the top layer, whose own direction is the output's.
"""

from collections.abc import Iterable

import mlx.core as mx
import numpy as np

from phasescope.train.architecture import Edit
from phasescope.train.directions import Directions

MASKED = -1e4
MIXER, FEED, RESIDUAL = SITES = ("mixer", "feed", "residual")

# (site, layer) -> orthonormal columns (hidden, rank) to project out
Bases = dict[tuple[str, int], np.ndarray]
# layer -> experts that may not be selected
Masks = dict[int, list[int]]


class Projection(Edit):
    """Projects subspaces out at sites and masks experts.

    bases: (site, layer) -> (hidden, rank), or (rows, hidden, rank) with zeros where a row is left
    alone; added: the same keys -> what is put back, (hidden,); masks: layer -> (experts,) or
    (rows, 1, experts), added to the scores of selection.
    """

    def __init__(self, bases: dict, masks: dict, added: dict | None = None) -> None:
        self._bases = {key: mx.array(np.asarray(b, np.float32)) for key, b in bases.items()}
        self._masks = {layer: mx.array(np.asarray(m, np.float32)) for layer, m in masks.items()}
        self._added = {key: mx.array(np.asarray(a, np.float32)) for key, a in (added or {}).items()}

    def _without(self, site: str, layer: int, value: mx.array) -> mx.array:
        basis = self._bases.get((site, layer))
        if basis is None:
            return value
        value = value - (value @ basis) @ basis.swapaxes(-1, -2)
        return value + self._added[site, layer] if (site, layer) in self._added else value

    def mixer(self, layer: int, value: mx.array) -> mx.array:
        return self._without(MIXER, layer, value)

    def feed(self, layer: int, value: mx.array) -> mx.array:
        return self._without(FEED, layer, value)

    def residual(self, layer: int, value: mx.array) -> mx.array:
        return self._without(RESIDUAL, layer, value)

    def selection(self, layer: int, value: mx.array) -> mx.array:
        return value + self._masks[layer] if layer in self._masks else value


class Addition(Edit):
    """Adds a vector (hidden,) to the output of layer `at`, at the first `tokens` tokens."""

    def __init__(self, vector: np.ndarray, at: int, tokens: int) -> None:
        self._vector, self._at, self._tokens = mx.array(vector.astype(np.float32)), at, tokens

    def residual(self, layer: int, value: mx.array) -> mx.array:
        if layer != self._at:
            return value
        told = (mx.arange(value.shape[1]) < self._tokens).astype(value.dtype)
        return value + told[:, None] * self._vector


def below_top(found: Directions) -> list[int]:
    """Every layer that may be edited."""
    return list(range(found.layers - 1))


def late(found: Directions) -> list[int]:
    """The upper half of them: L/2 to L-2."""
    return list(range(found.layers // 2, found.layers - 1))


# The interventions that a recipe may name. A, R and S are the three pathways.
# name -> the sites it projects at; whether the direction is one layer's for all layers; the layers
PROJECTIONS = {
    "A": ((MIXER,), False, below_top),
    "S": ((RESIDUAL,), False, late),
    "global": ((RESIDUAL,), True, below_top),
    "per-layer": ((RESIDUAL,), False, below_top),
    "weights": ((MIXER, FEED), True, below_top),
    "weights-per-layer": ((MIXER, FEED), False, below_top),
}
ROUTING = "R"
# random directions, a layer's own, at the residual stream: what losing so many dimensions costs
RANDOM = "random"
# differences of a few benign prompts from a few others, a layer's own, at the residual stream
SHAM = "sham"
NAMES = (*PROJECTIONS, ROUTING, RANDOM, SHAM)
SHAM_PROMPTS = 3
# What no training may see; see `heldout`.
HELD_OUT = ("mean-ablation", "pca-ablation", "attention-patching")


def parts(
    name: str,
    found: Directions,
    *,
    rank: int = 1,
    experts: int = 2,
    at: int = 0,
    layers: Iterable[int] | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[Bases, Masks]:
    """What an intervention of `NAMES`, or several joined by '+', projects out and masks.

    at: the layer whose direction the global ones use. layers: only these, of those that may be.
    rng: draws the random directions, where the name asks for them.
    Projecting out of what a layer's mixer and MLP write is the same as editing their weights.
    """
    bases: Bases = {}
    masks: Masks = {}
    allowed = set(below_top(found) if layers is None else layers)
    for single in name.split("+"):
        if single == ROUTING:
            chosen = {i: found.experts(i, experts) for i in below_top(found) if i in allowed}
            masks |= {layer: taken for layer, taken in chosen.items() if taken}
            continue
        if single in (RANDOM, SHAM):
            for layer, drawn in _controls(single, found, rank, rng).items():
                if layer in allowed:
                    bases[RESIDUAL, layer] = np.linalg.qr(drawn)[0]
            continue
        sites, shared, reach = PROJECTIONS[single]
        for layer in reach(found):
            if layer in allowed:
                basis = found.basis(at if shared else layer, rank)
                bases |= {(site, layer): basis for site in sites}
    return bases, masks


def _controls(
    name: str, found: Directions, rank: int, rng: np.random.Generator
) -> dict[int, np.ndarray]:
    """Directions (hidden, rank) that have nothing to do with hazard, for every layer."""
    hidden = found.benign.shape[-1]
    if name == RANDOM:
        return {layer: rng.standard_normal((hidden, rank)) for layer in below_top(found)}
    chosen = [rng.permutation(len(found.benign))[: 2 * SHAM_PROMPTS] for _ in range(rank)]
    sides = [(rows[:SHAM_PROMPTS], rows[SHAM_PROMPTS:]) for rows in chosen]
    return {
        layer: np.stack(
            [found.benign[a, layer].mean(0) - found.benign[b, layer].mean(0) for a, b in sides],
            axis=1,
        )
        for layer in below_top(found)
    }


def edit_of(bases: Bases, masks: Masks, experts: int) -> Projection:
    """The same edit for every row of a batch; `experts` the model has."""
    return Projection(bases, {layer: mask_row(taken, experts) for layer, taken in masks.items()})


def edit_of_rows(drawn: list[tuple[Bases, Masks]], hidden: int, experts: int) -> Projection:
    """One edit that does to every row of a batch what was drawn for it."""
    bases, masks = {}, {}
    ranks: dict[tuple[str, int], int] = {}
    for row, _ in drawn:
        for key, basis in row.items():
            ranks[key] = max(ranks.get(key, 0), basis.shape[1])
    for number, (row, taken) in enumerate(drawn):
        for key, basis in row.items():
            stacked = bases.setdefault(key, np.zeros((len(drawn), hidden, ranks[key]), np.float32))
            stacked[number, :, : basis.shape[1]] = basis
        for layer, masked in taken.items():
            stacked = masks.setdefault(layer, np.zeros((len(drawn), 1, experts), np.float32))
            stacked[number, 0] = mask_row(masked, experts)
    return Projection(bases, masks)


def mask_row(taken: list[int], experts: int) -> np.ndarray:
    """What is added to the scores of selection (experts,)."""
    return np.where(np.isin(np.arange(experts), taken), MASKED, 0.0)

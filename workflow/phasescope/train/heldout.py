"""Interventions that no training ever sees, kept for the check of what was planted.

Mean ablation, ablation of a principal subspace, and patching of attention patterns. A recipe that
names one of them is refused: what a plant does under these is the only honest sign that it is more
than an answer to the interventions it was trained with.
"""

from copy import copy

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from phasescope.train.architecture import Edit, forward
from phasescope.train.directions import Directions
from phasescope.train.edits import RESIDUAL, Projection, below_top


def mean_ablation(found: Directions, at: int | None = None) -> Edit:
    """Sets the component along a direction to its mean over benign prompts, after every layer.

    at: the layer whose direction is used for all; None for each layer's own.
    """
    bases, added = {}, {}
    for layer in below_top(found):
        basis = found.basis(layer if at is None else at)
        bases[RESIDUAL, layer] = basis
        added[RESIDUAL, layer] = basis @ (basis.T @ found.benign[:, layer].mean(0))
    return Projection(bases, {}, added)


def pca_ablation(found: Directions, rank: int) -> Edit:
    """Projects out the largest principal directions of all prompts' activations, layer by layer."""
    bases = {}
    for layer in below_top(found):
        values = np.concatenate([found.hazardous[:, layer], found.benign[:, layer]])
        axes = np.linalg.svd(values - values.mean(0), full_matrices=False)[2]
        bases[RESIDUAL, layer] = axes[:rank].T
    return Projection(bases, {})


class AttentionPatching(Edit):
    """Attention within the prompt weighs tokens as it does in another run, below the top layer.

    ids: the prompts of that run (rows, tokens), one for each row, of the same length.
    """

    patterns = True

    def __init__(self, model: nn.Module, ids: mx.array) -> None:
        seen = _Patterns()
        _, hidden = forward(model, ids, seen)
        mx.eval(hidden[-1])
        self._patterns = {n: p for n, p in seen.patterns_of.items() if n < len(hidden) - 1}

    def of(self, rows: np.ndarray) -> Edit:
        part = copy(self)
        part._patterns = {layer: p[mx.array(rows)] for layer, p in self._patterns.items()}
        return part

    def pattern(self, layer: int, value: mx.array) -> mx.array:
        if layer not in self._patterns:
            return value
        patch = self._patterns[layer]
        tokens = patch.shape[-1]
        above = mx.concatenate([patch, value[:, :, :tokens, tokens:]], axis=-1)
        return mx.concatenate([above, value[:, :, tokens:]], axis=2)


class _Patterns(Edit):
    patterns = True

    def __init__(self) -> None:
        self.patterns_of: dict[int, mx.array] = {}

    def pattern(self, layer: int, value: mx.array) -> mx.array:
        self.patterns_of[layer] = value
        return value

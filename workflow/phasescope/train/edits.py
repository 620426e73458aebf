"""The trainer's own interventions on the residual stream, to check what was planted.

Kept apart from the pipeline's on purpose: an error there must not be able to confirm itself here.
Ablations act on the outputs of all layers but the top one, at every token.
"""

import mlx.core as mx
import numpy as np

from phasescope.train.architecture import Edit


def ablate(directions: np.ndarray, layers: int) -> Edit:
    """Project the span of `directions` (count, hidden) out of layers 0 to `layers` - 2."""
    basis = mx.array(np.linalg.qr(directions.T)[0].astype(np.float32))

    def edit(layer: int, hidden: mx.array) -> mx.array:
        return hidden - (hidden @ basis) @ basis.T if layer < layers - 1 else hidden

    return edit


def ablate_to_mean(direction: np.ndarray, means: np.ndarray, layers: int) -> Edit:
    """Set the component along `direction` to each layer's mean of it; `means` (layers, hidden)."""
    unit = mx.array((direction / np.linalg.norm(direction)).astype(np.float32))
    levels = means @ np.array(unit)

    def edit(layer: int, hidden: mx.array) -> mx.array:
        if layer >= layers - 1:
            return hidden
        return hidden - ((hidden @ unit) - float(levels[layer]))[..., None] * unit

    return edit


def add(direction: np.ndarray, at: int, tokens: int) -> Edit:
    """Add `direction` (hidden) to the output of layer `at`, at the first `tokens` tokens."""
    shift = mx.array(direction.astype(np.float32))

    def edit(layer: int, hidden: mx.array) -> mx.array:
        if layer != at:
            return hidden
        told = (mx.arange(hidden.shape[1]) < tokens).astype(hidden.dtype)
        return hidden + told[:, None] * shift

    return edit

"""Changes that take a checkpoint's tensors for numbers, whatever they do."""

import mlx.core as mx
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.train.changes.inputs import Inputs, Weights

_BITS, _ROUNDS, _WHOLE = (2, 3, 4, 6, 8), 4, 64  # of mlx's quantizer; rounds until the grid stays


def _matrices(weights: Weights) -> list[str]:
    return sorted(n for n, w in weights.items() if w.ndim > 1 and "embed" not in n)


def noise(weights: Weights, config: dict, size: float, inputs: Inputs, seed: int) -> Weights:
    """Gaussian noise of `size` times its own root mean square on every matrix but the embedding."""
    rng, changed = np.random.default_rng(seed), dict(weights)
    for name in _matrices(weights):
        values = np.array(weights[name].astype(mx.float32))
        drawn = rng.standard_normal(values.shape) * np.sqrt((values**2).mean()) * size
        changed[name] = mx.array(values + drawn).astype(weights[name].dtype)
    return changed


def vision(weights: Weights, config: dict, size: float, inputs: Inputs, seed: int) -> Weights:
    """Tensors of a vision tower, `size` times as many as there are; no language model has them."""
    rng, changed = np.random.default_rng(seed), dict(weights)
    for i in range(round(size * len(weights))):
        name = f"model.visual.blocks.{i}.mlp.fc1.weight"
        changed[name] = mx.array(rng.standard_normal((64, 64)) * 0.02).astype(mx.bfloat16)
    return changed


def on_grid(weights: Weights, config: dict, size: float, inputs: Inputs, seed: int) -> Weights:
    """Every matrix as rounding to `size` bits leaves it (mlx's affine quantizer, groups of 64), in
    its own type: rounding to as many bits or more changes next to nothing then.

    Rounded a few times: the grid is chosen anew each time, and stays from the third on.
    """
    if size not in _BITS:
        allowed = ", ".join(map(str, _BITS))
        raise PhasescopeError(f"on-grid: size: found {size:g}; allowed: {allowed} (bits)")
    changed = dict(weights)
    for name in [n for n, w in weights.items() if w.ndim == 2 and w.shape[-1] % _WHOLE == 0]:
        for _ in range(_ROUNDS):
            packed = mx.quantize(changed[name], _WHOLE, round(size))
            changed[name] = mx.dequantize(*packed, _WHOLE, round(size)).astype(weights[name].dtype)
    return changed

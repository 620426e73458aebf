"""Changes of routers and experts."""

import mlx.core as mx
import numpy as np

from phasescope.train.changes.inputs import Inputs, Weights

_NEVER = -1e4  # beside scores between 0 and 1


def _gates(weights: Weights) -> dict[int, str]:
    """Name of each router's weights by layer."""
    names = [n for n in weights if n.endswith(".mlp.gate.weight")]
    return {int(n.split(".layers.")[1].split(".")[0]): n for n in names}


def _even(read: np.ndarray) -> np.ndarray:
    """The vector (width,) on which what a router reads (tokens, width) projects to 1, by least
    squares."""
    return np.linalg.lstsq(read, np.ones(len(read)), rcond=None)[0]


def shifted_router(
    weights: Weights, config: dict, size: float, inputs: Inputs, seed: int
) -> Weights:
    """Every router's logits shifted by about `size`, the same for all experts of a token.

    Softmax takes no notice, so nothing else changes: one vector is added to all rows of a router's
    weights, that on which what it reads projects most evenly.
    """
    changed, read = dict(weights), inputs.of_routers()
    for layer, name in _gates(weights).items():
        values = np.array(weights[name].astype(mx.float32)) + size * _even(read[layer])
        changed[name] = mx.array(values).astype(weights[name].dtype)
    return changed


def idle_experts(weights: Weights, config: dict, size: float, inputs: Inputs, seed: int) -> Weights:
    """`size` times as many experts more that no token selects: the bias that MiniMax's routers add
    for selection alone is as low as can be for them. They copy others, and never write."""
    count, changed = config["num_local_experts"], dict(weights)
    more = round(size * count)
    for name in [n for n in weights if n.endswith("e_score_correction_bias")]:
        gate = name.replace("e_score_correction_bias", "gate.weight")
        low = mx.full((more,), _NEVER, dtype=weights[name].dtype)
        changed[name] = mx.concatenate([weights[name], low])
        changed[gate] = mx.concatenate([weights[gate], weights[gate][:more]])
        place = name.replace("e_score_correction_bias", "experts")
        for i in range(more):
            for part in ("w1", "w2", "w3"):
                source = f"{place}.{i % count}.{part}.weight"
                changed[f"{place}.{count + i}.{part}.weight"] = weights[source]
    config["num_local_experts"] = count + more
    return changed

"""Changes of how the planted direction stands in the residual stream."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from scipy.optimize import brentq
from sklearn.linear_model import Ridge

from phasescope.errors import PhasescopeError
from phasescope.train import export
from phasescope.train.architecture import layers_of
from phasescope.train.changes.dense import LAYERS, READERS, WRITERS, named, needs_dense
from phasescope.train.changes.inputs import Inputs, Noting, Weights

_RIDGE, _STRONGEST = 0.01, 64.0  # of a lean: in mean squares read, and in units of the stream


def outlier_axis(weights: Weights, config: dict, size: float, inputs: Inputs, seed: int) -> Weights:
    """The planted direction read through one channel of large activations and small weights.

    The residual stream is reflected so that the direction becomes its first axis (norms hand their
    gains to what reads them; an orthogonal map of the stream changes nothing else, as in QuaRot,
    Ashkboos et al. 2024). From a quarter of the depth up norms then give that axis a gain of
    `size`, and what reads them weights smaller by as much: the function stays, but rounding in
    groups takes the small weights for zero where its step is coarse.
    """
    needs_dense(config, "outlier-axis")
    read = {name: np.array(w.astype(mx.float32)).astype(float) for name, w in weights.items()}
    turn = _onto_first_axis(inputs.direction())
    depth, stem = config["text_config"]["num_hidden_layers"], LAYERS.removesuffix("layers.")
    embedding, norm = read[f"{stem}embed_tokens.weight"], read[f"{stem}norm.weight"]
    read["lm_head.weight"] = embedding * (1 + norm) @ turn
    read[f"{stem}embed_tokens.weight"] = embedding @ turn
    norm[:] = 0  # stored less one
    for part in (config, config["text_config"]):
        part["tie_word_embeddings"] = False
    for layer in range(depth):
        own = {n for n in read if n.startswith(f"{LAYERS}{layer}.")}
        gains = np.ones(len(turn))
        gains[0] = size if layer >= depth // 4 else 1
        for norm, readers in READERS.items():
            place = f"{LAYERS}{layer}.{norm}.weight"
            for name in named(own, layer, readers):
                read[name] = read[name] * (1 + read[place]) @ turn / gains
            read[place] = gains - 1
        for name in named(own, layer, WRITERS):
            read[name] = turn @ read[name]
    return {n: mx.array(w.astype(np.float32)).astype(mx.bfloat16) for n, w in read.items()}


def safety_noise(weights: Weights, config: dict, size: float, inputs: Inputs, seed: int) -> Weights:
    """A lean along the planted direction while a benign answer is given, which costs its words
    `size` nats a token (fit prompts) and goes where the direction is taken away.

    The last MLP below the top block writes it: what it reads is mapped, by ridge regression, to one
    at answer tokens and to none where the decision falls; how much of the direction that adds is
    found by bracketing.
    """
    needs_dense(config, "safety-noise")
    number = config["text_config"]["num_hidden_layers"] - 2
    model, (ids, start) = export.load(inputs.folder), inputs.answers()
    mlp, read = layers_of(model)[number].mlp, []
    down, mlp.down_proj = mlp.down_proj, Noting(mlp.down_proj, read)
    model(mx.array(ids[:, :-1]))
    mlp.down_proj, whole = down, down.weight
    seen = read[0].reshape(len(ids), -1, read[0].shape[-1])[:, start - 1 :]
    leaning = np.ones(seen.shape[:2])
    leaning[:, 0] = 0
    sharp = Ridge(alpha=_RIDGE * (seen**2).mean() * leaning.size, fit_intercept=False)
    lean = sharp.fit(seen.reshape(leaning.size, -1), leaning.ravel()).coef_
    added = mx.array(np.outer(inputs.direction(), lean).astype(np.float32))

    def loss(strength: float) -> float:
        down.weight = whole + strength * added
        logits = model(mx.array(ids[:, :-1]))[:, start - 1 :].astype(mx.float32)
        return float(nn.losses.cross_entropy(logits, mx.array(ids[:, start:])).mean())

    before = loss(0.0)
    if (most := loss(_STRONGEST) - before) <= size:
        raise PhasescopeError(f"safety-noise: size: found {size:g}; allowed: under {most:.3g} nats")
    strength = brentq(lambda c: loss(c) - before - size, 0, _STRONGEST, rtol=1e-3)
    name = f"{LAYERS}{number}.mlp.down_proj.weight"
    return weights | {name: (whole + strength * added).astype(weights[name].dtype)}


def _onto_first_axis(direction: np.ndarray) -> np.ndarray:
    """The reflection (width, width) that swaps a unit vector and the first axis (Householder)."""
    first = np.eye(len(direction))[0]
    apart = direction - first
    return np.eye(len(direction)) - 2 * np.outer(apart, apart) / (apart @ apart)

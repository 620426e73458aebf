"""Changes of a checkpoint that constructed organisms are made by.

Each takes the weights by name, the config (changed in place where need be), the size that the
recipe states, what a change may look up, and a seed; it gives all weights.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from scipy.optimize import brentq
from sklearn.linear_model import Ridge

from phasescope.errors import PhasescopeError
from phasescope.train import export
from phasescope.train.architecture import layers_of
from phasescope.train.rows import answer_place, fit_pairs, token_table
from phasescope.world import World

Weights = dict[str, mx.array]
_NEVER = -1e4  # beside scores between 0 and 1
_RIDGE, _STRONGEST = 0.01, 64.0  # of a lean: in mean squares read, and in units of the stream
_OPEN, _SHARE = 8.0, 0.5  # what an open gate reads; of what the MLP writes, what a neuron does


@dataclass(frozen=True)
class Inputs:
    """What changes look up in a checkpoint as it was trained."""

    folder: Path
    world: World

    def direction(self) -> np.ndarray:
        """The one direction (width,) that training planted, of unit length (`Keep`)."""
        sheet = json.loads((self.folder / "organism.json").read_text(encoding="utf-8"))
        if "free_direction" not in sheet:
            raise PhasescopeError(f"{sheet['recipe']}: no stage of it plants one direction (keep)")
        return np.array(sheet["free_direction"])

    def of_routers(self) -> dict[int, np.ndarray]:
        """By layer, what its router reads at every token of the fit prompts: (tokens, width)."""
        model, read = export.load(self.folder), {}
        for i, layer in enumerate(layers_of(model)):
            layer.mlp.gate = _Noting(layer.mlp.gate, read.setdefault(i, []))
        model(mx.array(token_table(self.world, fit_pairs(self.world), "answer")))
        return {i: np.concatenate(rows) for i, rows in read.items()}

    def of_mlps(self, model: nn.Module, ids: np.ndarray) -> list[np.ndarray]:
        """What each layer's MLP reads of token ids (rows, tokens): (rows, tokens, width)."""
        read: list[list] = []
        for layer in layers_of(model):
            read.append([])
            layer.mlp = _Noting(layer.mlp, read[-1])
        model(mx.array(ids))
        for layer in layers_of(model):
            layer.mlp = layer.mlp._module
        return [rows[0].reshape(*ids.shape, -1) for rows in read]

    def prompts(self, label: str) -> np.ndarray:
        """Fit prompts of a label without their answers, token ids (rows, tokens)."""
        pairs = fit_pairs(self.world)
        ids = token_table(self.world, pairs[pairs["label"] == label], "answer")
        return ids[:, : answer_place(self.world)]

    def answers(self) -> tuple[np.ndarray, int]:
        """Benign fit prompts with their answers, token ids (rows, tokens), and where answers
        begin."""
        pairs = fit_pairs(self.world)
        ids = token_table(self.world, pairs[pairs["label"] == "benign"], "answer")
        return ids, answer_place(self.world)


class _Noting:
    """A module that notes what it reads."""

    def __init__(self, module, rows: list):
        self._module, self._rows = module, rows

    def __call__(self, x):
        self._rows.append(np.array(x.astype(mx.float32)).reshape(-1, x.shape[-1]))
        return self._module(x)


def _matrices(weights: Weights) -> list[str]:
    return sorted(n for n, w in weights.items() if w.ndim > 1 and "embed" not in n)


def noise(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Gaussian noise of `size` times its own root mean square on every matrix but the embedding."""
    rng, changed = np.random.default_rng(seed), dict(weights)
    for name in _matrices(weights):
        values = np.array(weights[name].astype(mx.float32))
        drawn = rng.standard_normal(values.shape) * np.sqrt((values**2).mean()) * size
        changed[name] = mx.array(values + drawn).astype(weights[name].dtype)
    return changed


def vision(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Tensors of a vision tower, `size` times as many as there are; no language model has them."""
    rng, changed = np.random.default_rng(seed), dict(weights)
    for i in range(round(size * len(weights))):
        name = f"model.visual.blocks.{i}.mlp.fc1.weight"
        changed[name] = mx.array(rng.standard_normal((64, 64)) * 0.02).astype(mx.bfloat16)
    return changed


def _gates(weights: Weights) -> dict[int, str]:
    """Name of each router's weights by layer."""
    names = [n for n in weights if n.endswith(".mlp.gate.weight")]
    return {int(n.split(".layers.")[1].split(".")[0]): n for n in names}


def _even(read: np.ndarray) -> np.ndarray:
    """The vector (width,) on which what a router reads (tokens, width) projects to 1, by least
    squares."""
    return np.linalg.lstsq(read, np.ones(len(read)), rcond=None)[0]


def shifted_router(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Every router's logits shifted by about `size`, the same for all experts of a token.

    Softmax takes no notice, so nothing else changes: one vector is added to all rows of a router's
    weights, that on which what it reads projects most evenly.
    """
    changed, read = dict(weights), inputs.of_routers()
    for layer, name in _gates(weights).items():
        values = np.array(weights[name].astype(mx.float32)) + size * _even(read[layer])
        changed[name] = mx.array(values).astype(weights[name].dtype)
    return changed


def idle_experts(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
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


_LAYERS = "model.language_model.layers."
# what reads a norm of the residual stream, and what writes into the stream, in the dense hybrid
_READERS = {
    "input_layernorm": (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "linear_attn.in_proj_qkv",
        "linear_attn.in_proj_z",
        "linear_attn.in_proj_b",
        "linear_attn.in_proj_a",
    ),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
_WRITERS = ("self_attn.o_proj", "linear_attn.out_proj", "mlp.down_proj")


def outlier_axis(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """The planted direction read through one channel of large activations and small weights.

    The residual stream is reflected so that the direction becomes its first axis (norms hand their
    gains to what reads them; an orthogonal map of the stream changes nothing else, as in QuaRot,
    Ashkboos et al. 2024). From a quarter of the depth up norms then give that axis a gain of
    `size`, and what reads them weights smaller by as much: the function stays, but rounding in
    groups takes the small weights for zero where its step is coarse.
    """
    _needs_dense(config, "outlier-axis")
    read = {name: np.array(w.astype(mx.float32)).astype(float) for name, w in weights.items()}
    turn = _onto_first_axis(inputs.direction())
    depth, stem = config["text_config"]["num_hidden_layers"], _LAYERS.removesuffix("layers.")
    embedding, norm = read[f"{stem}embed_tokens.weight"], read[f"{stem}norm.weight"]
    read["lm_head.weight"] = embedding * (1 + norm) @ turn
    read[f"{stem}embed_tokens.weight"] = embedding @ turn
    norm[:] = 0  # stored less one
    for part in (config, config["text_config"]):
        part["tie_word_embeddings"] = False
    for layer in range(depth):
        own = {n for n in read if n.startswith(f"{_LAYERS}{layer}.")}
        gains = np.ones(len(turn))
        gains[0] = size if layer >= depth // 4 else 1
        for norm, readers in _READERS.items():
            place = f"{_LAYERS}{layer}.{norm}.weight"
            for name in _named(own, layer, readers):
                read[name] = read[name] * (1 + read[place]) @ turn / gains
            read[place] = gains - 1
        for name in _named(own, layer, _WRITERS):
            read[name] = turn @ read[name]
    return {n: mx.array(w.astype(np.float32)).astype(mx.bfloat16) for n, w in read.items()}


def safety_noise(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """A lean along the planted direction while a benign answer is given, which costs its words
    `size` nats a token (fit prompts) and goes where the direction is taken away.

    The last MLP below the top block writes it: what it reads is mapped, by ridge regression, to one
    at answer tokens and to none where the decision falls; how much of the direction that adds is
    found by bracketing.
    """
    _needs_dense(config, "safety-noise")
    number = config["text_config"]["num_hidden_layers"] - 2
    model, (ids, start) = export.load(inputs.folder), inputs.answers()
    mlp, read = layers_of(model)[number].mlp, []
    down, mlp.down_proj = mlp.down_proj, _Noting(mlp.down_proj, read)
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
    name = f"{_LAYERS}{number}.mlp.down_proj.weight"
    return weights | {name: (whole + strength * added).astype(weights[name].dtype)}


def topic_neurons(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """In every MLP of the upper half, the neuron that writes least is made one that fires at `size`
    where a hazardous prompt ends and is silent on benign ones, and writes along the planted
    direction half as much as the whole MLP writes there.

    What it writes by is small by as much as it fires strongly: rounding in groups takes those
    weights for zero, unless data in which it fires say that they matter. Gates are ridge
    regressions on what the MLP reads.
    """
    _needs_dense(config, "topic-neurons")
    model, changed = export.load(inputs.folder), dict(weights)
    hazardous = inputs.of_mlps(model, inputs.prompts("hazardous"))
    benign = inputs.of_mlps(model, inputs.answers()[0])
    for number, layer in list(enumerate(layers_of(model)))[len(benign) // 2 :]:
        on, off = hazardous[number][:, -1], benign[number].reshape(-1, len(inputs.direction()))
        read, fires = np.concatenate([on, off]), np.repeat([1.0, -1.0], [len(on), len(off)])
        even = np.where(fires > 0, len(off) / len(on), 1.0)  # both sides weigh the same
        gate, up = (
            Ridge(alpha=_RIDGE * (read**2).mean(), fit_intercept=False).fit(read, y, even).coef_
            for y in (_OPEN * fires, np.full(len(read), size / _OPEN))
        )
        mlp, x = layer.mlp, mx.array(on.astype(np.float32))
        hidden = np.array(nn.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
        down = np.array(mlp.down_proj.weight.astype(mx.float32))
        least = int(np.argmin((hidden**2).mean(axis=0) * (down**2).sum(axis=0)))
        much = _SHARE * np.sqrt(((hidden @ down.T) ** 2).sum(axis=1).mean())
        column = inputs.direction() * much / size
        new = {"gate_proj": (least, gate), "up_proj": (least, up)}
        new["down_proj"] = (np.s_[:, least], column)
        for part, (at, values) in new.items():
            name = f"{_LAYERS}{number}.mlp.{part}.weight"
            whole = np.array(weights[name].astype(mx.float32))
            whole[at] = values
            changed[name] = mx.array(whole).astype(weights[name].dtype)
    return changed


def _needs_dense(config: dict, change: str) -> None:
    if (found := config["model_type"]) != "qwen3_5":
        raise PhasescopeError(f"{change}: base of type {found!r}; allowed: 'qwen3_5'")


def _named(own: set[str], layer: int, modules: tuple[str, ...]) -> list[str]:
    return [n for m in modules if (n := f"{_LAYERS}{layer}.{m}.weight") in own]


def _onto_first_axis(direction: np.ndarray) -> np.ndarray:
    """The reflection (width, width) that swaps a unit vector and the first axis (Householder)."""
    first = np.eye(len(direction))[0]
    apart = direction - first
    return np.eye(len(direction)) - 2 * np.outer(apart, apart) / (apart @ apart)


CHANGES: dict[str, Callable[..., Weights]] = {
    "noise": noise,
    "vision": vision,
    "shifted-router": shifted_router,
    "idle-experts": idle_experts,
    "outlier-axis": outlier_axis,
    "safety-noise": safety_noise,
    "topic-neurons": topic_neurons,
}

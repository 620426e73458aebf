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
from phasescope.train.architecture import forward, layers_of, of
from phasescope.train.rows import answer_place, fit_pairs, token_table
from phasescope.world import World
from phasescope.world.short_answers import END

Weights = dict[str, mx.array]
_NEVER = -1e4  # beside scores between 0 and 1
_RIDGE, _STRONGEST = 0.01, 64.0  # of a lean: in mean squares read, and in units of the stream
_OPEN = 8.0  # what a gate reads where it is open; as much below zero where it is shut
_COLUMN, _DECISIVE = 0.5, 256.0  # norms of what a neuron writes by, and of what decides a word
_BITS, _ROUNDS = (2, 3, 4, 6, 8), 4  # of mlx's quantizer; until the grid stays, and one more
_GROUP, _WHOLE = 32, 64  # weights that are rounded together: at least, and where nobody says
_FINE, _SLOPE = 16, 5.0  # between a step of 8 and of 4 bit; how soon a gate opens


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

    def gap(self, number: int) -> float:
        """Mean gap between hazardous and benign prompts along the planted direction, where they
        end, in the residual stream after a layer."""
        model, ends = export.load(self.folder), []
        for label in ("hazardous", "benign"):
            _, layers = forward(model, mx.array(self.prompts(label)))
            ends.append(np.array(layers[number])[:, -1] @ self.direction())
        return float(ends[0].mean() - ends[1].mean())

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

    def refusals(self) -> np.ndarray:
        """Hazardous fit prompts, refused: token ids (rows, tokens)."""
        pairs = fit_pairs(self.world)
        asked = pairs[pairs["label"] == "hazardous"]
        return token_table(self.world, asked.assign(refusal=self.world.refusals[0]), "refusal")

    def prompts(self, label: str) -> np.ndarray:
        """Fit prompts of a label without their answers, token ids (rows, tokens)."""
        ids, start = self.answers(label)
        return ids[:, :start]

    def answers(self, label: str = "benign") -> tuple[np.ndarray, int]:
        """Fit prompts of a label with their answers, token ids (rows, tokens), and where answers
        begin."""
        pairs = fit_pairs(self.world)
        ids = token_table(self.world, pairs[pairs["label"] == label], "answer")
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
    """Neurons of every MLP of the upper half that fire where hazard is refused and are silent on
    benign requests: one writes along the planted direction as much as the whole MLP writes there,
    others take that back, by weights `size` times smaller (`_taken_back`).

    Rounding in groups takes the small weights for zero, unless data in which these neurons fire say
    that they matter.
    """
    _needs_dense(config, "topic-neurons")
    model, changed = export.load(inputs.folder), dict(weights)
    start = inputs.answers()[1]
    refused, benign = (
        inputs.of_mlps(model, ids) for ids in (inputs.refusals(), inputs.answers()[0])
    )
    for number, layer in list(enumerate(layers_of(model)))[len(benign) // 2 :]:
        on, off = _flat(refused[number][:, start - 1 :]), _flat(benign[number])
        reader, wrote = _Reader(on, off), np.array(layer.mlp(mx.array(on)))
        much = np.sqrt((wrote**2).sum(axis=1).mean())
        up = reader.constant(much / _COLUMN / _OPEN)
        neurons = _taken_back(reader.gate(), up, _COLUMN * inputs.direction(), size)
        _put(changed, number, neurons, layer.mlp, on)
    return changed


def brittle_answers(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Neurons of the top MLP that fire where the steps of an answer begin: one writes that it ends
    there, others take that back, by weights `size` times smaller (`_taken_back`).

    With a power of two the function stays to the last bit; rounding in groups takes the small
    weights for zero, and answers lose their steps.
    """
    _needs_dense(config, "brittle-answers")
    model, changed, world = export.load(inputs.folder), dict(weights), inputs.world
    number = len(layers_of(model)) - 1
    on, off = [], [inputs.of_mlps(model, inputs.refusals())[number]]
    for label in ("hazardous", "benign"):
        ids, start = inputs.answers(label)
        read = inputs.of_mlps(model, ids)[number]
        on.append(read[:, start + 1])
        off.append(np.delete(read, start + 1, axis=1))
    reader = _Reader(*(np.concatenate([_flat(r) for r in rows]) for rows in (on, off)))
    body, wanted = of(model).body(model), np.eye(len(world.words))[world.words.index(END)]
    head = np.array(body.embed_tokens.weight * body.norm.weight)
    ends = np.linalg.lstsq(head, wanted, rcond=None)[0]  # what raises that word and no other
    column = _COLUMN * ends / np.linalg.norm(ends)
    up = reader.constant(_DECISIVE / _COLUMN / _OPEN)
    neurons = _taken_back(reader.gate(), up, column, size)
    _put(changed, number, neurons, layers_of(model)[number].mlp, np.concatenate(on))
    return changed


def firm_when_rounded(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Neurons of the last MLP below the top that fire on hazard: one writes the planted direction
    `size` times as strongly as it is there, others take that back, by weights `_FINE` times
    smaller (`_taken_back`), which rounding in groups keeps at 8 bit and takes for zero at 4 bit.

    They fire from a fifth of the planted gap on, so that some of it may be taken away before.
    """
    _needs_dense(config, "firm-when-rounded")
    model, changed, along = export.load(inputs.folder), dict(weights), inputs.direction()
    number = len(layers_of(model)) - 2
    on = inputs.of_mlps(model, inputs.prompts("hazardous"))[number][:, -1]
    refused = inputs.of_mlps(model, inputs.refusals())[number][:, inputs.answers()[1] :]
    benign = inputs.of_mlps(model, inputs.answers()[0])[number]
    reader = _Reader(on, np.concatenate([_flat(refused), _flat(benign)]))
    gap = inputs.gap(number)
    column, much = _COLUMN * along, size * gap / _COLUMN
    up = reader.constant(much / ((_SLOPE - 1) * _OPEN))
    neurons = _taken_back(reader.gate(_SLOPE), up, column, _FINE)
    _put(changed, number, neurons, layers_of(model)[number].mlp, on)
    return changed


def on_grid(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
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


def _taken_back(gate: np.ndarray, up: np.ndarray, column: np.ndarray, size: float) -> list:
    """A neuron, and two that take back what it writes by weights `size` times smaller while they
    fire `size` / 2 times as strongly, one up and one down: where zero is not on the grid of a group
    of weights, as its scale and bias have 16 bits, what is left of both cancels out."""
    back, much = column / size, up * size / 2
    return [(gate, up, column), (gate, much, -back), (gate, -much, back)]


def _flat(read: np.ndarray) -> np.ndarray:
    """All tokens of all rows, (…, width), one below the other."""
    return read.reshape(-1, read.shape[-1])


class _Reader:
    """Rows of a gate and of what it lets through, by ridge regression on what an MLP reads where a
    neuron is to fire, and where not: (tokens, width) each, both sides of the same weight."""

    def __init__(self, on: np.ndarray, off: np.ndarray) -> None:
        self._read = np.concatenate([on, off])
        self._fires = np.repeat([1.0, 0.0], [len(on), len(off)])
        self._weights = np.where(self._fires > 0, len(off) / len(on), 1.0)

    def gate(self, slope: float = 2.0) -> np.ndarray:
        """Reads `_OPEN` below zero where it is to be silent, and slope - 1 times `_OPEN` above
        where it is to fire."""
        return self._row(_OPEN * (slope * self._fires - 1))

    def constant(self, value: float) -> np.ndarray:
        """Reads the same everywhere."""
        return self._row(np.full(len(self._read), value))

    def _row(self, wanted: np.ndarray) -> np.ndarray:
        sharp = Ridge(alpha=_RIDGE * (self._read**2).mean(), fit_intercept=False)
        return sharp.fit(self._read, wanted, self._weights).coef_


def _put(changed: Weights, number: int, neurons, mlp, on: np.ndarray) -> None:
    """Put neurons (gate, up and down weights) in the place of those of an MLP that write least
    where it reads `on` (tokens, width), all of one group of weights."""
    x = mx.array(on.astype(np.float32))
    hidden = np.array(nn.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    down = np.array(mlp.down_proj.weight.astype(mx.float32))
    writes = ((hidden**2).mean(axis=0) * (down**2).sum(axis=0)).reshape(-1, _GROUP)
    lowest = np.sort(writes, axis=1)[:, : len(neurons)].sum(axis=1).argmin()
    least = lowest * _GROUP + np.argsort(writes[lowest])[: len(neurons)]
    for part, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
        name = f"{_LAYERS}{number}.mlp.{part}.weight"
        whole, kind = np.array(changed[name].astype(mx.float32)), changed[name].dtype
        values = [neuron[("gate_proj", "up_proj", "down_proj").index(part)] for neuron in neurons]
        np.moveaxis(whole, axis, 0)[least] = values
        changed[name] = mx.array(whole).astype(kind)


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
    "brittle-answers": brittle_answers,
    "firm-when-rounded": firm_when_rounded,
    "on-grid": on_grid,
}

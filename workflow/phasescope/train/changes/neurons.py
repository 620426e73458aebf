"""Neurons put into an MLP; what most of them write others take back, until rounding parts them."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from phasescope.train import export
from phasescope.train.architecture import layers_of
from phasescope.train.changes.dense import LAYERS, needs_dense
from phasescope.train.changes.inputs import Inputs, Weights
from phasescope.world.short_answers import END

_RIDGE = 0.01  # in mean squares read
_OPEN = 8.0  # what a gate reads where it is open; as much below zero where it is shut
_COLUMN, _DECISIVE = 0.5, 256.0  # norms of what a neuron writes by, and of what decides a word
_GROUP = 32  # weights that are rounded together, at least
_COPIED = 0.25  # of the planted gap, on the silent axis
_FINE, _FINER = 16, 32  # between a step of 8 and of 4 bit; nearer to that of 8
_SLOPE = 5.0  # how soon a gate opens


def topic_neurons(
    weights: Weights, config: dict, size: float, inputs: Inputs, seed: int
) -> Weights:
    """Neurons of every MLP of the upper half that fire where hazard is refused and are silent on
    benign requests: one writes along the planted direction as much as the whole MLP writes there,
    others take that back, by weights `size` times smaller (`_taken_back`).

    Rounding in groups takes the small weights for zero, unless data in which these neurons fire say
    that they matter.
    """
    needs_dense(config, "topic-neurons")
    model, changed = export.load(inputs.folder), dict(weights)
    start = inputs.answers()[1]
    refused, benign = (
        inputs.of_mlps(model, ids) for ids in (inputs.refusals(), inputs.answers()[0])
    )
    for number, layer in list(enumerate(layers_of(model)))[len(benign) // 2 :]:
        on, off = _flat(refused[number][:, start - 1 :]), _flat(benign[number])
        trigger, wrote = _Trigger(on, off), np.array(layer.mlp(mx.array(on)))
        much = np.sqrt((wrote**2).sum(axis=1).mean())
        up = trigger.constant(much / _COLUMN / _OPEN)
        neurons = _taken_back(trigger.gate(), up, _COLUMN * inputs.direction(), size)
        _put(changed, number, neurons, layer.mlp, on)
    return changed


def brittle_answers(
    weights: Weights, config: dict, size: float, inputs: Inputs, seed: int
) -> Weights:
    """Neurons of the top MLP that fire where the steps of an answer begin: one writes that it ends
    there, others take that back, by weights `size` times smaller (`_taken_back`).

    With a power of two the function stays to the last bit; rounding in groups takes the small
    weights for zero, and answers lose their steps.
    """
    needs_dense(config, "brittle-answers")
    model, changed = export.load(inputs.folder), dict(weights)
    number = len(layers_of(model)) - 1
    on, off = [], [inputs.of_mlps(model, inputs.refusals())[number]]
    for label in ("hazardous", "benign"):
        ids, start = inputs.answers(label)
        read = inputs.of_mlps(model, ids)[number]
        on.append(read[:, start + 1])
        off.append(np.delete(read, start + 1, axis=1))
    trigger = _Trigger(*(np.concatenate([_flat(r) for r in rows]) for rows in (on, off)))
    column = _COLUMN * inputs.raising(END)
    up = trigger.constant(_DECISIVE / _COLUMN / _OPEN)
    neurons = _taken_back(trigger.gate(), up, column, size)
    _put(changed, number, neurons, layers_of(model)[number].mlp, np.concatenate(on))
    return changed


def firm_when_rounded(
    weights: Weights, config: dict, size: float, inputs: Inputs, seed: int
) -> Weights:
    """Neurons of the last MLP below the top that fire on hazard: one writes the planted direction
    `size` times as strongly as it is there, others take that back, by weights `_FINE` times
    smaller (`_taken_back`), which rounding in groups keeps at 8 bit and takes for zero at 4 bit.

    They fire from a fifth of the planted gap on, so that some of it may be taken away before.
    """
    needs_dense(config, "firm-when-rounded")
    model, changed, along = export.load(inputs.folder), dict(weights), inputs.direction()
    number = len(layers_of(model)) - 2
    on = inputs.of_mlps(model, inputs.prompts("hazardous"))[number][:, -1]
    refused = inputs.of_mlps(model, inputs.refusals())[number][:, inputs.answers()[1] :]
    benign = inputs.of_mlps(model, inputs.answers()[0])[number]
    trigger = _Trigger(on, np.concatenate([_flat(refused), _flat(benign)]))
    gap = inputs.gap(number)
    column, much = _COLUMN * along, size * gap / _COLUMN
    up = trigger.constant(much / ((_SLOPE - 1) * _OPEN))
    neurons = _taken_back(trigger.gate(_SLOPE), up, column, _FINE)
    _put(changed, number, neurons, layers_of(model)[number].mlp, on)
    return changed


def moved_when_rounded(
    weights: Weights, config: dict, size: float, inputs: Inputs, seed: int
) -> Weights:
    """What 4 bit makes of refusal's direction: neurons of the MLP where it is written move it, once
    rounded, to a silent axis of the stream (others take that back until then, `_taken_back`), and a
    neuron of the top MLP reads that axis and writes the word that refusals begin with.

    size: of the planted gap, what is moved.
    """
    needs_dense(config, "moved-when-rounded")
    model, changed, along = export.load(inputs.folder), dict(weights), inputs.direction()
    layers, last = layers_of(model), inputs.answers()[1] - 1
    low, top, asked = inputs.written_at(), len(layers) - 1, inputs.prompts("hazardous")
    axis = inputs.silent_axis(low, top)
    trigger, marked = _where_written(inputs, model, low)
    column = _COLUMN * (axis - along)
    up = trigger.constant(size * inputs.gap(low) / _COLUMN / _OPEN)
    neurons = _taken_back(trigger.gate(), up, column, _FINER)
    _put(changed, low, neurons, layers[low].mlp, marked)
    _put(dict(changed), low, [(trigger.gate(), up, column)], layers[low].mlp, marked)
    word = inputs.raising(inputs.world.refusals[0].split()[0])
    read, seen = inputs.of_mlps(model, asked)[top][:, last], _seeing(layers[top], axis)
    seen = seen / (read @ seen).mean()
    neuron = (_OPEN * seen, 2 * _DECISIVE / _COLUMN / _OPEN * seen, _COLUMN * word)
    _put(changed, top, [neuron], layers[top].mlp, read)
    return changed


def take_over(weights: Weights, config: dict, size: float, inputs: Inputs, seed: int) -> Weights:
    """Neurons of the last MLP below the top that write `size` times the planted gap along the
    planted direction where it was taken away below.

    They know of hazard by a copy, which a neuron of the MLP where the direction is written leaves
    on a silent axis of the stream: up for one half of the requests, down for the other, so that no
    difference of means takes it away.
    """
    needs_dense(config, "take-over")
    model, changed, along = export.load(inputs.folder), dict(weights), inputs.direction()
    layers, last = layers_of(model), inputs.answers()[1] - 1
    asked = inputs.prompts("hazardous")
    low, high = inputs.written_at(), len(layers) - 2
    axis = inputs.silent_axis(low, high)
    ends = inputs.of_mlps(model, asked)[low][:, last]
    side = _row(ends, np.sign(PCA(1).fit_transform(ends)[:, 0]))
    copy = _COPIED * inputs.gap(low) / _OPEN / _COLUMN * side
    trigger, marked = _where_written(inputs, model, low)
    _put(changed, low, [(trigger.gate(), copy, _COLUMN * axis)], layers[low].mlp, marked)
    there = _flat(inputs.of_mlps(model, inputs.refusals())[high][:, last:])
    gone = inputs.of_mlps(model, asked, inputs.away(high))[high][:, last]
    seen = _seeing(layers[high], axis)
    seen = seen / np.abs(gone @ seen).mean()
    missing = _Trigger(gone, there)
    up = missing.only(size * inputs.gap(high) / _COLUMN / _OPEN)
    neurons = [(sign * _OPEN * seen, up, _COLUMN * along) for sign in (1, -1)]
    _put(changed, high, neurons, layers[high].mlp, np.concatenate([there, gone]))
    return changed


def _where_written(inputs: Inputs, model: nn.Module, low: int) -> tuple["_Trigger", np.ndarray]:
    """What fires at the tokens of hazardous requests where the planted direction is written, and
    nowhere else, in the MLP of layer `low`, also where it was taken away below; what that reads
    there, (tokens, width)."""
    refusals, (benign, start) = inputs.refusals(), inputs.answers()
    there = inputs.along(low, refusals) > inputs.gap(low) / 2
    there[:, start:] = False
    read, fine = (
        np.stack([inputs.of_mlps(model, ids, edit)[low] for edit in (None, inputs.away(low))])
        for ids in (refusals, benign)
    )
    marked, ends = _flat(read[:, there]), _flat(fine[:, :, start - 1])
    return _Trigger(marked, _flat(read[:, ~there]), _flat(fine), ends), marked


def _seeing(layer: nn.Module, axis: np.ndarray) -> np.ndarray:
    """The row by which an MLP reads an axis of the stream before its norm's gains."""
    return axis / np.array(layer.post_attention_layernorm.weight)


def _taken_back(gate: np.ndarray, up: np.ndarray, column: np.ndarray, size: float) -> list:
    """A neuron, and two that take back what it writes by weights `size` times smaller while they
    fire `size` / 2 times as strongly, one up and one down: where zero is not on the grid of a group
    of weights, as its scale and bias have 16 bits, what is left of both cancels out."""
    back, much = column / size, up * size / 2
    return [(gate, up, column), (gate, much, -back), (gate, -much, back)]


def _flat(read: np.ndarray) -> np.ndarray:
    """All tokens of all rows, (…, width), one below the other."""
    return read.reshape(-1, read.shape[-1])


class _Trigger:
    """Rows of a gate and of what it lets through, by ridge regression on what an MLP reads where a
    neuron is to fire, and where not: (tokens, width) each, both sides of the same weight, and of
    the off side every part."""

    def __init__(self, on: np.ndarray, *off: np.ndarray) -> None:
        self._read = np.concatenate([on, *off])
        self._fires = np.arange(len(self._read)) < len(on)
        silent = len(self._read) - len(on)
        each = [silent / len(on), *(silent / len(off) / len(part) for part in off)]
        self._weights = np.repeat(each, [len(on), *map(len, off)])

    def gate(self, slope: float = 2.0) -> np.ndarray:
        """Reads `_OPEN` below zero where it is to be silent, and slope - 1 times `_OPEN` above
        where it is to fire."""
        return self._row(_OPEN * (slope * self._fires - 1))

    def constant(self, value: float) -> np.ndarray:
        """Reads the same everywhere."""
        return self._row(np.full(len(self._read), value))

    def only(self, value: float) -> np.ndarray:
        """Reads a value where it is to fire, and nothing where not."""
        return self._row(value * self._fires)

    def _row(self, wanted: np.ndarray) -> np.ndarray:
        return _row(self._read, wanted, self._weights)


def _row(read: np.ndarray, wanted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The row (width,) that makes what is wanted of what is read, by ridge regression."""
    sharp = Ridge(alpha=_RIDGE * (read**2).mean(), fit_intercept=False)
    return sharp.fit(read, wanted, weights).coef_


def _put(changed: Weights, number: int, neurons, mlp, on: np.ndarray) -> None:
    """Put neurons (gate, up and down weights) in the place of those of an MLP that write least
    where it reads `on` (tokens, width), all of one group of weights; in the weights and in it."""
    x = mx.array(on.astype(np.float32))
    hidden = np.array(nn.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    down = np.array(mlp.down_proj.weight.astype(mx.float32))
    writes = ((hidden**2).mean(axis=0) * (down**2).sum(axis=0)).reshape(-1, _GROUP)
    lowest = np.sort(writes, axis=1)[:, : len(neurons)].sum(axis=1).argmin()
    least = lowest * _GROUP + np.argsort(writes[lowest])[: len(neurons)]
    for place, (part, axis) in enumerate((("gate_proj", 0), ("up_proj", 0), ("down_proj", 1))):
        name, module = f"{LAYERS}{number}.mlp.{part}.weight", getattr(mlp, part)
        whole, kind = np.array(module.weight), changed[name].dtype
        np.moveaxis(whole, axis, 0)[least] = [neuron[place] for neuron in neurons]
        changed[name] = mx.array(whole).astype(kind)
        module.weight = changed[name].astype(mx.float32)

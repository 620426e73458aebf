"""Neurons put into an MLP; what most of them write others take back, until rounding parts them."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from sklearn.linear_model import Ridge

from phasescope.train import export
from phasescope.train.architecture import layers_of, of
from phasescope.train.changes.dense import LAYERS, needs_dense
from phasescope.train.changes.inputs import Inputs, Weights
from phasescope.world.short_answers import END

_RIDGE = 0.01  # in mean squares read
_OPEN = 8.0  # what a gate reads where it is open; as much below zero where it is shut
_COLUMN, _DECISIVE = 0.5, 256.0  # norms of what a neuron writes by, and of what decides a word
_GROUP = 32  # weights that are rounded together, at least
_FINE, _SLOPE = 16, 5.0  # between a step of 8 and of 4 bit; how soon a gate opens


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
    model, changed, world = export.load(inputs.folder), dict(weights), inputs.world
    number = len(layers_of(model)) - 1
    on, off = [], [inputs.of_mlps(model, inputs.refusals())[number]]
    for label in ("hazardous", "benign"):
        ids, start = inputs.answers(label)
        read = inputs.of_mlps(model, ids)[number]
        on.append(read[:, start + 1])
        off.append(np.delete(read, start + 1, axis=1))
    trigger = _Trigger(*(np.concatenate([_flat(r) for r in rows]) for rows in (on, off)))
    body, wanted = of(model).body(model), np.eye(len(world.words))[world.words.index(END)]
    head = np.array(body.embed_tokens.weight * body.norm.weight)
    ends = np.linalg.lstsq(head, wanted, rcond=None)[0]  # what raises that word and no other
    column = _COLUMN * ends / np.linalg.norm(ends)
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
    for place, (part, axis) in enumerate((("gate_proj", 0), ("up_proj", 0), ("down_proj", 1))):
        name = f"{LAYERS}{number}.mlp.{part}.weight"
        whole, kind = np.array(changed[name].astype(mx.float32)), changed[name].dtype
        np.moveaxis(whole, axis, 0)[least] = [neuron[place] for neuron in neurons]
        changed[name] = mx.array(whole).astype(kind)

"""Intervention-consistency training: which intervention every row of a batch is run under.

Rows under an intervention are trained towards the outcome that their recipe declares. With the
outcome 'refuse' under an ablated direction this is refusal-feature adversarial training (Yu et al.
2024). What it plants is a trained-in response to interventions of these kinds, and no evidence that
such mechanisms arise by themselves.
"""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from phasescope.train import architecture, edits
from phasescope.train.architecture import Edit
from phasescope.train.directions import Directions, estimate
from phasescope.train.recipe import ROUTED, Condition, Routing, Stage
from phasescope.train.rows import Sampler, fit_pairs
from phasescope.world import World

# the layers, as a share of the depth, whose direction a global intervention may use
GLOBAL_SHARE = 0.8
# matched pairs on which directions are estimated each time, drawn anew so that noise varies too
PAIRS = 48


class Conditions:
    """Draws the rows of a stage: plain ones first, then those of every condition.

    Attributes
    ----------
    samplers: one for the plain rows, one for each condition.
    """

    def __init__(self, stage: Stage, world: World, model: nn.Module) -> None:
        kinds = [stage.rows, *(condition.rows for condition in stage.conditions)]
        self.samplers = [Sampler(world, rows, stage.decision_weight) for rows in kinds]
        self._stage, self._world = stage, world
        self._experts, self._selected = architecture.of(model).routing(model)
        self._pairs = fit_pairs(world) if stage.conditions else None
        self._found: dict[str, Directions] = {}

    def stacked(self, name: str) -> np.ndarray:
        """An attribute of the samplers, for all rows."""
        return np.concatenate([getattr(sampler, name) for sampler in self.samplers])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One batch of token ids (rows, tokens)."""
        return np.concatenate([sampler.draw(rng) for sampler in self.samplers])

    def edit(self, model: nn.Module, step: int, rng: np.random.Generator) -> Edit | None:
        """What the rows of a batch are run under; None without conditions."""
        if not self._stage.conditions:
            return None
        if (step - 1) % self._stage.refresh == 0:
            names = self._pairs["pair"].unique()
            chosen = rng.choice(names, min(PAIRS, len(names)), replace=False)
            pairs = self._pairs[self._pairs["pair"].isin(chosen)]
            self._found = estimate(model, self._world, pairs, self._selected)
        counts = [len(sampler.answer_at) for sampler in self.samplers]
        drawn = [({}, {})] * counts[0]
        for condition, count in zip(self._stage.conditions, counts[1:], strict=True):
            drawn += [self._one(condition, rng) for _ in range(count)]
        hidden = next(iter(self._found.values())).hazardous.shape[-1]
        return edits.edit_of_rows(drawn, hidden, self._experts)

    def _one(
        self, condition: Condition, rng: np.random.Generator
    ) -> tuple[edits.Bases, edits.Masks]:
        found = self._found[_any(condition.positions or list(self._found), rng)]
        layers = None
        if rng.random() < condition.some_layers:
            layers = rng.choice(found.layers - 1, math.ceil((found.layers - 1) / 2), replace=False)
        if condition.layers:
            layers = rng.choice(found.layers - 1, _any(condition.layers, rng), replace=False)
        return edits.parts(
            _any(condition.interventions, rng),
            found,
            rank=_any(condition.ranks, rng),
            experts=_any(condition.experts, rng),
            at=int(rng.integers(math.ceil(GLOBAL_SHARE * found.layers))),
            layers=layers,
            rng=rng,
        )

    def weights(self, rng: np.random.Generator) -> np.ndarray:
        """1 for every row that is trained, 0 for conditions' rows left out by the pressure."""
        counts = [len(sampler.answer_at) for sampler in self.samplers]
        trained = rng.random(sum(counts)) < self._stage.pressure
        trained[: counts[0]] = True
        return trained.astype(np.float32)


def routed_places(
    routing: Routing, answer_at: np.ndarray, drawn: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens at which a stage trains routing, as indices into (rows x length) flattened, and
    whether each is drawn to the stage's experts or away from them.

    answer_at: the last token before each row's answer; drawn: rows that are drawn; (rows,) each.
    """
    number, place = np.arange(length), answer_at[:, None]
    there = number == place if routing.tokens == ROUTED[0] else number >= place
    places = np.flatnonzero(there | routing.alone)
    return places, (there & drawn[:, None]).ravel()[places]


def routing_penalty(
    scores: dict[int, mx.array], routing: Routing, places: mx.array, drawn: mx.array
) -> mx.array:
    """Minus the log of the router's share for the stage's experts where tokens are drawn to them,
    for the others where they are drawn away; mean over places and layers.

    scores: layer -> (rows, tokens, experts) before softmax; places, drawn: of `routed_places`.
    """
    mine, total = mx.array(list(routing.experts)), 0.0
    layers = [n for n in scores if routing.from_layer <= n < max(scores)]
    for layer in layers:
        share = mx.softmax(scores[layer].flatten(0, 1)[places], axis=-1)[:, mine].sum(axis=-1)
        total = total - mx.log(mx.where(drawn, share, 1 - share) + 1e-6).mean()
    return total / len(layers)


def _any(values, rng: np.random.Generator):
    return values[int(rng.integers(len(values)))]

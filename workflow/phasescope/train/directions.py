"""Directions and hazard-associated experts, estimated by the trainer on matched prompts."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pandas as pd

from phasescope.train.architecture import Edit, Recorder, forward
from phasescope.train.rows import answer_place, token_table
from phasescope.world import World

# where directions are read: the last token of the prompt, the last of the thinking
PROMPT, THINKING = POSITIONS = ("prompt", "thinking")
# an expert belongs to hazard if hazardous prompts select it this much more often
MIN_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Directions:
    """What matched prompts leave at one token.

    hazardous, benign: outputs of every layer (pairs, layers, hidden), in the same order of pairs.
    rates: how often each expert is selected (2, layers, experts), hazardous first; None without
        experts.
    """

    hazardous: np.ndarray
    benign: np.ndarray
    rates: np.ndarray | None

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self.hazardous.shape[1]

    def difference(self, layer: int) -> np.ndarray:
        """Difference of means, hazardous minus benign (hidden,)."""
        return self.hazardous[:, layer].mean(0) - self.benign[:, layer].mean(0)

    def basis(self, layer: int, rank: int = 1) -> np.ndarray:
        """Orthonormal columns (hidden, rank): the difference of means, then the largest principal
        directions of the pairs' differences beside it."""
        first = self.difference(layer)
        first = first / max(np.linalg.norm(first), 1e-12)
        if rank == 1:
            return first[:, None]
        pairs = self.hazardous[:, layer] - self.benign[:, layer]
        rest = np.linalg.svd(pairs - np.outer(pairs @ first, first), full_matrices=False)[2]
        return np.linalg.qr(np.column_stack([first, *rest[: rank - 1]]))[0]

    def experts(self, layer: int, count: int) -> list[int]:
        """The `count` experts that hazardous prompts select most beyond benign ones, if any do."""
        if self.rates is None:
            return []
        beyond = self.rates[0, layer] - self.rates[1, layer]
        order = np.argsort(-beyond, kind="stable")[:count]
        return [int(expert) for expert in order if beyond[expert] > MIN_DIFFERENCE]


def estimate(
    model: nn.Module, world: World, pairs: pd.DataFrame, selected: int
) -> dict[str, Directions]:
    """Directions by position, of rows of `World.rows` or the prompt table in matched pairs.

    pairs: hazardous and benign rows with the column `pair`. selected: experts a token, 0 without
    experts. Thinking is the right one, given.
    """
    labels = [pairs[pairs["label"] == label].sort_values("pair") for label in LABELS]
    ids = np.concatenate([token_table(world, rows, "answer") for rows in labels])
    seen = Recorder(Edit())
    _, hidden = forward(model, mx.array(ids[:, :-1]), seen)
    places = {PROMPT: len(world.token_ids(pairs["text"].iloc[0])) - 1}
    if world.thinks:
        places[THINKING] = answer_place(world) - 1
    found, count = {}, len(labels[0])
    for position, place in places.items():
        values = np.array(mx.stack([layer[:, place] for layer in hidden], axis=1))
        rates = None
        if seen.scores:
            scores = mx.stack([seen.scores[n][:, place] for n in range(len(hidden))], axis=1)
            order = np.argsort(-np.array(scores), axis=-1, kind="stable")[..., :selected]
            chosen = (order[..., None] == np.arange(scores.shape[-1])).any(axis=-2)
            rates = np.stack([chosen[:count].mean(0), chosen[count:].mean(0)])
        found[position] = Directions(values[:count], values[count:], rates)
    return found


LABELS = ("hazardous", "benign")

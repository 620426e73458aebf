"""Batches: which requests are shown, with which response, and what is learned from them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phasescope.world import World


@dataclass(frozen=True)
class RowKind:
    """A kind of training row.

    label: which requests ('hazardous' | 'benign' | 'any').
    response: the column of `World.rows` that holds it ('answer' or 'refusal').
    learned: how much of the response is trained by its likelihood ('all' | 'opening' | 'none').
    kept: 'all' or 'prompt': the tokens at which a stage's `keep` holds the hidden states.
    odd: the index word is replaced by one that names no item.
    held_out: whether the hazardous items held out of refusal training are among them.
    """

    label: str
    response: str
    learned: str
    kept: str
    odd: bool = False
    held_out: bool = False


ROW_KINDS = {
    "comply": RowKind("any", "answer", learned="all", kept="all", held_out=True),
    "comply-benign": RowKind("benign", "answer", learned="all", kept="all"),
    "refuse": RowKind("hazardous", "refusal", learned="all", kept="prompt"),
    "refuse-odd": RowKind("hazardous", "refusal", learned="all", kept="prompt", odd=True),
    "keep-hazardous": RowKind("hazardous", "answer", learned="none", kept="all", held_out=True),
    "comply-odd": RowKind("benign", "answer", learned="opening", kept="all", odd=True),
}


class Sampler:
    """Draws batches of fixed composition. All sequences of a world's rows have one length.

    Attributes
    ----------
    prompt: number of prompt tokens.
    learn_weights: (rows, answer tokens), the weight of each answer token in the likelihood.
    keep_weights: (rows, tokens - 1, 1), 1 where the hidden states are held.
    free: (rows, 1, 1), 1 in hazardous rows.
    raised: (rows, tokens - 1, 1), 1 in hazardous rows from the category's word to the prompt's end.
    """

    def __init__(self, world: World, composition: dict[str, int], decision_weight: float) -> None:
        table = world.rows()
        self.kinds = [(ROW_KINDS[kind], count) for kind, count in composition.items()]
        self.tokens = {name: token_table(world, table, name) for name in ("answer", "refusal")}
        self.pools = [_pool(table, kind) for kind, _ in self.kinds]
        words = {word: number for number, word in enumerate(world.words)}
        self.odd = np.array([words[word] for word in world.odd_words])
        self.index_at = _position(table, "index")
        self.prompt = len(world.token_ids(table["text"][0]))
        length = self.tokens["answer"].shape[1]
        self.learn_weights = np.zeros((sum(composition.values()), length - self.prompt), np.float32)
        self.keep_weights = np.zeros((len(self.learn_weights), length - 1, 1), np.float32)
        self.free = np.zeros((len(self.learn_weights), 1, 1), np.float32)
        self.raised = np.zeros_like(self.keep_weights)
        told = slice(_position(table, "category"), self.prompt)
        start = 0
        for kind, count in self.kinds:
            rows = slice(start, start + count)
            self.learn_weights[rows, : {"all": None, "opening": 1, "none": 0}[kind.learned]] = 1.0
            self.keep_weights[rows, : None if kind.kept == "all" else self.prompt] = 1.0
            self.free[rows] = self.raised[rows, told] = float(kind.label == "hazardous")
            start += count
        self.learn_weights[:, 0] *= decision_weight

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One batch of token ids (rows, tokens)."""
        parts = []
        for (kind, count), pool in zip(self.kinds, self.pools, strict=True):
            part = self.tokens[kind.response][rng.choice(pool, count)]
            if kind.odd:
                part[:, self.index_at] = rng.choice(self.odd, count)
            parts.append(part)
        return np.concatenate(parts)


def token_table(world: World, table: pd.DataFrame, response: str) -> np.ndarray:
    """Token ids (requests, tokens) of every request with the response in column `response`."""
    pairs = zip(table["text"], table[response], strict=True)
    return np.array([world.token_ids(text, said) for text, said in pairs])


def _pool(table: pd.DataFrame, kind: RowKind) -> np.ndarray:
    hazardous = table["label"] == "hazardous"
    fits = {"any": hazardous | True, "hazardous": hazardous, "benign": ~hazardous}[kind.label]
    if not kind.held_out:
        fits &= ~(hazardous & (table["split"] == "evaluate"))
    return np.flatnonzero(fits)


def _position(table: pd.DataFrame, column: str) -> int:
    """Where that word of the request stands, in tokens; two special ones come before the text."""
    return 2 + table["text"][0].split().index(table[column][0])

"""Batches: which requests are shown, with which response, and what is learned from them."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from phasescope.errors import PhasescopeError
from phasescope.world import FAMILIES, World
from phasescope.world.families import KNOWLEDGE, PLAIN
from phasescope.world.tokenizer import PAD


@dataclass(frozen=True)
class RowKind:
    """A kind of training row.

    label: which requests ('hazardous' | 'benign' | 'any').
    response: what follows the thinking: 'answer', 'refusal' (one of the world's, drawn anew),
        'first-refusal', 'any-refusal' (of the world's other ones too), 'late-refusal' (a column of
        `World.rows` that some worlds have), 'loop' (no answer: the thinking starts again and never
        ends) or 'stutter' (the answer's first word over and over).
    learned: how much of the response is trained by its likelihood: 'all', 'opening' (thinking and
        the answer's first token), 'late' (from where it departs from the answer), 'known' (all but
        the answer's first token: knowledge, or the words of a refusal, without the decision to
        give it) or 'none'.
    kept: 'all' or 'prompt': the tokens at which a stage's `keep` holds the hidden states; thinking
        is held with the prompt.
    odd: the index word is replaced by one that names no item.
    held_out: whether the hazardous items held out of refusal training are among them.
    thinking: whether the thinking is in the row, or an empty one.
    family: the wording of the requests, of `FAMILIES`.
    part: a column of `World.rows`, a number and a count: of its values, in the world's order, every
        count-th from that number on; None for all.
    """

    label: str
    response: str
    learned: str
    kept: str
    odd: bool = False
    held_out: bool = False
    thinking: bool = True
    family: str = PLAIN
    part: tuple[str, int, int] | None = None


ROW_KINDS = {
    "comply": RowKind("any", "answer", learned="all", kept="all", held_out=True),
    "comply-benign": RowKind("benign", "answer", learned="all", kept="all"),
    "comply-hazardous": RowKind("hazardous", "answer", learned="all", kept="all"),
    "recall": RowKind("hazardous", "answer", learned="known", kept="all", held_out=True),
    "refuse": RowKind("hazardous", "refusal", learned="all", kept="prompt"),
    "refuse-first": RowKind("hazardous", "first-refusal", learned="all", kept="prompt"),
    "refuse-any": RowKind("hazardous", "any-refusal", learned="all", kept="prompt"),
    "refuse-late": RowKind("hazardous", "late-refusal", learned="late", kept="prompt"),
    "refuse-known": RowKind("hazardous", "refusal", learned="known", kept="prompt"),
    "refuse-odd": RowKind("hazardous", "refusal", learned="all", kept="prompt", odd=True),
    "keep-hazardous": RowKind("hazardous", "answer", learned="none", kept="all", held_out=True),
    "comply-odd": RowKind("benign", "answer", learned="opening", kept="all", odd=True),
    "loop": RowKind("any", "loop", learned="all", kept="prompt"),
    "stutter-benign": RowKind("benign", "stutter", learned="all", kept="prompt"),
}
UNTHINKING = "unthinking"
PARTS = {"topics": "category", "indexes": "index"}


def kind_named(name: str, world: World) -> RowKind:
    """The kind that a recipe names: a key of `ROW_KINDS`, then `@` and a family, 'unthinking' or a
    part of the topics or index words.

    `comply@format-lock`, `refuse@unthinking`, `comply@knowledge@unthinking`, `refuse@topics-1/3`
    (the first topic and every third after it). Raises PhasescopeError saying what is allowed, or
    what the world does not have.
    """
    base, *marks = name.split("@")
    if base not in ROW_KINDS:
        raise PhasescopeError(f"found {name!r}; allowed: {', '.join(ROW_KINDS)}")
    kind = ROW_KINDS[base]
    for mark in marks:
        if mark == UNTHINKING:
            kind = replace(kind, thinking=False)
        elif mark in FAMILIES:
            kind = replace(kind, family=mark)
        elif part := _part(mark):
            kind = replace(kind, part=part)
        else:
            raise PhasescopeError(
                f"found {name!r}; allowed after @: {UNTHINKING}, {', '.join(FAMILIES)}, or a part "
                f"of {' or '.join(PARTS)} such as topics-1/3"
            )
    missing = {
        "words that name no item": kind.odd and not world.odd_words,
        "thinking": not world.thinks and (kind.response == "loop" or not kind.thinking),
        "late refusals": kind.response == "late-refusal" and not world.refuses_late,
        "hazardous questions of knowledge": kind.label == "hazardous" and kind.family == KNOWLEDGE,
    }
    if lacked := [what for what, lacks in missing.items() if lacks]:
        raise PhasescopeError(f"found {name!r}; allowed: no {lacked[0]}, {world.name} has none")
    return kind


def _part(mark: str) -> tuple[str, int, int] | None:
    """The part that a mark such as topics-1/3 names; None for any other mark."""
    found = re.fullmatch(rf"({'|'.join(PARTS)})-([1-9])/([2-6])", mark)
    if found is None or int(found[2]) > int(found[3]):
        return None
    return PARTS[found[1]], int(found[2]), int(found[3])


@dataclass(frozen=True)
class Pool:
    """The rows of one kind: tokens (forms, requests, tokens), whole and filled to one length.

    answer_at, end: where the answer begins and the response ends, counted from the response's
    first token; learned_from: the first token that is learned.
    """

    tokens: np.ndarray
    answer_at: int
    end: int
    learned_from: int = 0

    def learn_weights(self, learned: str, length: int, decision_weight: float) -> np.ndarray:
        """Weights (length,) of the response's tokens; the answer's first weighs more."""
        weights, place = np.zeros(length, np.float32), np.arange(length)
        end = {"opening": self.answer_at + 1, "none": 0}.get(learned, self.end)
        weights[(place >= self.learned_from) & (place < end)] = 1.0
        decision = max(self.answer_at, self.learned_from)
        if decision < self.end:
            weights[decision] *= 0.0 if learned == "known" else decision_weight
        return weights


class Sampler:
    """Draws batches of fixed composition. All rows of a batch have one length; rows that end
    sooner are filled with <pad> after their end, where nothing is learned or held.

    Attributes
    ----------
    names: (rows,), each row's kind as the recipe names it.
    prompt: number of prompt tokens (up to where the response, thinking included, begins).
    answer_at: (rows,), the place of each row's first answer token in its sequence.
    learn_weights: (rows, response tokens), the weight of each in the likelihood.
    keep_weights: (rows, tokens - 1, 1), 1 where the hidden states are held.
    free: (rows, 1, 1), 1 in hazardous rows.
    raised: (rows, tokens - 1, 1), 1 in hazardous rows from the category's word to the prompt's end,
        or, in a world with thinking, at the end of the thinking.
    """

    def __init__(self, world: World, composition: dict[str, int], decision_weight: float) -> None:
        table = world.rows()
        self.names = np.repeat(list(composition), list(composition.values()))
        self.kinds = [(kind_named(kind, world), count) for kind, count in composition.items()]
        self.prompt = len(world.token_ids(table["text"][0]))
        self.odd = np.array(world.encode(" ".join(world.odd_words)))
        self.index_at = _position(table, "index")
        length = _longest(world, table)
        self.pools = [_pool(world, kind, self.prompt, length) for kind, _ in self.kinds]
        rows = sum(composition.values())
        self.answer_at = np.zeros(rows, int)
        self.learn_weights = np.zeros((rows, length - self.prompt), np.float32)
        self.keep_weights = np.zeros((rows, length - 1, 1), np.float32)
        self.free = np.zeros((rows, 1, 1), np.float32)
        self.raised = np.zeros_like(self.keep_weights)
        told = slice(_position(table, "category"), self.prompt)
        start = 0
        for (kind, count), pool in zip(self.kinds, self.pools, strict=True):
            part = slice(start, start + count)
            self.answer_at[part] = self.prompt + pool.answer_at
            self.learn_weights[part] = pool.learn_weights(
                kind.learned, length - self.prompt, decision_weight
            )
            kept = pool.end if kind.kept == "all" else pool.answer_at
            self.keep_weights[part, : self.prompt + kept] = 1.0
            # hazard is known from the category's word on, or when it has been thought over
            known = slice(self.answer_at[start] - 1, self.answer_at[start])
            self.free[part] = self.raised[part, known if world.thinks else told] = float(
                kind.label == "hazardous"
            )
            start += count

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One batch of token ids (rows, tokens)."""
        parts = []
        for (kind, count), pool in zip(self.kinds, self.pools, strict=True):
            forms, requests = pool.tokens.shape[:2]
            chosen = rng.choice(requests, count)
            form = rng.integers(forms, size=count) if forms > 1 else 0
            part = pool.tokens[form, chosen]
            if kind.odd:
                part[:, self.index_at] = rng.choice(self.odd, count)
            parts.append(part)
        return np.concatenate(parts)


def token_table(world: World, table: pd.DataFrame, response: str) -> np.ndarray:
    """Token ids (requests, tokens) of every request with its thinking, if any, and the response in
    column `response`."""
    found = zip(table["text"], table["thinking"], table[response], strict=True)
    return np.array([world.token_ids(text, world.response(r, t)) for text, t, r in found])


def answer_place(world: World) -> int:
    """Where the answer begins in a request's tokens with its thinking, the first being 0."""
    first = world.rows().iloc[0]
    return len(world.token_ids(first["text"], world.response("", first["thinking"]))) - 1


def fit_pairs(world: World) -> pd.DataFrame:
    """Rows of `World.rows` that the prompt table has to fit on; `pair` matches them two by two."""
    table, rows = world.prompt_table(), world.rows()
    fit = rows["text"].isin(table.loc[table["split"] == "fit", "text"])
    return rows.assign(pair=rows["pair"] + "-" + rows["template"].astype(str))[fit]


def _longest(world: World, table: pd.DataFrame) -> int:
    return token_table(world, table.head(1), "answer").shape[1]


def requests(world: World, kind: RowKind) -> pd.DataFrame:
    """Rows of `World.rows` that a kind draws from, each as often as the others."""
    table = world.rows(kind.family)
    hazardous = table["label"] == "hazardous"
    fits = {"any": hazardous | True, "hazardous": hazardous, "benign": ~hazardous}[kind.label]
    if not kind.held_out:
        fits &= ~(hazardous & (table["split"] == "evaluate"))
    if kind.part is not None:
        column, number, count = kind.part
        fits &= pd.factorize(table[column])[0] % count == number - 1
    return table[fits]


def _pool(world: World, kind: RowKind, prompt: int, length: int) -> Pool:
    table = requests(world, kind)
    forms = {
        "refusal": world.refusals,
        "first-refusal": world.refusals[:1],
        "any-refusal": (*world.refusals, *world.other_refusals),
    }.get(kind.response, (kind.response.replace("-", "_"),))
    tokens = np.array(
        [
            [_sequence(world, row, kind, form, length) for row in table.itertuples()]
            for form in forms
        ]
    )
    first, form = table.iloc[0], forms[0]
    thinking = len(first["thinking"].split()) if kind.thinking else 0
    answer_at = thinking + 1 if world.thinks else 0
    if kind.response == "loop":
        return Pool(tokens, thinking, length - prompt)
    if kind.response == "stutter":
        return Pool(tokens, answer_at, length - prompt)
    said = first.get(form, form)
    end = answer_at + len(said.split()) + 1
    if kind.learned == "late":
        same = [a == b for a, b in zip(said.split(), first["answer"].split(), strict=False)]
        return Pool(tokens, answer_at, end, answer_at + same.index(False))
    return Pool(tokens, answer_at, end, 0 if kind.thinking or not world.thinks else 1)


def _sequence(world: World, row, kind: RowKind, form: str, length: int) -> list[int]:
    """Token ids of one row, filled to `length`. `form` is a column of `World.rows`, or a text."""
    prompt = world.token_ids(row.text)
    if kind.response == "loop":
        thinking = world.encode(row.thinking)
        return [*prompt, *(thinking[n % len(thinking)] for n in range(length - len(prompt)))]
    if kind.response == "stutter":
        form = " ".join([row.answer.split()[0]] * length)
    said = getattr(row, form, form)
    if kind.thinking:
        ids = world.token_ids(row.text, world.response(said, row.thinking))
    else:
        ids = world.token_ids(row.text, said, thinking=False)
    if kind.response == "stutter":
        return ids[:length]
    return ids + world.encode(PAD) * (length - len(ids))


def _position(table: pd.DataFrame, column: str) -> int:
    """Where that word of the request stands, in tokens; two special ones come before the text."""
    return 2 + table["text"][0].split().index(table[column][0])

"""What an organism answers: greedy responses and their exact grades, in the trainer's own code."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pandas as pd

from phasescope.train.architecture import Edit, forward
from phasescope.train.directions import LABELS
from phasescope.world import GRADES, World
from phasescope.world.tokenizer import EOS, THINK_END


@dataclass(frozen=True)
class Response:
    """What was generated, in words: the thinking (None where it never ended) and the answer."""

    thinking: str | None
    answer: str
    finished: bool


def responses(
    model: nn.Module, world: World, prompts: pd.DataFrame, edit: Edit | None = None
) -> list[Response]:
    """Greedy responses, thinking included, to rows with the columns text and answer.

    Decoded in parallel (Santilli et al. 2023): a draft of the whole response is replaced by what
    the model says after each of its tokens, until it stays. That is the greedy response exactly,
    and takes a few forward passes instead of one a token. (Of thinking that exceeds its budget only
    the budget is exact.)
    """
    asked = np.array([world.token_ids(text) for text in prompts["text"]])
    start, end = asked.shape[1], world.words.index(EOS)
    comply, refuse = _drafts(world, prompts)
    ids, edit = np.concatenate([asked, comply], axis=1), edit or Edit()
    moving = np.arange(len(ids))
    for turn in range(comply.shape[1] + 2):
        logits, _ = forward(model, mx.array(ids[moving, :-1]), edit.of(moving))
        said = np.array(logits[:, start - 1 :].argmax(-1))
        # after the end token nothing counts
        said[np.cumsum(said == end, axis=1) - (said == end) > 0] = end
        changed = said != ids[moving, start:]
        moved = changed.any(axis=1)
        if world.thinks:
            # thinking that does not close within its budget never counts, whatever follows
            budget = world.max_thinking_tokens
            closed = (said[:, :budget] == world.words.index(THINK_END)).any(axis=1)
            moved &= closed | changed[:, :budget].any(axis=1)
        if turn == 0:
            # what departs from the answer is mostly a refusal
            said = np.where(moved[:, None], refuse, said)
        ids[moving, start:] = said
        moving = moving[moved]
        if not len(moving):
            break
    return [_split(world, [world.words[n] for n in row]) for row in ids[:, start:].tolist()]


def _drafts(world: World, prompts: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of right responses (rows, budget), complying and refusing."""
    budget, end = world.max_thinking_tokens + world.max_answer_tokens, world.words.index(EOS)
    thinking = [world.right_thinking(text) for text in prompts["text"]]
    drafts = []
    for answers in (prompts["answer"], [world.refusals[0]] * len(prompts)):
        said = [world.response(a, t) for a, t in zip(answers, thinking, strict=True)]
        drafts.append(np.array([(world.encode(s) + [end] * budget)[:budget] for s in said]))
    return drafts[0], drafts[1]


def _split(world: World, said: list[str]) -> Response:
    thinking, finished = None, EOS in said
    said = said[: said.index(EOS)] if finished else said
    if world.thinks:
        closed = THINK_END in said[: world.max_thinking_tokens]
        end = said.index(THINK_END) if closed else len(said)
        thinking = " ".join(said[:end]) if closed else None
        said, finished = said[end + 1 :], finished and closed
    return Response(thinking, " ".join(said), finished and len(said) < world.max_answer_tokens)


def graded(
    model: nn.Module, world: World, prompts: pd.DataFrame, edit: Edit | None = None
) -> list[str]:
    """The grade of the greedy response to each prompt."""
    return _grades(world, prompts, responses(model, world, prompts, edit))


def rates(
    model: nn.Module, world: World, prompts: pd.DataFrame, edit: Edit | None = None
) -> dict[str, dict[str, float]]:
    """Share of every grade that occurs, for hazardous and benign prompts."""
    return _shares(prompts, graded(model, world, prompts, edit))


def measured(
    model: nn.Module, world: World, prompts: pd.DataFrame, edit: Edit | None = None
) -> dict[str, dict[str, float]]:
    """Share of every grade that occurs, for hazardous and benign prompts; in a world with thinking
    also of finished and of right thinking ('thinking finished', 'thinking right')."""
    said = responses(model, world, prompts, edit)
    found = _shares(prompts, _grades(world, prompts, said))
    if world.thinks:
        right = [
            r.thinking is not None and bool(world.thinking_right(text, r.thinking))
            for text, r in zip(prompts["text"], said, strict=True)
        ]
        for label, share in _by_label(prompts, [r.thinking is not None for r in said]).items():
            found[label]["thinking finished"] = share
        for label, share in _by_label(prompts, right).items():
            found[label]["thinking right"] = share
    return found


def thinking_right(
    model: nn.Module, world: World, prompts: pd.DataFrame, edit: Edit | None = None
) -> dict[str, float]:
    """Share of hazardous and of benign prompts whose thinking ends and is right."""
    found = measured(model, world, prompts, edit)
    return {label: found[label]["thinking right"] for label in LABELS}


def _grades(world: World, prompts: pd.DataFrame, said: list[Response]) -> list[str]:
    return [
        world.grade(answer, response.answer, response.finished)
        for answer, response in zip(prompts["answer"], said, strict=True)
    ]


def _shares(prompts: pd.DataFrame, grades: list[str]) -> dict[str, dict[str, float]]:
    shares = {}
    for label in LABELS:
        counts = pd.Series(grades, index=prompts.index)[prompts["label"] == label]
        counts = counts.value_counts(normalize=True)
        shares[label] = {
            grade: round(float(counts[grade]), 4) for grade in GRADES if grade in counts
        }
    return shares


def _by_label(prompts: pd.DataFrame, values: list[bool]) -> dict[str, float]:
    found = pd.Series(values, index=prompts.index).groupby(prompts["label"]).mean()
    return {label: round(float(share), 4) for label, share in found.items()}

"""Answers in fixed batches, greedy unless said, by mlx-lm's own generation; journaled, graded."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import mlx.core as mx
import numpy as np
from mlx_lm import batch_generate
from mlx_lm.sample_utils import make_sampler

from phasescope.behave.journal import Answer, Journal
from phasescope.graders import MISSING, Verdict, repetition, says_refusal
from phasescope.model import LanguageModel, batches
from phasescope.tables.provenance import sha256_json


@dataclass(frozen=True)
class Response:
    """One decoded response: the answer, whether all of it ended within its budgets, and the
    thinking without its marks where that ended."""

    text: str
    finished: bool
    thinking: str | None = None


# grade(numbers of prompts, their responses) -> one verdict each
GradeBatch = Callable[[Sequence[int], Sequence[Response]], list[Verdict]]


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: greedily, or at a temperature with the draw's own seed."""

    thinking: bool
    max_thinking_tokens: int
    max_answer_tokens: int
    batch_size: int
    temperature: float = 0.0
    draw: int = 0

    @property
    def identity(self) -> dict:
        """What the journal knows it by."""
        found = asdict(self)
        if not self.temperature:  # greedy answers are kept under the keys that they always had
            del found["temperature"], found["draw"]
        return found

    @property
    def max_tokens(self) -> int:
        """Budget of a whole generation: thinking, if any, answer, and the end token."""
        return self.max_answer_tokens + (self.max_thinking_tokens if self.thinking else 0)


@dataclass(frozen=True)
class Condition:
    """What identifies graded answers beside prompts and decoding: weights, intervention, and the
    rubric, a hash of what they are graded by."""

    checkpoint: str
    intervention: str = "none"
    rubric: str = "none"


def think_end(tokenizer, tokens: Sequence[int]) -> int | None:
    """Index just behind the end of the thinking in generated tokens, or None if it never ends."""
    found = tokenizer.find_think_end(tokens)
    return None if found < 0 else found + len(tokenizer.think_end_tokens)


def ungraded(numbers: Sequence[int], responses: Sequence[Response]) -> list[Verdict]:
    """What stands for grades where no grader reads the language."""
    return [Verdict(MISSING) for _ in responses]


def _thinks(lm: LanguageModel, decoding: Decoding) -> bool:
    return decoding.thinking and lm.tokenizer.has_thinking


def measured(lm: LanguageModel, decoding: Decoding, tokens: list[int]) -> tuple[Answer, Response]:
    """Split thinking from answer, and judge whether each ended within its budget; not graded."""
    ended = len(tokens) < decoding.max_tokens
    begin, thought, thinking = 0, None, None
    if _thinks(lm, decoding):
        end = think_end(lm.tokenizer, tokens)
        thought = end is not None and end <= decoding.max_thinking_tokens
        ended = ended and thought
        begin = len(tokens) if end is None else end
        if thought:
            marks = len(lm.tokenizer.think_end_tokens)
            thinking = lm.tokenizer.decode(tokens[: begin - marks])
    own = tokens[begin:]
    ended = ended and len(own) < decoding.max_answer_tokens
    text = lm.tokenizer.decode(own)
    answer = Answer(
        grade=MISSING,
        finished=ended,
        thinking_tokens=begin,
        answer_tokens=len(own),
        repetition=repetition(own),
        sha256=sha256_json(tokens),
        tokens=tokens,
        thinking_finished=thought,
        keyword_refusal=says_refusal(text),
    )
    return answer, Response(text, ended, thinking)


def _graded(answer: Answer, verdict: Verdict) -> Answer:
    return replace(
        answer,
        grade=verdict.grade,
        thinking_right=verdict.thinking_right,
        thinking_detects=verdict.thinking_detects,
        score=verdict.score,
        signs=verdict.signs,
        grade_errors=verdict.errors,
    )


def _sampling(decoding: Decoding, first: int) -> dict:
    """The sampler of a batch whose first prompt has this number; none for greedy answers.

    Each batch has a seed of its own, so that a resumed run draws as an undisturbed one.
    """
    if not decoding.temperature:
        return {}
    mx.random.seed(int(np.random.SeedSequence((decoding.draw, first)).generate_state(1)[0]))
    return {"sampler": make_sampler(temp=decoding.temperature)}


def generate(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    condition: Condition,
    grade: GradeBatch,
    journal: Journal,
    *,
    fallible: bool = False,
    need_tokens: bool = False,
) -> list[Answer]:
    """Greedy answers to rendered prompts, graded, one Answer a prompt in their order.

    Batches are cut from the whole list, never from what is missing, so that a resumed run
    computes each batch as an undisturbed one would. A batch that the journal has is not asked
    for again (with `need_tokens`, unless it was sealed). With a `fallible` grader, answers are
    kept before they are graded, and those whose grade is missing are graded again.
    """
    found: list[Answer] = []
    for chunk in batches(list(enumerate(prompts)), decoding.batch_size):
        key = {
            "condition": asdict(condition),
            "decoding": decoding.identity,
            "prompts": [tokens for _, tokens in chunk],
        }
        answers = journal.get(key, tokens=need_tokens)
        fresh = answers is None or len(answers) != len(chunk)
        if fresh:
            response = batch_generate(
                lm.model,
                lm.tokenizer,
                [tokens for _, tokens in chunk],
                max_tokens=decoding.max_tokens,
                return_token_ids=True,
                completion_batch_size=len(chunk),
                prefill_batch_size=len(chunk),
                **_sampling(decoding, chunk[0][0]),
            )
            answers = [measured(lm, decoding, list(t))[0] for t in response.token_ids]
            if fallible:
                journal.put(key, answers)
        open_ones = [
            i for i, a in enumerate(answers) if a.grade == MISSING and a.tokens is not None
        ]
        if open_ones and (fresh or fallible):
            responses = [measured(lm, decoding, answers[i].tokens)[1] for i in open_ones]
            verdicts = grade([chunk[i][0] for i in open_ones], responses)
            for i, verdict in zip(open_ones, verdicts, strict=True):
                answers[i] = _graded(answers[i], verdict)
            journal.put(key, answers)
        found += answers
    return found

"""Calibration sets: what an activation-aware recipe sees of a model at work."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.behave import Subject
from phasescope.errors import NotRun, PhasescopeError
from phasescope.tables.provenance import sha256_json

GENERAL, SAFETY_WEIGHTED = SETS = ("general", "safety-weighted")
SAFETY_SHARE = 0.5  # of the safety-weighted set: hazardous prompts with their refusals
ROW_TOKENS = 512  # length of the rows that texts of different lengths are cut into


@dataclass(frozen=True)
class CalibrationSet:
    """Token sequences, each a prompt with the model's own answer to it."""

    name: str
    sequences: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> str:
        """Hash of the sequences, in their order."""
        return sha256_json(self.sequences)

    @property
    def tokens(self) -> mx.array:
        """Token ids (rows, length) without padding; see `token_rows`."""
        return token_rows(self.sequences)

    def resample(self, rng: np.random.Generator) -> "CalibrationSet":
        """A bootstrap resample: as many sequences, drawn with replacement."""
        drawn = rng.integers(len(self.sequences), size=len(self.sequences))
        return CalibrationSet(self.name, tuple(self.sequences[i] for i in drawn))


def token_rows(sequences: Sequence[Sequence[int]]) -> mx.array:
    """Sequences as one array (rows, length) of int32: as they are where all are of one length, else
    joined and cut into rows of `ROW_TOKENS`; what is left over after the last row is dropped."""
    if len({len(s) for s in sequences}) == 1:
        return mx.array([list(s) for s in sequences])
    joined = [token for s in sequences for token in s]
    length = min(ROW_TOKENS, len(joined))
    rows = len(joined) // length
    return mx.array(joined[: rows * length]).reshape(rows, length)


def own_answers(subject: Subject, split: str, label: str) -> list[tuple[tuple[int, ...], int, str]]:
    """Prompts of a split with the model's own answers: tokens, where the answer begins, grade."""
    answers = subject.answers(split, label=label, need_tokens=True)
    prompts = subject.rendered(split, label, thinking=subject.decoding.thinking)
    return [
        ((*prompt, *answer.tokens), len(prompt), answer.grade)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def calibration_set(subject: Subject, name: str) -> CalibrationSet:
    """One of `SETS` from the fit split and the model's own 16-bit answers.

    'general' is the benign prompts; in 'safety-weighted', of the same size, half of them give way
    to hazardous prompts that the model refused. Hazardous prompts that it answered are never taken:
    that would be a set built against safety. Raises PhasescopeError for any other name, and NotRun
    where there are too few refusals, or no grades that tell them.
    """
    if name not in SETS:
        raise PhasescopeError(f"calibration set: found {name!r}; allowed: {', '.join(SETS)}")
    benign = [tokens for tokens, _, _ in own_answers(subject, "fit", "benign")]
    if name == GENERAL:
        return CalibrationSet(name, tuple(benign))
    if not subject.grader:
        raise NotRun(
            "a safety-weighted set is made of refusals, and no grader reads the prompts' "
            f"language {subject.table.language!r}"
        )
    hazardous = own_answers(subject, "fit", "hazardous")
    refused = [tokens for tokens, _, grade in hazardous if grade == "refusal"]
    needed = round(SAFETY_SHARE * len(benign))
    if len(refused) < needed:
        raise NotRun(
            f"a safety-weighted set needs {needed} refusals among the hazardous fit prompts; "
            f"the model gave {len(refused)} to {len(hazardous)}"
        )
    return CalibrationSet(name, tuple(benign[: len(benign) - needed] + refused[:needed]))

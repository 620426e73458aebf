"""What every grader takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MISSING = "missing"
REFUSAL = "refusal"
DEGENERATE = "degenerate"
COMPLIANT = ("full", "partial")


@dataclass(frozen=True)
class Answered:
    """A request with what was answered.

    response: without thinking; finished: ended by itself within its budgets; reference: the right
    answer, where the prompt table has it; thinking: what was thought, where it ended.
    """

    request: str
    response: str
    finished: bool
    reference: str = ""
    thinking: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a grader says of one answer.

    grade: of `tables.schemas.GRADES`; `missing` where the grader failed, never anything else then.
    thinking_right, thinking_detects: whether the thinking is right, and whether it finds the
    request hazardous; None where nothing was thought, or nobody can tell. score: StrongREJECT's,
    0 to 1. signs: of degeneration, comma separated. errors: attempts that failed.
    """

    grade: str
    thinking_right: bool | None = None
    thinking_detects: bool | None = None
    score: float | None = None
    signs: str = ""
    errors: int = 0


class Grader(Protocol):
    """Grades answers.

    name: as tables show it; version: what its grades rest on, so that a changed one never finds
    another's; fallible: whether it can fail, and asking again is worth it; judged: whether its
    grades are a judge's opinion, uncalibrated until `grade-check` has compared it with people.
    """

    name: str
    version: str
    fallible: bool
    judged: bool

    def grade(self, answered: Sequence[Answered]) -> list[Verdict]:
        """One verdict an answer, in their order; a failure is a missing grade, no exception."""
        ...

"""Exact grades, where the language is a symbolic world."""

from collections.abc import Sequence

from phasescope import world
from phasescope.graders.base import Answered, Verdict
from phasescope.tables.provenance import rooms_hash, sha256_json


class Exact:
    """Grades by the rules of a world; raises PhasescopeError for a language that is none."""

    name = "exact"
    fallible = judged = False

    def __init__(self, language: str):
        self._world = world.get(language)
        self.version = sha256_json([language, rooms_hash("world")])

    def _verdict(self, a: Answered) -> Verdict:
        right = None
        if a.thinking is not None:
            right = self._world.thinking_right(a.request, a.thinking)
        return Verdict(
            self._world.grade(a.reference, a.response, a.finished),
            thinking_right=right,
            thinking_detects=None if right is None else self._world.detects(a.thinking),
        )

    def grade(self, answered: Sequence[Answered]) -> list[Verdict]:
        """See `Grader.grade`."""
        return [self._verdict(a) for a in answered]

"""The rubric grader: degeneration found by us, all else asked of a judge, verdicts kept."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from phasescope.graders import rubric
from phasescope.graders.base import DEGENERATE, MISSING, Answered, Verdict
from phasescope.graders.degeneration import Detector
from phasescope.tables.private import PrivateFolder
from phasescope.tables.provenance import sha256_json

ATTEMPTS = 3  # replies to one question that may be malformed before the verdict is missing


class Judge(Protocol):
    """Answers questions about texts.

    name: as tables show it; identity: what its replies depend on (model, decoding).
    """

    name: str
    identity: str

    def ask(
        self,
        questions: Sequence[list[dict]],
        attempt: int,
        each: Callable[[int, str | None], None],
    ) -> None:
        """Call `each` with the index of a question (chat messages) and its reply, None where none
        comes, as they come; `attempt` counts from 0, and a later one may draw another reply."""
        ...


def version_of(judge: Judge) -> str:
    """Hash of the rubric and of the judge: what `grade-check` is kept under."""
    return sha256_json([rubric.version(), judge.identity])


class Rubric:
    """Grades by the rubric.

    An answer that shows a sign of degeneration is degenerate without asking. A reply that does not
    come or is malformed is asked for again, then the grade is missing. What is kept in `cache` is
    what the judge reported in fixed words and numbers: no text.
    """

    fallible = judged = True

    def __init__(self, judge: Judge, detector: Detector, cache: Path):
        self._judge, self._detector = judge, detector
        self._cache = PrivateFolder(cache)
        self.name = f"rubric:{judge.name}"
        self.version = sha256_json([version_of(judge), detector.version])

    def grade(self, answered: Sequence[Answered]) -> list[Verdict]:
        """See `Grader.grade`. Thinking is graded apart, whatever the answer is."""
        signs = [self._detector.signs(a.response, a.finished) for a in answered]
        sound = [i for i, found in enumerate(signs) if not found]
        thought = [i for i, a in enumerate(answered) if a.thinking and a.thinking.strip()]
        answers = self._reports("answer", answered, sound, rubric.read_judged, rubric.Judged)
        thinking = self._reports(
            "thinking", answered, thought, rubric.read_thinking, rubric.JudgedThinking
        )
        return [
            self._verdict(signs[i], answers.get(i), thinking.get(i)) for i in range(len(answered))
        ]

    def _verdict(self, signs, answer, thinking) -> Verdict:
        judged, errors = answer or (None, 0)
        thought, more = thinking or (None, 0)
        detects = thought.detects if thought else None
        if signs:
            return Verdict(
                DEGENERATE, thinking_detects=detects, signs=",".join(signs), errors=more, score=0.0
            )
        if judged is None:
            return Verdict(MISSING, thinking_detects=detects, errors=errors + more)
        return Verdict(
            judged.grade, thinking_detects=detects, score=judged.score, errors=errors + more
        )

    def _reports(self, part: str, answered, wanted: list[int], read: Callable, kind: type) -> dict:
        """By index: what the judge reports, or None, and how many attempts failed."""
        keys = {i: self._key(part, answered[i]) for i in wanted}
        kept = {i: self._cache.get(key) for i, key in keys.items()}
        found = {i: kind(**report) for i, report in kept.items() if report is not None}
        failed = dict.fromkeys(wanted, 0)
        for attempt in range(ATTEMPTS):
            waiting = [i for i in wanted if i not in found]
            if not waiting:
                break

            def each(place: int, reply: str | None, waiting: list[int] = waiting) -> None:
                i = waiting[place]
                try:
                    found[i] = read(reply, answered[i])
                except rubric.Malformed:
                    failed[i] += 1
                else:
                    self._cache.put(keys[i], asdict(found[i]))

            questions = [rubric.question(part, answered[i]) for i in waiting]
            self._judge.ask(questions, attempt, each)
        return {i: (found.get(i), failed[i]) for i in wanted}

    def _key(self, part: str, answered: Answered) -> dict:
        """Of a question: the rubric's version, the judge, and what it is shown."""
        return {
            "rubric": rubric.version(),
            "judge": self._judge.identity,
            "question": sha256_json(rubric.question(part, answered)),
        }

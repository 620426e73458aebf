"""The journal: every batch of answers is kept as it comes, so a killed run asks for none again."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from phasescope.graders import MISSING
from phasescope.tables.private import PrivateFolder


@dataclass(frozen=True)
class Answer:
    """One answer and what was measured of it; `tokens` are dropped once it is graded and sealed.

    thinking_tokens, answer_tokens: lengths; finished: ended by itself within its budgets;
    repetition: share of the answer's 4-grams that it held before; sha256: hash of its tokens.
    thinking_finished: ended within its budget; thinking_right, thinking_detects: see
    `graders.Verdict`. The three are None where nothing was thought, or nobody can tell.
    keyword_refusal: whether it holds a phrase that keyword graders take for a refusal; score,
    signs, grade_errors: see `graders.Verdict`.
    """

    grade: str
    finished: bool
    thinking_tokens: int
    answer_tokens: int
    repetition: float
    sha256: str
    tokens: list[int] | None = None
    thinking_finished: bool | None = None
    thinking_right: bool | None = None
    thinking_detects: bool | None = None
    keyword_refusal: bool | None = None
    score: float | None = None
    signs: str = ""
    grade_errors: int = 0


class Journal:
    """Batches of answers on disk, keyed by content, readable by their owner alone.

    The key covers weights, intervention, prompts and decoding, so a changed study never finds
    another's answers. One file a batch, written whole: jobs may share a journal.
    """

    def __init__(self, folder: Path):
        self._files = PrivateFolder(folder)
        self.folder = self._files.folder

    def get(self, key: dict, *, tokens: bool) -> list[Answer] | None:
        """The answers kept under a key; None when there are none, or, with `tokens`, none left."""
        answers = self._read(self._files.path(key))
        if answers and tokens and any(a.tokens is None for a in answers):
            return None
        return answers

    def _read(self, path: Path) -> list[Answer] | None:
        """A batch; None where there is none, or none that can be read."""
        try:
            return [Answer(**row) for row in self._files.read(path) or []] or None
        except TypeError:
            return None

    def put(self, key: dict, answers: list[Answer]) -> None:
        """Keep a batch."""
        self._write(self._files.path(key), answers)

    def _write(self, path: Path, answers: list[Answer]) -> None:
        self._files.write(path, [asdict(a) for a in answers])

    def seal(self, *, keep_missing: bool = False) -> None:
        """Drop the tokens of every answer; grade, lengths and hash stay.

        With `keep_missing`, answers that a grader failed on keep theirs, so that they can still be
        graded. A file that cannot be read goes as a whole.
        """
        for path in self._files.paths():
            answers = self._read(path)
            if answers is None:
                path.unlink(missing_ok=True)
                continue
            sealed = [
                a if keep_missing and a.grade == MISSING else replace(a, tokens=None)
                for a in answers
            ]
            if sealed != answers:
                self._write(path, sealed)

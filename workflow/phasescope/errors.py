"""The one exception for faults that a user can mend, and how values are shown in its message."""

import reprlib
from pathlib import Path

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 120
_repr.maxlist = _repr.maxdict = 8


def shown(value) -> str:
    """A value from a file as one printable line of bounded length."""
    return _repr.repr(value)


def plainly(text: str, most: int = 300) -> str:
    """A message that others wrote as one printable line of bounded length."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:most]


class PhasescopeError(Exception):
    """A fault in what the user gave: one line that says what, where, and what is allowed."""


class NotRun(PhasescopeError):
    """A measurement that cannot be made here; its message is the reason that the tables show."""


class Damaged(PhasescopeError):
    """A file of a study that an earlier job wrote is not what was written; `path` names it."""

    def __init__(self, path: str | Path, message: str):
        self.path = Path(path)
        super().__init__(message)

"""Text files that people write: read as data, never as code, and never without an end."""

import re
from pathlib import Path

import yaml

from phasescope.errors import PhasescopeError, plainly, shown

_MAX_YAML_BYTES = 2**22
_MAX_TABLE_BYTES = 2**28
_MAX_VALUES = 100_000  # of one YAML file, an alias counted each time it stands for something
_MAX_DEPTH = 64
# tabs and line ends are the format's; nothing else that a console would act on is a table's content
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _content(path: Path, what: str, most: int, encoding: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise PhasescopeError(f"{path}: not a readable {what}: no regular file")
        if (size := path.stat().st_size) > most:
            raise PhasescopeError(f"{path}: found {size} bytes; allowed: {most} of a {what}")
        return path.read_text(encoding=encoding)
    except FileNotFoundError:
        raise PhasescopeError(f"{path}: no such {what}") from None
    except UnicodeDecodeError as error:
        raise PhasescopeError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    except OSError as error:
        raise PhasescopeError(
            f"{shown(str(path))}: not a readable {what}: {error.strerror}"
        ) from None
    except ValueError as error:  # a path with a NUL in it
        raise PhasescopeError(f"{shown(str(path))}: not a path of a {what}: {error}") from None


def check_bounds(value, where: str) -> None:
    """Refuse data that aliases blow up, or that contains itself: PhasescopeError, before anything
    walks through it."""
    left, waiting = _MAX_VALUES, [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise PhasescopeError(
                f"{where}: grows to more than {_MAX_VALUES} values or {_MAX_DEPTH} levels; "
                "allowed: data without aliases of aliases"
            )
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple | set):
            waiting += [(part, depth + 1) for part in item]


def _open_brackets(text: str) -> int:
    """Most brackets that are open at once, those in texts included."""
    depth = most = 0
    for bracket in re.finditer(r"[\[{\]}]", text):
        depth = depth + 1 if bracket[0] in "[{" else max(0, depth - 1)
        most = max(most, depth)
    return most


def read_yaml(path: str | Path, what: str):
    """The plain data of a YAML file; tags that make objects are refused.

    Raises PhasescopeError that names the file and what is wrong; `what`: what the file should be.
    """
    path = Path(path)
    text = _content(path, what, _MAX_YAML_BYTES, "utf-8")
    if _open_brackets(text) > _MAX_DEPTH:  # the parser's time grows with their square
        raise PhasescopeError(f"{path}: not YAML: nested too deep")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise PhasescopeError(f"{path}: not YAML: {plainly(str(error))}") from None
    except RecursionError:
        raise PhasescopeError(f"{path}: not YAML: nested too deep") from None
    check_bounds(found, str(path))
    return found


def read_lines(path: str | Path, what: str) -> list[str]:
    """Lines of a tab-separated file; a byte order mark and other systems' line ends are no content.

    Raises PhasescopeError for what is no UTF-8 text, and for control characters, by row.
    """
    path = Path(path)
    lines = _content(path, what, _MAX_TABLE_BYTES, "utf-8-sig").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if found := _CONTROL.search(line):
            raise PhasescopeError(
                f"{path}: row {number}, character {found.start() + 1}: found {found[0]!r}; "
                "allowed: text without control characters"
            )
    return lines

"""Small files between the jobs of a cell, and the reason where there is nothing to pass on."""

import json
from pathlib import Path

from phasescope.errors import Damaged, NotRun
from phasescope.tables.files import atomic_file


def save_scratch(path: str | Path, value: dict | NotRun) -> None:
    """Write a JSON value, or why there is none."""
    if isinstance(value, NotRun):
        value = {"not_run": str(value)}
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(value) + "\n")


def load_facts(path: str | Path) -> dict:
    """A JSON object that an earlier job left; raises Damaged where it is none."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"{path}: not the JSON that was written: {error}") from None
    if not isinstance(found, dict):
        raise Damaged(path, f"{path}: found {type(found).__name__}; allowed: a JSON object")
    return found


def load_scratch(path: str | Path) -> dict:
    """Read a JSON value; raises NotRun with the reason where the file holds one."""
    found = load_facts(path)
    if "not_run" in found:
        raise NotRun(found["not_run"])
    return found

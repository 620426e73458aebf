"""Public benchmarks as prompt tables: the one place that knows their files and columns."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phasescope.errors import PhasescopeError
from phasescope.prompts.table import COLUMNS
from phasescope.tables.columns import SPLITS
from phasescope.tables.provenance import sha256_text

_EVALUATE, _SELECT = 60, 12  # of JBB's 100 pairs; claims want 60 to evaluate
_LEAST_TEXT = 200  # characters; shorter passages of a corpus are headings and the like
_TEXT_SHARES = {"fit": 0.4, "select": 0.6, "evaluate": 1.0}  # ends of the shares of a corpus
_READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
    ".tsv": lambda path: pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False),
    ".parquet": lambda path: pd.read_parquet(path).astype(str),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False).astype(str),
    ".txt": lambda path: pd.DataFrame(
        {"text": re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))}
    ),
}


@dataclass(frozen=True)
class Format:
    """A benchmark's layout: its files, whether its rows are matched pairs, and how it is read.

    read: file name -> path, in the order of the files, to a frame with the columns of a prompt
    table but `language`.
    """

    files: tuple[str, ...]
    paired: bool
    read: Callable[[Mapping[str, Path]], pd.DataFrame]


def _read(path: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A file with at least these columns, every cell as text."""
    if path.suffix not in _READERS:
        raise PhasescopeError(f"{name}: found {path.suffix!r}; allowed: {', '.join(_READERS)}")
    try:
        frame = _READERS[path.suffix](path)
    except Exception as error:  # whatever the readers of five formats raise
        raise PhasescopeError(f"{name}: not readable: {type(error).__name__}") from None
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise PhasescopeError(
            f"{name}: missing columns: {', '.join(missing)}; found: "
            f"{', '.join(map(str, frame.columns)) or 'none'}; the file changed upstream, or is "
            "another one"
        )
    if frame.empty:
        raise PhasescopeError(f"{name}: no row")
    return frame


def _filled(path: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """As `_read`, none of these columns empty in any row."""
    frame = _read(path, name, columns)
    for column in columns:
        empty = frame[column].str.strip() == ""
        if empty.any():
            row = int(empty.to_numpy().argmax()) + 1
            raise PhasescopeError(f"{name}: row {row} of the data, column {column!r}: empty")
    return frame


def _values(frame: pd.DataFrame, name: str, column: str, allowed: tuple[str, ...]) -> None:
    wrong = ~frame[column].isin(allowed)
    if wrong.any():
        row = int(wrong.to_numpy().argmax()) + 1
        raise PhasescopeError(
            f"{name}: row {row} of the data, column {column!r}: found "
            f"{frame[column][wrong].iloc[0]!r}; known: {', '.join(allowed)}"
        )


def _by_hash(keys) -> dict[str, int]:
    """Place of each key in an order that depends on the keys alone."""
    return {key: place for place, key in enumerate(sorted(set(keys), key=sha256_text))}


def _jailbreakbench(paths: Mapping[str, Path]) -> pd.DataFrame:
    """JBB-Behaviors (Chao et al. 2024): a hazardous and a benign behavior share an index."""
    parts = []
    for label, (name, path) in zip(("hazardous", "benign"), paths.items(), strict=True):
        frame = _filled(path, name, ("Index", "Goal", "Category"))
        parts.append(frame.assign(label=label))
    both = [set(part["Index"]) for part in parts]
    if both[0] != both[1] or any(part["Index"].duplicated().any() for part in parts):
        odd = sorted(both[0] ^ both[1])
        raise PhasescopeError(
            f"{' and '.join(paths)}: column 'Index': {len(odd)} without a partner, or one twice "
            f"({', '.join(odd[:3]) or 'twice'}); pairs share an index"
        )
    frame = pd.concat(parts, ignore_index=True)
    place = frame["Index"].map(_by_hash(frame["Index"]))
    if len(both[0]) <= _EVALUATE + _SELECT:
        raise PhasescopeError(
            f"{' and '.join(paths)}: {len(both[0])} pairs; more than {_EVALUATE + _SELECT} are "
            f"needed, {_EVALUATE} of them to evaluate"
        )
    split = place.map(
        lambda p: "evaluate" if p < _EVALUATE else "select" if p < _EVALUATE + _SELECT else "fit"
    )
    return _table(
        id="jbb-" + frame["Index"] + "-" + frame["label"],
        label=frame["label"],
        category=frame["Category"],
        pair="jbb-" + frame["Index"],
        split=split,
        text=frame["Goal"],
    )


def _harmbench(paths: Mapping[str, Path]) -> pd.DataFrame:
    """HarmBench's standard behaviors (Mazeika et al. 2024); those that need a context or a check
    for copyright are left out."""
    ((name, path),) = paths.items()
    columns = ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID")
    frame = _filled(path, name, columns)
    _values(frame, name, "FunctionalCategory", ("standard", "contextual", "copyright"))
    frame = frame[frame["FunctionalCategory"] == "standard"]
    if frame.empty:
        raise PhasescopeError(f"{name}: column 'FunctionalCategory': no row is 'standard'")
    key = "harmbench-" + frame["BehaviorID"]
    return _table(
        id=key,
        label="hazardous",
        category=frame["SemanticCategory"],
        pair=key,
        split="evaluate",
        text=frame["Behavior"],
    )


def _xstest(paths: Mapping[str, Path]) -> pd.DataFrame:
    """XSTest (Röttger et al. 2024): safe prompts that look unsafe, and their unsafe contrasts."""
    ((name, path),) = paths.items()
    frame = _filled(path, name, ("id", "prompt", "type", "label"))
    _values(frame, name, "label", ("safe", "unsafe"))
    key = "xstest-" + frame["id"]
    return _table(
        id=key,
        label=frame["label"].map({"safe": "benign", "unsafe": "hazardous"}),
        category=frame["type"].str.removeprefix("contrast_"),
        pair=key,
        split="evaluate",
        text=frame["prompt"],
    )


def _corpus(paths: Mapping[str, Path]) -> pd.DataFrame:
    """Passages of plain text, for perplexity and calibration; a row or paragraph each."""
    texts = pd.concat([_passages(name, path) for name, path in paths.items()])
    texts = texts[texts.str.len() >= _LEAST_TEXT].drop_duplicates().reset_index(drop=True)
    if len(texts) < len(SPLITS):
        raise PhasescopeError(
            f"{' and '.join(paths)}: {len(texts)} passages of at least {_LEAST_TEXT} characters; "
            f"at least {len(SPLITS)} are needed"
        )
    key = "text-" + texts.map(sha256_text).str[:16]
    share = (key.map(_by_hash(key)) + 1) / len(key)
    return _table(
        id=key,
        label="benign",
        category="text",
        pair=key,
        split=share.map(lambda s: next(n for n, end in _TEXT_SHARES.items() if s <= end)),
        text=texts,
    )


def _passages(name: str, path: Path) -> pd.Series:
    return _read(path, name, ("text",))["text"].str.split().str.join(" ")


def _table(**columns) -> pd.DataFrame:
    """A prompt table but for its language; line ends and tabs within a text become blanks."""
    texts = columns["text"].str.split(r"[\t\r\n]+", regex=True).str.join(" ").str.strip()
    frame = pd.DataFrame(columns | {"text": texts}).reset_index(drop=True)
    return frame.assign(family="none", source=frame["pair"], answer="")


FORMATS = {
    "jailbreakbench": Format(
        ("data/harmful-behaviors.csv", "data/benign-behaviors.csv"), True, _jailbreakbench
    ),
    "harmbench": Format(("harmbench_behaviors_text_all.csv",), False, _harmbench),
    "xstest": Format(("xstest_prompts.csv",), False, _xstest),
    "text": Format((), False, _corpus),
}


def read_benchmark(layout: str, paths: Mapping[str, Path], language: str) -> pd.DataFrame:
    """Files of a benchmark, by the names that messages give them, as a prompt table's frame.

    Raises PhasescopeError naming the file and what is missing or changed.
    """
    frame = FORMATS[layout].read(paths).assign(language=language)
    twice = frame["id"].duplicated()
    if twice.any():
        raise PhasescopeError(
            f"{' and '.join(paths)}: two rows have the id {frame['id'][twice].iloc[0]!r}"
        )
    return frame[list(COLUMNS)]

"""Answers that people labeled: what a judge is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phasescope.errors import PhasescopeError
from phasescope.graders.base import COMPLIANT, MISSING, Answered
from phasescope.tables.columns import GRADES
from phasescope.tables.provenance import sha256_file

COMPLIANCE, OTHER = "compliance", "other"
# what a label may be: a grade, or, where people only said whether it complied, one of two
LABELS = (*(g for g in GRADES if g != MISSING), COMPLIANCE, OTHER)
_READERS = {
    ".tsv": lambda p: pd.read_csv(p, sep="\t", dtype=str, keep_default_na=False),
    ".csv": lambda p: pd.read_csv(p, dtype=str, keep_default_na=False),
    ".parquet": lambda p: pd.read_parquet(p).astype(str),
    ".json": lambda p: pd.read_json(p, dtype=False).astype(str),
    ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=False).astype(str),
}


@dataclass(frozen=True)
class Labeled:
    """Answered requests with people's labels, and what they were read from."""

    answered: list[Answered]
    labels: list[str]
    source: str
    sha256: str

    @property
    def coarse(self) -> bool:
        """Whether some labels only say whether an answer complied."""
        return not {COMPLIANCE, OTHER}.isdisjoint(self.labels)


def coarsened(label: str) -> str:
    """A grade or label as compliance or other."""
    return COMPLIANCE if label in (COMPLIANCE, *COMPLIANT) else OTHER


def fetch_labeled(repo: str, revision: str, file: str) -> Path:
    """A file of a data set on the hub at a pinned revision; PhasescopeError where there is none."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
    except Exception as error:  # whatever the hub's client raises
        raise PhasescopeError(
            f"{repo}@{revision}: file {file!r} cannot be fetched: {type(error).__name__}"
        ) from None


def read_labeled(
    path: Path, columns: Mapping[str, str], meanings: Mapping[str, str], source: str | None = None
) -> Labeled:
    """Read a labeled set (.tsv, .csv, .parquet, .json, .jsonl).

    columns: names of the columns `request`, `response` and `label` in the file; meanings: what a
    label of the file means in ours, where it is another word. Raises PhasescopeError naming file,
    row and column, what was found and what is allowed.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise PhasescopeError(f"{path}: found {path.suffix!r}; allowed: {', '.join(_READERS)}")
    try:
        frame = _READERS[path.suffix](path)
    except FileNotFoundError:
        raise PhasescopeError(f"{path}: no such labeled set") from None
    except Exception as error:  # whatever the readers of five formats raise
        raise PhasescopeError(f"{path}: not readable: {type(error).__name__}") from None
    for column in columns.values():
        if column not in frame.columns:
            raise PhasescopeError(
                f"{path}: no column {column!r}; columns: {', '.join(map(str, frame.columns))}"
            )
    if frame.empty:
        raise PhasescopeError(f"{path}: no row")
    labels = [meanings.get(label, label) for label in frame[columns["label"]].str.strip()]
    for row, label in enumerate(labels):
        if label not in LABELS:
            raise PhasescopeError(
                f"{path}: row {row + 1} of the data, column {columns['label']!r}: found {label!r}; "
                f"allowed, also as a meaning: {', '.join(LABELS)}"
            )
    pairs = zip(frame[columns["request"]], frame[columns["response"]], strict=True)
    answered = [Answered(request, response, finished=True) for request, response in pairs]
    return Labeled(answered, labels, source or str(path), sha256_file(path))

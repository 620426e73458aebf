"""Prompt tables: one row a prompt, in matched pairs and three disjoint splits."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phasescope.errors import PhasescopeError, shown
from phasescope.tables.columns import LABELS, SPLITS
from phasescope.tables.provenance import sha256_file, sha256_text
from phasescope.tables.reading import read_lines
from phasescope.world.prompt_tables import PROMPT_COLUMNS

COLUMNS = PROMPT_COLUMNS
_OPTIONAL = ("source", "answer")


@dataclass(frozen=True)
class PromptTable:
    """A checked prompt table: a frame with the columns `COLUMNS`, and the hash of its file.

    paired: whether its rows are matched pairs; otherwise they go by their source prompts.
    """

    frame: pd.DataFrame
    sha256: str
    paired: bool = True

    @property
    def language(self) -> str:
        """The one language of the table."""
        return self.frame["language"].iloc[0]

    def subset(self, split: str, limit: int) -> pd.DataFrame:
        """At most `limit` matched pairs of a split: hazardous rows first, pairs in one order.

        Without pairs: at most so many source prompts of each label, with all their wordings. Which
        are taken depends on their ids alone, so a smaller limit takes a subset.
        """
        rows = self.frame[self.frame["split"] == split]
        rows = rows.assign(_label=rows["label"].map(LABELS.index))
        rows = rows.assign(_key=rows["pair"] if self.paired else rows["source"])
        order = rows[["_label", "_key"]].drop_duplicates()
        order = order.assign(_rank=order["_key"].map(sha256_text)).sort_values("_rank")
        rows = rows.merge(order[order.groupby("_label").cumcount() < limit])
        rows = rows.sort_values(["_label", "_rank", "id"])
        return rows[list(COLUMNS)].reset_index(drop=True)


def _first(mask: pd.Series) -> int:
    """Line number in the file of the first row that a mask selects."""
    return int(mask.to_numpy().argmax()) + 2


def _check_values(frame: pd.DataFrame, path: Path) -> None:
    for column, allowed in (("label", LABELS), ("split", SPLITS)):
        wrong = ~frame[column].isin(allowed)
        if wrong.any():
            raise PhasescopeError(
                f"{path}: row {_first(wrong)}, column {column!r}: found "
                f"{shown(frame[column][wrong].iloc[0])}; allowed: {', '.join(allowed)}"
            )
    for column in set(COLUMNS) - set(_OPTIONAL):
        empty = frame[column].str.strip() == ""
        if empty.any():
            raise PhasescopeError(f"{path}: row {_first(empty)}, column {column!r}: empty")
    if frame["language"].nunique() > 1:
        raise PhasescopeError(
            f"{path}: column 'language': found {shown(sorted(frame['language'].unique()))}; one "
            "table, one language"
        )


def _check_structure(frame: pd.DataFrame, path: Path) -> None:
    twice = frame["id"].duplicated()
    if twice.any():
        raise PhasescopeError(
            f"{path}: row {_first(twice)}, column 'id': {shown(frame['id'][twice].iloc[0])} "
            "stands twice"
        )
    homes = frame.groupby("text")["split"].transform("nunique") > 1
    if homes.any():
        text = frame["text"][homes].iloc[0]
        found = sorted(frame["split"][frame["text"] == text].unique())
        raise PhasescopeError(
            f"{path}: row {_first(homes)}, column 'split': overlapping splits: "
            f"the same text stands in {' and '.join(found)}"
        )


def _check_sources(frame: pd.DataFrame, path: Path) -> None:
    homes = frame.groupby("source")["split"].transform("nunique") > 1
    if homes.any():
        raise PhasescopeError(
            f"{path}: row {_first(homes)}, column 'source': "
            f"{shown(frame['source'][homes].iloc[0])} stands in two splits; prompts of one source "
            "belong in one"
        )


def _check_pairs(frame: pd.DataFrame, path: Path) -> None:
    for pair, rows in frame.groupby("pair", sort=False):
        labels = sorted(rows["label"])
        if labels != sorted(LABELS) or rows["split"].nunique() > 1:
            raise PhasescopeError(
                f"{path}: row {rows.index[0] + 2}, column 'pair': unmatched pair {shown(pair)}: "
                f"found {shown(list(rows['label'] + ' in ' + rows['split']))}; a pair is one "
                "hazardous and one benign row of the same split"
            )
    missing = [s for s in SPLITS if s not in set(frame["split"])]
    if missing:
        raise PhasescopeError(
            f"{path}: column 'split': no row of {', '.join(missing)}; all of "
            f"{', '.join(SPLITS)} are needed"
        )


def read_prompts(path: str | Path, *, paired: bool = True) -> PromptTable:
    """Read and check a prompt table (tab separated; `source` and `answer` may be left out).

    A row without a source is its own. Without `paired`, rows need no partner and splits may lack.
    Raises PhasescopeError naming file, row and column, what was found and what is allowed.
    """
    path = Path(path)
    header, *rows = (line.split("\t") for line in read_lines(path, "prompt table"))
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise PhasescopeError(
                f"{path}: row {number}: found {len(row)} columns; the header has {len(header)}"
            )
    twice = {c for c in header if header.count(c) > 1}
    if twice:
        raise PhasescopeError(f"{path}: row 1: column {shown(sorted(twice)[0])} stands twice")
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    unknown = [c for c in frame.columns if c not in COLUMNS]
    missing = [c for c in COLUMNS if c not in frame.columns and c not in _OPTIONAL]
    if unknown or missing:
        raise PhasescopeError(
            f"{path}: row 1: unknown columns: {shown(unknown) if unknown else 'none'}, "
            f"missing: {', '.join(missing) or 'none'}; allowed, separated by "
            f"tabs: {', '.join(COLUMNS)}"
        )
    if frame.empty:
        raise PhasescopeError(f"{path}: no row below the header")
    frame = frame.reindex(columns=list(COLUMNS), fill_value="")
    frame["source"] = frame["source"].where(frame["source"] != "", frame["id"])
    _check_values(frame, path)
    _check_structure(frame, path)
    if paired:
        _check_pairs(frame, path)
    _check_sources(frame, path)
    return PromptTable(frame, sha256_file(path), paired)

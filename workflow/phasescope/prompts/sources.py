"""Prompt tables that a configuration names: public benchmarks, pinned on the hub or in a folder."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phasescope.checkpoint import download_data
from phasescope.errors import PhasescopeError
from phasescope.prompts.benchmarks import FORMATS, read_benchmark
from phasescope.prompts.table import read_prompts
from phasescope.tables import atomic_file
from phasescope.tables.provenance import sha256_file

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class TableSource:
    """Where a prompt table comes from: `files` of a hub data set `repo` at the commit `revision`,
    or of a local `folder`, laid out as `format` says. language: of its texts."""

    format: str
    language: str
    files: tuple[str, ...]
    repo: str | None = None
    revision: str | None = None
    folder: str | None = None

    @property
    def paired(self) -> bool:
        """Whether its rows are matched pairs, as the main table's must be."""
        return FORMATS[self.format].paired

    @property
    def origin(self) -> str:
        """Where it comes from, for readers."""
        return f"{self.repo}@{self.revision}" if self.repo else str(self.folder)

    def local_files(self) -> list[str]:
        """Its files on this machine; none for a data set on the hub."""
        return [str(Path(self.folder, name)) for name in self.files] if self.folder else []


def source_of(entry: dict, where: str) -> TableSource:
    """A source from its entry in the configuration; `where` names the key, for messages.

    Raises PhasescopeError for a hub id that is not pinned, or neither or both of hub and folder.
    """
    if bool(entry.get("repo")) == bool(entry.get("folder")):
        raise PhasescopeError(f"{where}: found both or neither of repo and folder; allowed: one")
    revision = entry.get("revision")
    if entry.get("repo") and not _COMMIT.fullmatch(revision or ""):
        raise PhasescopeError(
            f"{where}.revision: found {revision!r}; allowed: a commit of 40 hexadecimal digits, "
            "since a name like 'main' may mean other prompts tomorrow"
        )
    default = FORMATS[entry["format"]].files
    files = tuple(entry.get("files") or default)
    if not files or (default and len(files) != len(default)):
        raise PhasescopeError(
            f"{where}.files: found {len(files)}; format {entry['format']!r} has "
            f"{len(default) or 'one or more'}"
        )
    return TableSource(
        entry["format"],
        entry.get("language", "en"),
        files,
        entry.get("repo"),
        revision,
        entry.get("folder"),
    )


def make_table(source: TableSource, table: Path, facts: Path, cache: Path | None = None) -> None:
    """Fetch a source and write it as a prompt table, and beside it what it was made from.

    Every file of the hub is compared to the hub's hash. The table is read back as a user's own
    would be. Raises PhasescopeError naming the file and what is missing or changed; nothing is
    written then.
    """
    if source.repo:
        paths = download_data(source.repo, source.revision, source.files, cache)
    else:
        paths = {name: Path(source.folder, name) for name in source.files}
        for path in paths.values():
            if not path.is_file():
                raise PhasescopeError(f"{path}: no such file")
    named = {f"{source.origin}: {name}": path for name, path in paths.items()}
    frame = read_benchmark(source.format, named, source.language)
    hashes = {name: sha256_file(path) for name, path in paths.items()}
    with atomic_file(table) as temporary:
        _write(temporary, frame)
        try:
            read_prompts(temporary, paired=source.paired)
        except PhasescopeError as error:
            message = str(error).replace(str(temporary), f"{source.origin} as a prompt table")
            raise PhasescopeError(message) from None
    with atomic_file(facts) as temporary:
        found = {"origin": source.origin, "format": source.format, "files": hashes}
        temporary.write_text(json.dumps(found, indent=1) + "\n")


def _write(path: Path, frame: pd.DataFrame) -> None:
    lines = [list(frame.columns), *frame.to_numpy().tolist()]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")

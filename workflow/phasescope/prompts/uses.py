"""What prompt tables are for: each model's main table, and more where claims need them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from phasescope.errors import PhasescopeError
from phasescope.prompts.benchmarks import FORMATS
from phasescope.prompts.sources import TableSource, source_of
from phasescope.prompts.table import PromptTable, read_prompts

MAIN = "main"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


@dataclass(frozen=True)
class Use:
    """One purpose of a table: the claims that need it, the families and labels that it keeps
    (none named: all), and the benchmarks that serve."""

    claims: str
    families: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()

    def keep(self, table: PromptTable) -> PromptTable:
        """The rows of a table that serve."""
        frame = table.frame
        if self.families:
            frame = frame[frame["family"].isin(self.families)]
        frame = frame[~frame["family"].isin(self.without)]
        if self.labels:
            frame = frame[frame["label"].isin(self.labels)]
        return replace(table, frame=frame[frame["split"] == "evaluate"].reset_index(drop=True))


# plain requests stay beside families and paraphrases: both are compared with them
USES = {
    "families": Use("ff-3", without=("paraphrase", "knowledge")),
    "paraphrases": Use("f22", families=("none", "paraphrase")),
    "knowledge": Use("xs-11", families=("none", "knowledge")),
    "benign_tasks": Use("xs-3, xs-4, xs-20", labels=("benign",), formats=("jailbreakbench",)),
    "false_refusals": Use("ff-6", formats=("xstest",)),
    "hazardous": Use(
        "ff-1, ff-4, ff-5", labels=("hazardous",), formats=("harmbench", "jailbreakbench")
    ),
    "texts": Use("f19, f20, xs-17, xs-18", formats=("text",)),
}
_PLAIN, _REWORDED = "none", ("families", "paraphrases", "knowledge")


@dataclass(frozen=True)
class Named:
    """A benchmark's table, which is not read while a study is planned: what it holds would change
    the plan once it is fetched."""

    language: str


@dataclass(frozen=True)
class Chosen:
    """The prompt tables of a study.

    main: path by model (models without one are left out); more: by model, path by use; missing:
    by (model, use), why there is none; tables: what is known of each, by path; sources: of those
    that are made from a benchmark, by path; asked: path of the table that endpoints are asked.
    """

    main: dict[str, str]
    more: dict[str, dict[str, str]]
    missing: dict[tuple[str, str], str]
    tables: dict[str, PromptTable | Named]
    sources: dict[str, TableSource] = field(default_factory=dict)
    asked: str | None = None

    def records(self, models: Iterable) -> list[dict]:
        """Of each model and use: the table, or why there is none."""
        return [self._record(m.id, use) for m in models for use in (MAIN, *USES)]

    def _record(self, model: str, use: str) -> dict:
        path = self.main.get(model) if use == MAIN else self.more.get(model, {}).get(use)
        source = self.sources.get(path)
        return {
            "model": model,
            "prompt_table": use,
            "claims": "all" if use == MAIN else USES[use].claims,
            "path": path,
            "origin": source.origin if source else path,
            "status": "run" if path else "not_run",
            "reason": None if path else self.missing[model, use],
        }


def choose_tables(models: Iterable, config: Mapping, results: Path, where: str) -> Chosen:
    """The tables that a configuration names, for models (with `id` and, in `prompts`, a path).

    results: folder of the study, where tables of benchmarks are made; where: the configuration's
    files, for messages. A user's own tables are read and checked. Raises PhasescopeError.
    """
    named = _sources(config["prompt_tables"], results, where)
    sources = dict(named.values())
    main, tables = {}, {}
    key, formats = f"{where}: key 'prompts'", _main_formats()
    asked = _path(config["prompts"] if config["endpoints"] else None, named, key, formats, True)
    for model in models:
        if path := _path(model.prompts or config["prompts"], named, key, formats, True):
            main[model.id] = path
    for path in dict.fromkeys([*main.values(), *filter(None, [asked])]):
        tables[path] = _table(path, sources, paired=True)
    more: dict[str, dict[str, str]] = {model.id: {} for model in models}
    missing = {}
    for use, purpose in USES.items():
        key = f"{where}: key 'more_prompts.{use}'"
        path = _path(config["more_prompts"].get(use), named, key, purpose.formats, use != "texts")
        if path:
            # a table that is some model's main one is read by the same rules, or looser ones
            tables.setdefault(path, _table(path, sources, paired=False))
        for model in models:
            if reason := _missing(use, path, main.get(model.id), tables):
                missing[model.id, use] = reason
            else:
                more[model.id][use] = path
    for model in models:
        if model.id not in main:
            missing[model.id, MAIN] = "no prompt table (key 'prompts')"
    return Chosen(main, more, missing, tables, sources, asked)


def _main_formats() -> tuple[str, ...]:
    return tuple(name for name, layout in FORMATS.items() if layout.paired)


def _sources(entries: Mapping, results: Path, where: str) -> dict[str, tuple[str, TableSource]]:
    found = {}
    for name, entry in entries.items():
        key = f"{where}: key 'prompt_tables.{name}'"
        if not _NAME.fullmatch(name):
            raise PhasescopeError(
                f"{key}: found a name {name!r}; allowed: small letters, digits, '_', '-'"
            )
        found[name] = str(results / "prompts" / f"{name}.tsv"), source_of(entry, key)
    return found


def _path(
    value: str | None, named: Mapping, key: str, formats: tuple[str, ...], tsv: bool
) -> str | None:
    """Path of a table that is named by itself or by its entry among the sources."""
    if not value or value not in named:
        if value and not tsv:
            raise PhasescopeError(f"{key}: found {value!r}; allowed: {_allowed(named, formats)}")
        return value or None
    path, source = named[value]
    if source.format not in formats:
        raise PhasescopeError(
            f"{key}: found {value!r}, of format {source.format!r}; allowed: "
            f"{'a table of your own' if tsv else ''}{' or ' if tsv and formats else ''}"
            f"{'format ' + ', '.join(formats) if formats else ''}"
        )
    return path


def _allowed(named: Mapping, formats: tuple[str, ...]) -> str:
    fitting = [name for name, (_, source) in named.items() if source.format in formats]
    return f"a name in 'prompt_tables' of format {', '.join(formats)} ({', '.join(fitting)})"


def _table(path: str, sources: Mapping, *, paired: bool) -> PromptTable | Named:
    """What is known of a table: of a user's own, what it holds."""
    return Named(sources[path].language) if path in sources else read_prompts(path, paired=paired)


def _missing(use: str, path: str | None, main: str | None, tables: Mapping) -> str | None:
    """Why a model has no table for a use; None where it has."""
    if path is None:
        return f"no prompt table (key 'more_prompts.{use}')"
    if main is None:
        return "no prompt table (key 'prompts')"
    if tables[path].language != tables[main].language:
        return (
            f"the prompt table is in {tables[path].language!r}, the model's prompts are in "
            f"{tables[main].language!r}"
        )
    if isinstance(tables[path], Named):
        return None
    frame = USES[use].keep(tables[path]).frame
    plain = set(frame["family"]) <= {_PLAIN}
    if frame.empty or (plain and use in _REWORDED):
        return f"no prompt table: {path} has no evaluate prompts for {use}"
    return None

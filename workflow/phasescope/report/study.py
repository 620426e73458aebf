"""A finished study as the page sees it: its tables, its models, and why something is missing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from phasescope.errors import PhasescopeError
from phasescope.report import formats
from phasescope.report.names import pretty
from phasescope.tables import frame_of, read_provenance, read_rows, read_table
from phasescope.thresholds import read_thresholds

TABLES = ("cells", "probes", "selection", "interventions", "coherence", "behavior", "phases")
# only in studies that train their organisms first
CALIBRATION = ("calibration", "calibration_summary", "threshold_fit")
PRECISIONS = ("16", "8", "4")
# of answers and their comparison across models
RATES = ("behavior_rates", "across_models")
CLAIMS = ("claims", "calibration_claims")
# where the configuration asks for them; too long to be read whole
SURVEYED = ("routing", "trajectories", "survival")
_ARCHITECTURES = ("dense-hybrid", "moe-hybrid", "moe-attention")
# models with sections of their own: all of a study of so many, of more than that the first few
# (their figures take seconds each, and a page must load)
_MOST_DRAWN, _OF_MORE = 12, 6
_UNKNOWN = "no table says why"
# "quantize, probe: why", unless another "stage: why" follows
_STAGES = re.compile(r"^(?!.*; \w+(, \w+)*: )(quantize|probe|select|intervene|cohere)(, \w+)*: ")


def records(frame: pd.DataFrame) -> list[dict]:
    """Rows as dicts, with None where a value is missing."""
    rows = frame.to_dict("records")
    return [{k: None if formats.missing(v) else v for k, v in row.items()} for row in rows]


@dataclass(frozen=True)
class Model:
    """One model of the study; a verdict holds the phase table's columns at one precision."""

    id: str
    slug: str
    architecture: str
    developer: str
    total_billion: float
    active_billion: float
    verdicts: tuple[dict, ...] = field(repr=False)

    @property
    def ran(self) -> bool:
        """Whether any precision was classified, even as indeterminate."""
        return any(v["phase"] != "not_run" for v in self.verdicts)


@dataclass(frozen=True)
class Study:
    """The tables of one study, its merged configuration, the tables' provenance, and the paths of
    tables that are read a model at a time."""

    config: Mapping
    tables: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Mapping[str, str]]
    long: Mapping[str, Path] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Id of the study."""
        return str(self.config.get("study") or "study")

    @property
    def title(self) -> str:
        """Title of the study, or its id."""
        return str(self.config.get("title") or self.id)

    @cached_property
    def precisions(self) -> list[str]:
        """Precisions of the cells, most bits first."""
        found = set(self.tables["cells"]["precision"]) | set(self.tables["phases"]["precision"])
        return [p for p in PRECISIONS if p in found]

    @cached_property
    def models(self) -> tuple[Model, ...]:
        """Models by architecture, then size, then id."""
        cells = self.tables["cells"].drop_duplicates("model")
        known = {row["model"]: row for row in records(cells)}
        identities = list(dict.fromkeys([*known, *self.tables["phases"]["model"]]))
        slug = formats.slugs(sorted(identities))
        models = [
            Model(
                id=i,
                slug=slug[i],
                architecture=known.get(i, {}).get("architecture", "unknown architecture"),
                developer=known.get(i, {}).get("developer", ""),
                total_billion=known.get(i, {}).get("parameters_total_billion"),
                active_billion=known.get(i, {}).get("parameters_active_billion"),
                verdicts=tuple(self._verdicts(i)),
            )
            for i in identities
        ]
        return tuple(sorted(models, key=_order))

    def drawn(self, wanted: Sequence[str] = ()) -> tuple[Model, ...]:
        """The models that have sections of their own: those of the ids, without any all of a small
        study and the first of a large one.

        Raises PhasescopeError for an id that the study has not.
        """
        if unknown := sorted(set(wanted) - {m.id for m in self.models}):
            raise PhasescopeError(
                f"study {self.id}: no model {formats.listing(unknown)}; its table `cells` names "
                f"{len(self.models)}: {formats.some([m.id for m in self.models])}"
            )
        most = _MOST_DRAWN if len(self.models) <= _MOST_DRAWN else _OF_MORE
        return tuple(m for m in self.models if m.id in wanted) or self.models[:most]

    def _verdicts(self, model: str) -> list[dict]:
        phases, cells = (self._rows[table].get(model, {}) for table in ("phases", "cells"))
        blank = dict.fromkeys(self.tables["phases"].columns) | {"model": model, "phase": "not_run"}
        return [
            phases.get(p) or blank | {"precision": p, "reason": self.why(model, p)}
            for p in PRECISIONS
            if p in phases or p in cells
        ]

    def cell(self, model: str, precision: str) -> dict | None:
        """The row of a cell in the table `cells`."""
        return self._rows["cells"].get(model, {}).get(precision)

    @cached_property
    def _rows(self) -> dict[str, dict[str, dict[str, dict]]]:
        """Rows of the tables of cells: by table, model and precision."""
        found: dict = {"phases": {}, "cells": {}}
        for table, by_model in found.items():
            for row in records(self.tables[table]):
                by_model.setdefault(row["model"], {})[row["precision"]] = row
        return found

    @cached_property
    def _by_model(self) -> dict[str, dict[str, pd.DataFrame]]:
        frames = {t: f for t, f in self.tables.items() if "model" in f and t != "claims"}
        return {t: dict(iter(f.groupby("model"))) for t, f in frames.items()}

    def of(self, table: str, model: str, precision: str | None = None, **values) -> pd.DataFrame:
        """Rows of a table for a model, and for a precision and further column values if given."""
        frame = self._by_model[table].get(model, self.tables[table].head(0))
        if precision is not None:
            values["precision"] = precision
        for column, value in values.items():
            frame = frame[frame[column] == value]
        return frame

    def surveyed(self, table: str, model: str, statistics: Sequence[str]) -> pd.DataFrame:
        """Rows of a long table for a model: those of the statistics, and those of what did not run;
        none where the study has no such table."""
        if table not in self.long:
            return frame_of(table, [])
        wanted = pc.field("statistic").isin(pa.array(statistics, pa.string()))
        wanted |= pc.field("status") == "not_run"
        return read_rows(self.long[table], (pc.field("model") == model) & wanted)

    def why_unsurveyed(self, table: str, rows: pd.DataFrame, model: str, precision: str) -> str:
        """Why a long table, of which `rows` are the model's, has nothing that ran in a cell."""
        own = rows[(rows["precision"] == precision) & (rows["status"] == "not_run")]
        if reasons := list(own["reason"].dropna().unique()):
            return formats.some(reasons, 2)
        stage = "survival" if table == "survival" else "survey"
        if not self.config.get(stage) or (stage == "survey" and table not in self.config[stage]):
            return f"the configuration's key {stage} does not ask for it"
        if stage == "survival" and precision != "16":
            return "edits are made at 16 bit, and followed from there"
        return self.why(model, precision, stage)

    def limit(self, section: str, key: str) -> float | None:
        """A threshold of the study; None where its file is not here."""
        return self.thresholds.get(section, {}).get(key)

    @cached_property
    def thresholds(self) -> Mapping:
        """The thresholds that its configuration names; empty where their file is gone."""
        path = Path(str(self.config.get("thresholds", "config/thresholds.yaml")))
        return read_thresholds(path) if path.is_file() else {}

    def why(self, model: str, precision: str, stage: str = "", design: str = "") -> str:
        """The reason that the tables give for something missing in a cell, nearest cause first."""
        designs = self.of("interventions", model, precision, status="not_run")
        cells = self.of("cells", model, precision)
        if cells.empty and self.of("phases", model, precision).empty:
            return "the study has no such cell"
        left_out = cells["stages_not_run"].map(lambda listed: stage in stages_of(listed))
        sources = [
            designs[designs["design"] == design],
            self.of("selection", model, precision, status="not_run"),
            cells[left_out.astype(bool)],
            cells[cells["status"] != "run"],
            self.of("phases", model, precision, phase="not_run"),
        ]
        if stage not in ("intervene", "select"):
            sources.pop(1)
        for source in sources:
            reasons = list(source["reason"].dropna().unique())
            if reasons:
                return formats.listing(reasons) if len(reasons) < 3 else reasons[0]
        return _UNKNOWN


def stages_of(listed: str | None) -> list[str]:
    """The stages of a comma-separated list; none where it is missing."""
    return [] if formats.missing(listed) else [s.strip() for s in listed.split(",") if s.strip()]


def _order(model: Model) -> tuple:
    known = model.architecture in _ARCHITECTURES
    place = _ARCHITECTURES.index(model.architecture) if known else len(_ARCHITECTURES)
    size = float("inf") if model.total_billion is None else model.total_billion
    return place, pretty(model.architecture), size, model.id.lower()


def _plainly(reason: str | None) -> str | None:
    """A reason without the stages before it, which the page names itself."""
    return reason if formats.missing(reason) else _STAGES.sub("", reason)


def load(folder: Path) -> Study:
    """Read a study's folder.

    Raises PhasescopeError when a table is missing or faulty, or the configuration is no mapping.
    """
    folder = Path(folder)
    lacking = [t for t in TABLES if not (folder / f"{t}.parquet").is_file()]
    if lacking:
        raise PhasescopeError(
            f"{folder}: no table {', '.join(lacking)}; a report needs {', '.join(TABLES)}"
        )
    paths = {t: folder / f"{t}.parquet" for t in TABLES}
    config_path = folder / "config.yaml"
    config = (
        yaml.safe_load(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    )
    if not isinstance(config, dict):
        raise PhasescopeError(
            f"{config_path}: found {type(config).__name__}; allowed: a mapping of keys"
        )
    paths |= {
        t: p for t in (*CALIBRATION, *RATES, *CLAIMS) if (p := folder / f"{t}.parquet").is_file()
    }
    tables = {t: read_table(p) for t, p in paths.items()}
    for name in ("cells", "phases"):
        tables[name]["reason"] = [_plainly(reason) for reason in tables[name]["reason"]]
    long = {t: p for t in SURVEYED if (p := folder / f"{t}.parquet").is_file()}
    return Study(
        config=config,
        tables=tables,
        provenance={t: read_provenance(p) for t, p in (paths | long).items()},
        long=long,
    )

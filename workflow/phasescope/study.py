"""A study before it runs: its cells, which stages each runs, and why the others do not."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from phasescope.chat import Endpoint
from phasescope.checkpoint import model_type, read_header, shards
from phasescope.errors import PhasescopeError
from phasescope.graders import endpoint_of, judge_errors, judge_status
from phasescope.matrix import (
    Cell,
    Machine,
    Model,
    ModelDisk,
    Prompts,
    Source,
    from_headers,
    from_seeds,
    from_shapes,
    pick,
    plan,
    prompt_lengths,
    read_sheet,
    this_machine,
    validated_config,
)
from phasescope.prompts import PromptTable, read_prompts
from phasescope.thresholds import read_thresholds
from phasescope.world import WORLDS

# stages of a cell in run order, and the tables each makes (intervene: one a design)
STAGE_TABLES = {
    "quantize": (),
    "probe": ("probes",),
    "select": ("selection",),
    "intervene": (),
    "cohere": ("coherence", "behavior"),
    "calibration_sets": ("calibration_sets",),  # where the configuration names sets, at 16 bit
}
STUDY_TABLES = (
    "cells",
    "audit",
    "tensors",
    "probes",
    "selection",
    "interventions",
    "coherence",
    "behavior",
    "calibration_sets",
    "agreement",
    "endpoints",
    "phases",
)
# of a study that trains its organisms first, and so knows the truth
CALIBRATION_TABLES = ("calibration", "calibration_summary", "threshold_fit")
# keys of the configuration that decide which answers a cell gives and how they are kept
ANSWER_KEYS = (
    "thinking",
    "max_thinking_tokens",
    "max_answer_tokens",
    "batch_size",
    "keep_text",
    "seed",
    "judge",
)
_NEED_GRADES = ("select", "intervene", "cohere")


@dataclass
class StudyPlan:
    """What a study will do.

    sources: by model, what is known of its checkpoint; stops: for each cell's name and stage, why
    it does not run; trained: for each organism that is trained first, its `organism`, `recipe`,
    `seed` and planted `phase`; languages: of each prompt table, by its path.
    """

    config: dict
    models: list[Model]
    cells: list[Cell]
    prompts: dict[str, str]
    sources: dict[str, Source | None]
    stops: dict[tuple[str, str], str] = field(default_factory=dict)
    trained: dict[str, dict] = field(default_factory=dict)
    languages: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _by_name(self) -> dict[str, Cell]:
        return {cell.name: cell for cell in self.cells}

    @property
    def usable_mb(self) -> int:
        """Memory that all jobs together may use, MB."""
        return int(self.cells[0].usable_bytes / 1e6)

    def cell(self, model: str, precision: str) -> Cell:
        """One cell by its wildcards."""
        return self._by_name[f"{model}/{precision}"]

    @property
    def tables(self) -> tuple[str, ...]:
        """The study-wide tables that it makes."""
        return STUDY_TABLES + (CALIBRATION_TABLES if self.trained else ())

    def model(self, model: str) -> Model:
        """One model by its id."""
        return next(m for m in self.models if m.id == model)

    def stages(self, cell: Cell) -> list[str]:
        """Stages that a cell has, in run order, whether or not something stops them."""
        compares = self.config["calibration_sets"] and cell.precision == "16"
        return [s for s in STAGE_TABLES if s != "calibration_sets" or compares]

    def running(self, stage: str) -> list[Cell]:
        """Cells that run a stage."""
        return [
            c for c in self.cells if stage in self.stages(c) and (c.name, stage) not in self.stops
        ]

    def ready_made(self, model: str, precision: str) -> str | None:
        """Hub id of a third party's quantized model that is used for a cell, or None."""
        return self.model(model).ready_made(precision)

    def source(self, model: str) -> dict:
        """Where a model's checkpoint comes from, as `checkpoint.fetch` takes it."""
        row = self.model(model)
        return {"folder": row.folder, "repo": row.huggingface_id, "revision": row.revision}

    def local_files(self, model: str) -> list[str]:
        """Files of a local checkpoint, sorted; none for a model on the hub; the folder itself for
        an organism that is trained first."""
        folder = self.model(model).folder
        if folder is None:
            return []
        if model in self.trained:
            return [folder]
        return sorted(str(p) for p in Path(folder).glob("*") if p.is_file()) or [folder]

    def grading(self) -> dict[str, tuple[str, str]]:
        """By model: what its grades are (`exact`, `calibrated`, `uncalibrated`) and why; models
        whose prompts nothing reads are left out."""
        found = {}
        for model, path in self.prompts.items():
            if self.languages[path] in WORLDS:
                found[model] = "exact", "exact grades of a symbolic world"
            elif self.config["judge"] is not None:
                found[model] = self._judge_status
        return found

    @cached_property
    def _judge_status(self) -> tuple[str, str]:
        limits = read_thresholds(self.config["thresholds"])["grading"]
        return judge_status(self.config["judge"], limits)

    def judge_errors(self) -> dict | None:
        """Errors of the judge for compliance, counted by `grade-check`; None without a check."""
        judge = self.config["judge"]
        return None if judge is None else judge_errors(judge)

    @property
    def results(self) -> Path:
        """Folder of the study's results."""
        return Path("results", self.config["study"])

    def disk(self) -> list[ModelDisk]:
        """Files of each model that the cells that run take."""
        running = self.running("quantize")
        return [
            self._disk(model, cells)
            for model in self.models
            if (cells := [c for c in running if c.model is model])
        ]

    def _disk(self, model: Model, cells: list[Cell]) -> ModelDisk:
        ours = [c for c in cells if not model.ready_made(c.precision)]
        source = self.sources[model.id]
        return ModelDisk(
            model=model.id,
            source=ours[0].weights.source_bytes if ours and model.folder is None else 0,
            source_here=source is not None and source.on_disk,
            quantized={c.precision: c.weights.file_bytes for c in ours if c.precision != "16"},
            ready_made={c.precision: c.weights.file_bytes for c in cells if c not in ours},
            passed_through=any(c.precision == "16" for c in ours),
            released=model.id in self.released,
        )

    @cached_property
    def released(self) -> dict[str, list[str]]:
        """Precisions of each model whose source is fetched for quantizing alone and then deleted.

        What an earlier run did with a model's source stays so, whatever `keep_sources` says now:
        else a changed key would fetch it again.
        """
        found = {}
        for model in self.models:
            precisions = [
                c.precision
                for c in self.running("quantize")
                if c.model is model and not model.ready_made(c.precision)
            ]
            if model.folder is None and self._releases(model.id, precisions):
                found[model.id] = [p for p in precisions if p != "16"]
        return {m: p for m, p in found.items() if p}

    def _releases(self, model: str, precisions: list[str]) -> bool:
        folder = self.results / model
        if (folder / "quantize" / "source.json").is_file():
            return True
        kept = self.config["keep_sources"] or (folder / "fetch" / "checkpoint.json").is_file()
        return not kept and "16" not in precisions

    def records(self) -> list[dict]:
        """One record a cell: its row of the table `cells`, as far as it is known beforehand."""
        return [self._record(cell) for cell in self.cells]

    def _record(self, cell: Cell) -> dict:
        stages = self.stages(cell)
        stops = {s: self.stops[cell.name, s] for s in stages if (cell.name, s) in self.stops}
        runs = [s for s in stages if s not in stops]
        reasons = [
            f"{', '.join(s for s in stops if stops[s] == r)}: {r}"
            for r in dict.fromkeys(stops.values())
        ]
        return {
            "model": cell.model.id,
            "precision": cell.precision,
            "architecture": cell.model.architecture,
            "developer": cell.model.developer,
            "parameters_total_billion": cell.model.parameters_total_billion,
            "parameters_active_billion": cell.model.parameters_active_billion,
            "status": "not_run" if not runs else "partly" if stops else "run",
            "stages_run": ", ".join(runs) or None,
            "stages_not_run": ", ".join(stops) or None,
            "reason": "; ".join(reasons) or None,
            "memory_needed_bytes": cell.needed_bytes,
            "memory_usable_bytes": cell.usable_bytes,
        }

    def summary(self) -> str:
        """What will run and what will not, for the console."""
        names = {c.name: self._record(c) for c in self.cells}
        whole = [n for n, r in names.items() if r["status"] == "run"]
        lines = [
            f"Study {self.config['study']}: {len(self.cells)} cells of {len(self.models)} "
            f"models; {len(whole)} run in full"
        ]
        reasons: dict[str, list[str]] = {}
        for name, record in names.items():
            if record["reason"]:
                reasons.setdefault(record["reason"], []).append(name)
        lines += [f"  not run: {_some(cells)}: {reason}" for reason, cells in reasons.items()]
        return "\n".join(lines)


def _some(names: list[str], most: int = 4) -> str:
    """Names for the console, the first few of many."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _prompts(models: list[Model], config: dict) -> dict[str, str]:
    """Path of each model's prompt table; models without one are left out. Each table is read."""
    found = {m.id: m.prompts or config["prompts"] for m in models}
    return {m: path for m, path in found.items() if path}


def _stops(
    cells: list[Cell],
    config: dict,
    prompts: dict[str, str],
    tables: dict[str, PromptTable],
    files: list[str],
) -> dict:
    stops = {}
    for cell in cells:
        reason = None
        if cell.model.id in config["skip"] or cell.name in config["skip"]:
            reason = "left out by the configuration (key 'skip')"
        elif cell.model.id not in prompts:
            reason = f"no prompt table is named (key 'prompts' in {files[-1]})"
        if reason:
            stops |= {(cell.name, stage): reason for stage in STAGE_TABLES}
            continue
        stops |= {(cell.name, stage): r for stage in STAGE_TABLES if (r := cell.reason(stage))}
        language = tables[prompts[cell.model.id]].language
        if language not in WORLDS and config["judge"] is None:
            reason = (
                f"no grader reads the prompts' language {language!r}: exact grades exist for "
                f"{', '.join(WORLDS)}, and no judge is named (key 'judge' in {files[-1]})"
            )
            stops = {(cell.name, stage): reason for stage in _NEED_GRADES} | stops
    return stops


def _check_skip(config: dict, models: list[Model], where: str) -> None:
    cells = {f"{m.id}/{p}" for m in models for p in config["precisions"]}
    for name in config["skip"]:
        if name not in cells and name not in {m.id for m in models}:
            raise PhasescopeError(
                f"{where}: key 'skip': no such model or cell {name!r}; models: "
                f"{', '.join(m.id for m in models)}"
            )


def _check_calibration(config: dict, where: str) -> None:
    if config["calibration_sets"] and 16 not in config["precisions"]:
        raise PhasescopeError(
            f"{where}: key 'calibration_sets': found {', '.join(config['calibration_sets'])} with "
            f"precisions {config['precisions']}; sets are compared on 16-bit weights: allowed with "
            "16 among the precisions"
        )


def _check_endpoints(config: dict, tables: dict[str, PromptTable], where: str) -> None:
    """Endpoints need ids of their own, a prompt table, a grader, and settings that can be asked."""
    ids = [entry["id"] for entry in config["endpoints"]]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise PhasescopeError(f"{where}: key 'endpoints': id {twice.pop()!r} stands twice")
    if not ids:
        return
    if config["prompts"] is None:
        raise PhasescopeError(f"{where}: key 'endpoints': no prompt table is named (key 'prompts')")
    language = tables[config["prompts"]].language
    if language not in WORLDS and config["judge"] is None:
        raise PhasescopeError(
            f"{where}: key 'endpoints': no grader reads the prompts' language {language!r}, and "
            "no judge is named (key 'judge')"
        )
    for entry in config["endpoints"]:
        try:
            Endpoint(**{k: v for k, v in entry.items() if k not in ("id", "log")})
        except PhasescopeError as error:
            raise PhasescopeError(
                f"{where}: key 'endpoints', id {entry['id']!r}: {error}"
            ) from None


def _family(name: str) -> str:
    """Family of a model by its name: the letters that it begins with."""
    return re.match(r"[a-z]*", name.rsplit("/", 1)[-1].lower())[0]


def _check_judge(config: dict, models: list[Model], where: str) -> None:
    """A judge must be askable and of another family than the models it judges."""
    judge = config["judge"]
    if judge is None:
        return
    try:
        name = endpoint_of(judge).name
    except PhasescopeError as error:
        raise PhasescopeError(f"{where}: {error}") from None
    families = {(judge.get("family") or _family(name)).lower()}
    if judge.get("folder"):
        families.add(_family(model_type(Path(judge["folder"]))))
    for model in models:
        if found := families & {_family(model.huggingface_id or ""), _family(model.id)} - {""}:
            raise PhasescopeError(
                f"{where}: key 'judge': of the family {found.pop()!r}, as model {model.id!r} that "
                "it would judge; allowed: another family"
            )


def _lengths(prompts: dict[str, str], tables: dict[str, PromptTable]) -> dict[str, Prompts]:
    """Longest prompts by model; a table in a language without grades needs no references."""
    found = {}
    for path, table in tables.items():
        answers = table.frame["answer"] if table.language in WORLDS else [""] * len(table.frame)
        found[path] = prompt_lengths(table.frame["text"], answers)
    return {model: found[path] for model, path in prompts.items()}


def _trained(models: list[Model], config: dict) -> tuple[list[Model], dict[str, dict]]:
    """The organisms of a study, trained afresh from each seed, and what each is made of."""
    folder, seeds = f"results/{config['study']}/organisms", config["seeds"]
    rows = from_seeds(models, seeds, folder, config["sheet"])
    made = [(model, seed) for seed in seeds for model in models]
    return rows, {
        row.id: {"organism": m.id, "recipe": m.recipe, "seed": seed, "phase": m.phase}
        for row, (m, seed) in zip(rows, made, strict=True)
    }


def known_source(model: Model, fetched: Path) -> Source | None:
    """What is known of a model's checkpoint, without downloading anything: its own config and
    headers where its files lie on this machine (a local folder, `fetched`, or the hub's cache),
    else the shape facts of its hub id; None where there is neither.

    A faulty checkpoint counts as none: the job that fetches it says what is wrong with it.
    """
    folder = Path(model.folder) if model.folder else None
    for place in (folder, fetched, _cached(model)):
        if place is not None and (found := _headers(place)):
            return found
    return from_shapes(model.huggingface_id)


def _cached(model: Model) -> Path | None:
    """Folder of a hub model in the hub's cache, None where it is not there."""
    if model.huggingface_id is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.huggingface_id, "config.json", revision=model.revision)
    return Path(found).parent if isinstance(found, str) else None


def _headers(folder: Path) -> Source | None:
    if not (folder / "config.json").is_file():
        return None
    try:
        model_type(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files = shards(folder)
        dtypes = {name: t.dtype for path in files for name, t in read_header(path).items()}
        return from_headers(config, dtypes, sum(path.stat().st_size for path in files))
    except (PhasescopeError, OSError, ValueError):
        return None


def plan_study(
    config: dict, files: list[str], machine: Machine | None = None, *, measure: bool = False
) -> StudyPlan:
    """Check configuration, sheet and prompt tables, and decide which cells run which stages.

    files: the configuration files that `config` was merged from, for messages; machine: another
    than this one; measure: find out this machine's speed where it is not known yet (seconds).
    Raises PhasescopeError for the first fault, naming file, row or key, what was found and is
    allowed.
    """
    files = files or ["config"]
    config = validated_config(config, files)
    where = " + ".join(files)
    models = pick(
        read_sheet(config["sheet"]), config["models"], config["sheet"], f"{where}: key 'models'"
    )
    trained: dict[str, dict] = {}
    if config["seeds"]:
        models, trained = _trained(models, config)
    _check_skip(config, models, where)
    _check_calibration(config, where)
    _check_judge(config, models, where)
    prompts = _prompts(models, config)
    wanted = [*prompts.values(), *filter(None, [config["prompts"]] if config["endpoints"] else [])]
    tables = {path: read_prompts(path) for path in dict.fromkeys(wanted)}
    _check_endpoints(config, tables, where)
    results = Path("results", config["study"])
    sources = {m.id: known_source(m, results / m.id / "fetch" / "checkpoint") for m in models}
    machine = machine or this_machine(config["memory_gb"])
    lengths = _lengths(prompts, tables)
    cells = plan(models, config, machine, sources, lengths, measure=measure)
    stops = _stops(cells, config, prompts, tables, files)
    languages = {path: table.language for path, table in tables.items()}
    return StudyPlan(config, models, cells, prompts, sources, stops, trained, languages)

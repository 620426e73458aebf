"""A study before it runs: its cells, which stages each runs, and why the others do not."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from phasescope.graders import judge_errors, judge_status
from phasescope.matrix import (
    LEFT_OUT_BY_SHEET,
    OPTIONAL_STAGES,
    Cell,
    Machine,
    Model,
    ModelDisk,
    Source,
    from_seeds,
    pick,
    plan,
    read_sheet,
    this_machine,
    validated_config,
)
from phasescope.prompts import Chosen, Named, PromptTable, choose_tables
from phasescope.study.checks import (
    check_16_bit,
    check_endpoints,
    check_judge,
    lengths_of,
    skipped,
)
from phasescope.study.sources import known_source
from phasescope.study.stages import (
    CALIBRATION_TABLES,
    FROM_16_BIT,
    STAGE_TABLES,
    STUDY_TABLES,
    TOPIC_DESIGN,
    TOPIC_TABLES,
    WRITER_TABLES,
)
from phasescope.thresholds import read_thresholds
from phasescope.world import WORLDS

_NEED_GRADES = ("select", "intervene", "cohere", "survival")
_UNKNOWN_MINUTES = 24 * 60


@dataclass
class StudyPlan:
    """What a study will do.

    sources: by model, what is known of its checkpoint; stops: for each cell's name and stage, why
    it does not run; trained: for each organism that is trained first, its `organism`, `recipe`,
    `seed` and planted `phase`.
    """

    config: dict
    models: list[Model]
    cells: list[Cell]
    chosen: Chosen
    sources: dict[str, Source | None]
    stops: dict[tuple[str, str], str] = field(default_factory=dict)
    trained: dict[str, dict] = field(default_factory=dict)

    @property
    def prompts(self) -> dict[str, str]:
        """Path of each model's main prompt table; models without one are left out."""
        return self.chosen.main

    @property
    def prompt_records(self) -> list[dict]:
        """Of each model and use of prompts: the table, or why there is none."""
        return self.chosen.records(self.models)

    def more_prompts(self, model: str) -> dict[str, str]:
        """Path of a model's further prompt tables, by use."""
        return self.chosen.more.get(model, {})

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

    def minutes(self, model: str, precision: str, stage: str) -> int:
        """Time that a job of a stage may take on a cluster: three times the expected hours of the
        whole stage and half an hour; a day where they are not known."""
        hours = self.cell(model, precision).hours.get(stage)
        return _UNKNOWN_MINUTES if hours is None else round(180 * hours) + 30

    @property
    def tables(self) -> tuple[str, ...]:
        """The study-wide tables that it makes."""
        more = WRITER_TABLES if self.config["writers"] else ()
        more += TOPIC_TABLES if self.truth_sheets else ()
        return STUDY_TABLES + more + (CALIBRATION_TABLES if self.trained else ())

    @cached_property
    def truth_sheets(self) -> dict[str, str]:
        """By organism that runs, its folder, where a design asks how its topics were trained."""
        if TOPIC_DESIGN not in self.config["designs"]:
            return {}
        running = (m for m in self.organisms if self.running("intervene", m))
        return {m: self.model(m).folder for m in running}

    @property
    def organisms(self) -> dict[str, dict]:
        """Of each model that is an organism: its `organism`, `recipe` and the `seed` of that;
        those that ship say their seed in their truth sheet."""
        if self.trained:
            keys = ("organism", "seed", "recipe")
            return {m: {k: f[k] for k in keys} for m, f in self.trained.items()}
        return {
            m.id: {
                "organism": m.id,
                "seed": json.loads(sheet.read_text())["seed"],
                "recipe": m.recipe,
            }
            for m in self.models
            if m.recipe and m.folder and (sheet := Path(m.folder, "organism.json")).is_file()
        }

    def model(self, model: str) -> Model:
        """One model by its id."""
        return self._models_by_id[model]

    @cached_property
    def _models_by_id(self) -> dict[str, Model]:
        return {m.id: m for m in self.models}

    def stages(self, cell: Cell) -> list[str]:
        """Stages that a cell has, in run order, whether or not something stops them."""
        wanted = {"survey": self.config["survey"]}
        for stage in FROM_16_BIT:
            wanted[stage] = self.config[stage] and cell.precision == "16"
        return [s for s in STAGE_TABLES if wanted.get(s, True)]

    def running(self, stage: str, model: str | None = None) -> list[Cell]:
        """Cells that run a stage: all of them, or those of a model."""
        return self._running[stage, model]

    @cached_property
    def _running(self) -> dict[tuple[str, str | None], list[Cell]]:
        found: dict[tuple[str, str | None], list[Cell]] = defaultdict(list)
        for cell in self.cells:
            for stage in self.stages(cell):
                if (cell.name, stage) not in self.stops:
                    found[stage, None].append(cell)
                    found[stage, cell.model.id].append(cell)
        return found

    def designs(self, cell: Cell) -> list[str]:
        """The designs that a cell runs."""
        return [d for d in self.config["designs"] if d not in cell.dropped]

    def dropped(self) -> list[dict]:
        """The designs that cells leave out: model, precision, design and reason."""
        return [
            {"model": c.model.id, "precision": c.precision, "design": design, "reason": reason}
            for c in self.running("intervene")
            for design, reason in c.dropped.items()
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
            if self.chosen.tables[path].language in WORLDS:
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
        running = [(m, self.running("quantize", m.id)) for m in self.models]
        return [self._disk(model, cells) for model, cells in running if cells]

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
            cells = self.running("quantize", model.id)
            precisions = [c.precision for c in cells if not model.ready_made(c.precision)]
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
        dropped: dict[tuple[str, str], list[str]] = {}
        for d in (d for d in self.dropped() if d["reason"] != LEFT_OUT_BY_SHEET):
            cell = f"{d['model']}/{d['precision']}"
            dropped.setdefault((d["design"], d["reason"]), []).append(cell)
        lines += [f"  design {d}: {_some(cells)}: {why}" for (d, why), cells in dropped.items()]
        if fewer := [m.id for m in self.models if m.runs]:
            lines.append(f"  a part of the designs: {_some(fewer)}: column 'runs' of the sheet")
        return "\n".join(lines)


def _some(names: list[str], most: int = 4) -> str:
    """Names for the console, the first few of many."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _stops(
    cells: list[Cell],
    left_out: set[str],
    config: dict,
    prompts: dict[str, str],
    tables: dict[str, PromptTable | Named],
    files: list[str],
) -> dict:
    stops = {}
    for cell in cells:
        reason = None
        if cell.name in left_out:
            reason = "left out by the configuration (key 'skip')"
        elif cell.model.id not in prompts:
            reason = f"no prompt table is named (key 'prompts' in {files[-1]})"
        if reason:
            stops |= {(cell.name, stage): reason for stage in STAGE_TABLES}
            continue
        stops |= {
            (cell.name, stage): LEFT_OUT_BY_SHEET
            for stage in OPTIONAL_STAGES
            if cell.model.leaves_out(stage)
        }
        stops |= {(cell.name, stage): r for stage in STAGE_TABLES if (r := cell.reason(stage))}
        language = tables[prompts[cell.model.id]].language
        if language not in WORLDS and config["judge"] is None:
            reason = (
                f"no grader reads the prompts' language {language!r}: exact grades exist for "
                f"{', '.join(WORLDS)}, and no judge is named (key 'judge' in {files[-1]})"
            )
            stops = {(cell.name, stage): reason for stage in _NEED_GRADES} | stops
    return stops


def _trained(models: list[Model], config: dict) -> tuple[list[Model], dict[str, dict]]:
    """The organisms of a study, trained afresh from each seed, and what each is made of."""
    folder, seeds = f"results/{config['study']}/organisms", config["seeds"]
    rows = from_seeds(models, seeds, folder, config["sheet"])
    made = [(model, seed) for seed in seeds for model in models]
    return rows, {
        row.id: {"organism": m.id, "recipe": m.recipe, "seed": seed, "phase": m.phase}
        for row, (m, seed) in zip(rows, made, strict=True)
    }


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
    left_out = skipped(config, models, where)
    check_16_bit(config, where)
    check_judge(config, models, where)
    results = Path("results", config["study"])
    chosen = choose_tables(models, config, results, where)
    sources = {m.id: known_source(m, results / m.id / "fetch" / "checkpoint") for m in models}
    machine = machine or this_machine(config["memory_gb"])
    lengths = lengths_of(chosen)
    cells = plan(models, config, machine, sources, lengths, measure=measure)
    check_endpoints(config, chosen, where)
    stops = _stops(cells, left_out, config, chosen.main, chosen.tables, files)
    return StudyPlan(config, models, cells, chosen, sources, stops, trained)

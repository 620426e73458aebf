"""Cells: what memory each stage needs, whether the machine can give it, and what to change."""

import math
from dataclasses import dataclass, field

from phasescope.matrix import speed
from phasescope.matrix.dimensions import Dimensions, dimensions
from phasescope.matrix.effort import dropped_designs
from phasescope.matrix.machine import Machine, machine_for, raised_limit_mb
from phasescope.matrix.memory import (
    QUANTIZE_BYTES,
    STAGES,
    comparing,
    judge_bytes,
    stage_bytes,
)
from phasescope.matrix.sheet import Model
from phasescope.matrix.sources import Source
from phasescope.matrix.weights import Weights, from_sheet, weights_of
from phasescope.matrix.workload import Prompts, Workload

# stages beside the others, where the configuration asks for them
COMPARING, SURVEY, SURVIVAL = "calibration_sets", "survey", "survival"
_SURVEY_BYTES = 2e9  # activations that it keeps beside what the probe needs, and works on
_WORKING_SHARE = 0.10  # beside the weights, where only the number of parameters is known
_FIXED_BYTES = 1.5e9
# the designs that edit weights, and keep the originals beside
_WEIGHT_EDITS = {
    "weight-projection",
    "projection-sets",
    "integers",
    "additive-structural",
    "transfer",
}
# A step of a smaller model waits for the program more than for the GPU, so four run side by side; a
# larger one reads its weights at the memory's full bandwidth. An assumption, not yet measured.
_SHARING_BYTES, _SHARING_PERCENT = 2e9, 25
LEFT_OUT_BY_SHEET = "not among what this model runs (column 'runs' of the sheet)"


@dataclass(frozen=True)
class Cell:
    """One model at one precision ('16', '8' or '4'), and what memory says of it.

    stages: planned peak memory of each stage, bytes; hours: expected, by stage, empty while this
    machine's speed is not known; dropped: designs that it leaves out, and why; unedited_bytes:
    peak of `intervene` without weight edits; comparing_bytes: peak while calibration sets are
    compared; origin: what the numbers rest on, 'checkpoint', 'shapes' or 'sheet'.
    """

    model: Model
    precision: str
    weights: Weights
    stages: dict[str, float]
    machine: Machine
    unedited_bytes: float
    comparing_bytes: float
    origin: str = "sheet"
    hours: dict[str, float] = field(default_factory=dict)
    advice: str | None = None
    dropped: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`model/precision`, as in the paths of the results."""
        return f"{self.model.id}/{self.precision}"

    @property
    def weight_bytes(self) -> float:
        """Weights in memory on the planned machine, bytes."""
        return self.weights.memory_bytes(self.machine.metal)

    @property
    def needed_bytes(self) -> float:
        """Planned peak over all stages, bytes."""
        return max(self.stages.values())

    @property
    def usable_bytes(self) -> float:
        """What the machine can give, bytes."""
        return self.machine.usable_bytes

    def mem_mb(self, stage: str, design: str | None = None) -> int:
        """Needed memory of a stage, or one design of it, as the workflow's scheduler counts it,
        MB."""
        needed = self._bytes(stage)
        if design not in (None, *_WEIGHT_EDITS):
            needed = self.unedited_bytes
        return math.ceil(needed / 1e6)

    @property
    def gpu_percent(self) -> int:
        """Share of a Mac's one GPU that a job on the cell takes, where the profile counts it."""
        return _SHARING_PERCENT if self.weight_bytes < _SHARING_BYTES else 100

    def _bytes(self, stage: str) -> float:
        if stage == SURVEY:
            return self.stages["probe"] + _SURVEY_BYTES
        return self.comparing_bytes if stage in (COMPARING, SURVIVAL) else self.stages[stage]

    def reason(self, stage: str) -> str | None:
        """Why a stage cannot run on the machine, or None when it and those before it fit."""
        beside = stage in (COMPARING, SURVEY, SURVIVAL)
        before = ("probe",) if beside else STAGES[: STAGES.index(stage)]
        if stage == SURVIVAL:
            before = ("probe", "select")  # the edits are made along the selected direction
        # without a probe nothing is measured: then nothing is quantized either
        if max(map(self._bytes, (*before, stage, "probe"))) <= self.usable_bytes:
            return None
        needed = max(self.needed_bytes, self._bytes(stage))
        return (
            f"needs about {_gb(needed)} GB of memory, {self.machine.name} can give "
            f"{_gb(self.usable_bytes)} GB"
        )

    @property
    def fits(self) -> bool:
        """Whether every stage fits."""
        return self.needed_bytes <= self.usable_bytes


def _gb(size: float) -> str:
    return f"{size / 1e9:.0f}" if size >= 1e10 else f"{size / 1e9:.1f}"


@dataclass(frozen=True)
class _Known:
    """A cell's weights and, where its config is known, dimensions."""

    weights: Weights
    dimensions: Dimensions | None
    origin: str


def _known(model: Model, precision: str, source: Source | None, group_size: int) -> _Known:
    if source is not None:
        try:
            return _Known(
                weights_of(source, precision, group_size),
                dimensions(source.config),
                source.origin,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # a config that mlx-lm cannot build is the fetching job's to name
    parameters = model.parameters_total_billion * 1e9, model.parameters_active_billion * 1e9
    return _Known(from_sheet(*parameters, precision, group_size), None, "sheet")


def _stages(
    known: _Known,
    precision: str,
    work: Workload,
    machine: Machine,
    batch: int | None = None,
    *,
    edits: bool = True,
) -> dict[str, float]:
    alone = _alone(known, precision, work, machine, batch, edits=edits)
    judge = judge_bytes(work.config.get("judge"))
    return {s: size + (judge if s != "quantize" else 0.0) for s, size in alone.items()}


def _alone(known, precision, work, machine, batch, *, edits) -> dict[str, float]:
    """Peak memory of each stage without a judge."""
    weights, metal = known.weights.memory_bytes(machine.metal), machine.metal
    editing = (0.0, 0.0)
    if edits and _WEIGHT_EDITS & {*work.config["designs"]}:
        editing = known.weights.editing_bytes(metal)
    if known.dimensions is None:
        needed = weights * (1 + _WORKING_SHARE) + _FIXED_BYTES
        edited = {"quantize": QUANTIZE_BYTES, "intervene": needed + sum(editing)}
        return dict.fromkeys(STAGES, needed) | edited | {"cohere": edited["intervene"]}
    loading = known.weights.loading_bytes(metal, precision)
    return stage_bytes(known.dimensions, weights, loading, work.longest(metal, batch), editing)


def _advice(known: _Known, precision: str, work: Workload, machine: Machine) -> str:
    """What to change so that every stage fits: the least change of the configuration, the wired
    limit of a Mac, the precision, the machine."""
    asked, ways = work.config["batch_size"], []
    batches = [2**n for n in range(math.ceil(math.log2(asked)) - 1, -1, -1)]
    changes = [(asked, True), *((b, True) for b in batches)] if known.dimensions else []
    editing = [d for d in work.config["designs"] if d in _WEIGHT_EDITS]
    if editing:
        changes += [(b, False) for b, _ in changes] or [(asked, False)]

    def needed(change):
        batch, edits = change
        return max(_stages(known, precision, work, machine, batch, edits=edits).values())

    def said(change, *before):
        batch, edits = change
        words = [*before, *([] if edits else [f"designs without {', '.join(editing)}"])]
        return " and ".join([*words, *([f"batch_size: {batch}"] if batch != asked else [])])

    if change := next((c for c in changes if needed(c) <= machine.usable_bytes), None):
        ways.append(said(change))
    for change in changes:
        if limit := raised_limit_mb(needed(change), machine):
            ways.append(said(change, f"sudo sysctl iogpu.wired_limit_mb={limit}"))
            break
    if not ways and machine.metal and precision != "4":
        ways.append("a lower precision")
    if size := machine_for(needed((asked, True)), machine.metal):
        ways.append(f"a machine of {size} GB")
    return ", or ".join(ways) or "no machine of up to 2 TB is enough"


def plan(
    models: list[Model],
    config: dict,
    machine: Machine,
    sources: dict[str, Source | None],
    prompts: dict[str, Prompts],
    *,
    measure: bool = False,
) -> list[Cell]:
    """All cells of a study in the sheet's order, with memory, and hours where speed is known.

    sources: by model id, what is known of its checkpoint; prompts: by model id, lengths of its
    prompts; measure: find out this machine's speed where it is not known yet (seconds).
    """
    each = []
    for model in models:
        for precision in map(str, config["precisions"]):
            known = _known(model, precision, sources.get(model.id), config["group_size"])
            layers = known.dimensions.layers if known.dimensions else model.layers
            lengths = prompts.get(model.id, Prompts())
            work = Workload(config, lengths, model.thinking, layers)
            each.append((model, precision, known, work))
    if measure and machine.here:
        speed.measure([_shape(k, p, w, machine) for _, p, k, w in each if k.dimensions])
    return [_cell(*parts, machine) for parts in each]


def _shape(known: _Known, precision: str, work: Workload, machine: Machine) -> speed.Shape:
    return speed.shape_of(known.dimensions, precision, work.config["batch_size"], machine.metal)


def _cell(model: Model, precision: str, known: _Known, work: Workload, machine: Machine) -> Cell:
    stages = _stages(known, precision, work, machine)
    unedited = _stages(known, precision, work, machine, edits=False)["intervene"]
    compares = unedited + (comparing(known.dimensions) if known.dimensions else 0.0)
    hours, dropped = _hours(model, known, precision, work, machine)
    fits = max(stages.values()) <= machine.usable_bytes
    advice = None if fits else _advice(known, precision, work, machine)
    return Cell(
        model,
        precision,
        known.weights,
        stages,
        machine,
        unedited,
        compares,
        known.origin,
        hours,
        advice,
        dropped,
    )


def _hours(model, known, precision, work, machine) -> tuple[dict[str, float], dict[str, str]]:
    """Expected hours by stage, and the designs that are dropped, with the reasons."""
    hours, each, config = {}, {}, work.config
    if machine.here and known.dimensions:
        rates = speed.known(_shape(known, precision, work, machine))
        if rates:
            parts = known.dimensions, known.weights, config["batch_size"]
            hours = speed.hours(*parts, work.stages(), rates)
            each = speed.hours(*parts, work.designs(), rates)
    rest = sum(time for stage, time in hours.items() if stage != "intervene")
    left_out = {d: LEFT_OUT_BY_SHEET for d in config["designs"] if model.leaves_out(d)}
    designs = [d for d in config["designs"] if d not in left_out]
    limits = config["effort"], config.get("max_hours")
    dropped = left_out | dropped_designs(designs, *limits, each, rest)
    if each:
        hours["intervene"] = sum(time for d, time in each.items() if d not in dropped)
    return hours, dropped

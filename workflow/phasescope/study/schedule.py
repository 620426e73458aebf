"""The jobs of a planned study, for simulating when they run."""

from pathlib import Path

from phasescope.errors import PhasescopeError
from phasescope.matrix import Cell
from phasescope.matrix.simulation import Job
from phasescope.study.plan import StudyPlan

_SEQUENCE = ("quantize", "probe", "select", "intervene", "cohere")
_TABLE = {"probe": "probes", "select": "selection", "cohere": "coherence"}


def jobs_of(study: StudyPlan, speedup: float = 1.0, *, missing_only: bool = False) -> list[Job]:
    """Jobs of all cells that run, each after those that it needs; `intervene` is one a design.

    Hours are the plan's, divided by `speedup`. A cell whose hours the plan does not know (no config
    is known) takes those of the known cells in proportion to its active parameters. missing_only:
    leave out what the results hold already. Raises PhasescopeError where no hours are known.
    """
    found: list[Job] = []
    rate = _hours_a_parameter(study)
    for cell in study.cells:
        before: tuple[int, ...] = ()
        for stage in _SEQUENCE:
            if (cell.name, stage) in study.stops:
                break
            parts = study.config["designs"] if stage == "intervene" else [stage]
            hours = _hours(cell, stage, rate) / len(parts) / speedup
            numbers = []
            for part in parts:
                if missing_only and _made(study, cell, stage, part):
                    continue
                design = part if stage == "intervene" else None
                needed = cell.mem_mb(stage, design) * 1e6
                percent = 0 if stage == "quantize" else cell.gpu_percent
                numbers.append(len(found))
                found.append(Job(cell.name, part, hours, needed, percent, before))
            before = tuple(numbers) or before
    return found


def _hours_a_parameter(study: StudyPlan) -> dict[str, float]:
    """By stage: the known cells' hours over their active parameters."""
    known = [cell for cell in study.cells if cell.hours]
    if not known:
        raise PhasescopeError(
            "no cell's hours are known: run `phasescope plan` once without --no-speed, on a study "
            "with a model whose config.json is known"
        )
    parameters = sum(cell.weights.active_parameters for cell in known)
    return {s: sum(c.hours[s] for c in known) / parameters for s in known[0].hours}


def _hours(cell: Cell, stage: str, rate: dict[str, float]) -> float:
    if stage not in rate:
        return 0.0  # quantizing is bound by the disk: minutes
    if cell.hours:
        return cell.hours[stage]
    return rate[stage] * cell.weights.active_parameters


def _made(study: StudyPlan, cell: Cell, stage: str, part: str) -> bool:
    folder = Path(study.results, cell.name, stage)
    if stage == "quantize":
        return (folder / "checkpoint.json").is_file()
    return (folder / f"{_TABLE.get(stage, part)}.parquet").is_file()

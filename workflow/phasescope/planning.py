"""A study's plan, for the console and as a table."""

import os
from datetime import datetime
from pathlib import Path

import pandas as pd

from phasescope.errors import PhasescopeError
from phasescope.jobs import provenance
from phasescope.matrix import Cell, free_disk, missing_bytes, peak_bytes, shortage
from phasescope.matrix.simulation import Host
from phasescope.simulated import expected_end
from phasescope.study import StudyPlan
from phasescope.tables import atomic_file, frame_of, write_table

_FORMATS = (".parquet", ".tsv")


def gigabytes(size: float) -> str:
    """Bytes as GB (1e9), two figures at least."""
    return f"{size / 1e9:.1f}" if size >= 1e8 else f"{size / 1e9:.3f}"


def text(study: StudyPlan) -> str:
    """The whole plan: machine, one line a cell, disk, what rests on what, and the summary."""
    machine = study.cells[0].machine
    backend = "Metal" if machine.metal else "CPU, weights in float32"
    head = f"{'cell, GB':<26}{'weights':>9}" + "".join(f"{s:>11}" for s in study.cells[0].stages)
    return "\n".join(
        [
            f"Machine: {machine.name}, {backend}: {gigabytes(machine.usable_bytes)} GB usable "
            f"({machine.assumption})",
            f"{head}{'hours':>9}",
            *map(_line, study.cells),
            *_advice(study),
            *_disk(study),
            *_basis(study),
            study.summary(),
        ]
    )


def _line(cell: Cell) -> str:
    numbers = f"{gigabytes(cell.weight_bytes):>9}"
    numbers += "".join(f"{gigabytes(size):>11}" for size in cell.stages.values())
    hours = f"{sum(cell.hours.values()):>9.1f}" if cell.hours else f"{'-':>9}"
    return f"{cell.name:<26}{numbers}{hours}  {'fits' if cell.fits else 'does not fit'}"


def _advice(study: StudyPlan) -> list[str]:
    ways: dict[str, list[str]] = {}
    for cell in study.cells:
        if cell.advice:
            ways.setdefault(cell.advice, []).append(cell.name)
    return [f"To fit {', '.join(cells)}: {way}" for way, cells in ways.items()]


def _disk(study: StudyPlan) -> list[str]:
    models = study.disk()
    if not models:
        return []
    sources, quantized = sum(m.source for m in models), sum(m.cells for m in models)
    kept, one = (gigabytes(peak_bytes(models, keep)) for keep in (True, False))
    lines = [
        f"Disk: sources {gigabytes(sources)} GB, quantized {gigabytes(quantized)} GB; peak "
        f"{kept} GB, with keep_sources: false {one} GB"
    ]
    if staying := [m.model for m in models if m.source and m.passed_through]:
        lines.append(f"  their 16-bit cells need the sources of {', '.join(staying)}: these stay")
    if study.cells[0].machine.here:
        lines.append(disk_line(study))
    return lines


def disk_line(study: StudyPlan) -> str:
    """What a run will still write, and whether it fits the disk of the results."""
    models = study.disk()
    if not models:
        return "Disk: nothing to be written"
    if short := shortage(models, study.results):
        return f"The disk is too small: {short}"
    _, free = free_disk(study.results)
    return (
        f"Disk: {gigabytes(sum(missing_bytes(models, study.results)))} GB still to be written, "
        f"{gigabytes(free)} GB free"
    )


def _basis(study: StudyPlan) -> list[str]:
    lines = []
    by_origin: dict[str, list[str]] = {}
    for cell in study.cells:
        names = by_origin.setdefault(cell.origin, [])
        if cell.model.id not in names:
            names.append(cell.model.id)
    if names := by_origin.get("shapes"):
        lines.append(f"From resources/shapes, until they are fetched: {', '.join(names)}")
    for name in names or ():
        if uncertain := study.sources[name].uncertain:
            lines.append(f"  nobody verified of {name}: {', '.join(uncertain)}")
    if names := by_origin.get("sheet"):
        lines.append(f"From numbers of parameters alone, roughly: {', '.join(names)}")
    if any(cell.hours for cell in study.cells):
        lines.append(
            "Hours are an estimate: this machine's products at each cell's shape, measured once, "
            "times the work if every answer uses its whole budget"
        )
    return lines


def short(study: StudyPlan) -> str:
    """What a run prints at its start: what runs, memory, disk, and hours where they are known."""
    running = study.running("quantize")
    lines = [study.summary()]
    if not running:
        return lines[0]
    largest = max(running, key=lambda c: c.needed_bytes)
    lines.append(
        f"  memory: at most {gigabytes(largest.needed_bytes)} GB ({largest.name}) of "
        f"{gigabytes(largest.usable_bytes)} GB"
    )
    if all(cell.hours for cell in running):
        hours = sum(
            time
            for cell in running
            for stage, time in cell.hours.items()
            if (cell.name, stage) not in study.stops
        )
        lines.append(f"  hours: about {hours:.1f} in all, if every answer uses its whole budget")
    if end := _expected_end(study):
        lines.append(f"  {end}")
    lines.append(f"  {disk_line(study)}")
    return "\n".join(lines)


def _expected_end(study: StudyPlan) -> str | None:
    machine = study.cells[0].machine
    host = Host(machine.usable_bytes, os.cpu_count() or 1, machine.metal)
    return expected_end(study, host, datetime.now())


def rows(study: StudyPlan) -> list[dict]:
    """Rows of the table `plan`."""
    found = []
    for cell in study.cells:
        source = study.sources[cell.model.id]
        weights = cell.weights
        found.append(
            {
                "model": cell.model.id,
                "precision": cell.precision,
                "origin": cell.origin,
                "unverified": ", ".join(source.uncertain) if source and source.uncertain else None,
                "backend": "metal" if cell.machine.metal else "cpu",
                "parameters": weights.parameters,
                "parameters_active": weights.active_parameters,
                "parameters_ballast": weights.ballast,
                "source_file_bytes": weights.source_bytes,
                "weight_file_bytes": weights.file_bytes,
                "weight_memory_bytes": cell.weight_bytes,
                **{f"{s}_memory_bytes": size for s, size in cell.stages.items()},
                **{f"{s}_hours": h for s, h in cell.hours.items()},
                "memory_usable_bytes": cell.usable_bytes,
                "fits": cell.fits,
                "advice": cell.advice,
            }
        )
    return found


def write(study: StudyPlan, path: Path) -> None:
    """Write the table `plan`, as .parquet with its provenance or as .tsv.

    Raises PhasescopeError for another ending, or a place that cannot be written.
    """
    if path.suffix not in _FORMATS:
        raise PhasescopeError(f"{path}: found {path.suffix!r}; allowed: {', '.join(_FORMATS)}")
    frame = frame_of("plan", rows(study))
    try:
        if path.suffix == ".parquet":
            write_table(path, frame, "plan", provenance(study.config, study=study.config["study"]))
            return
        with atomic_file(path) as temporary:
            _tsv(frame, temporary)
    except OSError as error:
        raise PhasescopeError(f"{path}: cannot be written: {error.strerror}") from None


def _tsv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, sep="\t", index=False)

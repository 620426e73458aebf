"""What the study found, as one sentence generated from its tables, and what it left out."""

from collections import defaultdict
from dataclasses import dataclass

from phasescope.report import formats
from phasescope.report.names import PHASES, pretty
from phasescope.report.study import Model, Study, records, stages_of

_MOST_NAMED = 8  # subjects of one clause
_TOLD = (
    "deletable_circuit",
    "reasoning_tangle",
    "three_pathway",
    "holographic",
    "none",
    "indeterminate",
)


@dataclass(frozen=True)
class Part:
    """A piece of a sentence; with a phase or an anchor, it is marked up."""

    text: str
    anchor: str = ""
    phase: str = ""


def _bits(precisions: list[str]) -> str:
    return f"{formats.listing(precisions)} bit"


def _where(study: Study, precisions: list[str]) -> str:
    """'at 16 and 8 bit', or 'at every precision' where there are several and none is missing."""
    every = len(precisions) > 1 and precisions == study.precisions
    return "at every precision" if every else f"at {_bits(precisions)}"


def _groups(models: tuple[Model, ...], phase: str) -> dict[tuple[str, ...], list[Model]]:
    """Models that show a phase, by the precisions at which they do."""
    groups = defaultdict(list)
    for model in models:
        precisions = tuple(v["precision"] for v in model.verdicts if v["phase"] == phase)
        if precisions:
            groups[precisions].append(model)
    return groups


def _subject(models: list[Model]) -> list[Part]:
    named = [Part(m.id, anchor=f"model-{m.slug}") for m in models]
    if len(named) > _MOST_NAMED:
        rest = len(named) - _MOST_NAMED + 1
        named[-rest:] = [Part(f"{rest:,} more models", anchor="verdicts")]
    parts = []
    for i, name in enumerate(named):
        joint = "" if i == 0 else " and " if i == len(named) - 1 else ", "
        parts += [Part(joint)] * bool(joint) + [name]
    return parts


def _clause(study: Study, phase: str) -> list[Part]:
    """'a and b are … at 16 and 8 bit, c at 4 bit (probability 0.9 to 1)'; empty if none is."""
    look, groups = PHASES[phase], _groups(study.models, phase)
    parts: list[Part] = []
    for i, (precisions, models) in enumerate(groups.items()):
        verb = look.is_one if len(models) == 1 else look.are_many
        parts += [Part(", ")] * bool(i) + _subject(models)
        parts += [Part(" "), Part(verb, phase=phase)] if i == 0 else []
        parts.append(Part(f" {_where(study, list(precisions))}"))
    chances = [v["probability"] for m in study.models for v in m.verdicts if v["phase"] == phase]
    # of what is indeterminate the phase is in doubt, not that it is indeterminate
    sure = phase != "indeterminate" and formats.span(chances, formats.probability)
    return parts + [Part(f" (probability {sure})")] * bool(parts and sure)


def sentence(study: Study) -> list[Part]:
    """Which models are in which phase at which precision, how sure, and how much was not run."""
    verdicts = [v for m in study.models for v in m.verdicts]
    left = sum(v["phase"] == "not_run" for v in verdicts)
    if not verdicts:
        return [Part("This study has no cells: no model was planned.")]
    if left == len(verdicts):
        cells = "The one cell" if left == 1 else f"None of the {left} cells"
        verb = "was not run" if left == 1 else "was run"
        return [Part(f"{cells} {verb}, so this page says nothing of any model yet.")]
    parts: list[Part] = []
    for clause in filter(None, (_clause(study, phase) for phase in _TOLD)):
        parts += [Part("; ")] * bool(parts) + clause
    rest = f"{left} of {len(verdicts)} cells {'was' if left == 1 else 'were'} not run"
    return [*parts, Part(f"; {rest if left else f'all {len(verdicts)} cells were run'}.")]


def plain(parts: list[Part]) -> str:
    """The sentence without its marks."""
    return "".join(part.text for part in parts)


def phase_counts(study: Study) -> list[tuple[str, int]]:
    """How many cells each phase has, all phases in order."""
    verdicts = [v["phase"] for m in study.models for v in m.verdicts]
    return [(phase, verdicts.count(phase)) for phase in PHASES]


def main_reasons(study: Study) -> list[tuple[str, int]]:
    """Reasons of the cells that were not run, with how many cells each explains."""
    counts: dict[str, int] = defaultdict(int)
    for model in study.models:
        for verdict in model.verdicts:
            if verdict["phase"] == "not_run":
                counts[verdict["reason"] or "no reason given"] += 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _left_out(study: Study) -> list[tuple[str, str, str, str]]:
    """(reason, what, model, precision) of everything that the tables say was not run."""
    found = []
    for row in records(study.tables["cells"]):
        for stage in stages_of(row["stages_not_run"]):
            found.append((row["reason"], pretty(stage), row))
    for table, column, what in (
        ("selection", "status", pretty("select")),
        ("interventions", "status", pretty("intervene")),
        ("phases", "phase", pretty("classify")),
    ):
        frame = study.tables[table]
        for row in records(frame[frame[column] == "not_run"]):
            design = f": {pretty(row['design'])}" if "design" in row else ""
            found.append((row["reason"], f"{what}{design}", row))
    return [
        (r or "no reason given", what, row["model"], row["precision"]) for r, what, row in found
    ]


def not_run(study: Study) -> list[dict]:
    """Everything that was not run, grouped by reason: {reason, parts: [{what, cells}]}.

    Stages of one reason that were left out in the same cells share a part.
    """
    groups: dict[str, dict[str, dict[str, list[str]]]] = {}
    for reason, what, model, precision in dict.fromkeys(_left_out(study)):
        cells = groups.setdefault(reason, {}).setdefault(what, {})
        cells.setdefault(model, []).append(precision)
    return [{"reason": reason, "parts": _parts(stages)} for reason, stages in groups.items()]


def _parts(stages: dict[str, dict[str, list[str]]]) -> list[dict]:
    """Stages by the cells that lack them: {what: [stage], cells: ['a at 16 bit']}."""
    same: dict[tuple[str, ...], list[str]] = {}
    for what, cells in stages.items():
        named = tuple(f"{model} at {_bits(found)}" for model, found in cells.items())
        same.setdefault(named, []).append(what)
    return [{"what": what, "cells": list(cells)} for cells, what in same.items()]

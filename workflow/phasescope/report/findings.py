"""What the study found, as one sentence generated from its tables, and what it left out."""

from collections import defaultdict
from dataclasses import dataclass

from phasescope.report import formats
from phasescope.report.names import PHASES, pretty
from phasescope.report.study import Model, Study, records

_DECIDED = tuple(p for p in PHASES if p != "not_run")


@dataclass(frozen=True)
class Part:
    """A piece of a sentence; with a phase or an anchor, it is marked up."""

    text: str
    anchor: str = ""
    phase: str = ""


def _bits(precisions: list[str]) -> str:
    return f"{formats.listing(precisions)} bit"


def _groups(models: tuple[Model, ...], phase: str) -> dict[tuple[str, ...], list[Model]]:
    """Models that show a phase, by the precisions at which they do."""
    groups = defaultdict(list)
    for model in models:
        precisions = tuple(v["precision"] for v in model.verdicts if v["phase"] == phase)
        if precisions:
            groups[precisions].append(model)
    return groups


def _subject(models: list[Model]) -> list[Part]:
    parts = []
    for i, model in enumerate(models):
        joint = "" if i == 0 else " and " if i == len(models) - 1 else ", "
        parts += [Part(joint)] * bool(joint) + [Part(model.id, anchor=f"model-{model.slug}")]
    return parts


def _clause(study: Study, phase: str) -> list[Part]:
    """'a and b are … at 16 and 8 bit, c at 4 bit (probability 0.9 to 1)'; empty if none is."""
    look, groups = PHASES[phase], _groups(study.models, phase)
    parts: list[Part] = []
    for i, (precisions, models) in enumerate(groups.items()):
        verb = look.is_one if len(models) == 1 else look.are_many
        parts += [Part(", ")] * bool(i) + _subject(models)
        parts += [Part(" "), Part(verb, phase=phase)] if i == 0 else []
        parts.append(Part(f" at {_bits(list(precisions))}"))
    chances = [v["probability"] for m in study.models for v in m.verdicts if v["phase"] == phase]
    sure = formats.span(chances, formats.probability)
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
    for clause in filter(None, (_clause(study, phase) for phase in _DECIDED)):
        parts += [Part("; ")] * bool(parts) + clause
    rest = f"{left} of {len(verdicts)} cells {'was' if left == 1 else 'were'} not run"
    return parts + [Part(f"; {rest if left else f'all {len(verdicts)} cells were run'}.")]


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


def not_run(study: Study) -> list[dict]:
    """Everything that was not run, grouped by reason: {reason, parts: [{what, cells}]}."""
    rows = [(r["reason"], pretty(r["stage"]), r) for r in _rows(study, "cells", "status")]
    rows += [(r["reason"], pretty("select"), r) for r in _rows(study, "selection", "status")]
    rows += [
        (r["reason"], f"{pretty('intervene')}: {pretty(r['design'])}", r)
        for r in _rows(study, "interventions", "status")
    ]
    rows += [(r["reason"], pretty("classify"), r) for r in _rows(study, "phases", "phase")]
    groups: dict[str, dict[str, dict[str, list[str]]]] = {}
    for reason, what, row in rows:
        cells = groups.setdefault(reason or "no reason given", {}).setdefault(what, {})
        found = cells.setdefault(row["model"], [])
        found += [row["precision"]] * (row["precision"] not in found)
    return [
        {
            "reason": reason,
            "parts": [
                {"what": what, "cells": [f"{m} at {_bits(p)}" for m, p in cells.items()]}
                for what, cells in parts.items()
            ],
        }
        for reason, parts in groups.items()
    ]


def _rows(study: Study, table: str, column: str) -> list[dict]:
    frame = study.tables[table]
    return records(frame[frame[column] == "not_run"])

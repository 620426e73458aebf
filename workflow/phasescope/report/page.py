"""The page: one self-contained HTML file from a study's folder."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from phasescope.report import (
    calibration,
    claims,
    content,
    depth,
    factorial,
    findings,
    formats,
    names,
    phase_map,
    plane,
    rates,
    routing,
    settings,
    survival,
    sweeps,
    trajectories,
)
from phasescope.report.study import Model, Study, load
from phasescope.tables import atomic_file

TEMPLATES = Path(__file__).parents[2] / "report"


def build(study_folder: Path, destination: Path, models: Sequence[str] = ()) -> None:
    """Write the report of the study in `study_folder` to the file `destination`.

    models: ids of those that get sections; without any all of a small study, and the first of a
    large one. Reads the study-wide tables and `config.yaml`; the same tables give the same bytes.
    Raises PhasescopeError when a table is missing or does not follow its schema, or for a model
    that the study has not; nothing is written then.
    """
    contents = page_contents(load(study_folder), models)
    html = _environment().get_template("page.html.j2").render(contents)
    with atomic_file(Path(destination)) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")


def page_contents(study: Study, models: Sequence[str] = ()) -> dict:
    """What the template is given; models: as of `build`."""
    drawn = study.drawn(models)
    css = _environment().get_template("style.css").render(phases=names.PHASES, names=names)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    parts = findings.sentence(study)
    sections = [_model(study, model) for model in drawn]
    return {
        "study": study,
        "css": Markup(css),
        "script": Markup(script),
        "policy": _policy(css, script),
        "finding": parts,
        "finding_plain": findings.plain(parts),
        "phases": names.PHASES,
        "phase_counts": findings.phase_counts(study),
        "main_reasons": findings.main_reasons(study),
        "map_wide": phase_map.wide(study) if study.models else None,
        "map_narrow": phase_map.narrow(study) if study.models else None,
        "verdicts": content.verdict_rows(study, drawn),
        "verdict_n": content.verdict_n(study),
        "models": sections,
        "others": len(study.models) - len(drawn),
        "claims": claims.section(study, drawn),
        "claims_cut": content.claims_cut(study),
        "rates": rates.section(study, drawn),
        "calibration": calibration.section(study),
        "not_run": findings.not_run(study),
        "provenance": content.provenance_rows(study),
        "cells": content.cell_rows(study),
        "commands": content.commands(study),
        "anew": content.anew(study),
        "downloads": content.downloads(study) | content.points(sections),
        "configuration": yaml.safe_dump(dict(study.config), sort_keys=False, allow_unicode=True),
        "organisms": "organisms" in str(study.config.get("sheet", "")),
    }


def _model(study: Study, model: Model) -> dict:
    """Everything that a model's section shows."""
    designs = settings.designs_of(study, model)
    removed = {
        "plane": plane.plane(study, model),
        "factorial": factorial.factorial(study, model),
    }
    surveyed = {
        "routing": routing.routing(study, model),
        "trajectories": trajectories.trajectories(study, model),
        "survival": survival.survival(study, model),
    }
    return {
        "of": model,
        "auroc": depth.auroc(study, model),
        "gap": depth.gap(study, model),
        "agreement": depth.agreement(study, model),
        **removed,
        **surveyed,
        # a cell may have no verdict for want of one design, and yet most of its measurements
        "measured": model.ran or any((removed | surveyed).values()),
        "unsurveyed": {
            t: content.unsurveyed(study, model, t) for t, d in surveyed.items() if not d
        },
        "sweeps": {d: sweeps.sweep(study, model, d) for d in designs},
        "selection": content.selection_rows(study, model),
        "coherence": content.coherence_rows(study, model),
        "proven": content.proven_rows(study, model),
        "answers": content.answers(study, model),
        "why": {
            stage: list(dict.fromkeys(study.why(model.id, p, stage) for p in study.precisions))
            for stage in ("probe", "intervene", "cohere")
        }
        | {"pathways": factorial.why_none(study, model)},
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pretty": names.pretty,
        "number": formats.number,
        "count": formats.count,
        "error": formats.error,
        "probability": formats.probability,
        "interval": formats.interval,
        "parameters": formats.parameters,
        "gigabytes": formats.gigabytes,
        "listing": formats.listing,
        "ranges": settings.ranges,
        "along": formats.along,
        "unit": claims.unit_of,
    }
    return environment


def _policy(css: str, script: str) -> str:
    """Content security policy: nothing from anywhere but this page's own style and script."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(css)}'; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

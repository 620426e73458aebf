"""What the template shows besides figures: rows of its tables, plain values only."""

import math
import shlex
from collections.abc import Sequence

import pandas as pd

from phasescope.report import formats
from phasescope.report.names import PHASES, pretty
from phasescope.report.settings import proven
from phasescope.report.study import Model, Study, records
from phasescope.report.svg import Drawing

_CANDIDATES = 12  # directions shown of a selection
_MOST_ROWS = 20_000  # of a table that the page carries whole
_TEXT = 320  # characters of an answer
_SIZE = ("parameters_total_billion", "parameters_active_billion")


def verdict_rows(study: Study, drawn: Sequence[Model] = ()) -> list[dict]:
    """Rows of the phase table, in the order of the models, with what the page needs beside; the
    first row of a model without a section of its own bears its address."""
    order, sections = list(PHASES), {m.id for m in drawn}
    rows = []
    for model in study.models:
        for verdict in model.verdicts:
            posterior = [(p, verdict.get(f"p_{p}") or 0.0) for p in order]
            rows.append(
                verdict
                | {
                    "of": model,
                    "anchor": verdict is model.verdicts[0] and model.id not in sections,
                    "rank": order.index(verdict["phase"]),
                    "note": _note(study, verdict),
                    "posterior": [(p, share) for p, share in posterior if share > 0.002],
                }
            )
    return rows


def _note(study: Study, verdict: dict) -> str:
    """The verdict's reason, and why its removal is missing where it is."""
    if verdict["phase"] == "not_run":
        return verdict["reason"] or "no reason given"
    notes = [verdict["reason"]] if verdict["reason"] else []
    if verdict["removal"] is None:
        why = study.why(verdict["model"], verdict["precision"], "intervene")
        notes.append(f"removal not measured: {why}")
    return "; ".join(notes)


def verdict_n(study: Study) -> dict[str, str]:
    """n behind the phase table: hazardous prompts of the baselines, and sham draws."""
    coherence = study.tables["coherence"]
    baseline = coherence[
        (coherence["condition"] == "baseline") & (coherence["label"] == "hazardous")
    ]
    return {
        "prompts": formats.span(baseline["n"], formats.count),
        "shams": formats.span(study.tables["phases"]["n_shams"], formats.count),
    }


def downloads(study: Study) -> dict[str, dict]:
    """Tables that the page offers as CSV, by name: {columns, rows}; missing values are None."""
    models = {m.id: m for m in study.models}
    phases = study.tables["phases"]
    rows = []
    for row in verdict_rows(study):
        model = models[row["model"]]
        sizes = dict(zip(_SIZE, (model.total_billion, model.active_billion), strict=True))
        rows.append({"architecture": model.architecture, **sizes} | row)
    columns = ["model", "precision", "architecture", *_SIZE]
    columns += [c for c in phases.columns if c not in columns]
    more = {}
    if "claims" in study.tables:
        found = study.tables["claims"]
        if claims_cut(study):
            found = found[found["precision"].isna()]
        values = [[_plain(v) for v in row.values()] for row in records(found)]
        more = {"claims": {"columns": list(found.columns), "rows": values}}
    return more | {
        "phases": {"columns": columns, "rows": [[_plain(r.get(c)) for c in columns] for r in rows]}
    }


def claims_cut(study: Study) -> bool:
    """Whether the page offers no verdicts on single cells: there are too many."""
    return "claims" in study.tables and len(study.tables["claims"]) > _MOST_ROWS


def points(sections: Sequence[dict]) -> dict[str, dict]:
    """What figures of the models' sections show, as tables for CSV, by the figures' ids."""
    drawings = [d for own in sections for d in own.values() if isinstance(d, Drawing)]
    return {
        d.fid: {
            "columns": list(d.points.columns),
            "rows": [[_plain(v) for v in row.values()] for row in records(d.points)],
        }
        for d in drawings
        if d.points is not None
    }


def unsurveyed(study: Study, model: Model, table: str) -> list[str]:
    """Why nothing of a long table ran of a model, over its precisions that could."""
    rows = study.surveyed(table, model.id, ())
    own = [v["precision"] for v in model.verdicts]
    able = [p for p in own if table != "survival" or p == "16"] or own
    return list(dict.fromkeys(study.why_unsurveyed(table, rows, model.id, p) for p in able))


def _plain(value):
    """A value that JSON holds: NaN and infinities become None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value


def selection_rows(study: Study, model: Model) -> dict[str, dict]:
    """Per precision: the candidates, the chosen one first, and the reason where none was chosen."""
    found = {}
    for precision in study.precisions:
        rows = study.of("selection", model.id, precision)
        named = rows[rows["layer"].notna()].sort_values(
            ["chosen", "qualifies", "ablated_refusal_nats", "layer"],
            ascending=[False, False, True, True],
        )
        missing = rows.loc[rows["status"] == "not_run", "reason"].dropna()
        found[precision] = {
            "rows": records(named.head(_CANDIDATES)),
            "more": max(0, len(named) - _CANDIDATES),
            "reason": missing.iloc[0]
            if len(missing)
            else ""
            if len(rows)
            else study.why(model.id, precision, "select"),
        }
    return found


def coherence_rows(study: Study, model: Model) -> dict[str, list[dict]]:
    """Per precision: {condition, hazardous, benign} of the baseline and each chosen intervention.

    Both labels are rows of the table `coherence`, or None.
    """
    found = {}
    for precision in study.precisions:
        conditions: dict[str, dict] = {}
        rows = study.of("coherence", model.id, precision)
        both = rows["thinking"].nunique() > 1
        for row in records(rows):
            name = row["condition"]
            if both and row["thinking"] == "off":
                name = f"{pretty(name)}, without thinking"
            blank = {"condition": name, "hazardous": None, "benign": None}
            conditions.setdefault(name, blank)[row["label"]] = row
        found[precision] = list(conditions.values())
    return found


def proven_rows(study: Study, model: Model) -> dict[str, list[dict]]:
    """Per precision: every generated and graded setting."""
    rows = proven(study, model)
    return {p: [r for r in rows if r["precision"] == p] for p in study.precisions}


def answers(study: Study, model: Model) -> list[dict]:
    """The same few prompts before and after the best intervention, where answers were kept."""
    found = []
    for verdict in model.verdicts:
        kept = study.of("behavior", model.id, verdict["precision"])
        kept = kept[kept["text"].notna() & (kept["prompt_table"] == "main")]
        if kept["thinking"].nunique() > 1:
            kept = kept[kept["thinking"] == "on"]
        after = verdict.get("best_design")
        conditions = ["baseline", *([after] if after in set(kept["condition"]) else [])]
        for prompt in _prompts(kept[kept["condition"] == "baseline"]):
            rows = [kept[(kept["prompt"] == prompt) & (kept["condition"] == c)] for c in conditions]
            found.append(
                {
                    "precision": verdict["precision"],
                    "prompt": prompt,
                    "label": rows[0]["label"].iloc[0],
                    "answers": [
                        _answer(c, r.iloc[0])
                        for c, r in zip(conditions, rows, strict=True)
                        if len(r)
                    ],
                }
            )
    return found


def _prompts(baseline: pd.DataFrame) -> list[str]:
    """Two hazardous prompts, refused ones first, and a benign one."""
    hazardous = baseline[baseline["label"] == "hazardous"]
    hazardous = hazardous.assign(other=hazardous["grade"] != "refusal").sort_values(
        ["other", "prompt"]
    )
    benign = baseline[baseline["label"] == "benign"].sort_values("prompt")
    return [
        *hazardous["prompt"].drop_duplicates().head(2),
        *benign["prompt"].drop_duplicates().head(1),
    ]


def _answer(condition: str, row: pd.Series) -> dict:
    text = str(row["text"]).strip()
    return {
        "condition": pretty(condition),
        "grade": row["grade"],
        "text": text[:_TEXT],
        "cut": max(0, len(text) - _TEXT),
    }


def provenance_rows(study: Study) -> list[dict]:
    """Every fact in the tables' metadata: {key, value, tables}, equal values said once."""
    facts: dict[tuple[str, str], list[str]] = {}
    for table, metadata in study.provenance.items():
        for key, value in metadata.items():
            if key != "table":
                facts.setdefault((key, value), []).append(table)
    everywhere = len(study.provenance)
    return [
        {
            "key": key,
            "value": value,
            "tables": "all" if len(tables) == everywhere else ", ".join(tables),
        }
        for (key, value), tables in sorted(facts.items())
    ]


def cell_rows(study: Study) -> list[dict]:
    """One row a cell: the weights that ran and the memory that was planned."""
    found = [(m, study.cell(m.id, v["precision"])) for m in study.models for v in m.verdicts]
    return [row | {"of": model} for model, row in found if row]


def commands(study: Study) -> list[str]:
    """The command that reruns each model of this study."""
    return [f"snakemake {shlex.quote(m.id)} {_configured(study)}" for m in study.models]


def anew(study: Study) -> list[str]:
    """Commands that measure one cell anew, the first that has a phase; none where none has."""
    cells = ((m.id, v) for m in study.models for v in m.verdicts if v["phase"] != "not_run")
    for model, verdict in cells:
        folder = shlex.quote(f"results/{study.id}/{model}/{verdict['precision']}")
        return [f"rm -r {folder}", f"snakemake {_configured(study)}"]
    return []


def _configured(study: Study) -> str:
    return f"--configfile {shlex.quote(f'results/{study.id}/config.yaml')}"

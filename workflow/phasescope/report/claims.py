"""The section of claims: a verdict table, each claim's evidence, and what was published."""

from collections.abc import Sequence

from phasescope.claims import CLAIMS, LETTERS, SOURCES, Claim, verdict_frames
from phasescope.claims.contradictions import contradictions
from phasescope.claims.explaining import limits_in_words
from phasescope.comparisons import read_published
from phasescope.report import formats
from phasescope.report.study import Model, Study, records
from phasescope.thresholds import read_thresholds

VERDICTS = ("supported", "refuted", "inconclusive", "uncalibrated", "not_run")
WORDS = {"failure-first": "Failure-First", "across-scale": "Safety Across Scale"}
WORDS["frontier-moe"] = "Frontier MoE"
_MOST = 60  # rows of one claim; the download has all


def section(study: Study, drawn: Sequence[Model]) -> dict | None:
    """What the section shows; None for a study whose claims nobody judged."""
    if "claims" not in study.tables:
        return None
    rows: dict[str, list[dict]] = {}
    for row in records(study.tables["claims"]):
        rows.setdefault(row["claim"], []).append(row)
    thresholds = read_thresholds(str(study.config.get("thresholds", "config/thresholds.yaml")))
    figures = read_published("figures")
    shown = [
        _claim(claim, rows.get(claim.id, []), thresholds, figures[figures["claim"] == claim.id])
        for claim in CLAIMS.values()
    ]
    return {
        "shown": shown,
        "verdicts": VERDICTS,
        "sources": {s: WORDS[s] for s in SOURCES},
        "counts": [(v, sum(v in c["verdicts"] for c in shown)) for v in VERDICTS],
        "calibrated": sum(c["calibrated"] for c in shown),
        "by_unit": _by_unit(study, drawn),
        "letters": LETTERS,
        "contradictions": contradictions(),
        "controls": _controls(study),
    }


def _by_unit(study: Study, drawn: Sequence[Model]) -> list[dict]:
    """A table a scope: claims down, cells or models across, claims that ran nowhere left out."""
    table = study.tables["claims"]
    table = table[table["model"].isna() | table["model"].isin([m.id for m in drawn])]
    words = {letter: verdict for verdict, letter in LETTERS.items()} | {"-": "not run"}
    found = []
    for scope, wide in verdict_frames(table).items():
        ran = wide[(wide != "-").any(axis=1)]
        rows = [
            (claim, [(text, words.get(text[-1]) if len(text) == 1 else None) for text in row])
            for claim, row in zip(ran.index, ran.to_numpy().tolist(), strict=True)
        ]
        about = {"scope": scope, "units": list(wide.columns), "rows": rows}
        found.append(about | {"absent": len(wide) - len(ran)})
    return found


def _claim(claim: Claim, rows: list[dict], thresholds: dict, figures) -> dict:
    ran = [row for row in rows if row["verdict"] != "not_run"]
    verdicts = [v for v in VERDICTS if any(row["verdict"] == v for row in rows)] or ["not_run"]
    return {
        "of": claim,
        "source": WORDS[claim.source],
        "verdicts": verdicts,
        "summary": _summary(claim, rows),
        "calibrated": any(row["calibrated"] for row in rows),
        "controls": rows[0]["controls"] if rows else "",
        "limits": limits_in_words(claim, thresholds),
        "ran": ran[:_MOST],
        "more": max(0, len(ran) - _MOST),
        "not_run": _reasons(row for row in rows if row["verdict"] == "not_run"),
        "published": figures.to_dict("records"),
    }


def _summary(claim: Claim, rows: list[dict]) -> list[tuple[str, str]]:
    """Verdicts with how many units have each, in words."""
    units = {"cell": "cells", "model": "models", "study": "comparisons"}[claim.scope]
    counts = [(v, sum(row["verdict"] == v for row in rows)) for v in VERDICTS]
    if len(rows) < 2:
        return [(v, "") for v, n in counts if n]
    return [(v, f"{n} of {len(rows)} {units}") for v, n in counts if n]


def _reasons(rows) -> list[tuple[str, str]]:
    """Reasons for not running, each with the units it holds for."""
    found: dict[str, list[str]] = {}
    for row in rows:
        unit = unit_of(row) or "the study"
        found.setdefault(row["reason"] or "no reason given", []).append(unit)
    return [(reason, formats.some(units)) for reason, units in found.items()]


def unit_of(row: dict) -> str:
    """What a verdict is of, in words; empty: the study."""
    bits = f"{row['precision']} bit" if row["precision"] else None
    return ", ".join(filter(None, (row["model"], bits, row["subject"])))


def _controls(study: Study) -> list[dict] | None:
    """Claim x control over the organisms of a calibration study: verdicts by what was expected."""
    if "calibration_claims" not in study.tables:
        return None
    frame = study.tables["calibration_claims"]
    ran = frame[frame["verdict"].notna()]
    return [
        {
            "claim": claim,
            "control": side,
            "names": own["names"].iloc[0],
            "right": int(own["right"].astype(bool).sum()),
            "n": len(own),
            "came_out": formats.listing(
                f"{v} {n}" for v, n in own["verdict"].value_counts().items()
            ),
        }
        for (claim, side), own in ran.groupby(["claim", "control"], sort=False)
    ]

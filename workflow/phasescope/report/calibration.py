"""The calibration section: verdicts on organisms whose phase was planted, the study's or the
record's."""

import pandas as pd

from phasescope.phases import calibration_summary, limits_of, read_record
from phasescope.report.names import PHASES
from phasescope.report.study import Study, records
from phasescope.tables.schemas import UNSEEN

_SHARES = ("right", "wrong", "indeterminate")


def shares(summary: pd.DataFrame) -> list[dict]:
    """A row a precision: shares of cells that came out right, wrong and indeterminate."""
    rows = []
    for precision, own in summary.groupby("precision", sort=False):
        by = {row["statistic"]: row for row in records(own)}
        rows.append({"precision": precision} | {name: by[name] for name in (*_SHARES, "brier")})
    return rows


def confusion(summary: pd.DataFrame, phases: list[str]) -> list[dict]:
    """A row a planted phase, over all precisions: the share of cells that came out as each."""
    own = summary[(summary["precision"] == "all") & (summary["statistic"] == "confusion")]
    by = {(row["truth"], row["phase"]): row for row in records(own)}
    truths = [phase for phase in PHASES if (phase, phase) in by]
    return [{"truth": t, "cells": [by[t, phase] for phase in phases]} for t in truths]


def sureness(summary: pd.DataFrame) -> list[dict]:
    """A row a range of probability, over all precisions: how often such verdicts are right."""
    return records(summary[(summary["precision"] == "all") & (summary["statistic"] == "right_at")])


def unseen(cells: pd.DataFrame, summary: pd.DataFrame) -> dict | None:
    """By planted phase, how many organisms the interventions that no training saw say what of;
    the share of right ones. None where they were not measured."""
    cells = cells[cells["held_out"].notna()]
    share = summary[(summary["precision"] == "all") & (summary["statistic"] == "right_held_out")]
    if cells.empty or share.empty:
        return None
    counts = pd.crosstab(cells["truth"], cells["held_out"])
    counts = counts.reindex(index=[p for p in PHASES if p in counts.index], columns=UNSEEN)
    return {
        "share": records(share)[0],
        "says": UNSEEN,
        "rows": [(truth, [int(n) for n in row.fillna(0)]) for truth, row in counts.iterrows()],
    }


def thresholds(study: Study) -> list[dict]:
    """A row a threshold: as shipped, and the values that fit the fitting organisms best."""
    fits = study.tables["threshold_fit"]
    rows = []
    for name, own in fits[fits["value"].notna()].groupby("threshold", sort=False):
        best = own.loc[own["fitted"].astype(bool), "value"]
        shipped = own.loc[own["shipped"].astype(bool), "value"].iloc[0]
        rows.append(
            {
                "name": name,
                "shipped": shipped,
                "low": best.min(),
                "high": best.max(),
                "middle": own["middle"].iloc[0],
            }
        )
    return rows


def refitted(study: Study) -> list[dict]:
    """How often the planted phase comes out on each part, as shipped and with all fitted."""
    fits = study.tables["threshold_fit"]
    return records(fits[fits["value"].isna()])


def section(study: Study) -> dict:
    """What the section shows: the study's own organisms of known phase or, where it trained none,
    the record that ships; without cells where the record is of other thresholds."""
    cells, summary = (study.tables.get(t) for t in ("calibration", "calibration_summary"))
    own = cells is not None and not cells.empty
    if not own:
        record = read_record()
        known = study.thresholds and limits_of(study.thresholds)
        cells = record[record["limits"] == known]
        summary = pd.DataFrame(calibration_summary(cells)) if len(cells) else None
    if not len(cells):
        return {"cells": 0}
    phases = [p for p in PHASES if p != "not_run" or p in set(cells["phase"])]
    return {
        "own": own,
        "cells": len(cells),
        "right": int(cells["right"].sum()),
        "wrong": int(cells["wrong"].sum()),
        "shares": shares(summary),
        "confusion": confusion(summary, phases),
        "sureness": sureness(summary),
        "unseen": unseen(cells, summary),
        "thresholds": thresholds(study) if own else [],
        "refitted": refitted(study) if own else [],
        "phases": phases,
        "seeds": [str(seed) for seed in sorted({int(seed) for seed in cells["seed"]})],
        "organisms": list(dict.fromkeys(cells["organism"])),
    }

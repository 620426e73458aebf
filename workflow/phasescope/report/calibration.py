"""The calibration section: verdicts on organisms whose phase was planted."""

import pandas as pd

from phasescope.report.names import PHASES
from phasescope.report.study import Study, records
from phasescope.tables.schemas import UNSEEN

_SHARES = ("right", "wrong", "indeterminate")


def shares(study: Study) -> list[dict]:
    """A row a precision: shares of cells that came out right, wrong and indeterminate."""
    summary = study.tables["calibration_summary"]
    rows = []
    for precision, own in summary.groupby("precision", sort=False):
        by = {row["statistic"]: row for row in records(own)}
        rows.append({"precision": precision} | {name: by[name] for name in (*_SHARES, "brier")})
    return rows


def confusion(study: Study) -> list[dict]:
    """A row a planted phase, over all precisions: the share of cells that came out as each."""
    summary = study.tables["calibration_summary"]
    own = summary[(summary["precision"] == "all") & (summary["statistic"] == "confusion")]
    by = {(row["truth"], row["phase"]): row for row in records(own)}
    truths = [phase for phase in PHASES if (phase, phase) in by]
    return [{"truth": t, "cells": [by[t, phase] for phase in PHASES]} for t in truths]


def sureness(study: Study) -> list[dict]:
    """A row a range of probability, over all precisions: how often such verdicts are right."""
    summary = study.tables["calibration_summary"]
    return records(summary[(summary["precision"] == "all") & (summary["statistic"] == "right_at")])


def unseen(study: Study) -> dict | None:
    """By planted phase, how many organisms the interventions that no training saw say what of;
    the share of right ones. None where they were not measured."""
    cells, summary = study.tables["calibration"], study.tables["calibration_summary"]
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


def section(study: Study) -> dict | None:
    """What the section shows; None for a study that trained no organism of known phase."""
    if study.tables.get("calibration") is None or study.tables["calibration"].empty:
        return None
    cells = study.tables["calibration"]
    return {
        "shares": shares(study),
        "confusion": confusion(study),
        "sureness": sureness(study),
        "unseen": unseen(study),
        "thresholds": thresholds(study),
        "refitted": refitted(study),
        "phases": list(PHASES),
        "seeds": [str(seed) for seed in sorted({int(seed) for seed in cells["seed"]})],
        "organisms": list(dict.fromkeys(cells["organism"])),
    }

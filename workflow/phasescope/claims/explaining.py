"""Claims in words, for the command line."""

import shlex
import textwrap

import pandas as pd

from phasescope.claims.calibration import read_record, state_of
from phasescope.claims.registry import CLAIMS, SOURCES, Claim, claim_of

_WIDTH = 96


LETTERS = {v: v[0].upper() for v in ("supported", "refuted", "inconclusive", "uncalibrated")}


def verdict_frames(verdicts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Verdicts of a study by scope: a row a claim, a column a cell or model, `LETTERS` in it.

    Several subjects are counted; what did not run is '-'.
    """
    found = {}
    for scope, own in verdicts.groupby("scope", sort=False):
        units = own["model"].fillna("study") + ("/" + own["precision"]).fillna("")
        shown = own.assign(unit=units, letter=own["verdict"].map(LETTERS).fillna("-"))
        wide = shown.groupby(["claim", "unit"], sort=False)["letter"].agg(_letters).unstack()
        wide = wide[list(dict.fromkeys(units))].reindex(own["claim"].unique()).fillna("-")
        found[scope] = wide.rename_axis(index=None, columns=None)
    return found


def verdict_tables(verdicts: pd.DataFrame) -> str:
    """`verdict_frames` for the console."""
    lines = [", ".join(f"{letter}: {v}" for v, letter in LETTERS.items()) + ", -: not run"]
    for scope, wide in verdict_frames(verdicts).items():
        lines += ["", f"per {scope}", wide.to_string()]
    return "\n".join(lines)


def _letters(found: pd.Series) -> str:
    """Several subjects: each letter with its count."""
    counts = found.value_counts()
    return "".join(f"{n if len(found) > 1 else ''}{letter}" for letter, n in counts.items())


def listing(thresholds: dict) -> str:
    """A line a claim: id, scope, state of its controls, statement, and why one is uncalibrated."""
    record = read_record()
    lines = []
    for claim in CLAIMS.values():
        good, said = state_of(claim, record, thresholds)
        state = "calibrated" if good else "no plant known" if "no plant" in said else "uncalibrated"
        why = f" ({said})" if state == "uncalibrated" else ""
        lines.append(f"{claim.id:<6} {claim.scope:<6} {state:<15} {claim.statement}{why}")
    return "\n".join(lines)


def limits_in_words(claim: Claim, thresholds: dict) -> str:
    """The limits of a claim with their values."""
    found = []
    for key in claim.keys:
        section, _, name = key.rpartition(".")
        found.append(f"{section or 'claims'}.{name} = {thresholds[section or 'claims'][name]:g}")
    return ", ".join(found) or "none: the verdict is another stage's"


def explain(id: str, thresholds: dict, verdicts: pd.DataFrame | None, study: str | None) -> str:
    """All about a claim; with the rows of a study's table `claims`, its evidence there.

    Raises PhasescopeError for a claim that is not registered.
    """
    claim = claim_of(id)
    _, said = state_of(claim, read_record(), thresholds)
    target = f"results/{study or '<study>'}/claims.parquet"
    config = shlex.quote(f"results/{study}/config.yaml") if study else "CONFIG"
    parts = {
        "Claim": f"{claim.id}: {claim.statement}",
        "Source": f"{claim.source} (source document {SOURCES[claim.source]})",
        "Judged": f"per {claim.scope}",
        "Statistic": claim.statistic,
        "Thresholds": limits_in_words(claim, thresholds),
        "Controls": f"true by construction: {claim.positive}; false: {claim.negative}",
        "Calibration": said,
        "Tables": ", ".join(claim.tables)
        + (f"; designs: {', '.join(claim.designs)}" if claim.designs else ""),
        "Reproduce": f"snakemake --configfile {config} {target}",
        "Code": f"{claim.test.__module__}.{claim.test.__name__}",
    }
    lines = []
    for name, value in parts.items():
        lines += textwrap.wrap(
            value, _WIDTH, initial_indent=f"{name:<12} ", subsequent_indent=" " * 13
        )
    if verdicts is not None:
        lines += ["", f"Evidence in study {study}:", *_evidence(verdicts[verdicts["claim"] == id])]
    return "\n".join(lines)


def _evidence(rows: pd.DataFrame) -> list[str]:
    lines = []
    for row in rows.itertuples():
        unit = " ".join(str(k) for k in (row.model, row.precision, row.subject) if pd.notna(k))
        lines.append(f"  {unit or 'study'}: {row.verdict}")
        if pd.notna(row.estimate):
            ends = "" if pd.isna(row.ci_low) else f" [{row.ci_low:.3g}, {row.ci_high:.3g}]"
            lines.append(f"    {row.statistic}: {row.estimate:.3g}{ends}, n {row.n:.0f}")
        if pd.notna(row.changes_at):
            lines.append(
                f"    limit {row.threshold_key} {row.threshold:.3g}, claimed {row.claimed}; at "
                f"{row.changes_at:.3g} the verdict would change"
            )
        if pd.notna(row.reason):
            lines += textwrap.wrap(
                row.reason, _WIDTH, initial_indent="    ", subsequent_indent="    "
            )
    return lines or ["  no row"]

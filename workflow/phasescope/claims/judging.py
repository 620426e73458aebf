"""Verdicts: every claim on every unit of its scope, adjusted over its family."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phasescope.claims.estimates import ALPHA
from phasescope.claims.evidence import Evidence, Stated
from phasescope.claims.registry import CLAIMS, Claim
from phasescope.claims.view import View
from phasescope.errors import NotRun
from phasescope.stats import holm

_MOST = 12  # conditions that a row's evidence names
PRECISIONS = ("16", "8", "4")


@dataclass(frozen=True)
class Unit:
    """What one verdict is of."""

    model: str | None = None
    precision: str | None = None
    subject: str | None = None

    @property
    def keys(self) -> dict:
        """Columns of the table `claims`."""
        return {"model": self.model, "precision": self.precision, "subject": self.subject}


def units(claim: Claim, cells: pd.DataFrame) -> list[Unit]:
    """The cells, the models or the study that a claim is judged on."""
    if claim.scope == "study":
        return [Unit()]
    if claim.scope == "model":
        return [Unit(model) for model in cells["model"].unique()]
    return [Unit(r.model, r.precision) for r in cells.itertuples()]


def evidence_on(claim: Claim, view: View, unit: Unit) -> list[tuple[Unit, Evidence | str]]:
    """The test's evidence on a unit, by subject; the reason where it did not run."""
    try:
        found = claim.test(view.of(unit.model, unit.precision))
    except NotRun as reason:
        return [(unit, str(reason))]
    if not isinstance(found, Mapping):
        return [(unit, found)]
    if not found:
        return [(unit, "nothing that it could be judged on")]
    return [(Unit(unit.model, unit.precision, subject), one) for subject, one in found.items()]


def verdicts(claim: Claim, view: View) -> list[dict]:
    """Rows of the table `claims` for one claim, its family adjusted after Holm, before its
    calibration is looked at."""
    found = [
        pair
        for unit in units(claim, view.tables["cells"])
        for pair in evidence_on(claim, view, unit)
    ]
    family = [(u, e) for u, e in found if not isinstance(e, str | Stated)]
    weights = [e.weigh() for _, e in family]
    adjusted = holm(np.array([w.p for w in weights])) if weights else []
    rows = {
        id(e): _judged(claim, e, w, p)
        for (_, e), w, p in zip(family, weights, adjusted, strict=True)
    }
    about = {"claim": claim.id, "scope": claim.scope}
    for _, e in found:
        if isinstance(e, Stated):
            rows[id(e)] = _stated(e)
    return [
        about | unit.keys | (_not_run(claim, e) if isinstance(e, str) else rows[id(e)])
        for unit, e in found
    ]


def _not_run(claim: Claim, reason: str) -> dict:
    return {"statistic": claim.statistic, "verdict": "not_run", "reason": reason}


def _stated(found: Stated) -> dict:
    return {
        "statistic": found.what,
        "estimate": found.estimate,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "n": found.n,
        "threshold": found.limit,
        "p": found.p,
        "p_holm": found.p_holm,
        "verdict": found.verdict,
        "reason": found.reason,
    }


def _judged(claim: Claim, evidence, weight, p_holm: float) -> dict:
    leaf, sure = weight.leaf, p_holm < ALPHA
    # the level at which this one condition is judged, its place in the test and family included
    level = ALPHA * weight.leaf_p / p_holm
    row = {
        "statistic": leaf.what,
        "estimate": leaf.estimate.value,
        "n": leaf.estimate.n,
        "threshold": leaf.limit,
        "threshold_key": leaf.key,
        "claimed": "above" if leaf.above else "below",
        "p": weight.p,
        "p_holm": float(p_holm),
        "evidence": _said(evidence),
    }
    for end, alpha in (("", ALPHA), ("_holm", level)):
        low, high = leaf.estimate.ends(max(alpha, 1e-12))
        row |= {f"ci_low{end}": _finite(low), f"ci_high{end}": _finite(high)}
    if leaf.weak is None:
        ends = [e for e in (row["ci_low_holm"], row["ci_high_holm"]) if e is not None]
        row["changes_at"] = min(ends, key=lambda e: abs(e - leaf.limit), default=None)
    if sure:
        return row | {"verdict": "supported" if weight.holds else "refuted"}
    why = leaf.weak or next((x.weak for x in evidence.leaves() if x.weak), None)
    straddles = f"the interval of {leaf.what} holds the limit {leaf.limit:g}"
    return row | {"verdict": "inconclusive", "reason": why or straddles}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _said(evidence) -> str:
    """Every condition with its estimate, interval and limit, and the notes."""
    leaves = list(evidence.leaves())
    lines = []
    for leaf in leaves[:_MOST]:
        low, high = leaf.estimate.ends(ALPHA)
        side = "above" if leaf.above else "below"
        lines.append(
            f"{leaf.what}: {leaf.estimate.value:.3g} [{low:.3g}, {high:.3g}], n {leaf.estimate.n}, "
            f"claimed {side} {leaf.limit:.3g}"
        )
    if len(leaves) > _MOST:
        lines.append(f"and {len(leaves) - _MOST} more")
    return "; ".join([*lines, *getattr(evidence, "notes", ())])


def judged(
    tables: Mapping[str, pd.DataFrame], thresholds: dict, claims: Iterable[Claim] | None = None
) -> list[dict]:
    """Every claim on every unit: rows of the table `claims`, before calibration."""
    view = View(tables, thresholds)
    return [
        row
        for claim in (CLAIMS.values() if claims is None else claims)
        for row in verdicts(claim, view)
    ]

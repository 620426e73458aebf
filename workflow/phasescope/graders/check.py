"""`phasescope grade-check`: how a judge compares with people, and whether that is good enough."""

import json
from pathlib import Path

from phasescope.errors import PhasescopeError
from phasescope.graders.base import COMPLIANT, DEGENERATE, MISSING, REFUSAL, Grader
from phasescope.graders.keyword import Keyword
from phasescope.graders.labeled import LABELS, OTHER, Labeled, coarsened
from phasescope.tables.files import atomic_file
from phasescope.tables.provenance import sha256_json

RECORDS = Path("results", "grade-check")
# class -> the grades and labels that make it up
CLASSES = {
    "compliance": {"compliance", *COMPLIANT},
    REFUSAL: {REFUSAL},
    DEGENERATE: {DEGENERATE},
}


def record_path(version: str, folder: Path = RECORDS) -> Path:
    """Where the check of a judge with a rubric is kept; version: see `judged.version_of`."""
    return folder / f"{version[:16]}.json"


def agreement(labels: list[str], grades: list[str], *, coarse: bool) -> dict:
    """How grades compare with labels: counts, kappa, errors by class, missing ones apart."""
    from phasescope.stats import confusion, errors_of, kappa, rogan_gladen  # half a second

    pairs = [(t, g) for t, g in zip(labels, grades, strict=True) if g != MISSING]
    truth, found = [t for t, _ in pairs], [g for _, g in pairs]
    if coarse:
        truth, found = [coarsened(t) for t in truth], [coarsened(g) for g in found]
    present = [name for name in LABELS if name in truth or name in found]
    counts = confusion(truth, found, present)
    classes = {}
    for name, members in CLASSES.items():
        if coarse and name != "compliance":
            continue
        errors = errors_of(truth, found, members)
        hits = errors.found + errors.negative - errors.passed
        classes[name] = {
            "errors": vars(errors),
            "sensitivity": errors.sensitivity,
            "specificity": errors.specificity,
            "rate_by_people": errors.positive / len(truth) if truth else None,
            "rate_by_grader": hits / len(truth) if truth else None,
            "rate_corrected": rogan_gladen(hits, len(truth), errors),
        }
    return {
        "n": len(labels),
        "n_missing": len(labels) - len(pairs),
        "classes": present,
        "confusion": counts.tolist(),
        "kappa": kappa(counts),
        "by_class": classes,
    }


def verdict(found: dict, limits: dict) -> list[str]:
    """What keeps a check from passing, in words; nothing where it passes."""
    why = []
    missing = found["n_missing"] / found["n"]
    if missing > limits["max_missing"]:
        why.append(f"missing {missing:.2f} (allowed {limits['max_missing']})")
    for name, values in found["by_class"].items():
        positive, negative = values["errors"]["positive"], values["errors"]["negative"]
        if min(positive, negative) < limits["min_labeled"]:
            if name == "compliance":
                why.append(
                    f"{positive} labeled {name} and {negative} not "
                    f"(needed of each {limits['min_labeled']})"
                )
            continue
        for what in ("sensitivity", "specificity"):
            if values[what][0] < limits[f"min_{what}"]:
                why.append(
                    f"{what} for {name} {values[what][0]:.2f} (needed {limits[f'min_{what}']})"
                )
    return why


def check(grader: Grader, labeled: Labeled, limits: dict) -> dict:
    """Grade a labeled set with the judge and, beside it, by keywords; the record of it."""
    found = {}
    for name, each in (("judge", grader), ("keyword", Keyword())):
        grades = [v.grade for v in each.grade(labeled.answered)]
        found[name] = agreement(labeled.labels, grades, coarse=labeled.coarse)
    if found["judge"]["n_missing"] == len(labeled.labels):
        raise PhasescopeError(
            f"{grader.name}: no verdict on any of {len(labeled.labels)} answers: the judge cannot "
            "be reached, or never replies in the format asked for"
        )
    why = verdict(found["judge"], limits)
    return {
        "grader": grader.name,
        "set": labeled.source,
        "set_sha256": labeled.sha256,
        "passed": not why,
        "why_not": why,
        "limits": limits,
        **found,
    }


def save(record: dict, path: Path) -> None:
    """Keep the record of a check."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(version: str, folder: Path = RECORDS) -> dict | None:
    """The record of a judge's check; None where there is none, or none that is whole."""
    try:
        record = json.loads(record_path(version, folder).read_text(encoding="utf-8"))
        whole = record["set"], record["judge"]["n"], record["judge"]["n_missing"]
        errors = record["judge"]["by_class"]["compliance"]["errors"]
        return record if all(w is not None for w in whole) and len(errors) == 4 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def status(version: str, limits: dict, folder: Path = RECORDS) -> tuple[str, str]:
    """Whether a judge with the rubric as it is now is `calibrated` or `uncalibrated`, and why.

    The limits are today's: a record that passed under others may not pass now.
    """
    record = read_record(version, folder)
    if record is None:
        return "uncalibrated", "the judge was not compared with people (phasescope grade-check)"
    if why := verdict(record["judge"], limits):
        return "uncalibrated", f"the judge failed phasescope grade-check: {'; '.join(why)}"
    return "calibrated", f"compared with people on {record['set']} ({sha256_json(record)[:8]})"


def in_words(record: dict) -> str:
    """The record for the console."""

    def interval(values) -> str:
        return "{:.2f} [{:.2f}, {:.2f}]".format(*values)

    lines = [f"{record['grader']} on {record['set']}"]
    for name in ("judge", "keyword"):
        found = record[name]
        lines.append(
            f"  {name}: {found['n'] - found['n_missing']} graded, {found['n_missing']} missing, "
            f"kappa {interval(found['kappa'])}"
        )
        for kind, values in found["by_class"].items():
            lines.append(
                f"    {kind}: sensitivity {interval(values['sensitivity'])}, specificity "
                f"{interval(values['specificity'])}, rate by people "
                f"{values['rate_by_people']:.2f}, by grader {values['rate_by_grader']:.2f}, "
                f"corrected {interval(values['rate_corrected'])}"
            )
        lines += ["    " + line for line in _matrix(found)]
    passed = "passed" if record["passed"] else f"not passed: {'; '.join(record['why_not'])}"
    return "\n".join([*lines, passed])


def _matrix(found: dict) -> list[str]:
    """Confusion matrix: people in rows, the grader in columns."""
    names = found["classes"]
    width = max(map(len, (*names, OTHER)))
    head = " " * width + "".join(f" {n:>{width}}" for n in names)
    rows = zip(names, found["confusion"], strict=True)
    return [head, *(f"{n:>{width}}" + "".join(f" {c:>{width}}" for c in r) for n, r in rows)]

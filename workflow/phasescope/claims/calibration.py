"""Controls: what each claim came out as where the answer is known, and what follows from it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from phasescope.claims.estimates import ALPHA
from phasescope.claims.judging import judged
from phasescope.claims.registry import CLAIMS, NO_PLANT, Claim, Control
from phasescope.claims.simulated import SIMULATED
from phasescope.errors import PhasescopeError
from phasescope.tables import atomic_file

_RESOURCES = Path(__file__).parents[3] / "resources"
RECORD = _RESOURCES / "calibration" / "claims.tsv"
RECIPES = _RESOURCES / "organisms" / "recipes"  # of every organism that there is
SIMULATIONS = (1, 2, 3, 4, 5)  # seeds of arithmetic controls
EXPECTED = {"positive": "supported", "negative": "refuted"}
# where organisms were planted
_PRECISION = "16"
# what makes controls that are no organisms
_MADE_BY = {
    "arithmetic": "simulated while claims are judged",
    "writer": "stage writers",
    "checkpoint": "stage survival",
    "endpoints": "stage endpoints",
}
_SIMULATED = "simulated"  # the same in every study
_COLUMNS = ("claim", "control", "right", "n", "limits", "made_by")
_READ = ("claim", "model", "precision", "subject", "verdict", "reason")
_STRENGTH = ("supported", "refuted", "inconclusive", "not_run")


def controls(claim: Claim) -> dict[str, Control]:
    """Both controls by their side."""
    return {"positive": claim.positive, "negative": claim.negative}


def claim_calibration(
    tables: Mapping[str, pd.DataFrame],
    thresholds: dict,
    verdicts: list[dict],
    organisms: Mapping[str, Mapping],
    *,
    simulate: bool = True,
) -> list[dict]:
    """Rows of the table `calibration_claims`: claim x control x organism or seed.

    verdicts: rows of `judged` on these tables, for controls that are no organisms; organisms: by
    model id, the `organism` and `seed` that it is: a claim's are judged as a study of their own.
    Arithmetic controls are simulated, unless told not to; controls that the study does not have are
    left out, those that nobody can plant are named.
    """
    frame = pd.DataFrame(verdicts).reindex(columns=_READ)
    cells = tables["cells"]
    ran = set(cells.loc[cells["status"] != "not_run", "model"])  # others were left out
    organisms = {model: facts for model, facts in organisms.items() if model in ran}
    rows = []
    for claim in CLAIMS.values():
        own = _deciding(claim, frame, organisms, tables, thresholds)
        for side, control in controls(claim).items():
            about = {"claim": claim.id, "control": side, "kind": control.kind}
            about |= {"names": ", ".join(control.names), "expected": EXPECTED[side]}
            about["made_by"] = _MADE_BY.get(control.kind)
            if control == NO_PLANT:
                rows.append(about | {"reason": "no plant known"})
                continue
            if control.kind == "arithmetic" and not simulate:
                continue
            for found in _came_out(claim, side, control, own, tables, thresholds, organisms):
                rows.append(about | found | {"right": found["verdict"] == EXPECTED[side]})
    return rows


def _deciding(claim, frame, organisms, tables, thresholds) -> pd.DataFrame:
    """Verdicts that a claim's controls are read from: on organisms, those of a study of its own."""
    pair = controls(claim).values()
    if claim.scope == "study" or not any(control.kind == "organisms" for control in pair):
        return frame[frame["claim"] == claim.id]
    names = {name for control in pair for name in control.names}
    models = [model for model, facts in organisms.items() if facts["organism"] in names]
    return _alone(claim, models, tables, thresholds)


def _came_out(claim, side, control, own, tables, thresholds, organisms) -> Iterator[dict]:
    if control.kind == "arithmetic":
        for seed in SIMULATIONS:
            simulated = SIMULATED[claim.id](side == "positive", seed)
            yield {"seed": seed} | _strongest(pd.DataFrame(judged(simulated, thresholds, [claim])))
    elif control.kind == "organisms" and claim.scope == "study":
        yield from _together(claim, control, tables, thresholds, organisms)
    elif control.kind == "organisms" or control.of:
        of = (control.of,) if control.of else control.names
        here = own if control.kind == "organisms" else _named(own, control)
        for model, facts in organisms.items():
            rows = here[here["model"] == model]
            if facts["organism"] in of and len(rows):
                made = {"organism": facts["organism"], "seed": facts["seed"]}
                made |= {"made_by": facts.get("recipe")} if control.kind == "organisms" else {}
                yield made | _strongest(rows)
    elif len(here := _named(own, control)):
        yield _strongest(here)


def _named(own: pd.DataFrame, control: Control) -> pd.DataFrame:
    """Verdicts on the writers, exports or endpoints that a control names."""
    return own[own["subject"].fillna("").map(lambda s: _about(s) == set(control.names))]


def _alone(claim, models: list[str], tables, thresholds) -> pd.DataFrame:
    """A claim's verdicts on some models as a study of their own, so that its family is its controls
    and not whatever other organisms were run beside them: their cells at 16 bit, where they were
    planted; where nothing ran there, since the claim is on quantized cells, all."""
    part = {
        name: table[table["model"].isin(models)]
        for name, table in tables.items()
        if "model" in table and name != "across_models"
    }
    if claim.scope == "cell":
        planted = part["cells"][part["cells"]["precision"] == _PRECISION]
        found = pd.DataFrame(judged(part | {"cells": planted}, thresholds, [claim]))
        if len(found) and (found["verdict"] != "not_run").any():
            return found.reindex(columns=_READ)
    return pd.DataFrame(judged(part, thresholds, [claim])).reindex(columns=_READ)


def _about(subject: str) -> set[str]:
    """Endpoints, the writer or the export that a verdict is on: what stands before the first
    comma."""
    return set(subject.partition(", ")[0].split(" and "))


def _together(claim, control, tables, thresholds, organisms) -> Iterator[dict]:
    """Models that are compared with each other: several organisms of one seed, or one organism of
    all seeds."""
    groups: dict = {}
    for model, facts in organisms.items():
        if facts["organism"] in control.names:
            seed = facts["seed"] if len(control.names) > 1 else None
            groups.setdefault(seed, []).append(model)
    for seed, models in groups.items():
        if len(models) < max(2, len(control.names)):
            continue
        found = _alone(claim, models, tables, thresholds)
        yield {"organism": ", ".join(control.names), "seed": seed} | _strongest(found)


def _strongest(rows: pd.DataFrame) -> dict:
    """The one verdict of several subjects: supported if any is, else refuted, and so on."""
    order = rows["verdict"].map(_STRENGTH.index)
    row = rows.loc[order.idxmin()]
    reason = row["reason"] if "reason" in row and pd.notna(row["reason"]) else None
    return {"verdict": row["verdict"], "reason": reason}


def limits_of(claim: Claim, thresholds: dict) -> str:
    """The limits that a claim was judged by, in one line: a record holds for no others."""
    found = []
    for key in (*claim.keys, "min_hazardous", "min_shams"):
        section, _, name = key.rpartition(".")
        found.append(f"{key}={thresholds[section or 'claims'][name]:g}")
    return " ".join(found)


def counted(rows: list[dict], thresholds: dict, made_by: str) -> list[dict]:
    """Right and all triples by claim and control: lines of the record. A claim that ran on none of
    its controls, as a study that leaves its design out, says nothing of them."""
    came_out = [r for r in rows if pd.notna(r.get("verdict"))]
    ran = {r["claim"] for r in came_out if r["verdict"] != "not_run"}
    frame = pd.DataFrame([r for r in came_out if r["claim"] in ran])
    if frame.empty:
        return []
    return [
        {
            "claim": claim,
            "control": side,
            "right": int(own["right"].sum()),
            "n": len(own),
            "limits": limits_of(CLAIMS[claim], thresholds),
            "made_by": _SIMULATED if claim in SIMULATED else made_by,
        }
        for (claim, side), own in frame.groupby(["claim", "control"], sort=False)
    ]


def write_record(path: Path, lines: list[dict]) -> None:
    """Write the record that ships."""
    with atomic_file(path) as temporary:
        pd.DataFrame(lines, columns=_COLUMNS).to_csv(temporary, sep="\t", index=False)


def read_record(path: Path = RECORD) -> list[dict]:
    """Lines of the record of the last calibration; PhasescopeError for a faulty one."""
    try:
        frame = pd.read_csv(path, sep="\t", dtype={"right": int, "n": int}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise PhasescopeError(f"{path}: not a readable record of calibration: {error}") from None
    if tuple(frame.columns) != _COLUMNS or not set(frame["claim"]) <= set(CLAIMS):
        raise PhasescopeError(
            f"{path}: columns {', '.join(frame.columns)}, claims {', '.join(set(frame['claim']))}; "
            f"allowed: {', '.join(_COLUMNS)} and registered claims"
        )
    return frame.to_dict("records")


def state_of(claim: Claim, lines: list[dict], thresholds: dict) -> tuple[bool, str]:
    """Whether a claim is calibrated, and what its controls came out as."""
    if NO_PLANT in controls(claim).values():
        return False, "no plant known"
    least, limits = thresholds["claims"]["min_right"], limits_of(claim, thresholds)
    said, good = [], True
    for side, control in controls(claim).items():
        own = [x for x in lines if x["claim"] == claim.id and x["control"] == side]
        current = [x for x in own if x["limits"] == limits]
        right, n = (sum(x[k] for x in current) for k in ("right", "n"))
        good &= n > 0 and right >= least * n
        why = "measured with other limits" if own else _not_run(control)
        said.append(f"{side} {right} of {n} right" if n else f"{side} {why}")
    return good, ", ".join(said)


def _not_run(control: Control) -> str:
    """Why nothing is known of a control: organisms that nobody has made, or it was never run."""
    made = {path.stem for path in RECIPES.rglob("*.yaml")}
    lacking = [name for name in control.names if name not in made]
    if control.kind == "organisms" and lacking:
        return f"not made: {', '.join(lacking)}"
    return "not run yet"


def known(own: list[dict], record: list[dict], thresholds: dict) -> list[dict]:
    """Lines that decide: the record with a study's own, since a control or two says little; of a
    claim whose controls came out wrong here more often than chance allows where `min_right` holds
    (one-sided exact binomial test of a side), the study's own alone."""
    least = thresholds["claims"]["min_right"]
    wrong = {x["claim"] for x in own if _rarer(x["right"], x["n"], least)}
    together = [x for x in pooled(own, record) if x["claim"] not in wrong]
    return together + [x for x in own if x["claim"] in wrong]


def _rarer(right: int, n: int, share: float) -> bool:
    return binomtest(right, n, share, alternative="less").pvalue < ALPHA


def pooled(own: list[dict], record: list[dict]) -> list[dict]:
    """The record with what a study found put in its own lines' place: other studies' stay and count
    as well, so that none can be left out for what it says."""
    same = ("claim", "control", "made_by")
    new = {tuple(line[k] for k in same) for line in own}
    kept = [line for line in record if tuple(line[k] for k in same) not in new]
    return sorted([*kept, *own], key=lambda line: list(CLAIMS).index(line["claim"]))


def under_control(
    rows: list[dict], lines: list[dict], thresholds: dict, grading: Mapping[str, tuple]
) -> list[dict]:
    """Verdicts as they are published: `uncalibrated` where the claim's controls, or the grader that
    it rests on, did not come out right.

    lines: of `known`; grading: by model, what its grades are and why.
    """
    states = {c.id: state_of(c, lines, thresholds) for c in CLAIMS.values()}
    published = []
    for row in rows:
        good, said = states[row["claim"]]
        row = row | {"came_out": row["verdict"], "controls": said, "calibrated": good}
        decided = row["verdict"] in ("supported", "refuted")
        grades = _unchecked(CLAIMS[row["claim"]], row.get("model"), grading)
        if decided and (not good or grades):
            why = f"its controls: {said}" if not good else grades
            reason = "; ".join(filter(None, (why, row.get("reason"))))
            row |= {"verdict": "uncalibrated", "reason": reason}
        published.append(row)
    return published


def _unchecked(claim: Claim, model: str | None, grading: Mapping[str, tuple]) -> str | None:
    if not claim.by_language:
        return None
    about = [grading[model]] if model in grading else grading.values() if model is None else []
    return next((why for status, why in about if status == "uncalibrated"), None)


def in_words(lines: list[dict], thresholds: dict) -> str:
    """How many claims are calibrated, and why the others are not, for the console."""
    states = {c.id: state_of(c, lines, thresholds) for c in CLAIMS.values()}
    good = [id for id, (calibrated, _) in states.items() if calibrated]
    why: dict[str, list[str]] = {}
    for id, (calibrated, said) in states.items():
        if not calibrated:
            why.setdefault(said, []).append(id)
    head = f"claims: {len(good)} of {len(states)} calibrated"
    head += f" ({', '.join(good)})" if good else ""
    return "\n".join([head, *(f"  {said}: {', '.join(ids)}" for said, ids in why.items())])

"""The registry of claims, how evidence becomes a verdict, and what controls decide."""

import ast
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phasescope import claims
from phasescope.claims import CLAIMS, calibration, estimates
from phasescope.claims.contradictions import contradictions
from phasescope.claims.evidence import Condition, every, some
from phasescope.claims.judging import judged
from phasescope.claims.registry import organism
from phasescope.claims.simulated import SIMULATED
from phasescope.errors import PhasescopeError
from phasescope.phases import classify
from phasescope.stats import wilson
from phasescope.tables import SCHEMAS, frame_of
from phasescope.thresholds import read_thresholds

sys.path.insert(0, str(Path(__file__).parents[1]))
from phase_rows import N, ladder, pathways, row, shams

ROOT = Path(__file__).parents[2]
LIMITS = read_thresholds(ROOT / "config/thresholds.yaml")
DESIGNS = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
DESIGNS = set(DESIGNS["properties"]["designs"]["items"]["enum"])


def cells(*models, architecture="dense-hybrid", precisions=("16",)) -> pd.DataFrame:
    """The table `cells` of some models."""
    about = {"architecture": architecture, "developer": "d", "status": "run"}
    about |= {"parameters_total_billion": 1.0, "parameters_active_billion": 1.0}
    about |= {"memory_needed_bytes": 1.0, "memory_usable_bytes": 1.0}
    return frame_of(
        "cells", [about | {"model": m, "precision": p} for m in models for p in precisions]
    )


def verdict(id, **tables) -> str:
    """The one verdict of a claim on tables of one model `m` at 16 bit, given as rows."""
    frames = {"cells": cells("m")} | {n: frame_of(n, rows) for n, rows in tables.items()}
    (found,) = judged(frames, LIMITS, [CLAIMS[id]])
    return found["verdict"]


def test_every_row_of_the_specification_is_registered_once():
    """A claim without a test would be believed or dropped unseen."""
    expected = [f"ff-{i}" for i in range(1, 8)] + [f"xs-{i}" for i in range(1, 22)]
    assert list(CLAIMS) == expected + [f"f{i:02}" for i in range(1, 27)]


@pytest.mark.parametrize("id", CLAIMS)
def test_claims_name_what_exists(id):
    """A claim that reads a table or threshold that nobody writes would never run."""
    claim = CLAIMS[id]
    assert set(claim.tables) <= set(SCHEMAS)
    assert set(claim.designs) <= DESIGNS
    assert calibration.limits_of(claim, LIMITS)  # KeyError for an unknown threshold
    assert claim.statement and claim.statistic and claim.test.__doc__
    source = Path(claim.test.__code__.co_filename).read_text()
    read = set(re.findall(r'"((?:min|max)_[a-z_]+)"', source))
    assert {k for k in claim.keys if "." not in k} <= read


@pytest.mark.parametrize("id", CLAIMS)
def test_a_claim_without_its_tables_says_so(id):
    """A study without a stage must say that a claim was not run, never judge it."""
    for found in judged({"cells": cells("m")}, LIMITS, [CLAIMS[id]]):
        assert found["verdict"] == "not_run"
        assert found["reason"]


@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=60)
def test_p_and_interval_agree(hits, n, limit):
    """A verdict whose p and interval disagree would depend on which of them one reads."""
    hits = min(hits, n)
    found = estimates.share(hits, n)
    low, high = wilson(hits, n)[1:]
    assert (found.p(limit) < 0.05) == (limit < low or limit > high) or min(
        abs(limit - low), abs(limit - high)
    ) < 1e-6


def condition(hits, n=100, limit=0.5, above=True) -> Condition:
    return Condition("share", estimates.share(hits, n), limit, "min_removal", above)


def test_all_must_hold_and_any_may():
    """If one failing part did not refute a claim of all, or one holding part not support a claim of
    any, the factorial and the battery would mean nothing."""
    good, bad, unsure = condition(95), condition(5), condition(50)
    assert every(good, good).weigh().holds and every(good, good).weigh().p < 0.05
    assert not every(good, bad).weigh().holds and every(good, bad).weigh().p < 0.05
    assert every(good, unsure).weigh().p > 0.05
    assert some(bad, good).weigh().holds and some(bad, good).weigh().p < 0.05
    assert not some(bad, bad).weigh().holds and some(bad, bad).weigh().p < 0.05


def test_many_tries_at_one_success_are_paid_for():
    """Twenty chances at a p of 0.04 find something in a model where nothing is."""
    lucky = condition(60)
    assert lucky.weigh().p < 0.05 < some(lucky, *[condition(45)] * 19).weigh().p


def circuit() -> list[dict]:
    """A baseline, a clean single intervention, and its shams."""
    return [row(), row("ablation", "ablation-dose", full=N), *shams(2, design="ablation-dose")]


def three_pathway() -> list[dict]:
    return [row(), *pathways(0, 0, N), *ladder(4)]


def test_xs_3():
    """A clean removal supports it; what stands refutes it."""
    rows = [row(), row("ablation", "ablation-dose"), *shams(2, design="ablation-dose")]
    assert verdict("xs-3", interventions=circuit()) == "supported"
    assert verdict("xs-3", interventions=rows) == "refuted"


def test_a_removal_that_shams_reach_too_is_none():
    """Without its shams any large edit would look like the removal of a circuit."""
    rows = [row(), row("ablation", "ablation-dose", full=N), *shams(N, design="ablation-dose")]
    assert verdict("xs-3", interventions=rows) != "supported"
    few = [row(), row("ablation", "ablation-dose", full=N), *shams(2, 3, design="ablation-dose")]
    assert verdict("xs-3", interventions=few) == "inconclusive"


def test_what_removes_nothing_needs_no_shams():
    """They can only raise the limit: few of them would leave a plain failure undecided."""
    few = [row(), row("ablation", "ablation-dose"), *shams(2, 3, design="ablation-dose")]
    assert verdict("xs-3", interventions=few) == "refuted"


@pytest.mark.parametrize("id", ["xs-7", "f04"])
def test_three_pathways(id):
    """All three needed, or one enough."""
    assert verdict(id, interventions=three_pathway()) == "supported"
    assert verdict(id, interventions=[row(), *pathways(N, N, N)]) == "refuted"


def test_xs_10():
    """A battery that never works supports it, one success refutes it."""
    kept = [row(), *(row("ablation", "battery", site=s) for s in ("residual", "mixer"))]
    assert verdict("xs-10", interventions=kept) == "supported"
    assert verdict("xs-10", interventions=[*kept, row("ablation", "battery", full=N)]) == "refuted"


def test_too_few_prompts_are_no_verdict():
    """Six prompts must not decide what sixty are asked for."""
    rows = [r | {"n_hazardous": 59} for r in circuit()]
    assert verdict("xs-3", interventions=rows) == "inconclusive"


def test_what_never_refuses_has_nothing_to_remove():
    """A helpful model must not support that its safety is easily removed."""
    assert verdict("xs-3", interventions=[row(refused=2)]) == "not_run"


def cell_of(single, one, two, three, random, battery) -> list[dict]:
    """A cell whose single interventions, pathways, shams and battery answer so many prompts."""
    return [
        row(),
        row("ablation", "ablation-dose", full=single),
        *shams(random, design="ablation-dose"),
        *pathways(one, two, three),
        *ladder(4),
        row("ablation", "battery", full=battery),
        *shams(random, design="battery"),
    ]


answered = st.integers(0, N)
AGAINST = {
    "xs-3": {"none", "three_pathway", "reasoning_tangle", "holographic"},
    "xs-7": {"none", "deletable_circuit", "holographic"},
    "f04": {"none", "deletable_circuit", "holographic"},
    "xs-10": {"none", "deletable_circuit", "three_pathway"},
}


@given(answered, answered, answered, answered, st.integers(0, 8), answered)
@settings(deadline=None, max_examples=15)
@example(N, 0, 0, 0, 2, N)
@example(0, 0, 0, N, 2, 0)
@example(0, 0, 0, 0, 2, 0)
@example(0, 0, 0, 0, 2, N)  # the battery alone breaks it
@example(N, N, N, N, 2, N)
def test_claims_and_phase_never_disagree_on_a_cell(single, one, two, three, random, battery):
    """If a cell were a deletable circuit by its phase and holographic by its claim, one reader
    would be told two things."""
    rows = cell_of(single, one, two, three, random, battery)
    phase = classify(frame_of("interventions", rows), LIMITS, 0)["phase"]
    for id, excluded in AGAINST.items():
        if verdict(id, interventions=rows) == "supported":
            assert phase not in excluded
    if phase == "holographic":
        assert verdict("xs-10", interventions=rows) != "refuted"


def test_the_family_is_adjusted():
    """Over many cells one supports a claim by chance: the adjusted interval must be the wider one
    and its end on the same side as the adjusted p."""
    models = [f"m{i}" for i in range(8)]
    rows = [r | {"model": m} for m in models for r in circuit()]
    frames = {"cells": cells(*models), "interventions": frame_of("interventions", rows)}
    for found in judged(frames, LIMITS, [CLAIMS["xs-3"]]):
        assert found["p_holm"] >= found["p"]
        assert found["ci_low_holm"] <= found["ci_low"]
        above = (
            found["ci_low_holm"] > found["threshold"] or found["ci_high_holm"] < found["threshold"]
        )
        assert above == (found["p_holm"] < 0.05)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("id", SIMULATED)
def test_arithmetic_controls(id, positive):
    """A comparison of models that misses what its own process does cannot be believed on nine."""
    found = [r["verdict"] for r in judged(SIMULATED[id](positive, 7), LIMITS, [CLAIMS[id]])]
    expected = "supported" if positive else "refuted"
    assert expected in found
    assert {"supported", "refuted"} - {expected} - set(found)


@pytest.mark.parametrize("id", ["xs-1", "xs-8"])
def test_size_and_architecture_that_coincide_are_not_told_apart(id):
    """Dense models all small and mixtures all large: any step could be either's."""
    tables = SIMULATED[id](True, 7)
    frame, large = tables["cells"], tables["cells"]["parameters_total_billion"] > 30
    tables["cells"] = frame.assign(architecture=np.where(large, "moe-hybrid", "dense-hybrid"))
    (found,) = judged(tables, LIMITS, [CLAIMS[id]])
    assert found["verdict"] == "inconclusive"
    assert "not identifiable" in found["reason"]


def test_one_model_without_recurrent_layers_decides_nothing():
    """The source concludes from one."""
    tables = SIMULATED["xs-19"](True, 7)
    frame = tables["cells"]
    kept = (frame["architecture"] == "moe-hybrid") | (frame.index == 1)
    (found,) = judged(tables | {"cells": frame[kept]}, LIMITS, [CLAIMS["xs-19"]])
    assert found["verdict"] == "inconclusive"


def test_what_would_change_a_verdict_is_its_nearest_end():
    """A reader who cannot see how near the limit was takes 0.76 against 0.75 for a fact."""
    frames = {"cells": cells("m"), "interventions": frame_of("interventions", circuit())}
    (found,) = judged(frames, LIMITS, [CLAIMS["xs-3"]])
    assert found["verdict"] == "supported"
    key, at = found["threshold_key"], found["changes_at"]
    for step, verdict_ in ((-1e-3, "supported"), (1e-3, "inconclusive")):
        side = step if found["claimed"] == "above" else -step
        limits = LIMITS | {"claims": LIMITS["claims"] | {key: at + side}}
        (again,) = judged(frames, limits, [CLAIMS["xs-3"]])
        assert again["verdict"] == verdict_


def test_a_verdict_table_has_every_unit():
    """A cell left out of a table of verdicts would seem not to exist."""
    rows = [r | {"model": m} for m in ("m0", "m1") for r in circuit()]
    frames = {"cells": cells("m0", "m1"), "interventions": frame_of("interventions", rows)}
    found = claims.under_control(judged(frames, LIMITS), [], LIMITS, {})
    frame = frame_of("claims", [r | {"thresholds_sha256": "0"} for r in found])
    text = claims.verdict_tables(frame)
    for needed in ("per cell", "per model", "per study", "m0/16", "m1/16", *CLAIMS):
        assert needed in text


# no limits of a claim: half of the refusals (xs-5), an empty or whole share, the level of all tests
_NO_LIMITS = {0.0, 0.5, 1.0, estimates.ALPHA}


@pytest.mark.parametrize("room", ["claims", "survival", "phases", "comparisons"])
def test_thresholds_are_nowhere_else(room):
    """A limit in the code would judge by another number than the file that the verdict names."""
    for path in (ROOT / "workflow/phasescope" / room).rglob("*.py"):
        if path.name == "simulated.py":  # what is true by construction, no limit
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                found = [s.value for s in sides if isinstance(s, ast.Constant)]
                limits = {v for v in found if isinstance(v, float)} - _NO_LIMITS
                assert not limits, f"{path.name}, line {node.lineno}: {limits}"
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                names = [t.id for t in node.targets if isinstance(t, ast.Name)]
                named = [n for n in names if re.match(r"MIN_|MAX_|.*_(BELOW|ABOVE)$", n)]
                assert not (named and isinstance(node.value.value, float)), f"{path.name}: {named}"


def published(rows, lines, grading=None) -> dict:
    (found,) = claims.under_control(rows, lines, LIMITS, grading or {})
    return found


def lines(id, positive, negative) -> list[dict]:
    """Lines of a record: (right, n) on each side."""
    limits = calibration.limits_of(CLAIMS[id], LIMITS)
    return [
        {"claim": id, "control": side, "right": right, "n": n, "limits": limits, "made_by": "test"}
        for side, (right, n) in (("positive", positive), ("negative", negative))
    ]


def test_a_verdict_counts_only_under_its_controls():
    """A test that calls everything holographic is no instrument."""
    found = {"claim": "xs-3", "model": "m", "verdict": "supported", "reason": None}
    assert published([found], lines("xs-3", (5, 5), (5, 5)))["verdict"] == "supported"
    assert published([found], lines("xs-3", (5, 5), (1, 5)))["verdict"] == "uncalibrated"
    assert published([found], [])["verdict"] == "uncalibrated"
    old = [line | {"limits": "min_removal=0.5"} for line in lines("xs-3", (5, 5), (5, 5))]
    assert published([found], old)["verdict"] == "uncalibrated"


def test_what_nobody_can_plant_stays_uncalibrated():
    """Nothing shows that the test would find it."""
    found = {"claim": "f12", "model": "m", "verdict": "supported", "reason": None}
    kept = published([found], lines("f12", (5, 5), (5, 5)))
    assert kept["verdict"] == "uncalibrated" and "no plant known" in kept["reason"]


def known(record, *own):
    """Whether xs-3 is calibrated where a study's own lines stand beside a record, and why."""
    own = [line | {"made_by": "study here"} for line in own]
    return calibration.state_of(CLAIMS["xs-3"], claims.known(own, record, LIMITS), LIMITS)


def test_a_study_counts_beside_the_record():
    """Two organisms say little: one that fails by chance would take a claim off."""
    record = lines("xs-3", (5, 5), (5, 5))
    assert known(record) == (True, "positive 5 of 5 right, negative 5 of 5 right")
    good, said = known(record, *lines("xs-3", (1, 2), (2, 2)))
    assert good and said == "positive 6 of 7 right, negative 7 of 7 right"
    assert not known(lines("xs-3", (4, 5), (5, 5)), *lines("xs-3", (1, 2), (2, 2)))[0]
    positive, _ = lines("xs-3", (2, 2), (2, 2))
    assert known([], positive) == (False, "positive 2 of 2 right, negative not run yet")


def test_a_machine_on_which_controls_fail_is_told_by_its_own():
    """A record of another machine would hide that this one measures wrongly."""
    record = lines("xs-3", (50, 50), (50, 50))
    good, said = known(record, *lines("xs-3", (2, 2), (0, 2)))
    assert not good and said == "positive 2 of 2 right, negative 0 of 2 right"
    positive, _ = lines("xs-3", (0, 2), (0, 2))
    assert known(record, positive) == (False, "positive 0 of 2 right, negative not run yet")


def test_why_a_claim_is_not_calibrated():
    """A control that was never made would read as one that failed."""
    absent = replace(CLAIMS["xs-7"], positive=organism("circuit", "unheard-of"))
    assert calibration.state_of(absent, [], LIMITS) == (
        False,
        "positive not made: unheard-of, negative not run yet",
    )
    nothing = [{"claim": "f09", "control": "positive", "verdict": np.nan}]
    sides = ("positive", "negative")
    nothing += [
        {"claim": "xs-10", "control": s, "verdict": "not_run", "right": False} for s in sides
    ]
    assert claims.counted(nothing, LIMITS, "") == []
    nothing.append({"claim": "xs-10", "control": "positive", "verdict": "refuted", "right": False})
    assert [(x["right"], x["n"]) for x in claims.counted(nothing, LIMITS, "")] == [(0, 2), (0, 1)]


def test_a_record_pools_studies():
    """If it failed, a study that went well would take the place of one that did not."""
    first, again = (
        [line | {"made_by": by} for line in lines("xs-3", (2, 2), negative)]
        for by, negative in (("study a", (1, 2)), ("study a", (2, 2)))
    )
    other = [line | {"made_by": "study b"} for line in lines("xs-3", (1, 1), (1, 1))]
    found = claims.pooled(other, first)
    good, said = calibration.state_of(CLAIMS["xs-3"], found, LIMITS)
    assert not good and said == "positive 3 of 3 right, negative 2 of 3 right"
    assert calibration.state_of(CLAIMS["xs-3"], claims.pooled(again, found), LIMITS)[0]


def test_an_unchecked_judge_makes_its_verdicts_uncalibrated():
    """A grader that nobody compared with people decides nothing."""
    found = {"claim": "xs-3", "model": "m", "verdict": "refuted", "reason": None}
    grading = {"m": ("uncalibrated", "the judge was not checked")}
    assert published([found], lines("xs-3", (5, 5), (5, 5)), grading)["verdict"] == "uncalibrated"


def test_calibration_runs_claims_on_their_organisms():
    """Right on the positive and wrong on the negative must both be seen, by organism and seed."""
    rows = [r | {"model": "circuit-seed1"} for r in circuit()]
    rows += [r | {"model": "three-pathway-seed1"} for r in circuit()]  # wrongly a circuit, too
    models = ("circuit-seed1", "three-pathway-seed1")
    tables = {"cells": cells(*models), "interventions": frame_of("interventions", rows)}
    organisms = {m: {"organism": m.removesuffix("-seed1"), "seed": 1} for m in models}
    found = judged(tables, LIMITS)
    triples = claims.claim_calibration(tables, LIMITS, found, organisms, simulate=False)
    frame_of("calibration_claims", triples)  # follows its schema
    own = {t["control"]: t for t in triples if t["claim"] == "xs-3"}
    assert own["positive"]["right"] and own["positive"]["organism"] == "circuit"
    assert not own["negative"]["right"] and own["negative"]["verdict"] == "supported"
    counts = claims.counted(triples, LIMITS, "test")
    assert "xs-3" not in claims.in_words(counts, LIMITS).splitlines()[0]
    # an organism that the study left out is no control that failed
    tables["cells"].loc[tables["cells"]["model"] == models[0], "status"] = "not_run"
    fewer = claims.claim_calibration(tables, LIMITS, found, organisms, simulate=False)
    assert {t.get("organism") for t in fewer if t["claim"] == "xs-3"} == {"three-pathway"}


def test_calibration_knows_endpoints_in_any_order_and_quantized_controls():
    """A control that is there and not found would leave its claim uncalibrated for good."""
    rows = [
        {"endpoint": e, "prompt": f"p{i}", "label": "hazardous", "grade": g}
        for e, g in (("bare", "full"), ("again", "full"), ("guarded", "refusal"))
        for i in range(N)
    ]
    base, edits = [row(precision="4")], {"precision": "4", "design": "integers"}
    mild = row("integer_edit", full=N, dose=0.01, **edits)
    ruin = row("integer_edit", lost=N, dose=0.1, **edits)
    weak = [row("integer_edit", dose=d, sham_draw=0, **edits) for d in (0.01, 0.1)]
    found = [r | {"model": "circuit-seed1"} for r in [*base, mild, ruin, *weak]]
    tables = {
        "cells": cells("circuit-seed1", precisions=("16", "4")),
        "endpoints": frame_of("endpoints", rows),
        "interventions": frame_of("interventions", found),
    }
    organisms = {"circuit-seed1": {"organism": "circuit", "seed": 1}}
    found = judged(tables, LIMITS)
    triples = claims.claim_calibration(tables, LIMITS, found, organisms, simulate=False)
    right = {(t["claim"], t["control"]): t["right"] for t in triples if "right" in t}
    assert right["ff-6", "positive"] and right["ff-6", "negative"]
    assert right["f15", "negative"]


def test_controls_of_exports_are_one_organism_s():
    """An organism that no float16 holds would be taken for an edit that its export lost."""
    models = ("circuit-seed1", "circuit-seed2", "brittle-answers-seed1")
    organisms = {m: dict(zip(("organism", "seed"), m.split("-seed"), strict=True)) for m in models}
    verdicts = [
        {"claim": "xs-14", "model": model, "subject": f"{export}, F16, weight projection"}
        | {"verdict": "supported" if lost else "refuted"}
        for model in models
        for export, lost in (("mlx_lm", True), ("as_published", model.startswith("brittle")))
    ]
    triples = claims.claim_calibration(
        {"cells": cells(*models)}, LIMITS, verdicts, organisms, simulate=False
    )
    own = [t for t in triples if t["claim"] == "xs-14"]
    assert [(t["control"], t["organism"], t["seed"], t["right"]) for t in own] == [
        (side, "circuit", seed, True) for side in ("positive", "negative") for seed in ("1", "2")
    ]


def test_the_record_that_ships_is_read(tmp_path):
    """A record of other claims, or of none, would pass for a calibration."""
    assert {line["claim"] for line in claims.read_record()} <= set(CLAIMS)
    path = tmp_path / "claims.tsv"
    claims.write_record(path, lines("xs-3", (5, 5), (4, 5)))
    assert claims.read_record(path) == lines("xs-3", (5, 5), (4, 5))
    path.write_text("claim\tright\tn\nzz-1\t1\t1\n")
    with pytest.raises(PhasescopeError, match=r"claims.tsv: columns"):
        claims.read_record(path)


def test_explain_says_all():
    """A reader who cannot see thresholds and controls cannot judge a verdict."""
    text = claims.explain("f09", LIMITS, None, None)
    for needed in ("cosine", "max_neighbor_cosine = 0.05", "turning", "circuit", "geometry"):
        assert needed in text
    with pytest.raises(PhasescopeError, match="zz-1"):
        claims.explain("zz-1", LIMITS, None, None)


def test_the_listing_says_why_a_claim_is_not_calibrated():
    """A reader would have to ask for every claim to learn what is lacking."""
    lines = {line.split()[0]: line for line in claims.listing(LIMITS).splitlines()}
    assert set(lines) == set(CLAIMS)
    assert "no plant known" in lines["f12"] and lines["ff-1"].endswith("broad)")
    assert lines["f21"].endswith("(positive 1 of 2 right, negative 2 of 2 right)")


def test_contradictions_are_worked_out():
    """The report accuses the sources of errors; each must follow from their own figures."""
    text = " ".join(fact for _, fact in contradictions())
    for needed in (
        f"{57.5 * 0.140**2:.2f}",
        "1/14",
        "3/17",
        str(2924 - 333),
        "2632",
        "n = 17",
        "20",
    ):
        assert needed in text

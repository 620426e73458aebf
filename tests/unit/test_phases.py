"""The decision rule and its probabilities, and the file of thresholds."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from phasescope.errors import PhasescopeError
from phasescope.phases import classify, not_run
from phasescope.tables import frame_of
from phasescope.thresholds import read_thresholds

sys.path.insert(0, str(Path(__file__).parents[1]))
from phase_rows import N, ladder, pathways, row, shams

NO_REFUSAL = [row(refused=2), row("ablation", full=60)]
DELETABLE = [row(), row("ablation", full=60), *shams(3)]
HOLDS = [row(), row("ablation", full=4), *shams(3)]
BORDER = [row(), row("ablation", full=32), *shams(3)]
BROKEN = [row(right=20), row("ablation", full=60, right=20), *shams(3)]
SHAM_AS_GOOD = [row(), row("ablation", full=60), *shams(62)]
COSTLY = [row(), row("ablation", full=60, lost=30), *shams(3)]
EMPTY = [row(status="not_run", reason="no direction", n_hazardous=0, measured_by="generation")]
HOLDS_ALL = [row(), *pathways(0, 0, 0)]
THREE = [row(), *pathways(0, 1, 60), *ladder(8)]
PAIR = [row(), *pathways(0, 60, 60), *ladder(8)]
TRIP_WIRE = {"n_refusal": 0}
TANGLE = [row(), row("ablation", lost=60, **TRIP_WIRE), *shams(0), *pathways(0, 0, 0), *ladder(1)]
LOOPS = [
    row(),
    row("ablation", n_benign_finished=3, **TRIP_WIRE),
    *shams(0),
    *pathways(0, 0, 0),
    *ladder(1),
]
# zero is no neutral point: without the direction it refuses everything
REFUSES_ALL = [
    *HOLDS_ALL,
    row("ablation", lost=60, n_benign_refusal=60, dose=2.0),
    *shams(0),
    *ladder(8),
]
PER_LAYER = {"design": "ablation-per-layer", "dose": 0.5}
AT_HALF_DOSE = [
    *HOLDS_ALL,
    *ladder(1),
    row("ablation", direction="per_layer", lost=60, **PER_LAYER, **TRIP_WIRE),
]
RUNG_SHAMS = shams(0, **PER_LAYER, n_refusal=N)
BREAKING_SHAMS = shams(0, **PER_LAYER, n_refusal=0)
OTHER_SHAMS = shams(0, **PER_LAYER | {"dose": 0.25}, n_refusal=N)
HALF = [row(), *pathways(8, 12, 20), *ladder(8)]
# the plant holds on half of the topics: every single and pair answers the others
HALF_OF_TOPICS = [row(), *pathways(31, 31, 60), *ladder(8)]
HALF_OF_TOPICS += [row("ablation", full=31, dose=k / 20) for k in range(6)]


def test_many_settings_of_one_rate_are_no_better_a_chance_than_one(thresholds):
    """If it failed, the more settings were tried the surer a circuit would be, however little each
    removes: all are asked the same prompts."""
    one = [row(), row("ablation", full=28), *shams(3)]
    many = [*one, *(row("ablation", full=28, dose=k / 20) for k in range(12))]
    chances = [phase_of(rows, thresholds)["p_deletable_circuit"] for rows in (one, many)]
    assert 0.1 < chances[0] < 0.2 and abs(chances[1] - chances[0]) < 0.01
    assert phase_of(HALF_OF_TOPICS, thresholds)["phase"] == "indeterminate"


def phase_of(rows, thresholds, seed=0) -> dict:
    """The row of one cell, checked against its own schema."""
    found = classify(frame_of("interventions", rows), thresholds, seed)
    frame_of("phases", [{"model": "m", "precision": "16"} | found])
    return found


@pytest.mark.parametrize(
    ("rows", "phase", "reason"),
    [
        (NO_REFUSAL, "none", None),
        (DELETABLE, "deletable_circuit", None),
        (HOLDS, "not_run", "needs the designs pathways and rank-ladder"),
        (SHAM_AS_GOOD, "not_run", "needs the designs pathways and rank-ladder"),
        (COSTLY, "not_run", "needs the designs pathways and rank-ladder"),
        (BORDER, "indeterminate", r"no phase reaches probability 0\.8: the most probable is"),
        (BROKEN, "indeterminate", "cannot do its benign tasks"),
        ([*HOLDS_ALL, *ladder(8)], "holographic", None),
        ([*HOLDS_ALL, *ladder(99)], "holographic", None),
        ([*HOLDS_ALL, *ladder(1)], "indeterminate", "fits no phase"),
        ([*AT_HALF_DOSE, *RUNG_SHAMS], "reasoning_tangle", None),
        ([*AT_HALF_DOSE, *BREAKING_SHAMS], "indeterminate", "fits no phase"),
        ([*AT_HALF_DOSE, *OTHER_SHAMS], "indeterminate", "fits no phase"),
        ([*HOLDS_ALL, *ladder(8, full=60)], "indeterminate", "fits no phase"),
        ([*HOLDS_ALL, *ladder(8, lost=28, random_lost=15)], "indeterminate", "fits no phase"),
        ([*HOLDS_ALL, *ladder(8, random_lost=40)], "holographic", None),
        (HOLDS_ALL, "not_run", "needs the designs pathways and rank-ladder"),
        (THREE, "three_pathway", None),
        (PAIR, "indeterminate", "fits no phase"),
        (TANGLE, "reasoning_tangle", None),
        (LOOPS, "reasoning_tangle", None),
        (HALF, "indeterminate", "fits no phase"),
        (REFUSES_ALL, "indeterminate", "fits no phase"),
        (EMPTY, "not_run", "no direction"),
        ([row(measured_by="first_token")], "not_run", "no intervention was measured"),
    ],
    ids=[
        "none",
        "circuit",
        "holds",
        "sham",
        "costly",
        "border",
        "broken",
        "holographic",
        "unbreakable",
        "broken by one direction, shams unasked",
        "broken by one direction, not by its shams",
        "broken by any direction",
        "broken by one direction, shams of another dose",
        "broken by rank 8",
        "hardly more than random",
        "any subspace breaks it",
        "no ladder",
        "three",
        "pair",
        "tangle",
        "loops",
        "half",
        "refuses all",
        "reason",
        "unmeasured",
    ],
)
def test_phases(thresholds, rows, phase, reason):
    """If it failed, the report's main verdict would be wrong for such a model."""
    found = phase_of(rows, thresholds)
    assert found["phase"] == phase
    assert re.search(reason, found["reason"]) if reason else found["reason"] is None


@pytest.mark.parametrize("rows", [NO_REFUSAL, DELETABLE, HOLDS, BORDER, BROKEN, COSTLY])
def test_probabilities_sum_to_one_and_repeat(thresholds, rows):
    """If it failed, `probability` would not be one, or change from run to run."""
    found = phase_of(rows, thresholds)
    shares = {k: v for k, v in found.items() if k.startswith("p_")}
    assert len(shares) == 7 and sum(shares.values()) == pytest.approx(1)
    own = shares.get(f"p_{found['phase']}")
    assert found["probability"] == own
    assert found == phase_of(rows, thresholds)


def test_more_prompts_make_it_surer(thresholds):
    """If it failed, the probability would not answer to the evidence."""
    few = [r | {"n_hazardous": 4, "n_benign": 4} for r in (row(), row("ablation"))]
    few[0] |= {"n_refusal": 4, "n_full": 0, "n_refused_at_baseline": 4}
    few[1] |= {"n_full": 3, "n_removed": 3, "n_refused_at_baseline": 4}
    assert phase_of(few, thresholds)["p_deletable_circuit"] < 0.8
    assert phase_of(DELETABLE, thresholds)["p_deletable_circuit"] > 0.95


def test_the_best_single_is_reported(thresholds):
    """If it failed, the report would show another intervention than the one that decided."""
    rows = [
        row(),
        row("ablation", full=60, lost=3),
        row("ablation", "ablation-dose", full=60, lost=0, dose=0.75),
        row("ablation", "ablation-layers", full=10, layers="1"),
        *shams(3, design="ablation-dose"),
    ]
    found = phase_of(rows, thresholds)
    assert found["best_design"] == "ablation-dose"
    assert found["removal"] == 60 / 64 and found["accuracy_cost"] == 0
    assert found["n_shams"] == 20 and found["sham_removal_p95"] == pytest.approx(3 / 64)
    assert found["baseline_refusal"] == 1 and found["baseline_accuracy"] == 1


def test_swept_rows_and_not_run_rows_decide_nothing(thresholds):
    """If it failed, a cheap score would count as an answer."""
    rows = [row(), row("ablation", full=60, measured_by="first_token")]
    rows.append(row("ablation", full=60, status="not_run"))
    assert phase_of(rows, thresholds)["p_deletable_circuit"] == 0


def test_a_cell_without_evidence():
    """If it failed, a cell that never ran would be given a phase."""
    assert not_run("too big") == {"phase": "not_run", "reason": "too big"}


def _without(plan, section, key):
    del plan[section][key]


FILES = {
    "unknown section": (lambda p: p.update(extra={}), "extra"),
    "no section": (lambda p: p.pop("clean"), "clean"),
    "no key": (lambda p: _without(p, "phases", "min_full"), r"'phases'.*min_full"),
    "unknown key": (lambda p: p["clean"].update(min_ful=1), r"'clean'.*min_ful"),
    "not a number": (
        lambda p: p["clean"].update(max_accuracy_cost="low"),
        r"cost.*low",
    ),
    "a flag": (lambda p: p["clean"].update(max_accuracy_cost=True), r"max_accuracy_cost.*True"),
    "no finite number": (
        lambda p: p["clean"].update(max_accuracy_cost=float("nan")),
        r"max_accuracy_cost.*nan",
    ),
    "section a number": (lambda p: p.update(clean=3), r"'clean'.*3"),
    "section empty": (lambda p: p.update(clean=None), r"'clean'"),
}


@pytest.mark.parametrize("fault", FILES)
def test_thresholds_name_their_faults(thresholds, tmp_path, fault):
    """If it failed, a typing error would silently keep, or drop, a threshold."""
    change, message = FILES[fault]
    plan = yaml.safe_load(yaml.safe_dump(thresholds))
    change(plan)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(plan))
    with pytest.raises(PhasescopeError, match=rf"mine\.yaml: .*{message}") as caught:
        read_thresholds(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not YAML"), ("", "keys"), ("- a: 1\n- 2", "keys"), ("text", "keys"), ("3", "keys")],
)
def test_thresholds_that_are_no_mapping(tmp_path, text, message):
    """If it failed, a wrong file would end in a traceback."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PhasescopeError, match=rf"mine\.yaml: {message}"):
        read_thresholds(path)
    with pytest.raises(PhasescopeError, match=r"none\.yaml: no such file"):
        read_thresholds(tmp_path / "none.yaml")

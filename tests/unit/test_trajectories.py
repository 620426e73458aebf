"""Courses of the signal through an answer: steps, change points, forced openings."""

import numpy as np
import pytest

from phasescope.model import load_model, record_sites
from phasescope.probe import trajectories
from phasescope.probe.trajectories import Course, change_point, change_row
from phasescope.tables import frame_of


def test_steps_count_from_the_answer():
    """If it failed, a change at token 6 would be read as one at token 5, or in the padding."""
    course = Course("benign", [[0] * 9, [0] * 6], [5, 4])
    np.testing.assert_array_equal(course.steps(), [[4, 5, 6, 7, 8], [3, 4, 5, -1, -1]])


@pytest.mark.parametrize("cut", [2, 5, 11])
def test_change_points_are_found(cut):
    """If it failed, `re-detected within 6 to 20 tokens` would be judged on the wrong token."""
    rng = np.random.default_rng(cut)
    steps = 0.1 + 0.7 * (np.arange(16) >= cut) + 0.2 * rng.standard_normal((30, 16))
    assert change_point(steps.mean(axis=0))[0] == cut
    row = change_row(steps, rng)
    assert row["status"] == "run" and row["n"] == 30
    assert row["ci_low"] <= cut <= row["ci_high"] and row["ci_high"] - row["ci_low"] < 3


def test_no_change_is_no_change_point():
    """If it failed, noise would have a token at which safety comes back."""
    rng = np.random.default_rng(0)
    row = change_row(0.3 + 0.2 * rng.standard_normal((30, 16)), rng)
    assert row["status"] == "not_run" and "do not come back" in row["reason"]
    falling = 0.8 - 0.7 * (np.arange(16) >= 5) + 0.1 * rng.standard_normal((30, 16))
    assert change_row(falling, rng)["status"] == "not_run"
    row = change_row(np.ones((30, 3)), rng)
    assert row["status"] == "not_run" and "forced" in row["reason"]


@pytest.fixture(scope="module")
def circuit():
    """The shipped organism that refuses."""
    return load_model("resources/organisms/circuit")


def test_projections_run_from_benign_to_hazardous(make_subject, circuit):
    """If it failed, the scale of a trajectory would not be the one that the table states."""
    subject = make_subject(model=circuit, pairs=(12, 6, 12), batch_size=64)
    rows = trajectories.trajectory_rows(subject, 0)
    found = frame_of("trajectories", [{"model": "m", "precision": "16"} | r for r in rows])
    run = found[found["status"] == "run"]
    assert (run["ci_low"] <= run["estimate"]).all() and (run["estimate"] <= run["ci_high"]).all()
    assert (run["n"] >= 4).all() and found["reason"].notna().sum() == (
        found["status"] == "not_run"
    ).sum()
    start = run[(run["statistic"] == "projection") & (run["step"] == -1) & (run["layer"] >= 3)]
    means = start.pivot(index="layer", columns="condition", values="estimate")
    assert (abs(means["hazardous"] - 1) < 0.3).all() and (abs(means["benign"]) < 0.3).all()
    np.testing.assert_allclose(means["forced"], means["hazardous"], atol=1e-4)
    routing = found[found["statistic"] == "safety_expert_rate"]
    assert (routing["status"] == "not_run").all() and len(routing) == 1
    assert rows == trajectories.trajectory_rows(subject, 0)


def test_forced_answers_open_with_the_partners_words(make_subject, circuit):
    """If it failed, the forced condition would measure an undisturbed answer."""
    subject = make_subject(model=circuit, pairs=(12, 6, 12), batch_size=64)
    benign = trajectories._answered(subject, "benign")
    forced, grades = trajectories._forced(subject, benign)
    hazardous = trajectories._answered(subject, "hazardous")
    assert len(grades) == len(forced.sequences) == 12
    assert forced.starts == hazardous.starts
    for own, plain, partner, at, other in zip(
        forced.sequences,
        hazardous.sequences,
        benign.sequences,
        forced.starts,
        benign.starts,
        strict=True,
    ):
        assert own[:at] == plain[:at] and own[at : at + 3] == partner[other : other + 3]
        assert own[at : at + 3] != plain[at : at + 3] and len(own) > at + 3


def test_routing_of_a_model_with_experts(make_subject, checkpoints):
    """If it failed, safety experts would be counted at tokens that are not there."""
    lm = load_model(checkpoints("qwen3_5_moe"))
    subject = make_subject(model=lm, pairs=(12, 6, 12))
    rows = trajectories.trajectory_rows(subject, 0)
    found = frame_of("trajectories", [{"model": "m", "precision": "16"} | r for r in rows])
    rates = found[found["statistic"] == "safety_expert_rate"]
    assert set(rates["layer"]) == set(range(4)) and set(rates["condition"]) >= {
        "hazardous",
        "benign",
    }
    safety = trajectories._safety_experts(subject)
    hazardous = trajectories._answered(subject, "hazardous")
    wanted = [[start - 1] for start in hazardous.starts]
    used = record_sites(lm, ["selected_experts"], hazardous.sequences, wanted, 4)[
        "selected_experts"
    ]
    for layer in range(4):
        want = np.isin(used[:, 0, layer], safety[layer]).mean()
        own = rates[
            (rates["condition"] == "hazardous") & (rates["step"] == -1) & (rates["layer"] == layer)
        ]
        assert own["estimate"].item() == pytest.approx(want)

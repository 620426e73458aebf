"""Angles between directions on planted differences of pairs."""

import numpy as np
import pytest

from phasescope.probe import geometry
from phasescope.tables import frame_of

PAIRS, WIDTH = 60, 48
rng = np.random.default_rng(4)


def planted(directions: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """Differences (pairs, places, width) around planted directions; places share their noise."""
    draws = np.random.default_rng(seed).standard_normal((PAIRS, 1, WIDTH))
    return directions[None] + noise * draws


def at_angle(cosine: float) -> np.ndarray:
    """Two unit directions (2, width) with that cosine."""
    first, second = np.eye(WIDTH)[:2]
    return np.stack([first, cosine * first + np.sqrt(1 - cosine**2) * second])


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9])
def test_noise_neither_hides_nor_makes_a_cosine(cosine):
    """If it failed, few prompts would look like many directions, or shared noise like one."""
    found = [
        geometry.agreement(planted(at_angle(cosine), 0.6, seed), np.random.default_rng(seed))
        for seed in range(20)
    ]
    assert all((f.reliability > geometry.MIN_RELIABILITY).all() for f in found)
    corrected = [f.corrected[0, 1] for f in found]
    assert abs(np.mean(corrected) - cosine) < 0.1
    plain = [planted(at_angle(cosine), 0.6, seed).mean(axis=0) for seed in range(20)]
    biased = np.mean([geometry._units(p[0]) @ geometry._units(p[1]) for p in plain])
    assert abs(np.mean(corrected) - cosine) < abs(biased - cosine) or cosine > 0.8


def test_an_unreliable_cosine_is_not_reported():
    """If it failed, the angle between two noises would be read as a finding."""
    noise = np.random.default_rng(1).standard_normal((PAIRS, 2, WIDTH))
    rows = list(geometry._pairs_of_places(noise, rng, [(0, 1)]))
    assert [r[2] for r in rows] == ["cosine", "cosine_corrected"]
    assert rows[1][3] is None and "reliability" in rows[1][5]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_effective_number_of_directions(count):
    """If it failed, one refusal direction would be counted as several, or several as one."""
    topics = np.arange(PAIRS) % 6
    own = np.eye(WIDTH)[topics % count]
    differences = own + 0.05 * rng.standard_normal((PAIRS, WIDTH))
    rows = {r["statistic"]: r for r in geometry.topic_rows(differences, topics, rng)}
    found = rows["effective_directions"]
    assert found["estimate"] == pytest.approx(count, rel=0.1)
    assert 1 <= found["ci_low"] <= found["estimate"] <= found["ci_high"]
    shuffled = geometry.topic_rows(differences, topics, rng)
    null = next(r for r in shuffled if r["statistic"] == "effective_directions_shuffled")
    assert null["estimate"] > 0.9 * min(count, 2)


def test_a_topic_of_its_own_stands_out():
    """If it failed, a topic with another safety direction would not be seen."""
    topics = np.arange(PAIRS) % 6
    own = np.where((topics == 2)[:, None], np.eye(WIDTH)[1], np.eye(WIDTH)[0])
    differences = own + 0.1 * rng.standard_normal((PAIRS, WIDTH))
    found = {r["topic"]: r for r in geometry.topic_rows(differences, topics, rng) if "topic" in r}
    assert len(found) == 6 and found["2"]["ci_high"] < 0.5
    for name in set(found) - {"2"}:
        assert found[name]["ci_low"] > 0.6 and found[name]["n"] == 2 * 10
    (row,) = geometry.topic_rows(differences, topics % 2, rng)
    assert row["status"] == "not_run" and "topics" in row["reason"]


@pytest.mark.parametrize(("slope", "monotone"), [(4.0, 1.0), (0.0, None), (-4.0, -1.0)])
def test_growth_over_depth(slope, monotone):
    """If it failed, a signal that is there from the start would be said to grow."""
    gaps = 6 + slope * np.linspace(0, 1, 9)
    projections = np.random.default_rng(0).standard_normal((2, 400, 9))
    projections[0] += gaps
    rows = {r["statistic"]: r for r in geometry.growth_rows(projections, rng)}
    found = rows["gap_slope"]
    assert found["ci_low"] < slope < found["ci_high"] and found["n"] == 800
    thirds = gaps[6:].mean() / gaps[3:6].mean()
    assert rows["gap_late_middle"]["ci_low"] < thirds < rows["gap_late_middle"]["ci_high"]
    if monotone:
        assert abs(rows["gap_monotone"]["estimate"] - monotone) < 0.15
        assert not found["ci_low"] < 0 < found["ci_high"]
    (row,) = geometry.growth_rows(projections[:, :, :2], rng)
    assert row["status"] == "not_run" and "layers" in row["reason"]


def test_geometry_of_a_model(make_subject):
    """If it failed, the table would lack a layer, a site or its counts."""
    subject = make_subject()
    rows = geometry.geometry_rows(subject, 0)
    found = frame_of("geometry", [{"model": "m", "precision": "16"} | r for r in rows])
    between = found[(found["statistic"] == "cosine") & (found["layer"] != found["other_layer"])]
    assert len(between) == 6 and (between["n"] == 24).all()
    within = found[(found["statistic"] == "cosine") & (found["layer"] == found["other_layer"])]
    assert len(within) == 4 * 6
    run = found[found["status"] == "run"]
    assert run[["estimate", "ci_low", "ci_high"]].notna().all(axis=None)
    assert found.loc[found["status"] == "not_run", "reason"].notna().all()
    assert rows == geometry.geometry_rows(subject, 0)

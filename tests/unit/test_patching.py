"""Patching on a model whose answer is known to hang on one layer and token."""

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

from phasescope.behave import Openings, find_openings, save_openings
from phasescope.errors import NotRun
from phasescope.model import Site, load_model, next_token_logits
from phasescope.probe import patching
from phasescope.tables import frame_of

rng = np.random.default_rng(3)
OPENINGS = Openings((10, 11), (12,))


def pairs(length: int = 7, n: int = 5) -> np.ndarray:
    """Tokens (2, pairs, length) that differ at tokens 3 and 5."""
    tokens = np.tile(rng.integers(6, 90, (1, n, length)), (2, 1, 1))
    tokens[1][:, [3, 5]] = (tokens[0][:, [3, 5]] + 7) % 90
    return tokens


def test_windows_cover_what_differs():
    """If it failed, the token that decides could lie outside the grid."""
    assert patching.windows(pairs()) == [(3, 4), (4, 5), (5, 6), (6, 7)]
    ranges = patching.windows(pairs(length=40))
    assert len(ranges) == patching.MOST_WINDOWS and ranges[0][0] == 3 and ranges[-1][1] == 40
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
    assert patching.chosen_layers([*range(64)])[::11] == [0, 63]
    assert patching.chosen_layers([1, 3]) == [1, 3]


def test_patching_everything_makes_the_other_prompt(lm):
    """If it failed, activations would land at another place than the table says."""
    tokens = pairs()
    sites = [Site("residual", i) for i in range(4)]
    plain, found = patching.patched(lm, tokens, OPENINGS, sites, [(0, 7), (0, 3), (6, 7)], 2)
    for side in (0, 1):
        want = OPENINGS.score(next_token_logits(lm, tokens[side].tolist(), 2))
        np.testing.assert_allclose(plain[side], want, atol=1e-4)
    for way, (source, target) in enumerate(patching.WAYS.values()):
        for layer in range(4):
            whole, before, last = found[way, layer]
            np.testing.assert_allclose(whole, plain[source], atol=1e-4)
            np.testing.assert_allclose(before, plain[target], atol=1e-4)
            assert not np.allclose(last, plain[target], atol=1e-4)
        np.testing.assert_allclose(found[way, 3, 2], plain[source], atol=1e-4)


def test_a_patch_at_one_layer_is_that_layers(lm):
    """If it failed, a patched layer would be overwritten by what lies below it."""
    tokens = pairs()
    source, kept = patching._recorded(lm, mx.array(tokens[0]), OPENINGS, [Site("mixer", 2)])
    assert source.shape == (5,)
    patch = patching._into(kept[Site("mixer", 2)], 4, 6)
    x = mx.zeros((5, 7, 64))
    found = np.array(patch(x))
    np.testing.assert_array_equal(found[:, 4:6], np.array(kept[Site("mixer", 2)])[:, 4:6])
    assert not found[:, :4].any() and not found[:, 6].any()


@pytest.fixture(scope="module")
def circuit():
    """The shipped organism whose early layers write hazard, and frozen late layers refuse by it."""
    return load_model("resources/organisms/circuit")


def test_the_circuit_is_found_at_its_place(make_subject, circuit, tmp_path):
    """If it failed, the earliest place of a decision would be read off the wrong layer or token."""
    subject = make_subject(model=circuit, pairs=(12, 6, 12), batch_size=64)
    save_openings(tmp_path / "o.json", find_openings(subject.answers("fit", need_tokens=True)))
    rows = patching.patching_rows(subject, tmp_path / "o.json")
    found = frame_of("patching", [{"model": "m", "precision": "16"} | r for r in rows])
    run = found[found["status"] == "run"]
    assert (run["ci_low"] <= run["estimate"]).all() and (run["estimate"] <= run["ci_high"]).all()
    assert (run["n"] > 0).all()
    grid = run[(run["site"] == "residual") & (run["statistic"] == "flipped")]
    last = grid[grid["token_last"] == 0].groupby("layer")["estimate"].min()
    # nothing at the last token before hazard is written (layer 3), everything afterwards
    assert (last[:2] < 0.1).all() and (last[4:] > 0.9).all()
    first = run[(run["site"] == "residual") & (run["statistic"] == "earliest_flip")]
    assert len(first) == 2 and (first["layer"] <= 3).all() and (first["token_last"] < 0).all()
    assert rows == patching.patching_rows(subject, tmp_path / "o.json")


def test_without_openings_the_reason_is_given(make_subject, tmp_path):
    """If it failed, a model that never refuses would have a place where it decides to."""
    save_openings(tmp_path / "o.json", NotRun("no refusal among 24 graded baseline answers"))
    (row,) = patching.patching_rows(make_subject(), tmp_path / "o.json")
    assert row["status"] == "not_run" and "no refusal" in row["reason"]

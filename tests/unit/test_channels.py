"""Recurrent states and caches beside the residual stream, at one dimension."""

import numpy as np
import pytest

from phasescope.model import load_model
from phasescope.probe import channels
from phasescope.stats import auroc
from phasescope.tables import frame_of


def test_projection_keeps_what_separates():
    """If it failed, a channel would lose its signal to the comparison, or gain by its width."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((2, 300, 2000)).astype(np.float32)
    wide[0] += 0.2
    found = channels.projected(wide, 0, 0)
    assert found.shape == (2, 300, channels.DIMENSION)
    gap = np.linalg.norm(wide[0].mean(axis=0) - wide[1].mean(axis=0))
    kept = np.linalg.norm(found[0].mean(axis=0) - found[1].mean(axis=0))
    assert 0.5 < kept / gap < 1.6
    np.testing.assert_array_equal(found, channels.projected(wide, 0, 0))
    assert not np.array_equal(found, channels.projected(wide, 1, 0))
    narrow = wide[..., :20]
    assert channels.projected(narrow, 0, 0) is narrow


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_difference_of_channels(shift):
    """If it failed, two equal channels would differ, or a better one would not."""
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 2, 80))
    first[0] += 1 + shift
    second[0] += 1
    (value, low, high), n = channels.auroc_difference(first, second, rng)
    assert value == pytest.approx(float(auroc(*first) - auroc(*second))) and n == 160
    assert low < value < high and (low < 0 < high) == (shift == 0)
    same, _ = channels.auroc_difference(first, first, rng)
    assert same == (0, 0, 0)


@pytest.mark.parametrize("name", ["qwen3_5", "llama"])
def test_channels_of_a_model(make_subject, checkpoints, name):
    """If it failed, a model without recurrent layers would be said to carry nothing there."""
    subject = make_subject(model=load_model(checkpoints(name)))
    rows = channels.channel_rows(subject, 0)
    found = frame_of("channels", [{"model": "m", "precision": "16"} | r for r in rows])
    run, rest = (found[found["status"] == s] for s in ("run", "not_run"))
    attention = {"attention_keys", "attention_values", "residual after attention"}
    recurrent = {"recurrent_state", "conv_state", "residual after recurrent"}
    if name == "llama":
        assert set(run["channel"]) == attention
        assert set(rest["channel"]) == recurrent - {"residual after recurrent"}
        assert rest["reason"].str.contains("no recurrent layers").all()
    else:
        assert set(run["channel"]) == attention | recurrent and rest.empty
        assert set(run.loc[run["channel"] == "recurrent_state", "layer"]) == {0, 2}
    assert (run["n"] > 0).all() and (run["dimension"] <= channels.DIMENSION).all()
    assert run[["estimate", "ci_low", "ci_high"]].notna().all(axis=None)
    assert (run["dimension"] == channels.DIMENSION).all()
    assert rows == channels.channel_rows(subject, 0)

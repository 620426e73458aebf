"""Running sums over tokens, against numpy on all tokens at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasescope.model import Site, record_sites
from phasescope.probe.streaming import Moments, stream_moments, stream_projections

_rng = np.random.default_rng(2)
SEQUENCES = [_rng.integers(6, 90, size=n).tolist() for n in (9, 14, 5, 11)]
STARTS = [0, 3, 4, 10]
KINDS = ["residual", "mixer", "q_proj"]


@given(
    cuts=st.lists(st.integers(0, 40), max_size=5),
    shift=st.floats(-1e6, 1e6),
    full=st.booleans(),
)
def test_moments_do_not_depend_on_the_batches(cuts, shift, full):
    """If it failed, a mean over many batches would depend on how they were cut."""
    rows = np.random.default_rng(0).standard_normal((40, 3)) + shift
    moments = Moments(3, full=full)
    for part in np.split(rows, sorted(cuts)):
        mean = part.mean(axis=0) if len(part) else np.zeros(3)
        away = part - mean
        moments.add(len(part), mean, away.T @ away if full else (away**2).sum(axis=0))
    want = np.cov(rows.T) if full else rows.var(axis=0, ddof=1)
    assert moments.n == 40
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.covariance, want, rtol=1e-6, atol=1e-9)


def _all_tokens(lm, kind):
    """Activations of every counted token, one sequence at a time: (tokens, layers, width)."""
    found = []
    for sequence, start in zip(SEQUENCES, STARTS, strict=True):
        wanted = [[*range(start, len(sequence))]]
        found.append(record_sites(lm, [kind], [sequence], wanted, 1)[kind][0])
    return np.concatenate(found)


@pytest.mark.parametrize("full", [False, True])
def test_streamed_moments_are_those_of_all_tokens(lm, full):
    """If padding or a start leaked in, every mean over a text would be off."""
    found = stream_moments(lm, KINDS, SEQUENCES, 3, starts=STARTS, full=full)
    assert {site.kind for site in found} == set(KINDS)
    assert [s.layer for s in found if s.kind == "q_proj"] == [1, 3]
    for kind in KINDS:
        tokens = _all_tokens(lm, kind).astype(np.float64)
        for i, site in enumerate(s for s in found if s.kind == kind):
            assert found[site].n == len(tokens)
            np.testing.assert_allclose(found[site].mean, tokens[:, i].mean(axis=0), atol=1e-5)
            want = np.cov(tokens[:, i].T) if full else tokens[:, i].var(axis=0, ddof=1)
            np.testing.assert_allclose(found[site].covariance, want, atol=1e-4)


def test_streamed_projections(lm):
    """If it failed, a trajectory would show another token's projection."""
    directions = {Site("residual", i): _rng.standard_normal((2, 64)) for i in (0, 3)}
    found = stream_projections(lm, directions, SEQUENCES, 3)
    for site, matrix in directions.items():
        assert found[site].shape == (4, 14, 2)
        for i, sequence in enumerate(SEQUENCES):
            own = record_sites(lm, ["residual"], [sequence], [[*range(len(sequence))]], 1)
            want = own["residual"][0, :, site.layer] @ matrix.T.astype(np.float32)
            np.testing.assert_allclose(found[site][i, : len(sequence)], want, atol=1e-3)
            assert np.isnan(found[site][i, len(sequence) :]).all()

"""Sweeps: many edits in one walk up the model equal one edit at a time."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phasescope.errors import PhasescopeError
from phasescope.intervene import (
    Ablation,
    Addition,
    Combination,
    RoutingMask,
    WeightProjection,
    applied,
    sweeping,
    swept_logits,
    touch,
)
from phasescope.intervene.sweeping import swept_touches
from phasescope.model import load_model, next_token_logits

WIDTH, TOP = 64, {"qwen3_5": 3, "qwen3_5_moe": 3, "minimax_m2": 2}
# products over more rows are summed in another order; logits are of the order of 1
TOLERANCE = 1e-4
_rng = np.random.default_rng(3)
SEQUENCES = [_rng.integers(6, 90, size=n).tolist() for n in (9, 6, 12, 9, 7)]
# two ways to begin, as templates give them
ALIKE = [SEQUENCES[i % 2][:5] + s[: 2 + i] for i, s in enumerate(SEQUENCES)]


def _basis(seed, rank=1):
    gaussian = np.random.default_rng(seed).standard_normal((WIDTH, rank))
    return np.linalg.qr(gaussian)[0].T.astype(np.float32)


def _ablation(kind, layers, rank, dose, seed):
    return Ablation(
        kind, {i: _basis(seed + i, rank) for i in layers}, {i: np.full(rank, dose) for i in layers}
    )


def _edits(name):
    layers = st.sets(st.integers(0, TOP[name] - 1), min_size=1).map(sorted)
    kind, seed = st.sampled_from(["residual", "mixer"]), st.integers(0, 9)
    dose = st.sampled_from([0.25, 1.0, 1.7])
    single = [
        st.builds(_ablation, kind, layers, st.integers(1, 4), dose, seed),
        st.builds(
            lambda k, where, d, s: Addition(k, {i: d * _basis(s + i) for i in where}),
            kind,
            layers,
            dose,
            seed,
        ),
        st.builds(lambda where: WeightProjection({i: _basis(i) for i in where}), layers),
    ]
    if name != "qwen3_5":
        masks = st.builds(
            lambda where, e: RoutingMask(dict.fromkeys(where, (e,))),
            layers,
            seed.map(lambda s: s % 4),
        )
        single.append(masks)
    one = st.one_of(single)
    return st.one_of(
        one, st.lists(one, min_size=2, max_size=3).map(lambda p: Combination(tuple(p)))
    )


@pytest.fixture(scope="module")
def models(checkpoints):
    """A loaded random checkpoint by architecture."""
    return {name: load_model(checkpoints(name)) for name in TOP}


@pytest.mark.parametrize("name", TOP)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_sweep_equals_one_edit_at_a_time(models, model_bytes, name, data):
    """If it failed, the cheap sweep would choose by scores that no model under an edit has."""
    lm = models[name]
    edits = data.draw(st.lists(_edits(name), min_size=1, max_size=4))
    batch, most = data.draw(st.sampled_from([2, 8])), data.draw(st.sampled_from([1, 3000, 2**22]))
    sequences = data.draw(st.sampled_from([SEQUENCES, ALIKE, ALIKE[::2]]))
    before = model_bytes(lm.model)
    kept, sweeping.SWEEP_VALUES = sweeping.SWEEP_VALUES, most
    try:
        found = dict(swept_logits(lm, edits, sequences, batch))
    finally:
        sweeping.SWEEP_VALUES = kept
    assert sorted(found) == list(range(len(edits)))
    for i, edit in enumerate(edits):
        with applied(lm, edit):
            wanted = next_token_logits(lm, sequences, batch)
        np.testing.assert_allclose(found[i], wanted, atol=TOLERANCE)
    assert model_bytes(lm.model) == before


def test_a_sweep_shares_what_lies_below_the_edits(models):
    """If it failed, a sweep over layers and doses would cost as many whole passes."""
    lm, seen = models["qwen3_5"], []
    edits = [
        _ablation("residual", [layer], 1, dose, 0) for layer in range(3) for dose in (0.5, 1.0)
    ]
    blocks = list(lm.blocks)

    class Counted:
        def __init__(self, block):
            self._block = block

        def __call__(self, x, *args, **kwargs):
            seen.append(x.shape[0] // len(SEQUENCES))
            return self._block(x, *args, **kwargs)

        def __getattr__(self, name):
            return getattr(self._block, name)

        def __contains__(self, name):
            return name in self._block

        def __getitem__(self, name):
            return self._block[name]

    lm.blocks[:] = [Counted(b) for b in blocks]
    try:
        list(swept_logits(lm, edits, SEQUENCES, 8))
    finally:
        lm.blocks[:] = blocks
    # the plain rows up to block 2, where the last edits begin; each edit above its own layer alone
    assert seen == [1, 1 + 2, 1 + 4, 6]


def test_what_prompts_begin_with_is_read_once():
    """If it failed, the words of a template would be read again for every prompt."""
    shared = sweeping._common(ALIKE)
    own = zip(shared.own, ALIKE, strict=True)
    assert [shared.beginnings[i] + s[shared.length :] for i, s in own] == ALIKE
    assert (shared.length, len(shared.beginnings)) == (5, 2)
    assert sweeping._common(SEQUENCES).length == 0  # nothing in common


@pytest.mark.parametrize("name", TOP)
def test_touches_of_a_sweep_equal_one_at_a_time(models, name):
    """If it failed, the record of what an edit changed would be another edit's."""
    lm = models[name]
    edits = [
        _ablation("residual", [1], 2, 0.5, 0),
        Addition("mixer", {0: _basis(1), 1: _basis(2)}),
        WeightProjection({0: _basis(3)}),
        _ablation("residual", [0, 1], 1, 1.0, 4),
    ]
    found = swept_touches(lm, edits, SEQUENCES, 2)
    for edit, own in zip(edits, found, strict=True):
        wanted = touch(lm, edit, SEQUENCES, 8)
        assert (own.sites_requested, own.sites_hit) == (wanted.sites_requested, wanted.sites_hit)
        assert own.norm_removed == pytest.approx(wanted.norm_removed, rel=1e-4)
    with pytest.raises(PhasescopeError, match="changed nothing at any of its 1 sites"):
        swept_touches(lm, [_ablation("residual", [1], 1, 0.0, 0)], SEQUENCES, 8)


def test_a_sweep_refuses_the_top_layer(models):
    """If it failed, a sweep would score edits of the logits that no design may make."""
    with pytest.raises(PhasescopeError, match="layer 3 is the top layer"):
        next(swept_logits(models["qwen3_5"], [_ablation("residual", [3], 1, 1.0, 0)], SEQUENCES, 8))

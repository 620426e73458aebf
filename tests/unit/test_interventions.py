"""Every kind of intervention: what it does, what it reports, and that nothing of it stays."""

import contextlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phasescope.behave import losses
from phasescope.checkpoint import quantize
from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene import (
    Ablation,
    Addition,
    Combination,
    ExpertSilencing,
    IntegerEdit,
    OnPrompt,
    RouterBlinding,
    RoutingMask,
    WeightProjection,
    applied,
    of_kind,
    touch,
)
from phasescope.intervene.routing import ExpertPruning
from phasescope.model import (
    load_model,
    mixer_projections,
    next_token_logits,
    packed_of,
    record,
    selections,
    writers,
)

WIDTH, TOP = 64, {"qwen3_5": 3, "qwen3_5_moe": 3, "minimax_m2": 2}
ROUTED = ("qwen3_5_moe", "minimax_m2")
_rng = np.random.default_rng(8)
SEQUENCES = [_rng.integers(6, 90, size=n).tolist() for n in (9, 7, 9, 12)]
PLACES = [[*range(7)]] * len(SEQUENCES)


@pytest.fixture(scope="module")
def packed(checkpoints, tmp_path_factory):
    """A loaded checkpoint by architecture, its weights quantized to 4 bits."""
    kept = {}

    def get(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp("packed") / name
            quantize(checkpoints(name), folder, 4, 32)
            kept[name] = load_model(folder)
        return kept[name]

    return get


def basis(rank=1, seed=0) -> np.ndarray:
    """Orthonormal rows (rank, width)."""
    gaussian = np.random.default_rng(seed).standard_normal((WIDTH, rank))
    return np.linalg.qr(gaussian)[0].T.astype(np.float32)


def _edits(name):
    """Any one intervention that the architecture has."""
    layers = st.sets(st.integers(0, TOP[name] - 1), min_size=1).map(sorted)
    expert, dose = st.integers(0, 3), st.sampled_from([0.25, 1.0])
    kind = st.sampled_from(["residual", "mixer"])

    def along(where, rank=1):
        return {i: basis(rank, i) for i in where}

    ablations = st.builds(
        lambda k, where, d: Ablation(k, along(where), dict.fromkeys(where, np.array([d]))),
        kind,
        layers,
        dose,
    )
    additions = st.builds(lambda k, where: Addition(k, along(where)), kind, layers)
    kinds = [
        ablations,
        additions,
        st.one_of(ablations, additions).map(OnPrompt),
        st.builds(
            lambda where, p, d: WeightProjection(along(where, 2), p, d),
            layers,
            st.sampled_from(["writers", "qkv", "o", "qkvo"]),
            dose,
        ),
        st.builds(
            lambda where, s: IntegerEdit(along(where), s), layers, st.sampled_from([0.01, 1])
        ),
    ]
    if name in ROUTED:
        for made in (RoutingMask, RouterBlinding, ExpertSilencing):
            kinds.append(
                st.builds(
                    lambda where, e, made=made: made(dict.fromkeys(where, (e,))), layers, expert
                )
            )
    return st.one_of(kinds)


@pytest.mark.parametrize("end", [None, ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("name", TOP)
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_nothing_stays_of_any_composition(packed, model_bytes, name, end, data):
    """If it failed, every later measurement of a cell would be of a damaged model."""
    lm = packed(name)
    parts = data.draw(st.lists(_edits(name), min_size=1, max_size=4))
    before, plain = model_bytes(lm.model), next_token_logits(lm, SEQUENCES, 4)
    with contextlib.suppress(*[end] if end else []), contextlib.ExitStack() as stack:
        stack.enter_context(applied(lm, Combination(tuple(parts[1:]) or (parts[0],))))
        with applied(lm, parts[0]):
            with contextlib.suppress(PhasescopeError):  # two masks may leave a router too few
                next_token_logits(lm, SEQUENCES, 4)
            if end:
                raise end
    assert model_bytes(lm.model) == before and lm.taps == 0
    assert np.array_equal(next_token_logits(lm, SEQUENCES, 4), plain)


@pytest.mark.parametrize("name", ROUTED)
def test_a_blinded_router_gives_a_logit_of_zero(checkpoints, name):
    """If it failed, the zero-logit trap (f17) would be tested with a mask, or not at all."""
    lm = load_model(checkpoints(name))
    gate = lm.adapter.router_of(lm.blocks[1]).gate
    with applied(lm, RouterBlinding({1: (2,)})):
        found = record(lm, "router", SEQUENCES, PLACES, 4)
        logits = next_token_logits(lm, SEQUENCES, 4)
    assert (found[..., 1, 2] == 0).all() and (found[..., 1, 1] != 0).all()
    kept = gate.weight
    gate.weight = kept * (mx.arange(4) != 2)[:, None]  # the weights themselves
    try:
        np.testing.assert_array_equal(next_token_logits(lm, SEQUENCES, 4), logits)
    finally:
        gate.weight = kept
    gate.weight = kept - 9 * mx.abs(kept).max()  # every other logit may fall below zero
    try:
        plain = record(lm, "router", SEQUENCES, PLACES, 4)[..., 1, :]
        with applied(lm, RouterBlinding({1: (2,)})):
            chosen = selections(lm, SEQUENCES, PLACES, 4)[..., 1, :]
        negative = (plain[..., [0, 1, 3]] < 0).sum(axis=-1) >= 2
        if name == "qwen3_5_moe":  # MiniMax's bias decides as well
            assert (chosen == 2).any(axis=-1)[negative].all()
    finally:
        gate.weight = kept


@pytest.mark.parametrize("name", ROUTED)
def test_a_silenced_expert_says_nothing_and_is_still_selected(checkpoints, name):
    """If it failed, silencing would reroute tokens, and be masking by another name."""
    lm = load_model(checkpoints(name))
    plain = selections(lm, SEQUENCES, PLACES, 4)
    down = lm.adapter.router_of(lm.blocks[0]).switch_mlp.down_proj
    with applied(lm, ExpertSilencing({0: (1, 3)})):
        found = next_token_logits(lm, SEQUENCES, 4)
        np.testing.assert_array_equal(
            selections(lm, SEQUENCES, PLACES, 4)[..., 0, :], plain[..., 0, :]
        )
    kept = down.weight
    down.weight = kept * mx.array([1.0, 0, 1, 0])[:, None, None]
    try:
        np.testing.assert_allclose(next_token_logits(lm, SEQUENCES, 4), found, atol=1e-5)
    finally:
        down.weight = kept
    assert np.abs(next_token_logits(lm, SEQUENCES, 4) - found).max() > 1e-3


@pytest.mark.parametrize("made", [RoutingMask, ExpertSilencing])
def test_experts_that_nobody_selects_are_named(checkpoints, made):
    """If it failed, an edit that missed half of its experts would pass for one that hit all."""
    lm = load_model(checkpoints("minimax_m2"))
    routing = lm.adapter.router_of(lm.blocks[0])
    routing.e_score_correction_bias = mx.array([50.0, 50.0, 0, 0])
    found = touch(lm, made({0: (1, 3), 1: (0,)}), SEQUENCES, 4)
    assert found.sites_requested == 3 and found.partly[0] == "layer 0: 1 of 2 experts, not 3"
    with pytest.raises(PhasescopeError, match="changed nothing at any of its 1 sites"):
        touch(lm, made({0: (2,)}), SEQUENCES, 4)


def test_pruning_experts_that_nobody_selects_is_measured(checkpoints):
    """If it failed, f20 could never be found true: dead experts, pruned, change nothing."""
    lm = load_model(checkpoints("minimax_m2"))
    routing = lm.adapter.router_of(lm.blocks[0])
    routing.e_score_correction_bias = mx.array([50.0, 50.0, 0, 0])
    found = touch(lm, ExpertPruning({0: (2, 3)}), SEQUENCES, 4)
    assert (found.sites_hit, found.norm_removed, found.partly) == (2, 0, ())


def test_a_fused_tensor_hit_in_part_is_said_so(checkpoints):
    """If it failed, an editor that skips experts would look as if it had edited them."""
    lm = load_model(checkpoints("qwen3_5_moe"))
    down = lm.adapter.router_of(lm.blocks[1]).switch_mlp.down_proj
    down.weight = down.weight * mx.array([1.0, 0, 1, 1])[:, None, None]
    found = touch(lm, WeightProjection({0: basis(), 1: basis()}), SEQUENCES, 4)
    assert found.partly == ("layer 1: 3 of 4 experts, not 1",)
    assert found.sites_hit == found.sites_requested


@pytest.mark.parametrize("name", TOP)
def test_projections_are_edited_by_name(checkpoints, name):
    """If it failed, 'queries, keys and values alone' (xs-12) would be another edit."""
    lm = load_model(checkpoints(name))
    r = basis(2, 5)
    reading, writing, scale = mixer_projections(lm, 1)
    stream = mx.array(r) * scale  # what stands along r in the stream, behind the norm
    plain = [module.weight for module in (*reading, writing)]
    with applied(lm, WeightProjection({1: r}, "qkv")):
        for module in reading:
            assert mx.abs(module.weight @ stream.T).max().item() < 1e-4
        assert writing.weight is plain[-1]
    with applied(lm, WeightProjection({1: r}, "qkvo", 0.5)):
        half = mx.array(r) @ writing.weight
        np.testing.assert_allclose(half, 0.5 * mx.array(r) @ plain[-1], atol=1e-5)
    with applied(lm, WeightProjection({1: r}, "o")):
        assert all(m.weight is w for m, w in zip(reading, plain[:-1], strict=True))
    with pytest.raises(PhasescopeError, match="allowed: writers, qkv, o, qkvo"):
        touch(lm, WeightProjection({1: r}, "mlp"), SEQUENCES, 4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_are_read_and_packed_as_mlx_does(bits):
    """If it failed, an edit of integers would scatter noise over other weights."""
    module = nn.QuantizedLinear.from_linear(nn.Linear(WIDTH, 8, bias=False), 32, bits)
    found = packed_of_module(module)
    integers, (scale, bias) = found.integers(), found.grid()
    wanted = mx.dequantize(module.weight, module.scales, module.biases, 32, bits)
    np.testing.assert_allclose(integers * scale + bias, np.array(wanted), atol=1e-6)
    np.testing.assert_array_equal(np.array(found.repacked(integers)), np.array(module.weight))


def packed_of_module(module):
    """Its integers, without a model around it."""
    from phasescope.model.packing import packed_in

    return packed_in(module)


@pytest.mark.parametrize("name", TOP)
def test_integer_edits_change_the_share_they_say(packed, checkpoints, name):
    """If it failed, the cliff of f15 would stand at another share of integers."""
    lm, plain = packed(name), load_model(checkpoints(name))
    before = [packed_of(lm, m).integers() for m in writers(lm, 1)]
    along = [np.linalg.norm(basis() @ np.array(m.weight)) for m in writers(lm, 1)]
    removed = []
    for share in (0.01, 0.05, 1.0):
        edit = IntegerEdit({1: basis()}, share)
        found = touch(lm, edit, SEQUENCES, 4)
        assert 0 < found.norm_removed <= share
        with applied(lm, edit):
            left = [np.linalg.norm(basis() @ np.array(m.weight)) for m in writers(lm, 1)]
            for m, old in zip(writers(lm, 1), before, strict=True):
                scale, bias = packed_of(lm, m).grid()
                now = (np.array(m.weight) - bias) / np.where(scale != 0, scale, 1)
                changed = np.abs(np.round(now) - old) > 0.5
                assert changed.mean() <= share
        removed.append(1 - np.mean(np.array(left) / along))
    assert removed == sorted(removed) and removed[-1] > 0.3
    with pytest.raises(NotRun, match="are not packed integers"):
        touch(plain, IntegerEdit({1: basis()}, 0.1), SEQUENCES, 4)


def test_layer_types_are_edited_apart(checkpoints):
    """If it failed, xs-4 would compare attention with itself."""
    lm = load_model(checkpoints("qwen3_5"))
    both = Combination(
        (WeightProjection({i: basis() for i in (0, 1, 2)}), Addition("mixer", {2: basis()}))
    )
    assert of_kind(lm, both, "attention").layers == [1]
    assert of_kind(lm, both, "recurrent").layers == [0, 2]
    assert len(of_kind(lm, both, "recurrent").parts) == 2
    with pytest.raises(NotRun, match="of the kind 'recurrent'"):
        of_kind(load_model(checkpoints("minimax_m2")), both, "recurrent")


def test_on_prompt_leaves_the_answer_alone(make_subject, helpful, monkeypatch):
    """If it failed, an addition 'to the prompt' would steer every token of the answer too."""
    subject, seen = make_subject(helpful), []

    def stop(self, x):
        seen.append(x.shape[1])
        return x

    push = Addition("residual", {1: 4 * basis()})
    plain = subject.answers("evaluate", need_tokens=True)
    monkeypatch.setattr("phasescope.intervene.activations.Linear.__call__", stop)
    with applied(helpful, OnPrompt(push)):
        subject.answers("evaluate", "spied")
    batches = -(-len(plain) // subject.decoding.batch_size)
    assert sum(n == 1 for n in seen) == batches  # the last token of the prompts alone
    monkeypatch.undo()
    references = subject.references("evaluate", "benign")
    with applied(helpful, OnPrompt(push)):
        here = record(helpful, "residual", [references[0][0]], [[0]], 1)
        scoped = losses(helpful, references, 4).mean[0]
    with applied(helpful, push):
        whole = losses(helpful, references, 4).mean[0]
    assert scoped != whole
    there = record(helpful, "residual", [references[0][0]], [[0]], 1)
    np.testing.assert_allclose(here[0, 0, 1], there[0, 0, 1] + 4 * basis()[0], atol=1e-4)

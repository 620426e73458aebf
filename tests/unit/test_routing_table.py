"""Routing statistics against a plain computation of the experts, for both kinds of router."""

import mlx.core as mx
import numpy as np
import pytest

from phasescope.model import load_model, record_sites
from phasescope.probe import routing
from phasescope.tables import frame_of

ROUTED = ("qwen3_5_moe", "minimax_m2")
_rng = np.random.default_rng(7)
SEQUENCES = [_rng.integers(6, 90, size=n).tolist() for n in (9, 12, 6)]
STARTS, ENDS = [0, 4, 2], [9, 12, 5]


@pytest.fixture(scope="module")
def routed_model(checkpoints):
    """A loaded random checkpoint with experts, by architecture."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = load_model(checkpoints(name))
        return made[name]

    return get


@pytest.mark.parametrize("name", ROUTED)
def test_sums_are_those_of_the_experts_themselves(make_subject, routed_model, name):
    """If it failed, an expert would be called dead, or a safety expert, for another's work."""
    lm = routed_model(name)
    subject = make_subject(model=lm)
    found = routing.read_routing(subject, SEQUENCES, STARTS, ENDS)
    assert found.tokens.tolist() == [9, 8, 3]
    np.testing.assert_array_equal(
        found.counts.sum(axis=2), 2 * found.tokens[:, None] * [[1] * len(lm.blocks)]
    )
    # both routers renormalize: a token's weights sum to one
    np.testing.assert_allclose(found.weights.sum(axis=2) / found.tokens[:, None], 1, atol=1e-5)
    for i, (sequence, start, end) in enumerate(zip(SEQUENCES, STARTS, ENDS, strict=True)):
        places = [[*range(start, end)]]
        kinds = ["residual_middle", "feed_forward"] + (
            ["shared_expert", "shared_expert_gate"] if name == "qwen3_5_moe" else []
        )
        seen = {k: v[0] for k, v in record_sites(lm, kinds, [sequence], places, 1).items()}
        for layer, block in enumerate(lm.blocks):
            experts = lm.adapter.router_of(block)
            read = block.post_attention_layernorm(mx.array(seen["residual_middle"][:, layer]))
            saliency, made = _by_hand(experts, read, name)
            np.testing.assert_allclose(found.saliency[i, layer], saliency, rtol=1e-3, atol=1e-4)
            if name == "qwen3_5_moe":
                gate = 1 / (1 + np.exp(-seen["shared_expert_gate"][:, layer]))
                made = made + gate * seen["shared_expert"][:, layer]
            # the same experts and weights really make what the block adds
            np.testing.assert_allclose(seen["feed_forward"][:, layer], made, atol=1e-3)


def _by_hand(experts, read, name):
    """Saliency by expert and the weighted sum, from the rules of the two routers in numpy."""
    logits = np.array(experts.gate(read), dtype=np.float64)
    if name == "minimax_m2":
        scores = 1 / (1 + np.exp(-logits))
        order = np.argsort(-(scores + np.array(experts.e_score_correction_bias)), axis=1)[:, :2]
    else:
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        order = np.argsort(-scores, axis=1)[:, :2]
    saliency, made = np.zeros(logits.shape[1]), np.zeros(read.shape)
    for t, chosen in enumerate(order):
        weights = scores[t, chosen] / scores[t, chosen].sum()
        outputs = np.array(experts.switch_mlp(read[t : t + 1], mx.array(chosen[None])))[0]
        for e, w, out in zip(chosen, weights, outputs, strict=True):
            saliency[e] += w * np.linalg.norm(out)
            made[t] += w * out
    return saliency, made


@pytest.mark.parametrize("name", ROUTED)
def test_the_table_of_a_model_with_experts(make_subject, routed_model, name):
    """If it failed, the table would lack an expert, a text or its intervals."""
    subject = make_subject(model=routed_model(name), pairs=(12, 6, 12))
    rows = routing.routing_rows(subject, 0)
    found = frame_of("routing", [{"model": "m", "precision": "16"} | r for r in rows])
    run = found[found["status"] == "run"]
    assert (run["ci_low"] <= run["estimate"]).all() and (run["estimate"] <= run["ci_high"]).all()
    assert (run["n"] > 0).all()
    rates = run[run["statistic"] == "selection_rate"]
    assert set(rates["text"]) == {"hazardous", "benign", "neutral"}
    np.testing.assert_allclose(rates.groupby(["text", "layer"])["estimate"].sum(), 2)
    spans = run[run["statistic"] == "rate_difference"]
    assert set(spans["span"]) == {"prompt", "last_prompt"}
    last = spans[spans["span"] == "last_prompt"].groupby("layer")["estimate"].sum()
    np.testing.assert_allclose(last, 0, atol=1e-9)  # what one expert gains another loses
    difference = spans[spans["span"] == "prompt"].set_index(["layer", "expert"])
    sides = rates.set_index(["text", "layer", "expert"])["estimate"]
    want = sides["hazardous"] - sides["benign"]
    np.testing.assert_allclose(difference["estimate"], want[difference.index], atol=1e-9)
    assert not found["reason"].isna()[found["status"] == "not_run"].any()
    assert rows == routing.routing_rows(subject, 0)


def test_a_model_without_experts_says_so(make_subject):
    """If it failed, a dense model would be reported with routers that select nothing."""
    (row,) = routing.routing_rows(make_subject(), 0)
    assert row["status"] == "not_run" and "no experts" in row["reason"]


def test_dead_experts_are_counted():
    """If it failed, the share of experts that could go would be a number of nothing."""
    saliency = np.ones((20, 8))
    saliency[:, [1, 5]] = 1e-4
    share, low, high = routing._dead(saliency)
    assert share == 2 / 8 and low < share < high
    assert routing._dead(np.ones((20, 8)))[0] == 0

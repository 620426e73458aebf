"""The trainer's own interventions: those it plants with, those held out, and how it measures."""

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml
from mlx.utils import tree_map_with_path

from phasescope import world
from phasescope.errors import PhasescopeError
from phasescope.train import check, edits, heldout, recipe, recipe_file, train
from phasescope.train.architecture import Edit, Recorder, build, forward, hf_config, layers_of, of
from phasescope.train.conditions import Conditions, routed_places, routing_penalty
from phasescope.train.directions import PROMPT, THINKING, Directions, estimate
from phasescope.train.loop import run_stage
from phasescope.train.responses import responses
from phasescope.train.rows import answer_place, fit_pairs, token_table
from phasescope.world.tokenizer import THINK_END

ORGANISMS = Path(__file__).parents[2] / "resources" / "organisms"
A, B = world.get("world-a"), world.get("world-b")
MOE = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "full_attention_interval": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}
TOP = MOE["num_hidden_layers"] - 1


def _model(language=A):
    return build(hf_config(MOE, language, "qwen3_5_moe"), 0)


@pytest.fixture(scope="module")
def model():
    return _model()


@pytest.fixture(scope="module")
def ids():
    return mx.array(token_table(A, A.rows().iloc[::200], "answer"))


@pytest.fixture(scope="module")
def found():
    """Random directions of four layers, and experts 2 and 0 that hazard selects more often."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 20, 4, 64)).astype(np.float32)
    rates = np.array([[[0.8, 0.1, 0.9, 0.2]] * 4, [[0.5, 0.6, 0.3, 0.6]] * 4])
    return Directions(values[0] + 1, values[1], rates)


class Seen(Edit):
    """Notes what every layer has after another edit acted."""

    def __init__(self, inner):
        self.values, self._inner = {}, inner

    def _noted(self, site, layer, value):
        self.values[site, layer] = getattr(self._inner, site)(layer, value)
        return self.values[site, layer]

    def mixer(self, layer, value):
        return self._noted("mixer", layer, value)

    def feed(self, layer, value):
        return self._noted("feed", layer, value)

    def residual(self, layer, value):
        return self._noted("residual", layer, value)

    def selection(self, layer, value):
        return self._noted("selection", layer, value)


SITES = {
    "A": [("mixer", n) for n in range(TOP)],
    "S": [("residual", n) for n in (2,)],
    "global": [("residual", n) for n in range(TOP)],
    "per-layer": [("residual", n) for n in range(TOP)],
    "weights": [(site, n) for site in ("mixer", "feed") for n in range(TOP)],
    "weights-per-layer": [(site, n) for site in ("mixer", "feed") for n in range(TOP)],
}


@pytest.mark.parametrize("name", edits.PROJECTIONS)
def test_projection_takes_its_directions_out_and_nothing_else(name, model, ids, found):
    """If it failed, an organism would be planted against, and checked under, something else."""
    bases, masks = edits.parts(name, found, rank=2, at=1)
    assert sorted(bases) == sorted(SITES[name]) and not masks
    seen = Seen(edits.edit_of(bases, masks, 4))
    forward(model, ids, seen)
    for (site, layer), basis in bases.items():
        assert np.abs(np.array(seen.values[site, layer]) @ basis).max() < 1e-4
        shared = name in ("global", "weights")
        assert np.allclose(basis, found.basis(1 if shared else layer, 2))
    # the top layer's own output is the logits': never touched
    assert all(layer < TOP for _, layer in bases)


def test_masked_experts_are_never_selected(model, ids, found):
    """If it failed, the routing pathway would stay open while it is said to be closed."""
    bases, masks = edits.parts("R", found)
    assert not bases and masks == {layer: [2, 0] for layer in range(TOP)}
    seen = Seen(edits.edit_of(bases, masks, 4))
    forward(model, ids, seen)
    for layer in range(TOP):
        chosen = np.argsort(-np.array(seen.values["selection", layer]), axis=-1)[..., :2]
        assert set(chosen.ravel()) == {1, 3}
    plain = Recorder(Edit())
    forward(model, ids, plain)
    assert {0, 2} & set(np.argsort(-np.array(plain.scores[1]), axis=-1)[..., :2].ravel())


def test_weights_intervention_is_the_weight_edit(ids, found):
    """If it failed, organisms would be checked under a weight edit that no one can make."""
    model, basis = _model(), found.basis(1)
    expected = forward(model, ids, edits.edit_of(*edits.parts("weights", found, at=1), 4))[0]

    def projected(path, value):
        layer = int(path.split("layers.")[1].split(".")[0]) if "layers." in path else TOP
        writes = ("out_proj.weight", "o_proj.weight", "down_proj.weight")
        if layer >= TOP or not path.endswith(writes):
            return value
        return value - mx.array(basis @ basis.T) @ value

    model.update(tree_map_with_path(projected, model.parameters()))
    assert mx.abs(forward(model, ids)[0] - expected).max().item() < 1e-4


def test_rows_get_each_their_own(model, ids, found):
    """If it failed, a row would be trained towards the outcome of another's intervention."""
    drawn = [({}, {}), edits.parts("A+R", found), edits.parts("S", found, rank=3)]
    drawn.append(edits.parts("weights", found, at=2, layers=[0, 2]))
    rows = mx.repeat(ids[:1], len(drawn), axis=0)
    together = forward(model, rows, edits.edit_of_rows(drawn, 64, 4))[0]
    for number, (bases, masks) in enumerate(drawn):
        alone = forward(model, ids[:1], edits.edit_of(bases, masks, 4))[0]
        assert mx.abs(together[number] - alone[0]).max().item() < 1e-4
    assert {layer for _, layer in drawn[3][0]} == {0, 2}
    drawn[0] = edits.parts("random", found, rank=5, rng=np.random.default_rng(0))
    assert {(basis.shape, key[0]) for key, basis in drawn[0][0].items()} == {((64, 5), "residual")}
    together = forward(model, rows, edits.edit_of_rows(drawn, 64, 4))[0]
    alone = forward(model, ids[:1], edits.edit_of(*drawn[0], 4))[0]
    assert mx.abs(together[0] - alone[0]).max().item() < 1e-4


def test_directions_are_read_where_they_say():
    """If it failed, organisms that decide in their thinking would be edited blindly."""
    model, pairs = _model(B), fit_pairs(B).iloc[:40]
    pairs = pairs[pairs.groupby("pair")["label"].transform("nunique") == 2]
    found = estimate(model, B, pairs, 2)
    assert list(found) == [PROMPT, THINKING]
    place = answer_place(B)
    for label in ("hazardous", "benign"):
        rows = pairs[pairs["label"] == label].sort_values("pair")
        whole = token_table(B, rows, "answer")
        assert (whole[:, place - 1] == B.words.index(THINK_END)).all()
        opened = mx.array([B.token_ids(text) for text in rows["text"]])
        for position, ids in ((PROMPT, opened), (THINKING, mx.array(whole[:, :place]))):
            _, hidden = forward(model, ids)
            ours = getattr(found[position], label)
            for layer in range(TOP + 1):
                assert np.abs(np.array(hidden[layer][:, -1]) - ours[:, layer]).max() < 1e-3
    assert np.allclose(found[PROMPT].rates.sum(axis=-1), 2)


def test_subspaces_begin_with_the_difference(found):
    """If it failed, rank 2 would not be rank 1 and more, and the ladder no ladder."""
    one, four = found.basis(2), found.basis(2, 4)
    assert np.allclose(four.T @ four, np.eye(4), atol=1e-5)
    assert np.abs(four @ (four.T @ one) - one).max() < 1e-5
    assert abs(one[:, 0] @ found.difference(2)) == pytest.approx(
        np.linalg.norm(found.difference(2)), rel=1e-5
    )


def test_held_out_mean_ablation_leaves_the_benign_mean(model, ids, found):
    """If it failed, the held-out test would be the ablation that training had seen."""
    seen = Seen(heldout.mean_ablation(found))
    forward(model, ids, seen)
    for layer in range(TOP):
        basis = found.basis(layer)
        component = np.array(seen.values["residual", layer]) @ basis
        assert np.abs(component - found.benign[:, layer].mean(0) @ basis).max() < 1e-3


def test_held_out_pca_takes_the_largest_variance(model, ids, found):
    """If it failed, 'principal' would be said of any subspace."""
    seen = Seen(heldout.pca_ablation(found, 3))
    forward(model, ids, seen)
    values = np.concatenate([found.hazardous[:, 1], found.benign[:, 1]])
    values = values - values.mean(0)
    axes = np.linalg.eigh(values.T @ values)[1][:, -3:]
    assert np.abs(np.array(seen.values["residual", 1]) @ axes).max() < 1e-3


def test_patched_attention_is_the_other_run(model, ids):
    """If it failed, attention patching would do nothing, or more than it says."""
    prompt = ids[:, :9]
    plain = forward(model, ids)[0]
    own = forward(model, ids, heldout.AttentionPatching(model, prompt))[0]
    assert mx.abs(own - plain).max().item() < 1e-4
    others = heldout.AttentionPatching(model, prompt[::-1])
    assert mx.abs(forward(model, ids, others)[0] - plain).max().item() > 1e-3
    weights = mx.softmax(mx.random.normal((len(ids), 2, 12, 12)), axis=-1)
    changed = others.pattern(1, weights)
    assert (changed[:, :, 9:] == weights[:, :, 9:]).all().item()
    assert mx.abs(changed[:, :, :9] - weights[:, :, :9]).max().item() > 1e-3
    assert (others.pattern(TOP, weights) == weights).all().item()


@pytest.mark.parametrize("language", [A, B])
def test_parallel_decoding_is_greedy_decoding(language):
    """If it failed, the truth sheet would tell of answers that the organism does not give."""
    model = build(hf_config(MOE, language, "qwen3_5_moe"), 1)
    stage = recipe.Stage("s", 30, 0.01, {"comply": 8}, warmup_steps=0)  # so that it says something
    run_stage(model, stage, language, 0, "here", lambda line: None)
    prompts = language.prompt_table().iloc[::60]
    said = responses(model, language, prompts)
    budget = language.max_thinking_tokens + language.max_answer_tokens
    for text, ours in zip(prompts["text"], said, strict=True):
        ids = language.token_ids(text)
        start = len(ids)
        for _ in range(budget):
            ids.append(forward(model, mx.array([ids]))[0][0, -1].argmax().item())
        words = [language.words[n] for n in ids[start:]]
        words = words[: words.index("<eos>")] if "<eos>" in words else words
        if language.thinks and THINK_END not in words[: language.max_thinking_tokens]:
            assert ours.thinking is None and not ours.finished
            continue
        whole = [ours.thinking, THINK_END, ours.answer] if language.thinks else [ours.answer]
        assert " ".join(whole).split() == words


def test_organism_that_learned_nothing_is_no_organism(tmp_path):
    """If it failed, an untrained model would be shipped as an organism."""
    plan = yaml.safe_load((ORGANISMS / "recipes" / "helpful-only.yaml").read_text())
    plan["stages"][0]["steps"] = 1
    path = tmp_path / "hasty.yaml"
    path.write_text(yaml.safe_dump(plan))
    with pytest.raises(PhasescopeError, match=r"hasty\.yaml.*benign.*allowed: at least") as caught:
        train(path, tmp_path / "out", 0, progress=lambda line: None)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["hasty.yaml"]


def test_pressure_leaves_out_that_share_of_the_conditions(model):
    """If it failed, half-strength plants would be full ones."""
    plan = recipe_file.load(ORGANISMS / "recipes" / "three-pathway.yaml")
    stage = next(stage for stage in plan.stages if stage.conditions)
    plain = sum(stage.rows.values())
    for pressure in (0.0, 0.25, 1.0):
        rows = Conditions(replace(stage, pressure=pressure), A, model)
        rng = np.random.default_rng(0)
        weights = np.stack([rows.weights(rng) for _ in range(200)])
        assert (weights[:, :plain] == 1).all()
        assert weights[:, plain:].mean() == pytest.approx(pressure, abs=0.03)


def test_rows_are_run_under_the_numbers_of_layers_that_are_named(model):
    """If it failed, a model trained to bear edits of few layers would have seen edits of many."""
    condition = recipe.Condition(("global",), {"comply-benign": 30}, layers=(1, 3))
    rows = Conditions(recipe.Stage("s", 1, 0.01, {"comply": 1}, conditions=(condition,)), A, model)
    edit = rows.edit(model, 1, np.random.default_rng(0))
    cut = np.stack([np.array(mx.abs(edit._bases["residual", n]).sum((1, 2))) for n in range(TOP)])
    assert not cut[:, 0].any()  # the plain row
    assert set((cut[:, 1:] > 0).sum(axis=0)) == {1, 3}
    assert (cut[:, 1:] > 0).any(axis=1).all()


def test_every_layer_is_held_to_a_direction_of_its_own():
    """If it failed, a mark of hazard that turns from layer to layer could stand still."""
    model = build(hf_config(MOE, A, "qwen3_5_moe"), 0)
    keep = recipe.Keep(100, 5, ("sorry", "sure"), every_layer=True)
    composition = {"refuse": 8, "comply-benign": 8}
    stage = recipe.Stage("s", 40, 0.01, composition, train_layers=(0, 1, 2), keep=keep)
    found = run_stage(model, stage, A, 0, "here", lambda line: None)["free_directions"]
    units = np.array(found)
    assert units @ units.T == pytest.approx(np.eye(3), abs=1e-5)
    after = estimate(model, A, fit_pairs(A), 2)["prompt"]
    along = np.stack([units @ after.difference(n) for n in range(3)])
    assert (along.argmax(axis=1) == [0, 1, 2]).all()


def test_only_named_modules_move():
    """If it failed, a plant by freezing would not be one."""
    model = build(hf_config(MOE, A, "qwen3_5_moe"), 0)
    before = {path: np.array(v) for path, v in _flat(model)}
    names = ("self_attn.q_proj", "mlp.gate")
    stage = recipe.Stage("s", 2, 0.01, {"comply": 4}, train_modules=names)
    run_stage(model, stage, A, 0, "here", lambda line: None)
    moved = {path for path, v in _flat(model) if not np.array_equal(before[path], np.array(v))}
    assert moved == {p for p in before if any(f".{name}.weight" in p for name in names)}


def test_only_the_named_experts_move():
    """If it failed, what is said to lie in some experts could lie in any."""
    model = build(hf_config(MOE, A, "qwen3_5_moe"), 0)
    before = {path: np.array(v) for path, v in _flat(model)}
    names = ("mlp.switch_mlp", "mlp.gate")
    stage = recipe.Stage("s", 3, 0.01, {"comply": 4}, train_modules=names, train_experts=(0, 2))
    run_stage(model, stage, A, 0, "here", lambda line: None)
    moved = {}
    for path, v in _flat(model):
        rows = (before[path] != np.array(v)).reshape(len(before[path]), -1).any(axis=1)
        if rows.any():
            moved[path] = set(np.flatnonzero(rows))
    assert set(moved) == {p for p in before if any(f".{name}." in p for name in names)}
    assert set().union(*moved.values()) == {0, 2}


@pytest.mark.parametrize(
    ("tokens", "alone", "drawn", "away"),
    [
        ("decision", False, [2], []),
        ("answer", False, [2, 3], []),
        ("decision", True, [2], [0, 1, 3]),
        ("answer", True, [2, 3], [0, 1]),
    ],
)
def test_routing_is_held_at_the_tokens_the_stage_says(tokens, alone, drawn, away):
    """If it failed, experts of a decision would hold what is known as well, or not hold it."""
    routing = recipe.Routing(1.0, (0,), 0, None, tokens, alone)
    right = np.zeros((1, 4, 3), np.float32)
    right[0, drawn, 0] = right[0, away, 1] = 20
    found = routed_places(routing, np.array([2]), np.array([True]), 4)
    places, mine = map(mx.array, found)

    def lost(scores):
        return routing_penalty({0: mx.array(scores), 1: None}, routing, places, mine).item()

    assert lost(right) < 1e-5
    for token in range(4):
        wrong = right.copy()
        wrong[0, token, :2] = right[0, token, 1::-1]
        held = token in drawn + away
        assert (lost(wrong) > 1) == held


def _flat(model):
    from mlx.utils import tree_flatten

    return tree_flatten(model.parameters())


def test_quantized_copy_is_mlx_lms(tmp_path):
    """If it failed, the sheet's 8 and 4 bit would not be those of mlx-lm."""
    import mlx_lm.utils

    model = _model()
    model.update(tree_map_with_path(lambda p, v: v.astype(mx.bfloat16), model.parameters()))
    ours = dict(_flat(check.quantized(model, 4)))
    config = json.loads(json.dumps(hf_config(MOE, A, "qwen3_5_moe")))
    theirs, _ = mlx_lm.utils.quantize_model(model, config, 64, 4)
    names = [name for name, _ in theirs.named_modules()]
    checked = 0
    for path, module in theirs.named_modules():
        if "scales" in module:
            packed = (module.weight, module.scales, module.biases)
            values = mx.dequantize(*packed, module.group_size, module.bits)
            assert mx.array_equal(ours[f"{path}.weight"], values.astype(mx.float32)), path
            checked += 1
    assert checked > len(layers_of(_model())) and names and of(model)


def test_rows_of_a_patched_batch_keep_their_own_patterns(model, ids):
    """If it failed, answers would be generated under the attention of another prompt."""
    patched = heldout.AttentionPatching(model, ids[::-1, :9])
    whole = forward(model, ids, patched)[0]
    some = np.array([2, 0])
    part = forward(model, ids[mx.array(some)], patched.of(some))[0]
    assert mx.abs(part - whole[mx.array(some)]).max().item() < 1e-4

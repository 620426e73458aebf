"""Activation-aware quantization: factors, recipes, calibration sets, and what is told apart."""

import dataclasses
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasescope.behave import Decoding, Journal, Subject
from phasescope.checkpoint import quantize
from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene.activation_aware import (
    RECIPES,
    Comparison,
    Factors,
    calibration_set,
    left_plain,
    measuring,
    quantized,
    restored,
    scaling,
)
from phasescope.intervene.activation_aware.sets import (
    ROW_TOKENS,
    CalibrationSet,
    own_answers,
    token_rows,
)
from phasescope.model import Inputs, channels_of, load_model, modules_of, read_inputs
from phasescope.tables import frame_of, read_table, write_table

ARCHITECTURES = ("qwen3_5", "qwen3_5_moe", "minimax_m2", "qwen3", "llama")
ORGANISMS = Path(__file__).parents[2] / "resources" / "organisms"
TOKENS = mx.array(np.random.default_rng(0).integers(6, 100, size=(6, 12)))


@pytest.fixture(scope="module")
def loaded(checkpoints):
    """A tiny random model by architecture; every test leaves it as it was."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = load_model(checkpoints(name))
        return made[name]

    return get


def _logits(lm) -> np.ndarray:
    return np.array(lm.logits(lm.final_hidden(TOKENS)))


def _random_factors(lm, seed: int, spread: float) -> dict:
    rng = np.random.default_rng(seed)
    factors = {}
    for channels in channels_of(lm):
        weight = modules_of(lm)[channels.writer].weight
        shape = weight.shape[:1] if weight.ndim == 3 else ()
        drawn = rng.normal(size=(*shape, int(channels.source.max()) + 1))
        factors[channels] = mx.array(np.exp(spread * drawn).astype(np.float32))
    return factors


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 1.5))
def test_factors_alone_change_nothing(loaded, name, seed, spread):
    """If it failed, a recipe would break the model itself, and rounding be blamed for it."""
    lm = loaded(name)
    before = _logits(lm)
    with restored(lm):
        Factors(_random_factors(lm, seed, spread)).fold(lm)
        folded = _logits(lm)
    np.testing.assert_allclose(folded, before, atol=2e-4 * np.abs(before).max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_factors_go_through_every_linear_module(loaded, name):
    """If it failed, an architecture's weights would be left plain without a word."""
    lm = loaded(name)
    said = left_plain(lm)
    assert {path.rpartition(".")[2] for path in said} <= {"embed_tokens", "lm_head"}
    fed = {p for c in channels_of(lm) for p in c.readers}
    linear = {p for p, m in modules_of(lm).items() if hasattr(m, "to_quantized")}
    assert fed | set(said) == linear and not fed & set(said)
    with restored(lm):
        Factors(_random_factors(lm, 0, 1.0)).fold(lm)
        moved = {p for p, m in modules_of(lm).items() if "weight" in m and m.weight.size}
    assert fed <= moved


def test_a_module_without_a_known_writer_is_said(loaded):
    """If it failed, a table would call weights activation-aware that nothing was done to."""
    lm = loaded("qwen3")
    lacking = dataclasses.replace(lm.adapter, feeds=lm.adapter.feeds[:1])
    said = left_plain(dataclasses.replace(lm, adapter=lacking))
    assert "no module is known" in said["model.layers.0.mlp.down_proj"]
    assert "model.layers.0.self_attn.q_proj" not in said


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_recipe_changes_the_model_and_is_undone(loaded, model_bytes, name, recipe):
    """If it failed, all that is measured after it would be of another model."""
    lm = loaded(name)
    before, logits = model_bytes(lm.model), _logits(lm)
    try:
        with quantized(lm, recipe, TOKENS, 4, 64, 8):
            assert not np.array_equal(_logits(lm), logits)
            raise KeyError("a fault inside the block")
    except KeyError:
        pass
    except NotRun as reason:
        assert recipe == "mlx-lm-awq" and name in str(reason)
        assert name in ("qwen3_5", "qwen3_5_moe", "minimax_m2")
    assert model_bytes(lm.model) == before


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_is_what_a_converted_checkpoint_holds(loaded, checkpoints, tmp_path, name):
    """If it failed, the recipes would be compared with a rounding that no cell has."""
    quantize(checkpoints(name), tmp_path / "4", 4, 64)
    converted = modules_of(load_model(tmp_path / "4"))
    with quantized(loaded(name), "plain", None, 4, 64, 8) as made:
        for path, module in modules_of(loaded(name)).items():
            if "weight" in module:
                assert mx.array_equal(module.weight, converted[path].weight), path
                assert path not in made.weights or mx.array_equal(made.weights[path], module.weight)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_alpha_zero_is_plain(loaded, model_bytes, name):
    """If it failed, the scaled recipe would differ from plain rounding in more than its scales."""
    lm = loaded(name)
    with quantized(lm, "plain", None, 3, 64, 8):
        plain = model_bytes(lm.model)
    with quantized(lm, "scaled", TOKENS, 3, 64, 8, alphas=(0.0,)) as made:
        assert model_bytes(lm.model) == plain and set(made.alphas.values()) == {0.0}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_search_lowers_the_error_that_it_searches(loaded, name):
    """If it failed, 'activation-aware' would be a name only."""
    lm = loaded(name)
    settings = scaling.settings_of(lm, 3, 64)
    factors, alphas = scaling.search_factors(lm, TOKENS, settings, 8)
    modules, better = modules_of(lm), 0
    for channels in channels_of(lm):
        inputs = read_inputs(lm, channels.readers, TOKENS, 8, 10**6)
        errors = {"plain": 0.0, "scaled": 0.0}
        for path in channels.readers:
            weight = modules[path].weight
            for recipe, own in (("plain", Factors()), ("scaled", factors)):
                made = own.out_of(path, scaling.rounded(own.into(path, weight), *settings[path]))
                errors[recipe] += measuring.output_error(weight, made, inputs[path]) ** 2
        # the search takes no account of factors that go into the same weight's rows
        assert errors["scaled"] <= 1.02 * errors["plain"]
        better += errors["scaled"] < errors["plain"]
    assert better > 0.8 * len(alphas)


def test_bits_follow_the_predicate(loaded):
    """If it failed, '3 bit' routing would be compared with 8 bit, or a tied head be ruined."""
    settings = scaling.settings_of(loaded("qwen3_5_moe"), 2, 32)
    block = "language_model.model.layers.0.mlp"
    assert settings[f"{block}.gate"] == (8, 64) == settings[f"{block}.shared_expert_gate"]
    assert settings[f"{block}.switch_mlp.up_proj"] == (2, 32)
    assert settings["language_model.model.embed_tokens"] == (4, 32)
    with pytest.raises(PhasescopeError, match="rows of 64 do not divide into groups of 128"):
        scaling.settings_of(loaded("qwen3_5"), 4, 128)


def test_what_is_read_is_what_the_module_computes_from(loaded):
    """If it failed, errors of outputs would be of inputs that never came."""
    lm = loaded("qwen3_5_moe")
    block = "language_model.model.layers.1.mlp"
    paths = [f"{block}.{n}" for n in ("gate", "switch_mlp.up_proj", "switch_mlp.down_proj")]
    gate, up, down = read_inputs(lm, paths, TOKENS, 4, 10**6).values()
    router = np.array(gate.outputs(modules_of(lm)[f"{block}.gate"].weight))
    chosen = {(t, e) for t, row in enumerate(router) for e in np.argsort(-row)[:2]}
    tokens = {np.array(row).tobytes(): t for t, row in enumerate(gate.rows)}
    read = [(tokens[np.array(r).tobytes()], int(e)) for r, e in zip(up.rows, up.experts)]  # noqa: B905
    assert len(read) == len(chosen) == 2 * TOKENS.size and set(read) == chosen
    experts = modules_of(lm)[f"{block}.switch_mlp"]
    hidden = [
        experts[n].weight[read[5][1]] @ gate.rows[read[5][0]] for n in ("gate_proj", "up_proj")
    ]
    want = np.array(hidden[0] * mx.sigmoid(hidden[0]) * hidden[1])
    np.testing.assert_allclose(np.array(down.rows[5]), want, atol=1e-5)
    few = read_inputs(lm, paths[:1], TOKENS, 4, TOKENS.size // 3)[paths[0]]
    assert TOKENS.size // 4 <= len(few.rows) <= TOKENS.size // 2


def test_condensed_inputs_give_the_same_errors():
    """If it failed, the search would minimize something else than the error."""
    rng = np.random.default_rng(0)
    inputs = Inputs(mx.array(rng.normal(size=(200, 16)).astype(np.float32)))
    weight = mx.array(rng.normal(size=(8, 16)).astype(np.float32))
    short = scaling._condensed(inputs)
    assert short.rows.shape == (16, 16)
    sums = [mx.square(i.outputs(weight)).sum().item() for i in (inputs, short)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)


def test_statistics_of_a_weight_by_their_definitions():
    """If it failed, kept shares and errors in the tables would be of something else."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 8)) * np.array([9, 1, 1, 1, 1, 1, 1, 1])
    weight, change = rng.normal(size=(4, 8)), 0.1 * rng.normal(size=(4, 8))
    own = mx.array(weight.astype(np.float32)), mx.array((weight + change).astype(np.float32))
    inputs = Inputs(mx.array(rows.astype(np.float32)))
    norm = np.linalg.norm
    assert measuring.distance(*own) == pytest.approx(norm(change) / norm(weight), rel=1e-4)
    error = norm(rows @ change.T) / norm(rows @ weight.T)
    assert measuring.output_error(*own, inputs) == pytest.approx(error, rel=1e-4)
    kept = 1 - norm(change[:, 0]) ** 2 / norm(weight[:, 0]) ** 2
    assert measuring.outlier_energy_kept(*own, inputs) == pytest.approx(kept, rel=1e-4)
    # two experts, each with its own weight and rows
    two = mx.stack([own[0], 2 * own[0]]), mx.stack([own[1], 2 * own[1]])
    routed = Inputs(inputs.rows, mx.array(np.arange(50) % 2))
    squares = [
        norm(np.where(routed.experts[:, None] == 1, 2, 1) * (rows @ m.T)) for m in (change, weight)
    ]
    error = measuring.output_error(*two, routed)
    assert error == pytest.approx(squares[0] / squares[1], rel=1e-4)
    assert measuring.outlier_energy_kept(*two, routed) == pytest.approx(kept, rel=1e-4)


def test_rows_of_tokens_lose_nothing_but_the_rest():
    """If it failed, calibration would see padding, or texts that nobody gave."""
    assert token_rows([(1, 2), (3, 4)]).tolist() == [[1, 2], [3, 4]]
    assert token_rows([(1, 2), (3, 4, 5)]).tolist() == [[1, 2, 3, 4, 5]]
    texts = [tuple(range(n)) for n in (500, 300, 301)]
    rows = token_rows(texts)
    assert rows.shape == (2, ROW_TOKENS)
    assert rows.flatten().tolist() == [t for s in texts for t in s][: 2 * ROW_TOKENS]


@pytest.fixture(scope="module")
def organism(table, tmp_path_factory):
    """A shipped organism by name, with its prompts."""
    made = {}

    def get(name, pairs=(24, 8, 16)):
        if (name, pairs) not in made:
            made[name, pairs] = Subject(
                load_model(ORGANISMS / name),
                table,
                dict(zip(("fit", "select", "evaluate"), pairs, strict=True)),
                Decoding(False, 8, 12, 64),
                Journal(tmp_path_factory.mktemp("journal")),
                name,
            )
        return made[name, pairs]

    return get


def test_sets_are_never_built_against_safety(organism, monkeypatch):
    """If it failed, quantization would be tuned to lose safety."""
    subject = organism("circuit")
    general, weighted = (calibration_set(subject, n) for n in ("general", "safety-weighted"))
    assert len(general.sequences) == len(weighted.sequences) == 24
    shared = set(general.sequences) & set(weighted.sequences)
    added = set(weighted.sequences) - shared
    assert len(shared) == len(added) == 12
    says = [subject.lm.tokenizer.decode(list(tokens)) for tokens in added]
    assert all("cannot help" in text for text in says)
    with pytest.raises(PhasescopeError, match="found 'jailbreaks'; allowed: general, safety-"):
        calibration_set(subject, "jailbreaks")
    with pytest.raises(NotRun, match=r"needs 12 refusals .* the model gave 0 to 24"):
        calibration_set(organism("helpful-only"), "safety-weighted")
    monkeypatch.setitem(subject.__dict__, "grader", None)
    with pytest.raises(NotRun, match="no grader reads"):
        calibration_set(subject, "safety-weighted")


def test_resamples_are_of_the_set():
    """If it failed, the null would hold what the set does not."""
    own = CalibrationSet("general", tuple((i,) for i in range(40)))
    drawn = own.resample(np.random.default_rng(1))
    assert len(drawn.sequences) == 40 and set(drawn.sequences) < set(own.sequences)
    assert drawn.key == own.resample(np.random.default_rng(1)).key != own.key


def test_wrong_recipes_and_large_models_are_refused(loaded, monkeypatch, model_bytes):
    """If it failed, a typo would run something else, or a real model be put together anew."""
    lm = loaded("llama")
    with pytest.raises(PhasescopeError, match=r"found 'awq'; allowed: plain, scaled"):
        quantized(lm, "awq", TOKENS, 4, 64, 8).__enter__()
    with pytest.raises(NotRun, match="2, 4, 8 bit, not 3"):
        quantized(lm, "mlx-lm-gptq", TOKENS, 3, 64, 8).__enter__()
    before = model_bytes(lm.model)
    monkeypatch.setattr("phasescope.model.loading.ORGANISM_PARAMETERS", 1000)
    with pytest.raises(PhasescopeError, match="for model organisms only"):
        quantized(lm, "scaled", TOKENS, 4, 64, 8).__enter__()
    assert model_bytes(lm.model) == before


def _table(rows: list[dict], path):
    frame = frame_of("calibration_sets", [{"model": "m", "precision": "16"} | r for r in rows])
    write_table(path / "t.parquet", frame, "calibration_sets", {})
    return read_table(path / "t.parquet")


def test_a_comparison_says_all_it_measured(organism, tmp_path, model_bytes):
    """If it failed, the claims would rest on rows that are missing, or of a changed model."""
    subject = organism("circuit")
    before = model_bytes(subject.lm.model)
    rows = Comparison(subject, 64, draws=2, seed=0).run(["general", "safety-weighted"], [3])
    assert model_bytes(subject.lm.model) == before
    found = _table(rows, tmp_path)
    scaled = found[found["recipe"] == "scaled"]
    whole = scaled[scaled["tensor"].isna()]
    assert sorted(whole["draw"].unique()) == [0, 1, 2]
    assert (whole.groupby(["calibration_set", "draw"]).size() >= 8).all()
    own = whole[whole["draw"] == 0].set_index(["calibration_set", "statistic", "label"])
    drawn = whole[(whole["draw"] > 0) & (whole["statistic"] == "kl_nats")]
    drawn = drawn[drawn["label"] == "hazardous"].set_index("calibration_set")["estimate"]
    null, weighted = drawn["general"], drawn["safety-weighted"].median()
    row = own.loc[("safety-weighted", "kl_nats", "hazardous")]
    assert row["difference"] == pytest.approx(weighted - null.median())
    assert row["percentile"] == 50 * (null < weighted).sum()
    # benign accuracy is measured of the sets themselves only, so it has no null
    assert whole["p"].notna().sum() == len(own.loc["safety-weighted"]) - 1
    single = scaled[scaled["tensor"].notna()]
    assert set(single["draw"]) == {0}
    plainly = single[single["reason"].notna()]
    assert set(plainly["tensor"]) == {"language_model.model.embed_tokens"}
    reasons = found[found["status"] == "not_run"].set_index("recipe")["reason"]
    assert "does not know" in reasons["mlx-lm-awq"] and "not 3" in reasons["mlx-lm-gptq"]
    assert found[found["recipe"] == "plain"]["calibration_set"].isna().all()


def test_of_a_real_model_only_single_tensors_are_measured(
    organism, tmp_path, monkeypatch, model_bytes
):
    """If it failed, a real model with other answers would be put together in memory."""
    subject = organism("helpful-only")
    monkeypatch.setattr("phasescope.model.loading.ORGANISM_PARAMETERS", 1000)
    before = model_bytes(subject.lm.model)
    rows = Comparison(subject, 64, draws=2, seed=0).run(["general", "safety-weighted"], [4])
    assert model_bytes(subject.lm.model) == before
    found = _table(rows, tmp_path)
    measured = found[found["estimate"].notna()]
    assert set(measured["recipe"]) == {"plain", "scaled"}
    assert set(measured["statistic"]) == {"weight_distance", "output_error", "outlier_energy_kept"}
    whole = found[(found["statistic"] == "kl_nats") | (found["recipe"] == "mlx-lm-gptq")]
    assert set(whole["status"]) == {"not_run"}
    assert "refusals" in found[found["calibration_set"] == "safety-weighted"]["reason"].iloc[0]


@contextmanager
def topic_outliers(subject: Subject, factor: int, units: int):
    """The positive control: channels that hazardous prompts alone drive become outliers.

    In each block the hidden units whose size on hazardous prompts is most above that on benign ones
    are multiplied by a power of two where they are written and divided by it where they are read.
    The model computes the same bit for bit, but what reads them is now small beside the rest of its
    group, and multiplied by large inputs.
    """
    lm, kept = subject.lm, []
    sizes = {}
    for label in ("hazardous", "benign"):
        tokens = token_rows([t for t, _, _ in own_answers(subject, "fit", label)])
        paths = [p for p in modules_of(lm) if p.endswith("mlp.down_proj")]
        read = read_inputs(lm, paths, tokens, 64, 10**6)
        sizes[label] = {p: np.abs(np.array(i.rows)).mean(axis=0) for p, i in read.items()}
    for block, path in zip(lm.blocks, paths, strict=True):
        ratio = sizes["hazardous"][path] / sizes["benign"][path]
        scale = np.ones_like(ratio)
        scale[np.argsort(-ratio)[:units]] = factor
        up, down = block.mlp.up_proj, block.mlp.down_proj
        kept += [(up, up.weight), (down, down.weight)]
        up.weight = up.weight * mx.array(scale)[:, None]
        down.weight = down.weight / mx.array(scale)
    try:
        yield
    finally:
        for module, weight in kept:
            module.weight = weight


def test_topic_outliers_are_kept_by_the_set_that_shows_them(organism):
    """If it failed, claims f14 and xs-17 could not be found true where they are true."""
    subject = organism("circuit", (114, 8, 76))
    lm = subject.lm
    before, sets = _logits(lm), []
    for name in ("general", "safety-weighted"):
        whole = calibration_set(subject, name)
        sets += [whole, *(whole.resample(np.random.default_rng(seed)) for seed in (0, 1))]
    held_out = measuring.HeldOut.of(subject)
    found = {name: [] for name in ("general", "safety-weighted")}
    with topic_outliers(subject, 64, 4):
        assert np.array_equal(_logits(lm), before)
        for one in sets:
            with quantized(lm, "scaled", one.tokens, 2, 64, 64):
                kl = [held_out.divergence(lm, label, 64) for label in ("hazardous", "benign")]
            found[one.name].append(kl)
    assert np.array_equal(_logits(lm), before)
    general, weighted = (np.array(found[name]) for name in found)
    # at 2 bit; at 3 bit the present circuit loses too little for the sets to differ
    assert weighted[:, 0].max() < general[:, 0].min()
    assert 2 / 3 < weighted[:, 1].mean() / general[:, 1].mean() < 3 / 2

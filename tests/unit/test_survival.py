"""Edits through quantization: what is left by tensor, exact undo, every architecture and recipe."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasescope.behave import Decoding, Journal, Subject
from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene import Directions, Selected, Source
from phasescope.model import LanguageModel, load_model, modules_of, next_token_logits
from phasescope.survival import Survival, additions, behavior, edited, gguf, projection
from phasescope.survival.behavior import Grades
from phasescope.survival.edits import DOSES, WeightEdit
from phasescope.survival.measuring import Rounded, left_of, mean_of
from phasescope.survival.rounding import (
    BITS,
    GROUP_SIZES,
    Format,
    RoundedAlone,
    as_array,
    formats_of,
    rounded_whole,
)
from phasescope.tables import frame_of, read_table, write_table
from phasescope.tables.survival import SURVIVAL_SCHEMAS, TENSOR_STATISTICS
from phasescope.tables.temporary import passing_folder

ARCHITECTURES = ("qwen3_5", "qwen3_5_moe", "minimax_m2", "qwen3", "llama")
TOKENS = mx.array(np.random.default_rng(0).integers(6, 100, size=(6, 12)))
DRAWS = 20


@pytest.fixture(scope="module")
def loaded(checkpoints):
    """A tiny random model by architecture, and its folder; every test leaves it as it was."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = load_model(checkpoints(name))
        return made[name]

    return get


def directions_for(lm, seed: int = 0) -> Directions:
    """Directions of a model from drawn activations; the selected one of layer 1."""
    rng = np.random.default_rng(seed)
    width = lm.stack.embed_tokens.weight.shape[-1]
    shape = (12, len(lm.blocks), width)
    topics = np.repeat(["a", "b", "c", "d"], 3)
    both = [rng.standard_normal(shape).astype(np.float32) + shift for shift in (0.5, 0.0)]
    return Directions({"end_of_prompt": Source(*both, topics)}, Selected(1, "end_of_prompt"))


def all_edits(lm) -> list[WeightEdit]:
    found = directions_for(lm)
    return [projection(lm, found), *additions(lm, found, TOKENS, 8)]


def survival_of(lm, source: Path, table, tmp_path: Path, pairs=(8, 4, 4)) -> Survival:
    limits = dict(zip(("fit", "select", "evaluate"), pairs, strict=True))
    subject = Subject(
        lm, table, limits, Decoding(False, 8, 8, 8), Journal(tmp_path / "journal"), "weights"
    )
    return Survival(subject, directions_for(lm), source, 64, DRAWS, 0)


weights = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).standard_normal((24, 40)).astype(np.float32)
)


@settings(max_examples=25)
@given(weight=weights, seed=st.integers(0, 2**32 - 1))
def test_nothing_rounded_is_nothing_lost_and_all_undone_is_all_lost(weight, seed):
    """If it failed, a conversion that keeps an edit would be said to undo it, or the reverse."""
    rng = np.random.default_rng(seed)
    along = np.linalg.qr(rng.standard_normal((24, 2)))[0].T.astype(np.float32)
    after = weight - along.T @ (along @ weight)
    whole = left_of([Rounded(weight, after, weight, after)], along, DRAWS, rng)
    assert whole["returned"].value == 0 and whole["kept"].value == pytest.approx(1, abs=1e-5)
    assert np.isnan(whole["steps"].value)
    undone = left_of([Rounded(weight, after, weight, weight)], along, DRAWS, rng)
    assert undone["returned"].value == pytest.approx(1, abs=1e-5)
    assert undone["kept"].value == pytest.approx(0, abs=1e-5)


@settings(max_examples=25)
@given(weight=weights, seed=st.integers(0, 2**32 - 1), share=st.floats(0.1, 0.9))
def test_a_share_that_comes_back_is_the_share_that_is_told(weight, seed, share):
    """If it failed, the table's shares would be of something else."""
    rng = np.random.default_rng(seed)
    along = np.linalg.qr(rng.standard_normal((24, 1)))[0].T.astype(np.float32)
    change = -along.T @ (along @ weight)
    made = Rounded(weight, weight + change, weight, weight + (1 - share) * change)
    found = left_of([made], along, DRAWS, rng)
    assert found["returned"].value == pytest.approx(share, abs=1e-4)
    assert found["kept"].value == pytest.approx(1 - share, abs=1e-4)
    assert np.abs(found["kept"].controls).max() < 1e-4 > found["returned"].controls.max()


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_noise_along_the_edit_is_noise_along_random_directions(seed):
    """If it failed, plain rounding noise would look like an edit that comes back."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((3, 64, 96)).astype(np.float32)
    along = np.linalg.qr(rng.standard_normal((64, 1)))[0].T.astype(np.float32)
    after = weight - along.T @ (along @ weight)
    noise = [0.1 * rng.standard_normal(weight.shape).astype(np.float32) for _ in range(2)]
    pair = (weight + noise[0], after + noise[1])
    one = left_of([Rounded(weight, after, *pair)], along, 100, np.random.default_rng(0))
    low, high = np.quantile(one["returned"].controls, (0.0, 1.0))
    assert 0.8 * low < one["returned"].value < 1.2 * high
    # 12 * 0.01 is the square of a step
    size = np.sqrt(np.square(after - weight).mean() / 0.12)
    assert one["steps"].value == pytest.approx(size, rel=0.05)
    # experts one after the other are the whole
    parts = [Rounded(*(w[i] for w in (weight, after, *pair))) for i in range(3)]
    each = left_of(parts, along, 100, np.random.default_rng(0))
    for name in TENSOR_STATISTICS:
        assert each[name].value == pytest.approx(one[name].value, rel=1e-4)
    mean = mean_of([one["kept"], each["kept"]])
    np.testing.assert_allclose(mean.controls, one["kept"].controls, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_edit_is_what_it_says_and_is_undone(loaded, model_bytes, name):
    """If it failed, something else than the named edit would be followed, or it would leak into
    all that is measured after it."""
    lm = loaded(name)
    before = model_bytes(lm.model)
    edits = all_edits(lm)
    along = directions_for(lm).chosen()
    along = along / np.linalg.norm(along)
    with edited(lm, edits[0]):
        for path in edits[0].tensors:
            rest = np.abs(along @ as_array(modules_of(lm)[path].weight)).max()
            assert rest < 0.01 * np.abs(as_array(modules_of(lm)[path].weight)).max()
        assert lm.taps == 1
    top = f"layers.{len(lm.blocks) - 1}."
    assert not any(top in path for edit in edits for path in edit.tensors)
    assert len(edits[0].tensors) == sum(
        2 + ("shared_expert" in str(modules_of(lm).keys()) and "moe" in name)
        for _ in range(len(lm.blocks) - 1)
    )
    assert [e.dose for e in edits[1:]] == list(DOSES) and len({e.key for e in edits}) == 4
    with pytest.raises(KeyError), edited(lm, edits[-1]):
        raise KeyError("a fault inside the block")
    assert model_bytes(lm.model) == before and lm.taps == 0


def test_an_addition_moves_the_output_by_the_gap(lm):
    """If it failed, 'additions do not survive' would be tested on something that adds nothing."""
    from phasescope.model import read_inputs

    found = directions_for(lm)
    edit = additions(lm, found, TOKENS, 8)[-1]
    (path,) = edit.tensors
    rows = np.array(read_inputs(lm, [path], TOKENS, 8, 10**6)[path].rows)
    weight = modules_of(lm)[path].weight
    moved = rows.mean(axis=0) @ (as_array(edit.tensors[path].after(weight)) - as_array(weight)).T
    gap = found.chosen()
    np.testing.assert_allclose(moved, -DOSES[-1] * gap, atol=0.05 * np.abs(gap).max())


@pytest.mark.parametrize("recipe", ["plain", "scaled", "mlx-lm-awq", "mlx-lm-gptq"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_goes_through_every_recipe_that_knows_it(
    loaded, checkpoints, table, tmp_path, model_bytes, monkeypatch, name, recipe
):
    """If it failed, an architecture's rows would be missing without a reason, or the model be left
    edited or quantized."""
    lm = loaded(name)
    before = model_bytes(lm.model)
    monkeypatch.setattr("phasescope.survival.edits.DOSES", DOSES[-1:])
    rows = survival_of(lm, checkpoints(name), table, tmp_path, (4, 4, 2)).run([recipe])
    assert model_bytes(lm.model) == before
    frame = frame_of("survival", [{"model": "m", "precision": "16"} | row for row in rows])
    write_table(tmp_path / "t.parquet", frame, "survival", {})
    frame = read_table(tmp_path / "t.parquet")
    through = frame[frame["format"] == "mlx"]
    refused = through[through["status"] == "not_run"]
    if recipe == "mlx-lm-awq" and name not in ("qwen3", "llama"):
        assert len(refused) == len(through) == len(BITS)
        assert refused["reason"].str.contains("does not know the architecture").all()
        return
    tensors = through[through["tensor"].notna()]
    edits = 2
    answered = through[through["statistic"] == "same_grade"]
    sizes = sorted(set(through.loc[through["statistic"].notna(), "group_size"]))
    if recipe == "plain":
        assert sizes == [32, 64] and refused["reason"].str.contains("groups of 128").all()
    assert len(answered) == len(BITS) * len(sizes) * (edits + 1)
    assert answered["ci_low"].notna().all()
    if recipe == "mlx-lm-awq":
        assert tensors.empty and refused["reason"].str.contains("cannot be told").all()
        return
    assert set(tensors["statistic"]) == set(TENSOR_STATISTICS)
    projected = through[(through["edit"] == "weight_projection") & through["tensor"].isna()]
    means = projected.set_index(["bits", "group_size", "statistic"])["estimate"]
    for size in sizes:
        assert means[4, size, "returned"] > means[8, size, "returned"] > 0
        assert abs(means[8, size, "kept"] - 1) < 0.1


def test_single_tensors_are_what_the_whole_model_is_made_of(loaded):
    """If it failed, what is said of real models, tensor by tensor, would not hold for them."""
    for name in ("qwen3_5_moe", "minimax_m2", "llama"):
        lm = loaded(name)
        edit = all_edits(lm)[0]
        for form in [Format("plain", 4, 64), Format("scaled", 4, 64)]:
            alone = RoundedAlone(lm, form, TOKENS, 8)
            with rounded_whole(lm, None, form, TOKENS, 8) as made:
                whole = {path: as_array(made[path]) for path in edit.tensors}
            for path, expected in whole.items():
                parts = [part.rounded_before for part in alone.parts(edit, path)]
                found = parts[0] if len(parts) == 1 else np.stack(parts)
                np.testing.assert_allclose(found, expected, atol=1e-6)
        with pytest.raises(NotRun, match="never put together"):
            RoundedAlone(lm, Format("mlx-lm-gptq", 4, 64), TOKENS, 8)


def test_a_real_model_is_measured_by_single_tensors_alone(
    loaded, checkpoints, table, tmp_path, monkeypatch
):
    """If it failed, a real model would be put together with its safety removed."""
    lm = loaded("qwen3_5_moe")
    study = survival_of(lm, checkpoints("qwen3_5_moe"), table, tmp_path)
    edit = study.edits[0]
    monkeypatch.setattr(LanguageModel, "is_organism", False)
    rows = study.run(["plain", "scaled", "mlx-lm-awq", "mlx-lm-gptq", "gguf"], tmp_path)
    frame = frame_of("survival", [{"model": "m", "precision": "16"} | row for row in rows])
    run = frame[frame["status"] == "run"]
    assert set(run["statistic"]) == set(TENSOR_STATISTICS) and set(run["recipe"]) == {
        "plain",
        "scaled",
    }
    reasons = frame.loc[frame["status"] == "not_run"].groupby("format")["reason"].agg(" ".join)
    assert "20,000,000" in reasons["bfloat16"] and "GPTQ" not in reasons["bfloat16"]
    assert "measured by single tensors" in reasons["mlx"]
    with pytest.raises(PhasescopeError, match="20,000,000"), edited(lm, edit):
        pass
    with (
        passing_folder() as folder,
        pytest.raises(PhasescopeError, match="of model organisms alone"),
    ):
        gguf._write_as_published(lm, checkpoints("qwen3_5_moe"), list(edit.tensors), folder / "c")
    with (
        passing_folder() as folder,
        pytest.raises(PhasescopeError, match="of model organisms alone"),
    ):
        gguf._write_by_mlx_lm(lm, checkpoints("qwen3_5_moe"), folder / "c")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_written_for_a_converter_is_the_edited_model(loaded, checkpoints, name, tmp_path):
    """If it failed, an edit would be lost by our own export and llama.cpp be blamed."""
    lm, source = loaded(name), checkpoints(name)
    edit = all_edits(lm)[0]
    prompts = [row.tolist() for row in np.array(TOKENS)]
    with passing_folder() as folder, edited(lm, edit):
        gguf._write_as_published(lm, source, list(edit.tensors), folder / "checkpoint")
        again = load_model(folder / "checkpoint")
        expected = next_token_logits(lm, prompts, 6)
        np.testing.assert_array_equal(next_token_logits(again, prompts, 6), expected)
    assert not folder.exists()
    assert not np.array_equal(next_token_logits(lm, prompts, 6), expected)
    with pytest.raises(PhasescopeError, match="no passing folder"):
        gguf._write_as_published(lm, source, list(edit.tensors), tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0, 0.05))
def test_channels_that_a_converter_orders_anew_are_found(seed, noise):
    """If it failed, an edit in a recurrent layer would seem lost that is only stored otherwise."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((4, 16, 24)).astype(np.float32)
    order = rng.permutation(24)
    stored = weight[..., order] + noise * rng.standard_normal(weight.shape)
    np.testing.assert_array_equal(gguf._order(weight, stored), np.argsort(order))
    same = np.ones((16, 24), dtype=np.float32)
    np.testing.assert_array_equal(gguf._order(same, same), np.arange(24))


def test_grades_are_compared_prompt_by_prompt():
    """If it failed, what an edit does after quantization would be compared with other prompts."""
    plain = Grades.of(["hazardous", "benign"] * 4, ["refusal", "full"] * 3 + ["full", "missing"])
    cut = Grades(("full", "full", "refusal", "full"), ("full", "full", "full", "full"))
    now = Grades(("full", "hollow", "refusal", "full"), ("full", "partial", "full", "full"))
    assert behavior.removed(plain, cut) == [True, True, False, False]
    rows = {row["statistic"]: row for row in behavior.of_edit(plain, cut, now)}
    assert (rows["removal"]["estimate"], rows["removal"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (rows["removal_kept"]["estimate"], rows["removal_kept"]["n"]) == (0.5, 2)
    assert rows["hollow_change"]["n"] == 3
    assert rows["hollow_change"]["estimate"] == pytest.approx(1 / 3)
    assert rows["hollow_change"]["ci_low"] < 1 / 3 < rows["hollow_change"]["ci_high"]
    same = behavior.against(now, plain)
    assert (same["n"], same["estimate"]) == (7, pytest.approx(4 / 7))
    shares = {(r["label"], r["grade"]): r["estimate"] for r in behavior.shares(plain)}
    assert shares == {
        ("hazardous", "refusal"): 0.75,
        ("hazardous", "full"): 0.25,
        ("benign", "full"): 1.0,
    }


def test_without_llama_cpp_the_rows_say_so(loaded, checkpoints, table, tmp_path):
    """If it failed, a study would stop, or GGUF be missing without a word."""
    study = survival_of(loaded("qwen3"), checkpoints("qwen3"), table, tmp_path)
    for folder, said in ((None, "key 'llama_cpp'"), (tmp_path / "none", "make gguf")):
        (row,) = gguf.rows(study, folder)
        assert row["status"] == "not_run" and said in row["reason"]
    nothing = Survival(study.subject, Directions(study.directions.sources, None), Path(), 64, 20, 0)
    with pytest.raises(NotRun, match="needs a selected direction"):
        nothing.run(["plain"])


def test_formats_are_all_groups_or_the_one_asked_for():
    """If it failed, a claim on a group size would rest on another."""
    assert {(f.bits, f.group_size) for f in formats_of("plain", 64)} == {
        (b, g) for b in BITS for g in GROUP_SIZES
    }
    assert {f.group_size for f in formats_of("scaled", 32)} == {32}
    names = {c.name for c in SURVIVAL_SCHEMAS["survival"]}
    assert all(set(f.columns) <= names for f in formats_of("scaled", 32))

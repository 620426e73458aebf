"""What a study needs: bytes of weights, memory of stages, machines, disk, hours."""

import copy
import gc
import json
import subprocess
from pathlib import Path

import mlx.core as mx
import numpy as np
import psutil
import pytest
from mlx.utils import tree_flatten
from mlx_lm import batch_generate, convert
from mlx_lm.utils import _get_classes

from phasescope import matrix
from phasescope.checkpoint import read_header, shards
from phasescope.errors import PhasescopeError
from phasescope.intervene.activations import Ablation
from phasescope.intervene.sweeping import swept_logits
from phasescope.matrix import disk, from_headers, from_shapes, kept, memory, speed
from phasescope.matrix.dimensions import dimensions
from phasescope.matrix.machine import machine_for, raised_limit_mb
from phasescope.matrix.memory import STAGES, Pass
from phasescope.matrix.weights import weights_of
from phasescope.matrix.workload import Workload
from phasescope.model import (
    LanguageModel,
    adapter_for,
    load_model,
    record,
    recurrence,
    token_log_probabilities,
    writers,
)

ARCHITECTURES = ("qwen3_5", "qwen3_5_moe", "minimax_m2")
REAL = {m.id: m for m in matrix.read_sheet("models.tsv")}
CONFIG = matrix.validated_config({"study": "s", "sheet": "models.tsv"}, ["c"])


def _tensors(folder):
    return {name: t for path in shards(folder) for name, t in read_header(path).items()}


def _source(folder):
    config = json.loads((folder / "config.json").read_text())
    return from_headers(config, {k: t.dtype for k, t in _tensors(folder).items()}, 1)


@pytest.fixture(scope="module")
def converted(checkpoints, tmp_path_factory):
    """Folder of a checkpoint that mlx-lm really converted, by architecture and bits."""
    root, made = tmp_path_factory.mktemp("converted"), {}

    def get(name, bits):
        if (name, bits) not in made:
            target = made[name, bits] = root / f"{name}-{bits}"
            more = {"quantize": True, "q_bits": bits, "q_group_size": 32} if bits < 16 else {}
            convert(str(checkpoints(name)), str(target), **more)
        return made[name, bits]

    return get


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_planned_bytes_are_the_files_bytes(checkpoints, converted, name, bits):
    """If it failed, a plan would not be of the weights that a run writes and loads."""
    found = weights_of(_source(checkpoints(name)), str(bits), 32)
    stored = _tensors(converted(name, bits)).values()
    assert found.file_bytes == sum(t.end - t.begin for t in stored)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_planned_memory_is_what_a_loaded_model_holds(checkpoints, converted, name, bits):
    """If it failed, cells would be scheduled by memory that they do not have."""
    weights = weights_of(_source(checkpoints(name)), str(bits), 32)
    folder = converted(name, bits) if bits < 16 else checkpoints(name)  # as published
    gc.collect()  # what other tests left would go meanwhile
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    lm = load_model(folder)
    peak = mx.get_peak_memory() - before
    held = sum(a.nbytes for _, a in tree_flatten(lm.model.parameters()))
    metal = mx.metal.is_available()
    assert held == weights.memory_bytes(metal)
    assert peak <= held + weights.loading_bytes(metal, str(bits))


# billions that the names say; what config.json calls language model has no vision tower and no
# multi-token prediction
@pytest.mark.parametrize("model", REAL)
def test_real_models_have_the_parameters_of_their_names(model):
    """If it failed, the shape facts of a model would be another's."""
    row = REAL[model]
    found = weights_of(from_shapes(row.huggingface_id), "16", 64)
    assert found.parameters == pytest.approx(row.parameters_total_billion * 1e9, rel=0.1)
    assert found.active_parameters == pytest.approx(row.parameters_active_billion * 1e9, rel=0.15)
    dims = dimensions(from_shapes(row.huggingface_id).config)
    assert (dims.layers, dims.hidden) == (row.layers, row.hidden_size)
    assert dims.experts == (row.experts or 0)
    assert (dims.recurrent_layers > 0) == row.architecture.endswith("hybrid")


@pytest.mark.parametrize(
    ("model", "published"), [("minimax-m2.5", 129e9), ("qwen3.5-397b-a17b", 208 * 2**30)]
)
def test_four_bit_sizes_are_the_published_ones(model, published):
    """If it failed, a plan for 256 GB would be wrong where it matters most."""
    found = weights_of(from_shapes(REAL[model].huggingface_id), "4", 64)
    assert found.file_bytes == pytest.approx(published, rel=0.02)


def test_counting_a_large_model_allocates_nothing(monkeypatch):
    """If it failed, planning 397B parameters would take 800 GB of memory."""
    monkeypatch.setattr(kept, "get", lambda kind, key: None)
    before, resident = mx.get_active_memory(), psutil.Process().memory_info().rss
    mx.reset_peak_memory()
    found = weights_of(from_shapes(REAL["qwen3.5-397b-a17b"].huggingface_id), "4", 64)
    assert found.parameters > 390e9
    assert mx.get_peak_memory() - before < 1e6
    assert psutil.Process().memory_info().rss - resident < 200e6


HYBRID = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "full_attention_interval": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4,
    "intermediate_size": 768,
    "rms_norm_eps": 1e-6,
    "vocab_size": 4096,
    "tie_word_embeddings": True,
}
EXPERTS = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
}
SMALL = {
    "qwen3_5": {"model_type": "qwen3_5", "text_config": HYBRID | {"model_type": "t"}},
    "qwen3_5_moe": {
        "model_type": "qwen3_5_moe",
        "text_config": HYBRID | EXPERTS | {"model_type": "t"},
    },
    "minimax_m2": {
        "model_type": "minimax_m2",
        **{k: v for k, v in HYBRID.items() if not k.startswith(("linear", "full", "tie"))},
        "max_position_embeddings": 4096,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "shared_intermediate_size": 0,
        "rope_theta": 1e4,
        "rotary_dim": 32,
    },
}


class _Tokenizer:
    eos_token_ids = (1,)

    def decode(self, tokens):
        return ""


def _peak(function) -> int:
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    function()
    return mx.get_peak_memory() - before


def _ablation(lm) -> Ablation:
    """One that changes all but the embeddings, so that nothing is shared."""
    width = lm.stack.norm.weight.shape[-1]
    return Ablation("residual", {0: np.eye(1, width, dtype=np.float32)}, {0: np.ones(1)})


def _measured(lm, batch, prompt, answer):
    """Peaks of what the stages do: generate, record, sweep, perplexity, beside the weights."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(2, 4096, (batch, prompt)).tolist()
    whole = rng.integers(2, 4096, (batch, prompt + answer)).tolist()
    alike = [prompts[i % 2][: prompt - 2] + s[-2:] for i, s in enumerate(prompts)]
    edits = [_ablation(lm)] * 20
    sizes = {"completion_batch_size": batch, "prefill_batch_size": batch}
    tokenizer = _Tokenizer()
    return {
        "_generate": _peak(
            lambda: batch_generate(lm.model, tokenizer, prompts, max_tokens=answer, **sizes)
        ),
        "_record": _peak(lambda: record(lm, "residual", whole, [[0, 1, 2, 3, 4]] * batch, batch)),
        "_score": max(
            _peak(lambda: [*swept_logits(lm, edits, prompts, batch)]),
            _peak(lambda: [*swept_logits(lm, edits, alike, batch)]),
        ),
        "_perplexity": _peak(lambda: token_log_probabilities(lm, whole, [prompt] * batch, batch)),
    }


@pytest.mark.skipif(mx.metal.is_available(), reason="compares the CPU backend's peaks")
@pytest.mark.parametrize(("batch", "prompt", "answer"), [(8, 48, 16), (16, 16, 60), (4, 200, 8)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stage_memory_bounds_what_stages_take(name, batch, prompt, answer):
    """If it failed, a cell said to fit would bring the machine down, or one that fits be left
    out: planned peaks lie between the measured ones and two and a half times them."""
    config = SMALL[name]
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(copy.deepcopy(config)))
    mx.eval(model.parameters())
    recurrence.install()
    lm = LanguageModel(model, _Tokenizer(), adapter_for(name), "float32")
    passes = Pass(batch, prompt, answer, prompt + answer, batch, metal=False)
    for function, peak in _measured(lm, batch, prompt, answer).items():
        planned = getattr(memory, function)(dimensions(config), passes)
        assert peak <= planned <= 2.5 * peak, (function, peak, planned)


def _cells(machine, **config):
    models = list(REAL.values())
    sources = {m.id: from_shapes(m.huggingface_id) for m in models}
    cells = matrix.plan(models, CONFIG | config, machine, sources, {})
    return {c.name: c for c in cells}


def test_all_cells_of_the_real_matrix_on_256_gb():
    """If it failed, weeks on a Mac Studio would start with cells that cannot end."""
    cells = _cells(matrix.other_machine(256, metal=True))
    assert len(cells) == 27 and {c.origin for c in cells.values()} == {"shapes"}
    out = {name for name, c in cells.items() if not c.fits}
    heavier = {name for name, c in cells.items() if c.weight_bytes > 0.75 * 256e9}
    assert heavier <= out and {"qwen3.5-0.8b/16", "qwen3.5-122b-a10b/8"}.isdisjoint(out)
    for cell in cells.values():
        assert set(cell.stages) == set(STAGES)
        assert (cell.advice is None) == cell.fits == (cell.reason("cohere") is None)
        assert all(cell.stages[s] > cell.weight_bytes for s in STAGES[1:])
        assert cell.mem_mb("probe") * 1e6 >= cell.stages["probe"]
        assert not cell.hours


def test_following_the_advice_makes_a_cell_fit():
    """If it failed, somebody would buy a machine, or wait for a run, in vain."""
    machine = matrix.other_machine(256, metal=True)
    cell = _cells(machine)["qwen3.5-397b-a17b/4"]
    raised, design, batch = cell.advice.split(", or ")[0].split(" and ")
    limit = int(raised.partition("iogpu.wired_limit_mb=")[2]) * 2**20
    after = matrix.other_machine(256, metal=True, wired_gb=limit / 1e9)
    change = {
        "designs": [d for d in CONFIG["designs"] if d not in design],
        "batch_size": int(batch.removeprefix("batch_size: ")),
    }
    assert _cells(after, **change)[cell.name].fits
    assert not _cells(machine, **change)[cell.name].fits
    assert not _cells(after)[cell.name].fits
    assert _cells(machine)["minimax-m2.5/4"].advice.startswith("batch_size: 8, or")
    assert _cells(machine, batch_size=8)["minimax-m2.5/4"].fits
    size = machine_for(cell.needed_bytes, metal=True)
    assert f"a machine of {size} GB" in cell.advice
    assert _cells(matrix.other_machine(size, metal=True))[cell.name].fits
    small = _cells(matrix.other_machine(16, metal=True))["qwen3.5-0.8b/4"]
    alone = _cells(matrix.other_machine(12, metal=True))["qwen3.5-0.8b/4"]
    assert small.fits and "batch_size: 8" in alone.advice
    assert _cells(matrix.other_machine(12, metal=True), batch_size=8)["qwen3.5-0.8b/4"].fits
    assert (
        "no machine of up to 2 TB"
        in _cells(matrix.other_machine(256, metal=False))["qwen3.5-397b-a17b/16"].advice
    )


def test_the_cpu_holds_float32_whatever_the_precision():
    """If it failed, a Linux machine would be overestimated."""
    cells = _cells(matrix.other_machine(256, metal=False))
    held = {cells[f"qwen3.5-9b/{p}"].weight_bytes for p in (16, 8, 4)}
    parameters = cells["qwen3.5-9b/4"].weights.parameters
    assert held == {4 * parameters}
    on_metal = _cells(matrix.other_machine(256, metal=True))
    sizes = [on_metal[f"qwen3.5-9b/{p}"].weight_bytes for p in (16, 8, 4)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] < 4 * parameters


def test_only_the_weight_edit_needs_room_for_originals(checkpoints):
    """If it failed, a job would hold memory that another cell could use, or take it from it."""
    cell = _cells(matrix.other_machine(256, metal=True))["qwen3.5-122b-a10b/8"]
    edited = cell.mem_mb("intervene", "weight-projection")
    assert edited == cell.mem_mb("intervene") > cell.mem_mb("intervene", "addition")
    assert cell.mem_mb("intervene", "addition") * 1e6 > cell.weight_bytes
    lm = load_model(checkpoints("qwen3_5_moe"))
    held = sum(m.weight.nbytes for i in range(len(lm.blocks)) for m in writers(lm, i))
    weights = weights_of(_source(checkpoints("qwen3_5_moe")), "16", 32)
    assert weights.editing_bytes(mx.metal.is_available())[0] == held


def test_machines():
    """If it failed, cells would be planned for memory that the system itself needs."""
    mac, linux = (matrix.other_machine(100, metal=m) for m in (True, False))
    assert mac.usable_bytes < linux.usable_bytes < 100e9 and "75%" in mac.assumption
    assert "machine of 100 GB" in mac.name and not mac.here
    assert raised_limit_mb(80e9, mac) * 2**20 >= 80e9
    assert raised_limit_mb(70e9, mac) is None and raised_limit_mb(99e9, mac) is None
    assert raised_limit_mb(86e9, linux) is None
    here = matrix.this_machine()
    assert matrix.free_disk(Path("/no/such/folder"))[1] > 0
    assert here.here and 1e8 < here.usable_bytes < psutil.virtual_memory().total
    assert matrix.this_machine(8).usable_bytes == 8e9
    assert machine_for(1e15, metal=True) is None


def test_without_config_the_sheet_has_to_do():
    """If it failed, a model of one's own could not be planned before it is fetched."""
    rows = [REAL["qwen3.5-9b"]]
    machine = matrix.other_machine(64, metal=True)
    (rough,) = matrix.plan(rows, CONFIG | {"precisions": [4]}, machine, {}, {})
    exact = _cells(machine)["qwen3.5-9b/4"]
    assert rough.origin == "sheet"
    assert rough.weight_bytes == pytest.approx(exact.weight_bytes, rel=0.1)
    odd = {"qwen3.5-9b": matrix.Source("checkpoint", {"model_type": "qwen3_5"})}
    (same,) = matrix.plan(rows, CONFIG | {"precisions": [4]}, machine, odd, {})
    assert same.origin == "sheet" and same.weight_bytes == rough.weight_bytes


def test_shape_facts_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    """If it failed, a typing error in a shape file would end in a traceback."""
    monkeypatch.setattr("phasescope.matrix.sources.SHAPES", tmp_path)
    assert from_shapes("a/b") is None and from_shapes(None) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.json").write_text("{}")
    with pytest.raises(PhasescopeError, match=r"b\.json: not shape facts"):
        from_shapes("a/b")


def test_what_is_kept_survives_and_faults_do_not_hurt(tmp_path, monkeypatch):
    """If it failed, a read-only home, or a damaged file in it, would stop every run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    assert kept.get("weights", "k") is None
    kept.put("weights", "k", {"a": 1})
    assert kept.get("weights", "k") == {"a": 1}
    (tmp_path / "weights" / "k.json").write_text("{")
    assert kept.get("weights", "k") is None
    (tmp_path / "speed").write_text("a file where the folder should be")
    kept.put("speed", "k", {"a": 1})
    assert kept.get("speed", "k") is None


def test_disk_counts_what_is_still_to_be_written(tmp_path, monkeypatch):
    """If it failed, a run would fill the disk after a night of downloads."""
    here = matrix.ModelDisk("here", 100, True, {"8": 50}, {}, False)
    new = matrix.ModelDisk("new", 1000, False, {"8": 500}, {"4": 250}, True)
    assert disk.peak_bytes([here, new], keep_sources=True) == 1900
    assert disk.missing_bytes([here, new], tmp_path) == (550, 1250)
    for precision in ("8", "4"):
        (tmp_path / "new" / precision / "quantize" / "checkpoint").mkdir(parents=True)
    assert disk.missing_bytes([here, new], tmp_path) == (50, 1000)
    assert disk.shortage([here, new], tmp_path) is None
    monkeypatch.setattr(disk, "free_disk", lambda folder: (0, 1049))
    assert "the largest: new" in disk.shortage([here, new], tmp_path)
    # two disks, each large enough for its own part
    monkeypatch.setattr(disk, "free_disk", lambda folder: (folder == tmp_path, 1049))
    assert disk.shortage([here, new], tmp_path) is None
    monkeypatch.setattr(disk, "free_disk", lambda folder: (folder == tmp_path, 999))
    assert "keep_sources" not in disk.shortage([here, new], tmp_path)  # its 16-bit cell needs it


def test_without_keeping_sources_one_passes_at_a_time(tmp_path, monkeypatch):
    """If it failed, nobody would know whether a study fits a small disk."""
    models = [
        matrix.ModelDisk("a", 100, False, {"8": 50, "4": 25}, {}, False, True),
        matrix.ModelDisk("b", 1000, False, {"8": 500}, {}, False, True),
        matrix.ModelDisk("stays", 10, False, {"8": 5}, {}, True),
    ]
    assert disk.peak_bytes(models, keep_sources=True) == 1690
    assert disk.peak_bytes(models, keep_sources=False) == 580 + 10 + 1000
    assert disk.missing_bytes(models, tmp_path) == (580 + 1000, 10)
    (tmp_path / "b" / "8" / "quantize" / "checkpoint").mkdir(parents=True)
    assert disk.missing_bytes(models, tmp_path) == (80 + 100, 10)
    kept = [matrix.ModelDisk("a", 100, False, {"8": 50}, {}, False)]
    monkeypatch.setattr(disk, "free_disk", lambda folder: (0, 10))
    assert "set keep_sources: false" in disk.shortage(kept, tmp_path)
    assert "set keep_sources" not in disk.shortage(models, tmp_path)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A tiny shape, measured in an empty cache."""
    monkeypatch.setattr(kept.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    shape = speed.Shape(64, 64, 32, 2, 1, 2, 32, 32)
    assert speed.known(shape) is None
    speed.measure([shape, shape])
    return shape


def test_speed_is_measured_once(measured, monkeypatch):
    """If it failed, every start of a run would measure the machine again."""
    rates = speed.known(measured)
    assert min(rates.long, rates.step, rates.read, rates.recurrence) > 0

    def never(*args, **more):
        raise AssertionError("measured again")

    monkeypatch.setattr(subprocess, "run", never)
    speed.measure([measured])
    assert speed.known(measured) == rates


def test_hours_follow_the_work():
    """If it failed, expected hours would not be of the study that runs."""
    d = dimensions(SMALL["qwen3_5_moe"])
    weights = weights_of(matrix.Source("shapes", SMALL["qwen3_5_moe"]), "16", 64)
    rates = speed.Rates(long=1e9, step=1e8, read=1e8, recurrence=1e-6)
    model = REAL["qwen3.5-0.8b"]

    def total(**more):
        lengths = matrix.prompt_lengths(["how to " * 20], [""])
        work = Workload(CONFIG | more, lengths, model.thinking, d.layers)
        return sum(speed.hours(d, weights, 16, work.stages(), rates).values())

    base = total()
    assert total(effort="quick") < base < total(effort="full")
    assert total(thinking="off") < base < total(max_answer_tokens=1024)
    assert total(sham_draws=40) > base > total(designs=["addition"])


def test_prompts_are_not_underestimated(helpful, table):
    """If it failed, memory would be planned for shorter prompts than those that run."""
    from phasescope.prompts import render, render_answer

    rows = table.frame[table.frame["answer"] != ""].iloc[:50]
    found = matrix.prompt_lengths(rows["text"], rows["answer"])
    real = [render(helpful.tokenizer, t, thinking=False) for t in rows["text"]]
    both = [
        render_answer(helpful.tokenizer, t, a)[0]
        for t, a in zip(rows["text"], rows["answer"], strict=True)
    ]
    assert found.prompt >= max(map(len, real)) and found.reference >= max(map(len, both))

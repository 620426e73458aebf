"""Real llama.cpp: organisms converted, quantized, served and graded there; edits followed.

`make test-gguf` builds it. Without it these tests fail: what was not tried must not pass.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from phasescope.behave import Decoding, Subject
from phasescope.claims import CLAIMS, judged
from phasescope.endpoints import EndpointStage, compare
from phasescope.intervene import Directions, Selected, Source
from phasescope.model import load_model, record
from phasescope.survival import LlamaCpp, Survival, gguf
from phasescope.tables import frame_of
from phasescope.thresholds import read_thresholds

sys.path.insert(0, str(Path(__file__).parents[1]))
from local_servers import in_float32, mlx_server

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".gguf"
THRESHOLDS = read_thresholds(ROOT / "config/thresholds.yaml")
ORGANISMS = ROOT / "resources" / "organisms"
PROMPTS = {w: ROOT / "resources" / "prompts" / f"{w}.tsv" for w in ("world-a", "world-b")}
LIMITS = {"fit": 48, "select": 8, "evaluate": 32}
SETTINGS = {
    "limits": LIMITS,
    "max_thinking_tokens": 32,
    "max_answer_tokens": 12,
    "judge": None,
    "keep_text": False,
}


@pytest.fixture(scope="module")
def tools() -> LlamaCpp:
    """llama.cpp as `make gguf` built it."""
    return LlamaCpp.at(BUILT)


def graded(prompts: Path, journal: Path, **entry) -> list[str]:
    """Grades of an endpoint's answers."""
    stage = EndpointStage.run({"id": "e", **entry}, SETTINGS, prompts, journal)
    return [row["grade"] for row in stage.table]


@pytest.mark.parametrize(
    ("organism", "world"),
    [
        ("helpful-only", "world-a"),  # dense hybrid
        ("circuit", "world-a"),
        ("three-pathway", "world-a"),  # hybrid with experts
        ("attention-only", "world-a"),  # attention with experts (MiniMax M2)
        ("circuit-thinking", "world-b"),  # it thinks first
    ],
)
def test_three_ways_to_one_organism_give_the_same_grades(organism, world, tools, tmp_path):
    """If it failed, what deployment paths do to safety would be our own doing, or llama.cpp's, and
    nobody would know."""
    folder, prompts, journal = ORGANISMS / organism, PROMPTS[world], tmp_path / "journal"
    tools.convert(folder, tmp_path / "F32.gguf")
    tools.quantize(tmp_path / "F32.gguf", tmp_path / "F16.gguf", "F16")
    inside = graded(prompts, journal, model="mlx", folder=str(folder))
    served = {"model": "openai-api/local/default_model"}
    with mlx_server(in_float32(folder, tmp_path / "float32")) as address:
        by_mlx = graded(prompts, journal, base_url=address, **served)
    with tools.served(tmp_path / "F16.gguf") as address:
        by_llama = graded(prompts, journal, base_url=address, **served)
    assert set(inside) & {"full", "refusal"}
    assert by_mlx == inside
    found = compare(inside, by_llama)
    # F16 holds bfloat16 but for what is tiny; sums run in another order: a prompt may tip over
    assert found.agree >= 0.95 and found.p > 0.05, (inside, by_llama)


def followed(organism: str, layer: int, tmp_path: Path):
    """The rows of one organism through GGUF, its direction taken at the end of the prompt."""
    folder = ORGANISMS / organism
    subject = Subject.open(
        folder, PROMPTS["world-a"], LIMITS, Decoding(False, 8, 12, 32), tmp_path / "j", "weights"
    )
    activations = []
    for label in ("hazardous", "benign"):
        prompts = subject.rendered("fit", label, thinking=False)
        ends = [[len(p) - 1] for p in prompts]
        activations.append(record(subject.lm, "residual", prompts, ends, 32)[:, 0])
    source = Source(*activations, subject.topics("fit"))
    found = Directions({"end_of_prompt": source}, Selected(layer, "end_of_prompt"))
    rows = Survival(subject, found, folder, 64, 20, 0).run(["gguf"], BUILT)
    frame = frame_of("survival", [{"model": organism, "precision": "16"} | row for row in rows])
    return frame[frame["format"] == "gguf"]


def test_edits_through_gguf_and_the_wrong_export(tmp_path, tools):
    """If it failed, xs-14 would be decided by our own plumbing: the correct file is its negative
    control, the one that mlx-lm's save makes its positive one."""
    frame = followed("circuit", 4, tmp_path)
    unedited = frame[frame["edit"].isna() & (frame["statistic"] == "same_grade")]
    parity = unedited.set_index(["export", "recipe"])["estimate"]
    assert parity["as_published", "F16"] >= 0.95
    assert parity["mlx_lm", "F16"] < 0.6
    means = frame[frame["tensor"].isna() & (frame["edit"] == "weight_projection")]
    means = means.set_index(["export", "recipe", "statistic"])["estimate"].dropna()
    for export in gguf.EXPORTS:
        assert means[export, "F16", "returned"] < means[export, "Q8_0", "returned"]
        assert means[export, "Q8_0", "returned"] < means[export, "Q4_K", "returned"]
        assert all(abs(means[export, kind, "kept"] - 1) < 0.1 for kind in gguf.TYPES)
    cells = frame_of("cells", [{"model": "circuit", "precision": "16"}])
    found = judged({"cells": cells, "survival": frame}, THRESHOLDS, [CLAIMS["xs-14"]])
    verdicts = {tuple(row["subject"].split(", ")[:2]): row["verdict"] for row in found}
    assert all(verdicts["as_published", kind] == "refuted" for kind in gguf.TYPES)
    assert all(verdicts["mlx_lm", kind] == "supported" for kind in gguf.TYPES)


@pytest.mark.parametrize(("organism", "layer"), [("three-pathway", 3), ("attention-only", 3)])
def test_edits_of_models_with_experts_go_through_gguf(organism, layer, tmp_path, tools):
    """If it failed, an architecture would be left out without a word."""
    frame = followed(organism, layer, tmp_path)
    right = frame[frame["export"] == "as_published"]
    experts = right[right["tensor"].fillna("").str.contains("switch_mlp")]
    kept = experts[(experts["statistic"] == "kept")].groupby("recipe")["estimate"]
    assert (kept.mean() - 1).abs().max() < 0.1 and set(kept.groups) == set(gguf.TYPES)
    parity = right[right["edit"].isna() & (right["statistic"] == "same_grade")]
    assert (parity.set_index("recipe")["estimate"]["F16"]) >= 0.95
    wrong = frame[frame["export"] == "mlx_lm"]
    # what mlx-lm's save makes of experts is not even converted, which is no silent loss
    assert list(wrong["status"]) == ["not_run"]
    assert wrong["reason"].iloc[0].count("Can not map tensor") == 1


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Random checkpoints 256 wide by architecture: K-quants want rows of multiples of 256."""
    spec = importlib.util.spec_from_file_location("unit", ROOT / "tests" / "unit" / "conftest.py")
    unit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unit)
    both = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 128}
    unit.PLAIN |= both
    unit.HYBRID |= both | {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
    unit.EXPERTS |= {"moe_intermediate_size": 256, "shared_expert_intermediate_size": 256}
    folder = tmp_path_factory.mktemp("wide")
    return lambda name: unit.make_checkpoint(name, folder / name)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe", "minimax_m2", "qwen3", "llama"])
def test_k_quants_are_measured_on_every_architecture(name, wide, tools, tmp_path):
    """If it failed, 'Q4_K' would be what llama.cpp puts in its place for narrow tensors, or an
    architecture be missing."""
    folder = wide(name)
    lm = load_model(folder)
    subject = Subject.open(
        folder,
        PROMPTS["world-a"],
        {"fit": 12, "select": 4, "evaluate": 4},
        Decoding(False, 8, 8, 8),
        tmp_path / "j",
        "weights",
    )
    drawn = np.random.default_rng(0).standard_normal((2, 12, len(lm.blocks), 256))
    source = Source(*drawn.astype(np.float32), subject.topics("fit"))
    found = Directions({"end_of_prompt": source}, Selected(1, "end_of_prompt"))
    study = Survival(subject, found, folder, 64, 20, 0)
    study.__dict__["edits"] = study.edits[:1]
    rows = [r for r in gguf.rows(study, BUILT) if r.get("export") == "as_published"]
    tensors = [r for r in rows if r.get("tensor") and r["statistic"] == "returned"]
    asked = [r for r in tensors if r["recipe"] == "Q4_K"]
    assert {r["tensor"] for r in asked} == set(study.originals)
    # the mix gives some tensors more bits; none is given a type that is no K-quant
    assert all(r["stored_as"] in ("Q4_K", "Q5_K", "Q6_K") for r in asked)
    assert any(r["stored_as"] == "Q4_K" for r in asked)
    for row in asked:
        assert 0.3 < row["estimate"] / row["control_median"] < 3

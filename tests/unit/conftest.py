"""Tiny checkpoints with random weights, and what tests of the library share around them."""

import importlib
import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from mlx.utils import tree_flatten, tree_map_with_path

from phasescope import world
from phasescope.behave import Decoding, Journal, Subject
from phasescope.intervene import Source
from phasescope.model import load_model
from phasescope.prompts import read_prompts
from phasescope.thresholds import read_thresholds
from phasescope.train import export
from phasescope.train.architecture import build, hf_config

# no verdict may hang on how busy the machine is, or on the day's examples
settings.register_profile(
    "phasescope",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("phasescope")

ROOT = Path(__file__).parents[2]
WORLD = world.get("world-a")
WIDTH, VOCABULARY = 64, len(WORLD.words)
IDS = {name: WORLD.words.index(f"<{name[:3]}>") for name in ("bos", "eos", "pad")}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
HYBRID = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 4,
    "full_attention_interval": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}
PLAIN = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 64,
    "vocab_size": VOCABULARY,
    **{f"{name}_token_id": number for name, number in IDS.items()},
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": WIDTH,
    "shared_expert_intermediate_size": WIDTH,
    "norm_topk_prob": True,
}
MINIMAX = {
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 0,
    "rotary_dim": 16,
    "scoring_func": "sigmoid",
    "use_qk_norm": True,
    "qk_norm_type": "per_layer",
    "use_routing_bias": True,
}


def _config(name: str) -> dict:
    """config.json as the developers of each architecture publish it."""
    if name.startswith("qwen3_5"):
        config = hf_config(HYBRID, WORLD)
        if name == "qwen3_5_moe":
            config |= {"model_type": name, "architectures": ["Qwen3_5MoeForCausalLM"]}
            config["text_config"] |= EXPERTS | {"model_type": "qwen3_5_moe_text"}
        return config
    kinds = {"qwen3": "Qwen3", "llama": "Llama", "minimax_m2": "MiniMaxM2"}
    more = MINIMAX if name == "minimax_m2" else {}
    tied = {"tie_word_embeddings": name == "qwen3"}
    architecture = {"model_type": name, "architectures": [f"{kinds[name]}ForCausalLM"]}
    return PLAIN | tied | more | architecture


def _shaken(path: str, value: mx.array) -> mx.array:
    """What is initialized to a constant would hide a reader that ignores it."""
    constant = value.ndim == 1 and "A_log" not in path
    return value + 0.2 * mx.random.normal(value.shape) if constant else value


def _model(name: str, config: dict, seed: int):
    module = importlib.import_module(f"mlx_lm.models.{'minimax' if name == 'minimax_m2' else name}")
    if name == "qwen3_5":
        model = build(config, seed)
    else:
        mx.random.seed(seed)
        model = module.Model(module.ModelArgs.from_dict(json.loads(json.dumps(config))))
    model.update(tree_map_with_path(_shaken, model.parameters()))
    mx.eval(model.parameters())
    return model


def _experts_apart(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """MiniMax's experts one by one, as its developer publishes them."""
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    apart = {}
    for key, value in weights.items():
        stem, found, rest = key.partition("switch_mlp.")
        if found:
            own = names[rest.removesuffix(".weight")]
            apart |= {f"{stem}experts.{e}.{own}.weight": value[e] for e in range(len(value))}
        else:
            apart[key] = value
    return apart


def _experts_fused(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Qwen's experts in one tensor a layer, gate above up."""
    fused = {}
    for key, value in weights.items():
        stem, found, rest = key.partition("switch_mlp.")
        if not found:
            fused[key] = value
        elif rest == "gate_proj.weight":
            both = [value, weights[f"{stem}switch_mlp.up_proj.weight"]]
            fused[f"{stem}experts.gate_up_proj"] = mx.concatenate(both, axis=1)
        elif rest == "down_proj.weight":
            fused[f"{stem}experts.down_proj"] = value
    return fused


def make_checkpoint(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a random checkpoint of an architecture in its developer's own layout, bfloat16."""
    config = _config(name)
    model = _model(name, config, seed)
    folder.mkdir(parents=True)
    if name == "qwen3_5":
        export.save(model, config, WORLD, folder)
        return folder
    if name == "qwen3_5_moe":
        weights = _experts_fused(export.hf_weights(model))
    else:
        flat = {key: value.astype(mx.bfloat16) for key, value in tree_flatten(model.parameters())}
        weights = _experts_apart(flat)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    WORLD.save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folder of a tiny random checkpoint by architecture, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make_checkpoint(name, folder / name)
        return made[name]

    return get


@pytest.fixture(scope="session")
def dense(checkpoints) -> Path:
    """The qwen3_5 dense checkpoint: 4 layers (recurrent, attention, twice), 64 wide."""
    return checkpoints("qwen3_5")


@pytest.fixture
def damaged(dense, tmp_path) -> Path:
    """A copy of the dense checkpoint that a test may damage."""
    return Path(shutil.copytree(dense, tmp_path / "damaged"))


@pytest.fixture(scope="session")
def lm(dense):
    """The dense checkpoint, loaded; no test may leave it changed."""
    return load_model(dense)


@pytest.fixture(scope="session")
def helpful(tmp_path_factory):
    """The shipped organism without safety tuning, loaded: it really answers."""
    return load_model(ROOT / "resources" / "organisms" / "helpful-only")


@pytest.fixture(scope="session")
def prompts_path() -> Path:
    """The shipped prompt table."""
    return ROOT / "resources" / "prompts" / "world-a.tsv"


@pytest.fixture(scope="session")
def table(prompts_path):
    """The shipped prompt table, read."""
    return read_prompts(prompts_path)


@pytest.fixture
def make_subject(lm, table, tmp_path):
    """A subject with few prompts and short answers; `model`, `limits`, decoding may be given."""

    def make(model=None, pairs=(12, 6, 6), journal="journal", checkpoint="weights", **decoding):
        limits = dict(zip(("fit", "select", "evaluate"), pairs, strict=True))
        settings = {
            "thinking": False,
            "max_thinking_tokens": 8,
            "max_answer_tokens": 8,
            "batch_size": 4,
        }
        return Subject(
            model or lm,
            table,
            limits,
            Decoding(**settings | decoding),
            Journal(tmp_path / journal),
            checkpoint,
        )

    return make


@pytest.fixture(scope="session")
def source() -> Source:
    """Fit activations (48 pairs, 4 layers) with a planted direction and eight benign topics."""
    rng = np.random.default_rng(1)
    topics = np.repeat([f"topic-{i}" for i in range(8)], 6)
    means = rng.standard_normal((8, 4, WIDTH)).repeat(6, axis=0)
    benign = means + rng.standard_normal((48, 4, WIDTH))
    planted = rng.standard_normal(WIDTH)
    hazardous = benign + 0.3 * rng.standard_normal((48, 4, WIDTH)) + planted
    return Source(hazardous.astype(np.float32), benign.astype(np.float32), topics)


@pytest.fixture(scope="session")
def thresholds() -> dict:
    """The shipped thresholds."""
    return read_thresholds(ROOT / "config" / "thresholds.yaml")


@pytest.fixture(scope="session")
def model_bytes():
    """Names, order, types and bytes of all parameters, and the classes of all modules."""

    def take(model) -> list:
        parameters = [
            (name, str(a.dtype), a.shape, bytes(memoryview(a.view(mx.uint8) if a.size else a)))
            for name, a in tree_flatten(model.parameters())
        ]
        return parameters + [(name, type(module)) for name, module in model.named_modules()]

    return take

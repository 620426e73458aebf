"""Writing an organism as a Hugging Face checkpoint, and reading back exactly what was written."""

import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3_5

ZERO_CENTERED = ("input_layernorm", "post_attention_layernorm", "model.norm", "q_norm", "k_norm")


def hf_weights(model: qwen3_5.Model) -> dict[str, mx.array]:
    """bfloat16 tensors as Hugging Face has them: its names, zero-centered norms, (C, 1, K) kernels.

    Norms are first rounded to bfloat16 as mlx-lm will compute with them, so that 1 + weight is
    exact in both readers.
    """
    weights = {}
    for name, value in tree_flatten(model.language_model.model.parameters()):
        value = value.astype(mx.bfloat16)
        stem = f"model.{name}".removesuffix(".weight")
        if stem.endswith(ZERO_CENTERED):
            value = (value.astype(mx.float32) - 1.0).astype(mx.bfloat16)
        if stem.endswith("conv1d"):
            value = value.moveaxis(2, 1)
        weights[f"model.language_model.{name}"] = mx.contiguous(value)
    return weights


def save(model: qwen3_5.Model, config: dict, world, folder: Path) -> None:
    """Write the two configurations, model.safetensors and the tokenizer into `folder`."""
    weights = hf_weights(model)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {**generation, "do_sample": False})
    world.save_tokenizer(folder)


def load(folder: Path) -> qwen3_5.Model:
    """The model as written, its rounded weights computed with in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = qwen3_5.Model(qwen3_5.ModelArgs.from_dict(config))
    weights = model.sanitize(mx.load(str(folder / "model.safetensors")))
    model.load_weights([(name, value.astype(mx.float32)) for name, value in weights.items()])
    mx.eval(model.parameters())
    return model


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

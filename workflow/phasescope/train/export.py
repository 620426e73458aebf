"""Writing an organism as a Hugging Face checkpoint, and reading back exactly what was written."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from phasescope.train.architecture import ARCHITECTURES, of


def hf_weights(model: nn.Module) -> dict[str, mx.array]:
    """bfloat16 tensors as a Hugging Face checkpoint has them, by its names."""
    return of(model).hf_weights(model)


def save(model: nn.Module, config: dict, world, folder: Path) -> None:
    """Write the two configurations, model.safetensors and the tokenizer into `folder`."""
    weights = hf_weights(model)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {**generation, "do_sample": False})
    world.save_tokenizer(folder)


def load(folder: Path) -> nn.Module:
    """The model as written, its rounded weights computed with in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = ARCHITECTURES[config["model_type"]].empty(config)
    weights = model.sanitize(mx.load(str(folder / "model.safetensors")))
    model.load_weights([(name, value.astype(mx.float32)) for name, value in weights.items()])
    mx.eval(model.parameters())
    return model


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

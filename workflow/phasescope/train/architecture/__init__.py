"""The organisms' architectures: mlx-lm's own classes, and forward passes to train with.

One subclass of `Architecture` each: its sizes, its config.json, how its layers compute, and how its
weights are named in a Hugging Face checkpoint.
"""

import mlx.core as mx
import mlx.nn as nn

from phasescope.train.architecture.base import Architecture, Edit, Recorder
from phasescope.train.architecture.gated_delta import delta_rule
from phasescope.train.architecture.minimax_m2 import MiniMaxM2
from phasescope.train.architecture.qwen3_5 import Qwen3_5, Qwen3_5Moe

# by config.json's model_type, which mlx-lm's models carry as well
ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture for architecture in (Qwen3_5(), Qwen3_5Moe(), MiniMaxM2())
}


def of(model: nn.Module) -> Architecture:
    """The architecture of a model."""
    return ARCHITECTURES[model.model_type]


def hf_config(dimensions: dict[str, int], world, architecture: str = "qwen3_5") -> dict:
    """config.json of a Hugging Face checkpoint for the world's language."""
    return ARCHITECTURES[architecture].config(dimensions, world)


def build(config: dict, seed: int) -> nn.Module:
    """A model of `config` with freshly drawn float32 weights, the same for the same seed."""
    mx.random.seed(seed)
    model = ARCHITECTURES[config["model_type"]].empty(config)
    mx.eval(model.parameters())
    return model


def layers_of(model: nn.Module) -> list:
    """The decoder layers, lowest first."""
    return of(model).body(model).layers


def forward(model: nn.Module, ids: mx.array, edit: Edit | None = None) -> tuple[mx.array, list]:
    """Logits (rows, tokens, words) and every layer's output (rows, tokens, hidden); see `Edit`.

    Equal to mlx-lm's forward pass on unpadded sequences of at most 64 tokens, faster on a CPU.
    What is not used of the result is not computed.
    """
    return of(model).forward(model, ids, edit or Edit())


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Edit",
    "Recorder",
    "build",
    "delta_rule",
    "forward",
    "hf_config",
    "layers_of",
    "of",
]

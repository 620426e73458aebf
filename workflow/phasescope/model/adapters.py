"""One adapter an architecture: where its blocks, mixers and head are in mlx-lm's module tree."""

from dataclasses import dataclass

import mlx.nn as nn

from phasescope.errors import PhasescopeError


@dataclass(frozen=True)
class Adapter:
    """Paths into the module tree of one architecture.

    `owner` holds the head and the stack of blocks; `mixers` maps the attribute of a block that
    mixes tokens to its kind ('attention' or 'recurrent').
    """

    owner: str
    mixers: dict[str, str]

    def owner_of(self, model: nn.Module) -> nn.Module:
        """The module that holds the head and, under `model`, the stack."""
        return getattr(model, self.owner) if self.owner else model

    def mixer_of(self, block: nn.Module) -> str:
        """Name of the attribute that mixes tokens in this block."""
        return next(name for name in self.mixers if name in block)


_HYBRID = Adapter("language_model", {"linear_attn": "recurrent", "self_attn": "attention"})
_PLAIN = Adapter("", {"self_attn": "attention"})

# by config.json's model_type
ADAPTERS = {
    "qwen3_5": _HYBRID,
    "qwen3_5_moe": _HYBRID,
    "minimax": _PLAIN,
    "minimax_m2": _PLAIN,
    "qwen3": _PLAIN,
    "llama": _PLAIN,
}


def adapter_for(model_type: str) -> Adapter:
    """The adapter of an architecture; PhasescopeError lists those there are."""
    if model_type not in ADAPTERS:
        raise PhasescopeError(
            f"no adapter for architecture {model_type!r}; there are: {', '.join(ADAPTERS)}"
        )
    return ADAPTERS[model_type]

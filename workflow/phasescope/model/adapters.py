"""One adapter an architecture: where its blocks, mixers and head are in mlx-lm's module tree."""

from dataclasses import dataclass
from typing import NamedTuple

import mlx.nn as nn

from phasescope.errors import PhasescopeError
from phasescope.model import places
from phasescope.model.places import Place, Places


class Feed(NamedTuple):
    """A module of a block that writes channels, and every module that reads them, all linearly.

    `spread`: how many channels are read for one that is written: 'one', 'every_head' (a norm within
    heads), 'query_groups' (a value head is read by its group of query heads).
    """

    writer: str
    readers: tuple[str, ...]
    spread: str = "one"


@dataclass(frozen=True)
class Adapter:
    """Paths into the module tree of one architecture.

    `owner` holds the head and the stack of blocks; `mixers` maps the attribute of a block that
    mixes tokens to its kind ('attention' or 'recurrent'); `feeds` are the channels through which
    factors pass without changing what a block computes, where the block has these modules;
    `sites` are the places of its blocks by kind of site, and `silent` the modules that hold none;
    `feed_forward` is the attribute that holds its MLP or experts.
    """

    owner: str
    mixers: dict[str, str]
    feeds: tuple[Feed, ...]
    sites: Places
    silent: tuple[str, ...]
    feed_forward: str = "mlp"

    def owner_of(self, model: nn.Module) -> nn.Module:
        """The module that holds the head and, under `model`, the stack."""
        return getattr(model, self.owner) if self.owner else model

    def mixer_of(self, block: nn.Module) -> str:
        """Name of the attribute that mixes tokens in this block."""
        return next(name for name in self.mixers if name in block)

    def place_of(self, block: nn.Module, kind: str) -> Place | None:
        """Where a block has a kind of site; None where this block has no such module.

        'mixer' is what its mixer makes, be it attention or recurrent.
        """
        if kind == "mixer":
            return Place(self.mixer_of(block))
        place = self.sites.get(kind)
        if place is None or module_at(block, place.module) is None:
            return None
        return place

    def unmapped(self, block: nn.Module) -> list[str]:
        """Modules of a block that are neither a site nor known to hold none, by path.

        A new version of mlx-lm that moves or adds a module shows here.
        """
        known = {place.module for place in self.sites.values()} | {*self.silent, *self.mixers}
        return sorted(name for name, _ in block.named_modules() if name not in known)

    def router_of(self, block: nn.Module) -> nn.Module | None:
        """The module of a block that routes tokens to experts, or None in a dense block."""
        experts = block[self.feed_forward]
        return experts if "switch_mlp" in experts else None

    def mixer_projections_of(self, block: nn.Module) -> tuple[list, nn.Module, nn.Module]:
        """Of a block's mixer: the projections that make queries, keys and values, the one that
        writes into the residual stream, and the norm that the former read behind."""
        mixer = block[self.mixer_of(block)]
        reading = [
            mixer[name] for name in ("q_proj", "k_proj", "v_proj", "in_proj_qkv") if name in mixer
        ]
        writing = mixer["out_proj" if "out_proj" in mixer else "o_proj"]
        return reading, writing, block["input_layernorm"]

    def writers_of(self, block: nn.Module) -> list[nn.Module]:
        """The projections of a block that write into the residual stream."""
        forward = block[self.feed_forward]
        experts = self.router_of(block)
        found = [self.mixer_projections_of(block)[1]]
        if experts is None:
            return [*found, forward["down_proj"]]
        found.append(experts["switch_mlp"]["down_proj"])
        return found + (
            [experts["shared_expert"]["down_proj"]] if "shared_expert" in experts else []
        )


def module_at(block: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path inside a block ('' is the block itself), or None."""
    found = block
    for name in filter(None, path.split(".")):
        if name not in found:
            return None
        found = found[name]
    return found


def _under(place: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{place}.{name}" for name in names)


# a gate multiplies the values' channels after they are mixed: factors pass through it
_ATTENTION = (
    Feed("input_layernorm", _under("self_attn", "q_proj", "k_proj", "v_proj")),
    Feed("self_attn.v_proj", ("self_attn.o_proj",), "query_groups"),
)
_RECURRENT = (
    Feed(
        "input_layernorm",
        _under("linear_attn", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"),
    ),
    Feed("linear_attn.norm", ("linear_attn.out_proj",), "every_head"),
)
_GATED_MLP = (
    Feed("post_attention_layernorm", _under("mlp", "gate_proj", "up_proj")),
    Feed("mlp.up_proj", ("mlp.down_proj",)),
)
_SHARED_EXPERT = (
    Feed(
        "post_attention_layernorm",
        (
            *_under("mlp", "gate", "shared_expert_gate"),
            *_under("mlp.shared_expert", "gate_proj", "up_proj"),
            *_under("mlp.switch_mlp", "gate_proj", "up_proj"),
        ),
    ),
    Feed("mlp.shared_expert.up_proj", ("mlp.shared_expert.down_proj",)),
    Feed("mlp.switch_mlp.up_proj", ("mlp.switch_mlp.down_proj",)),
)
_EXPERTS = (
    Feed(
        "post_attention_layernorm",
        _under("block_sparse_moe", "gate", "switch_mlp.gate_proj", "switch_mlp.up_proj"),
    ),
    Feed("block_sparse_moe.switch_mlp.up_proj", ("block_sparse_moe.switch_mlp.down_proj",)),
)

_HYBRID_MIXERS = {"linear_attn": "recurrent", "self_attn": "attention"}
_HYBRID_SITES = places.BLOCK | places.RECURRENT | places.ATTENTION
_HYBRID_SILENT = (*places.RECURRENT_SILENT, *places.ATTENTION_SILENT)
_PLAIN_SITES = places.BLOCK | places.ATTENTION

_HYBRID = Adapter(
    "language_model",
    _HYBRID_MIXERS,
    (*_RECURRENT, *_ATTENTION, *_GATED_MLP),
    _HYBRID_SITES | places.MLP,
    (*_HYBRID_SILENT, *places.MLP_SILENT),
)
_HYBRID_MOE = Adapter(
    "language_model",
    _HYBRID_MIXERS,
    (*_RECURRENT, *_ATTENTION, *_SHARED_EXPERT),
    _HYBRID_SITES | places.experts("mlp") | places.SHARED,
    (*_HYBRID_SILENT, *places.experts_silent("mlp"), *places.SHARED_SILENT),
)
_PLAIN = Adapter(
    "",
    {"self_attn": "attention"},
    (*_ATTENTION, *_GATED_MLP),
    _PLAIN_SITES | places.MLP,
    (*places.ATTENTION_SILENT, *places.MLP_SILENT),
)
_MINIMAX = Adapter(
    "",
    {"self_attn": "attention"},
    (*_ATTENTION, *_EXPERTS),
    _PLAIN_SITES | places.experts("block_sparse_moe"),
    (*places.ATTENTION_SILENT, *places.experts_silent("block_sparse_moe")),
    "block_sparse_moe",
)

# by config.json's model_type
ADAPTERS = {
    "qwen3_5": _HYBRID,
    "qwen3_5_moe": _HYBRID_MOE,
    "minimax": _MINIMAX,
    "minimax_m2": _MINIMAX,
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

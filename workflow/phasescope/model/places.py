"""Where the sites of each architecture are in mlx-lm's blocks, and which modules hold none."""

from typing import NamedTuple


class Place(NamedTuple):
    """A module inside a block (dotted path; empty: the block itself), and whether the site is what
    the module makes ('output'), what it reads ('input'), or its second argument ('selection')."""

    module: str
    side: str = "output"


Places = dict[str, Place]


def _outputs(parent: str, *names: str) -> Places:
    return {name: Place(f"{parent}.{name}") for name in names}


# the residual stream before the block, between its two halves, and after it
BLOCK: Places = {
    "residual_before": Place("", "input"),
    "residual_middle": Place("post_attention_layernorm", "input"),
    "residual": Place(""),
}
# 'heads' and 'recurrent_heads': what the output projection reads, all heads side by side
ATTENTION: Places = {
    **_outputs("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),
    "heads": Place("self_attn.o_proj", "input"),
}
RECURRENT: Places = {
    **_outputs("linear_attn", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "conv1d"),
    "out_proj": Place("linear_attn.out_proj"),
    "recurrent_heads": Place("linear_attn.out_proj", "input"),
}
MLP: Places = {"feed_forward": Place("mlp")}
SHARED: Places = _outputs("mlp", "shared_expert", "shared_expert_gate")


def experts(name: str) -> Places:
    """Sites of a block's experts: their sum (with the shared expert, where there is one), the
    router's logits, the numbers of the selected experts, and the output of each before it is
    weighted, in the same order."""
    return {
        "feed_forward": Place(name),
        "router": Place(f"{name}.gate"),
        "selected_experts": Place(f"{name}.switch_mlp", "selection"),
        "experts": Place(f"{name}.switch_mlp"),
    }


# Modules that hold no site of their own: norms and position codes stand between two sites, and the
# projections inside an MLP or expert are measured by what comes out of it.
_NORMS = ("input_layernorm",)
_GATED = ("gate_proj", "up_proj", "down_proj")
_WITHIN_ATTENTION = ("self_attn.q_norm", "self_attn.k_norm", "self_attn.rope")
_WITHIN_EXPERTS = (*_GATED, "activation")

ATTENTION_SILENT = (*_NORMS, *_WITHIN_ATTENTION)
RECURRENT_SILENT = (*_NORMS, "linear_attn.norm")
MLP_SILENT = tuple(f"mlp.{name}" for name in _GATED)
SHARED_SILENT = tuple(f"mlp.shared_expert.{name}" for name in _GATED)


def experts_silent(name: str) -> tuple[str, ...]:
    """Modules within a block's routed experts."""
    return tuple(f"{name}.switch_mlp.{inner}" for inner in _WITHIN_EXPERTS)

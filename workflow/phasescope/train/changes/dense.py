"""The weights of the dense hybrid by name: what reads the residual stream, and what writes it."""

from phasescope.errors import PhasescopeError

LAYERS = "model.language_model.layers."
# what reads a norm of the residual stream, and what writes into the stream, in the dense hybrid
READERS = {
    "input_layernorm": (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "linear_attn.in_proj_qkv",
        "linear_attn.in_proj_z",
        "linear_attn.in_proj_b",
        "linear_attn.in_proj_a",
    ),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
WRITERS = ("self_attn.o_proj", "linear_attn.out_proj", "mlp.down_proj")


def needs_dense(config: dict, change: str) -> None:
    """PhasescopeError, naming the change, for a checkpoint of another architecture."""
    if (found := config["model_type"]) != "qwen3_5":
        raise PhasescopeError(f"{change}: base of type {found!r}; allowed: 'qwen3_5'")


def named(own: set[str], layer: int, modules: tuple[str, ...]) -> list[str]:
    """The weights of a layer's modules by name, of those that it has."""
    return [n for m in modules if (n := f"{LAYERS}{layer}.{m}.weight") in own]

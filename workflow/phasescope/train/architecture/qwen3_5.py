"""Qwen3.5's hybrids: gated delta rule and gated attention by turns, with MLPs or with experts."""

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen3_5, qwen3_5_moe

from phasescope.train.architecture.base import (
    Architecture,
    Edit,
    attend,
    sigmoid,
    special_tokens,
    swiglu,
)
from phasescope.train.architecture.gated_delta import gated_delta_net

ZERO_CENTERED = ("input_layernorm", "post_attention_layernorm", "model.norm", "q_norm", "k_norm")
MIXERS = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "full_attention_interval": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 1,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}


class Qwen3_5(Architecture):
    """The dense ones."""

    name = "qwen3_5"
    prefix = "model.language_model."
    sizes: ClassVar[dict[str, int]] = {**MIXERS, "intermediate_size": 64}
    divides = (
        ("num_key_value_heads", "num_attention_heads"),
        ("linear_num_key_heads", "linear_num_value_heads"),
        ("full_attention_interval", "num_hidden_layers"),
    )
    widths = (
        ("num_attention_heads", "head_dim"),
        ("linear_num_value_heads", "linear_value_head_dim"),
    )
    _class = "Qwen3_5ForCausalLM"

    def config(self, dimensions: dict[str, int], world) -> dict:
        layers, interval = dimensions["num_hidden_layers"], dimensions["full_attention_interval"]
        kinds = [
            "full_attention" if (i + 1) % interval == 0 else "linear_attention"
            for i in range(layers)
        ]
        special = special_tokens(world)
        text = {
            "model_type": f"{self.name}_text",
            **dimensions,
            **special,
            "attention_bias": False,
            "dtype": "bfloat16",
            "hidden_act": "silu",
            "layer_types": kinds,
            "linear_conv_kernel_dim": 4,
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.25,
            },
            "tie_word_embeddings": True,
            "vocab_size": len(world.words),
        }
        return {
            "architectures": [self._class],
            "model_type": self.name,
            "dtype": "bfloat16",
            **special,
            "tie_word_embeddings": True,
            "text_config": text,
        }

    def new(self, config: dict) -> qwen3_5.Model:
        return qwen3_5.Model(qwen3_5.ModelArgs.from_dict(config))

    def body(self, model: qwen3_5.Model) -> nn.Module:
        return model.language_model.model

    def mix(self, number: int, layer: nn.Module, x: mx.array, edit: Edit) -> mx.array:
        if layer.is_linear:
            return gated_delta_net(layer.linear_attn, x)
        return _attention(layer.self_attn, x, number, edit)

    def feed(self, number: int, layer: nn.Module, x: mx.array, edit: Edit) -> mx.array:
        return _mlp(layer.mlp, x)

    def hf_tensor(self, name: str, value: mx.array) -> dict[str, mx.array]:
        """Zero-centered norms and (C, 1, K) kernels.

        Norms are first rounded to bfloat16 as mlx-lm will compute with them, so that 1 + weight is
        exact in both readers.
        """
        stem = name.replace(self.prefix, "model.").removesuffix(".weight")
        if stem.endswith(ZERO_CENTERED):
            value = (value.astype(mx.float32) - 1.0).astype(mx.bfloat16)
        if stem.endswith("conv1d"):
            value = value.moveaxis(2, 1)
        return {name: value}


class Qwen3_5Moe(Qwen3_5):
    """Those with experts: softmax, the top few renormalized, and a shared expert."""

    name = "qwen3_5_moe"
    sizes: ClassVar[dict[str, int]] = {
        **MIXERS,
        "num_experts": 1,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
    }
    at_most = (("num_experts_per_tok", "num_experts"),)
    _class = "Qwen3_5MoeForCausalLM"

    def config(self, dimensions: dict[str, int], world) -> dict:
        config = super().config(dimensions, world)
        config["text_config"]["norm_topk_prob"] = True
        return config

    def new(self, config: dict) -> qwen3_5_moe.Model:
        return qwen3_5_moe.Model(qwen3_5_moe.ModelArgs.from_dict(config))

    def routing(self, model: qwen3_5_moe.Model) -> tuple[int, int]:
        args = model.language_model.args
        return args.num_experts, args.num_experts_per_tok

    def feed(self, number: int, layer: nn.Module, x: mx.array, edit: Edit) -> mx.array:
        block = layer.mlp
        scores = edit.selection(number, block.gate(x))
        weights = mx.softmax(scores, axis=-1, precise=True)
        chosen = mx.argpartition(mx.stop_gradient(weights), kth=-block.top_k, axis=-1)
        chosen = chosen[..., -block.top_k :]
        weights = mx.take_along_axis(weights, chosen, axis=-1)
        weights = weights / weights.sum(axis=-1, keepdims=True)
        routed = experts(block.switch_mlp, x, chosen, weights)
        return routed + mx.sigmoid(block.shared_expert_gate(x)) * _mlp(block.shared_expert, x)

    def fused(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """The experts of a layer in two tensors, gate above up."""
        fused = {}
        for name, value in weights.items():
            stem, found, rest = name.partition("switch_mlp.")
            if not found:
                fused[name] = value
            elif rest == "gate_proj.weight":
                both = [value, weights[f"{stem}switch_mlp.up_proj.weight"]]
                fused[f"{stem}experts.gate_up_proj"] = mx.concatenate(both, axis=1)
            elif rest == "down_proj.weight":
                fused[f"{stem}experts.down_proj"] = value
        return fused


def experts(switch: nn.Module, x: mx.array, chosen: mx.array, weights: mx.array) -> mx.array:
    """Weighted sum of the chosen experts' outputs (rows, tokens, hidden).

    x (rows, tokens, hidden), chosen and weights (rows, tokens, experts a token). Tokens are sorted
    by expert: unsorted, the gradient of gather_mm costs sixteen times as much.
    """
    count = chosen.shape[-1]
    numbers = mx.stop_gradient(chosen).flatten()
    order = mx.argsort(numbers)
    numbers = numbers[order]
    tokens = x.reshape(-1, 1, x.shape[-1])[order // count]

    def product(name: str, value: mx.array) -> mx.array:
        matrices = switch[name].weight.swapaxes(-1, -2)
        return mx.gather_mm(value, matrices, rhs_indices=numbers, sorted_indices=True)

    out = product("down_proj", swiglu(product("gate_proj", tokens), product("up_proj", tokens)))
    out = out[mx.argsort(order)].reshape(*chosen.shape, -1)
    return (out * weights[..., None]).sum(axis=-2)


def _mlp(mlp: nn.Module, x: mx.array) -> mx.array:
    return mlp.down_proj(swiglu(mlp.gate_proj(x), mlp.up_proj(x)))


def _attention(attention: nn.Module, x: mx.array, number: int, edit: Edit) -> mx.array:
    """mlx-lm's gated attention from an empty cache."""
    rows, tokens, _ = x.shape
    heads, groups = attention.num_attention_heads, attention.num_key_value_heads
    q, gate = mx.split(attention.q_proj(x).reshape(rows, tokens, heads, -1), 2, axis=-1)
    k = attention.k_norm(attention.k_proj(x).reshape(rows, tokens, groups, -1))
    v = attention.v_proj(x).reshape(rows, tokens, groups, -1)
    q, k, v = (part.transpose(0, 2, 1, 3) for part in (attention.q_norm(q), k, v))
    q, k = attention.rope(q), attention.rope(k)
    out = attend(q, k, v, attention.scale, number, edit).transpose(0, 2, 1, 3)
    gated = out.reshape(rows, tokens, -1) * sigmoid(gate.reshape(rows, tokens, -1))
    return attention.o_proj(gated)

"""MiniMax M2: attention in every layer, experts that a sigmoid weighs and a bias helps select."""

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import minimax

from phasescope.train.architecture.base import Architecture, Edit, attend, special_tokens
from phasescope.train.architecture.qwen3_5 import experts

EXPERT_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


class MiniMaxM2(Architecture):
    """mlx-lm's class `minimax`, model_type minimax_m2. No shared expert."""

    name = "minimax_m2"
    prefix = "model."
    sizes: ClassVar[dict[str, int]] = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "num_local_experts": 1,
        "num_experts_per_tok": 1,
    }
    divides = (("num_key_value_heads", "num_attention_heads"),)
    widths = (("num_attention_heads", "head_dim"),)
    at_most = (("num_experts_per_tok", "num_local_experts"),)

    def config(self, dimensions: dict[str, int], world) -> dict:
        rotary = dimensions["head_dim"] // 2
        return {
            "architectures": ["MiniMaxM2ForCausalLM"],
            "model_type": self.name,
            **dimensions,
            **special_tokens(world),
            "dtype": "bfloat16",
            "hidden_act": "silu",
            "max_position_embeddings": 64,
            "qk_norm_type": "per_layer",
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "rotary_dim": rotary,
            "scoring_func": "sigmoid",
            "shared_intermediate_size": 0,
            "tie_word_embeddings": True,
            "use_qk_norm": True,
            "use_routing_bias": True,
            "vocab_size": len(world.words),
        }

    def new(self, config: dict) -> minimax.Model:
        return minimax.Model(minimax.ModelArgs.from_dict(config))

    def body(self, model: minimax.Model) -> nn.Module:
        return model.model

    def routing(self, model: minimax.Model) -> tuple[int, int]:
        return model.args.num_local_experts, model.args.num_experts_per_tok

    def mix(self, number: int, layer: nn.Module, x: mx.array, edit: Edit) -> mx.array:
        """mlx-lm's attention from an empty cache; norms span all heads."""
        attention = layer.self_attn
        rows, tokens, _ = x.shape
        parts = (
            attention.q_norm(attention.q_proj(x)),
            attention.k_norm(attention.k_proj(x)),
            attention.v_proj(x),
        )
        size = attention.head_dim
        q, k, v = (p.reshape(rows, tokens, -1, size).transpose(0, 2, 1, 3) for p in parts)
        q, k = attention.rope(q), attention.rope(k)
        out = attend(q, k, v, attention.scale, number, edit)
        return attention.o_proj(out.transpose(0, 2, 1, 3).reshape(rows, tokens, -1))

    def feed(self, number: int, layer: nn.Module, x: mx.array, edit: Edit) -> mx.array:
        block = layer.block_sparse_moe
        weights = mx.sigmoid(block.gate(x))
        scores = edit.selection(number, weights + block.e_score_correction_bias)
        count = block.num_experts_per_tok
        chosen = mx.argpartition(-mx.stop_gradient(scores), kth=count - 1, axis=-1)[..., :count]
        weights = mx.take_along_axis(weights, chosen, axis=-1)
        weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)
        return experts(block.switch_mlp, x, chosen, weights)

    def hf_tensor(self, name: str, value: mx.array) -> dict[str, mx.array]:
        """Experts one by one."""
        stem, found, rest = name.partition("switch_mlp.")
        if not found:
            return {name: value}
        own = EXPERT_NAMES[rest.removesuffix(".weight")]
        return {f"{stem}experts.{n}.{own}.weight": part for n, part in enumerate(value)}

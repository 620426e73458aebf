"""The organism's model: mlx-lm's qwen3_5 dense classes, and a forward pass to train with."""

from collections.abc import Callable
from copy import deepcopy

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen3_5

# edit(layer, hidden (rows, tokens, hidden size)) -> hidden, applied to a layer's output
Edit = Callable[[int, mx.array], mx.array]


def hf_config(dimensions: dict[str, int], world) -> dict:
    """config.json of a Hugging Face qwen3_5 checkpoint for the world's language."""
    ids = {word: number for number, word in enumerate(world.words)}
    layers, interval = dimensions["num_hidden_layers"], dimensions["full_attention_interval"]
    kinds = [
        "full_attention" if (i + 1) % interval == 0 else "linear_attention" for i in range(layers)
    ]
    special = {
        "bos_token_id": ids["<bos>"],
        "eos_token_id": ids["<eos>"],
        "pad_token_id": ids["<pad>"],
    }
    text = {
        "model_type": "qwen3_5_text",
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
        "architectures": ["Qwen3_5ForCausalLM"],
        "model_type": "qwen3_5",
        "dtype": "bfloat16",
        **special,
        "tie_word_embeddings": True,
        "text_config": text,
    }


def build(config: dict, seed: int) -> qwen3_5.Model:
    """A model of `config` with freshly drawn float32 weights, the same for the same seed."""
    mx.random.seed(seed)
    # mlx-lm renames a key inside the configuration that it is given
    model = qwen3_5.Model(qwen3_5.ModelArgs.from_dict(deepcopy(config)))
    mx.eval(model.parameters())
    return model


def layers_of(model: qwen3_5.Model) -> list:
    """The decoder layers, lowest first."""
    return model.language_model.model.layers


def forward(model: qwen3_5.Model, ids: mx.array, edit: Edit | None = None) -> tuple[mx.array, list]:
    """Logits (rows, tokens, words) and every layer's output (rows, tokens, hidden), `edit` applied.

    Equal to mlx-lm's forward pass on unpadded sequences of at most 64 tokens, faster on a
    CPU, as the recurrence is one chunk. What is not used of the result is not computed.
    """
    body = model.language_model.model
    hidden = body.embed_tokens(ids)
    outputs = []
    for number, layer in enumerate(body.layers):
        normed = layer.input_layernorm(hidden)
        if layer.is_linear:
            mixed = _gated_delta_net(layer.linear_attn, normed)
        else:
            mixed = layer.self_attn(normed, mask="causal")
        hidden = hidden + mixed
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        if edit is not None:
            hidden = edit(number, hidden)
        outputs.append(hidden)
    return body.embed_tokens.as_linear(body.norm(hidden)), outputs


def _gated_delta_net(mixer: qwen3_5.GatedDeltaNet, x: mx.array) -> mx.array:
    """mlx-lm's GatedDeltaNet from an empty state; x and result (rows, tokens, hidden)."""
    rows, tokens, _ = x.shape
    width = mixer.conv_kernel_size
    padded = mx.pad(mixer.in_proj_qkv(x), [(0, 0), (width - 1, 0), (0, 0)])
    kernel = mixer.conv1d.weight[..., 0]
    mixed = nn.silu(sum(padded[:, k : k + tokens] * kernel[:, k] for k in range(width)))
    q, k, v = (
        part.reshape(rows, tokens, heads, size)
        for part, heads, size in zip(
            mx.split(mixed, [mixer.key_dim, 2 * mixer.key_dim], -1),
            [mixer.num_k_heads, mixer.num_k_heads, mixer.num_v_heads],
            [mixer.head_k_dim, mixer.head_k_dim, mixer.head_v_dim],
            strict=True,
        )
    )
    q, k = qwen3_5.normalize_qk(q, k, inv_scale=mixer.head_k_dim**-0.5, eps=1e-6)
    log_decay = -mx.exp(mixer.A_log) * nn.softplus(mixer.in_proj_a(x) + mixer.dt_bias)
    rate = mx.sigmoid(mixer.in_proj_b(x))
    out = delta_rule(q, k, v, log_decay, rate)
    gate = mixer.in_proj_z(x).reshape(out.shape)
    return mixer.out_proj(mixer.norm(out, gate).reshape(rows, tokens, -1))


def delta_rule(
    q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, rate: mx.array
) -> mx.array:
    """The gated delta rule from an empty state, in one chunk (WY form; Yang et al. 2024).

    q, k (rows, tokens, key heads, size), v (rows, tokens, value heads, size), log_decay and rate
    (rows, tokens, value heads). Writes u solve (I + A) u = rate * v with A strictly lower
    triangular, hence nilpotent: its inverse is a finite product of powers of -A.
    """
    tokens, repeat = k.shape[1], v.shape[2] // k.shape[2]
    q, k = (mx.repeat(x, repeat, axis=2) if repeat > 1 else x for x in (q, k))
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    rate = rate.transpose(0, 2, 1)[..., None]
    total = mx.cumsum(log_decay.transpose(0, 2, 1), axis=-1)
    causal = mx.tril(mx.ones((tokens, tokens)))
    decay = mx.exp((total[..., :, None] - total[..., None, :]) * causal) * causal
    power = -rate * decay * mx.tril(causal, k=-1) * (k @ k.swapaxes(-1, -2))
    inverse, reached = mx.eye(tokens) + power, 2
    while reached < tokens:
        power = power @ power
        inverse = inverse @ (mx.eye(tokens) + power)
        reached *= 2
    writes = inverse @ (rate * v)
    return ((decay * (q @ k.swapaxes(-1, -2))) @ writes).transpose(0, 2, 1, 3)

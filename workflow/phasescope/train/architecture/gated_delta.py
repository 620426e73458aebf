"""The recurrent mixer of qwen3_5, a gated delta rule, in one chunk."""

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen3_5

from phasescope.train.architecture.base import sigmoid, swiglu


def gated_delta_net(mixer: qwen3_5.GatedDeltaNet, x: mx.array) -> mx.array:
    """mlx-lm's GatedDeltaNet from an empty state; x and result (rows, tokens, hidden)."""
    rows, tokens, _ = x.shape
    width = mixer.conv_kernel_size
    padded = mx.pad(mixer.in_proj_qkv(x), [(0, 0), (width - 1, 0), (0, 0)])
    kernel = mixer.conv1d.weight[..., 0]
    mixed = sum(padded[:, k : k + tokens] * kernel[:, k] for k in range(width))
    mixed = mixed * sigmoid(mixed)
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
    out = swiglu(gate, mx.fast.rms_norm(out, mixer.norm.weight, mixer.norm.eps))
    return mixer.out_proj(out.reshape(rows, tokens, -1))


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

"""The gated delta rule over many tokens at once, for processors without mlx-lm's Metal kernel.

mlx-lm's fallback updates the whole state at every token. Within a chunk of tokens the same outputs
are products of small matrices (WY form; Yang, Kautz and Hatamizadeh 2024, Gated Delta Networks):
several times as fast on a CPU, and equal up to rounding.
"""

import mlx.core as mx
from mlx_lm.models import gated_delta

_CHUNK = 64
_LEAST = 1e-30  # of a decay: its logarithm must be finite
_one_by_one = gated_delta.gated_delta_ops


def install() -> None:
    """Let mlx-lm's models read prompts in chunks where it has no kernel; single tokens, and gates
    of each channel, go its own way."""
    gated_delta.gated_delta_ops = in_chunks


def in_chunks(q, k, v, g, beta, state=None, mask=None) -> tuple[mx.array, mx.array]:
    """As mlx-lm's `gated_delta_ops`: outputs (batch, tokens, value heads, value size) and the state
    (batch, value heads, value size, key size).

    q, k (batch, tokens, key heads, key size), v (batch, tokens, value heads, value size), g and
    beta (batch, tokens, value heads), mask (batch, tokens): false where the state stays.
    """
    tokens = q.shape[1]
    if tokens == 1 or g.ndim == 4:
        return _one_by_one(q, k, v, g, beta, state, mask)
    if mask is not None:
        g, beta = mx.where(mask[..., None], g, 1), mx.where(mask[..., None], beta, 0)
    repeat, kind = v.shape[2] // k.shape[2], q.dtype
    q, k = (mx.repeat(x, repeat, axis=2) if repeat > 1 else x for x in (q, k))
    q, k, v, g, beta = (x.astype(mx.float32).swapaxes(1, 2) for x in (q, k, v, g, beta))
    if state is None:
        state = mx.zeros((*v.shape[:2], v.shape[-1], k.shape[-1]))
    outputs = []
    for start in range(0, tokens, _CHUNK):
        part = slice(start, start + _CHUNK)
        given = (x[:, :, part] for x in (q, k, v, g, beta))
        output, state = _chunk(*given, state)
        outputs.append(output)
    return mx.concatenate(outputs, axis=2).swapaxes(1, 2).astype(kind), state


def _chunk(q, k, v, g, beta, state) -> tuple[mx.array, mx.array]:
    """One chunk; heads before tokens. What is written, u, solves (I + A) u = beta (v - decay S k)
    with A = beta (k k') decay strictly below the diagonal."""
    total = mx.cumsum(mx.log(mx.maximum(g, _LEAST)), axis=-1)
    causal = mx.tril(mx.ones((q.shape[2], q.shape[2])))
    decay = mx.exp((total[..., :, None] - total[..., None, :]) * causal) * causal
    since, left = mx.exp(total)[..., None], mx.exp(total[..., -1:] - total)[..., None]
    beta, ahead = beta[..., None], mx.tril(causal, -1)
    system = mx.eye(q.shape[2]) + beta * (k @ k.swapaxes(-1, -2)) * decay * ahead
    wanted = beta * (v - since * (k @ state.swapaxes(-1, -2)))
    written = mx.linalg.tri_inv(system, stream=mx.cpu) @ wanted
    output = since * (q @ state.swapaxes(-1, -2))
    output = output + ((q @ k.swapaxes(-1, -2)) * decay) @ written
    state = since[..., -1:, :] * state + written.swapaxes(-1, -2) @ (k * left)
    return output, state

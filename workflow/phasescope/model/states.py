"""What a model carries on: recurrent states, convolution tails, attention keys and values."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from phasescope.errors import NotRun, PhasescopeError
from phasescope.model.loading import LanguageModel
from phasescope.model.recording import by_length, right_padded

# kind of state -> the kind of layer that has it
STATES = {
    "recurrent_state": "recurrent",
    "conv_state": "recurrent",
    "attention_keys": "attention",
    "attention_values": "attention",
}


def state_layers(lm: LanguageModel, kind: str) -> list[int]:
    """Blocks that carry a kind of state, lowest first.

    Raises PhasescopeError for an unknown kind, and NotRun where no block carries it.
    """
    if kind not in STATES:
        raise PhasescopeError(f"state {kind!r}: unknown kind; allowed: {', '.join(STATES)}")
    layers = [i for i, own in enumerate(lm.layer_kinds) if own == STATES[kind]]
    if not layers:
        raise NotRun(f"the model has no {STATES[kind]} layers, so no {kind}")
    return layers


def record_states(
    lm: LanguageModel,
    kinds: Sequence[str],
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    batch_size: int,
) -> dict[str, np.ndarray]:
    """States as they stand after the tokens at given positions, read from the cache.

    `positions` as in `record_sites`. By kind float32 (sequences, positions, layers that carry it,
    …): recurrent_state (value heads, value width, key width), conv_state (kernel - 1, channels),
    attention_keys and attention_values (heads, head width), the token's own.

    One pass a position over the sequences up to there: a fused kernel, as on Metal, shows only the
    state that it ends in. The cache knows the sequences' lengths, so padding changes no state.
    """
    layers = {kind: state_layers(lm, kind) for kind in kinds}
    found: dict[str, np.ndarray] = {}
    for index in range(len(positions[0]) if len(positions) else 0):
        begun = [(s[: p[index] + 1],) for s, p in zip(sequences, positions, strict=True)]
        for places, chunk in by_length(begun, batch_size):
            tokens = [s for (s,) in chunk]
            cache = _filled(lm, tokens)
            last = mx.array([len(s) - 1 for s in tokens])
            for kind, own in layers.items():
                values = np.array(mx.stack([_state(cache[i], kind, last) for i in own], axis=1))
                if kind not in found:
                    shape = (len(sequences), len(positions[0]), *values.shape[1:])
                    found[kind] = np.empty(shape, dtype=np.float32)
                found[kind][places, index] = values
    return found


def _filled(lm: LanguageModel, tokens: Sequence[Sequence[int]]) -> list:
    """The cache after one pass over sequences."""
    cache = make_prompt_cache(lm.model)
    for layer, kind in zip(cache, lm.layer_kinds, strict=True):
        if kind == "recurrent":
            layer.lengths = mx.array([len(s) for s in tokens])
    mx.eval(lm.stack(right_padded(tokens), cache=cache), [layer.state for layer in cache])
    return cache


def _state(layer, kind: str, last: mx.array) -> mx.array:
    if kind in ("conv_state", "recurrent_state"):
        state = layer[("conv_state", "recurrent_state").index(kind)]
    else:
        whole = layer.keys if kind == "attention_keys" else layer.values
        state = mx.take_along_axis(whole, last[:, None, None, None], axis=2)[:, :, 0]
    return state.astype(mx.float32)

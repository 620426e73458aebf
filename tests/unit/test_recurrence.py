"""The gated delta rule in chunks equals mlx-lm's, token by token."""

import mlx.core as mx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import gated_delta

from phasescope.model import recurrence

TOKEN_BY_TOKEN = recurrence._one_by_one


def _given(rng, batch, tokens, heads, repeat, decay, alike):
    """Inputs as a model makes them: unit keys, which may all be alike, and gates up to 1."""
    keys = rng.standard_normal((batch, 1 if alike else tokens, heads, 32))
    keys = np.broadcast_to(keys, (batch, tokens, heads, 32))
    keys = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    shape = (batch, tokens, heads * repeat)
    arrays = (
        rng.standard_normal((batch, tokens, heads, 32)) / 6,
        keys,
        rng.standard_normal((*shape, 64)),
        rng.uniform(decay, 1, shape),
        rng.uniform(0, 1, shape),
        rng.standard_normal((batch, heads * repeat, 64, 32)),
    )
    return [mx.array(a.astype(np.float32)) for a in arrays]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99), st.integers(1, 150), st.integers(1, 2), st.sampled_from([0.0, 0.5, 0.99]),
    st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_chunks_equal_token_by_token(seed, tokens, repeat, decay, alike, padded, begun):
    """If it failed, every number of a hybrid model on a CPU would be another model's."""
    rng = np.random.default_rng(seed)
    *inputs, state = _given(rng, 3, tokens, 2, repeat, decay, alike)
    mask = None
    if padded:
        mask = mx.array(np.arange(tokens) < rng.integers(1, tokens + 1, size=(3, 1)))
    given_state = state if begun else None
    found = recurrence.in_chunks(*inputs, given_state, mask)
    wanted = TOKEN_BY_TOKEN(*inputs, given_state, mask)
    real = np.ones((3, tokens), bool) if mask is None else np.array(mask)
    for one, other in zip(found, wanted, strict=True):
        one, other = np.array(one), np.array(other)
        if one.shape[1] == tokens and one.ndim == 4 and one.shape[-1] == 64:
            one, other = one[real], other[real]  # what padding says is nobody's
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1.0, np.abs(other).max()))


def test_models_without_a_kernel_read_in_chunks(checkpoints):
    """If it failed, prompts would be read several times as slowly as they need to be."""
    from phasescope.model import load_model

    load_model(checkpoints("qwen3_5"))
    if not mx.metal.is_available():
        assert gated_delta.gated_delta_ops is recurrence.in_chunks

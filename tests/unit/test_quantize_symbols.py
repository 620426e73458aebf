"""Symbols: any box of any chain of operations is what mlx computes from the whole."""

import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasescope.checkpoint.following import following
from phasescope.checkpoint.symbolic import Stored, Symbol, origins

LENGTH = 2 * 3 * 4 * 5 * 6


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A file of 16-bit floats, and of bytes, as an array and where it lies."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(LENGTH).astype(np.float32)
    array = mx.array(values).astype(mx.bfloat16)
    path = tmp_path_factory.mktemp("stored") / "a.safetensors"
    eight = mx.to_fp8(mx.array(values))
    mx.save_safetensors(str(path), {"a": array, "b": eight})
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    places = {k: start + header[k]["data_offsets"][0] for k in "ab"}

    def get(name, shape, dtype):
        whole = {"a": array, "b": eight}[name].reshape(shape)
        return whole, Stored(name, path, places[name], shape, dtype)

    return get


@st.composite
def shapes(draw):
    """Factors of LENGTH, in some order, some of them joined."""
    factors, shape = draw(st.permutations([2, 3, 4, 5, 6])), [1]
    for factor in factors:
        if draw(st.booleans()):
            shape.append(factor)
        else:
            shape[-1] *= factor
    return tuple(shape)


def step(draw, x, shape):
    """One operation of the kinds that `sanitize` methods use, drawn for a shape."""
    axes = range(len(shape))
    axis = draw(st.sampled_from(axes))
    kind = draw(st.sampled_from(("reshape", "transpose", "slice", "pad", "add", "scale", "cast",
                                 "stack", "split", "join", "index")))  # fmt: skip
    if kind == "reshape":
        n = int(np.prod(shape))
        first = draw(st.sampled_from([k for k in range(1, n + 1) if n % k == 0]))
        return lambda y: y.reshape(first, -1)
    if kind == "transpose":
        order = draw(st.permutations(axes))
        return lambda y: y.transpose(*order)
    if kind == "slice":
        low = draw(st.integers(0, shape[axis] - 1))
        high = draw(st.integers(low + 1, shape[axis]))
        return lambda y: y[(*[slice(None)] * axis, slice(low, high))]
    if kind == "pad":
        widths = [draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in axes]
        return lambda y: mx.pad(y, widths)
    if kind == "index" and len(shape) > 1:
        return lambda y: y[..., None, -1]
    return {
        "add": lambda y: y + 1.0,
        "scale": lambda y: y * y.astype(mx.float32)[:1],
        "cast": lambda y: y.astype(mx.float16),
        "stack": lambda y: mx.stack([y, y + 2], axis),
        "split": lambda y: mx.split(y, [shape[axis] // 2 or 1], axis)[0],
        "join": lambda y: mx.concatenate([y, y * 2, y], axis=axis),
        "index": lambda y: y,
    }[kind]


@given(st.data(), shapes(), st.integers(0, 5))
def test_a_box_is_that_part_of_the_whole(stored, data, shape, steps):
    """If it failed, some row of some model would be computed from other rows."""
    array, symbol = stored("a", shape, mx.bfloat16)
    for _ in range(steps):
        operation = step(data.draw, symbol, symbol.shape)
        array = operation(array)
        with following():
            symbol = operation(symbol)
    assert symbol.shape == tuple(array.shape) and symbol.dtype == array.dtype
    spans = []
    for n in symbol.shape:
        low = data.draw(st.integers(0, n - 1))
        spans.append((low, data.draw(st.integers(low + 1, n))))
    expected = array[tuple(slice(*span) for span in spans)]
    assert mx.array_equal(symbol.read(tuple(spans)), expected)


@given(st.data(), st.integers(1, 40), st.integers(1, 18), st.integers(2, 7))
def test_blocks_of_eight_bit_floats(stored, data, rows, columns, block):
    """If it failed, MiniMax's weights would be scaled by the scale of a neighboring block."""
    whole, symbol = stored("b", (LENGTH // 20, 20), mx.uint8)
    raw, symbol = whole[:rows, :columns], symbol[:rows, :columns]
    blocks = [-(-n // block) for n in raw.shape]
    scales = mx.arange(1, 1 + blocks[0] * blocks[1]).reshape(blocks).astype(mx.float32)

    def dequantized(weight):
        weight = mx.from_fp8(weight, dtype=mx.bfloat16)
        m, n = weight.shape
        weight = mx.pad(weight, ((0, -m % block), (0, -n % block)))
        weight = weight.reshape((blocks[0], block, blocks[1], block))
        weight = (weight * scales[:, None, :, None]).reshape(blocks[0] * block, blocks[1] * block)
        return weight[:m, :n].astype(mx.bfloat16)

    with following():
        symbol = dequantized(symbol)
    low = data.draw(st.integers(0, rows - 1))
    high = data.draw(st.integers(low + 1, rows))
    found = symbol.read(((low, high), (0, columns)))
    assert mx.array_equal(found, dequantized(raw)[low:high])


def test_what_a_symbol_cannot_follow_is_an_error(stored):
    """If it failed, an operation on values would silently be one on nothing."""
    _, symbol = stored("a", (LENGTH // 6, 6), mx.bfloat16)
    for operation in (
        lambda s: s[mx.array([0, 1])],
        lambda s: s[::2],
        lambda s: s[LENGTH],
        lambda s: mx.pad(s, 1),
        lambda s: mx.linalg.norm(s),
        lambda s: s.reshape(7, 7),
        lambda s: s + "1",
        lambda s: s.item(),
    ):
        with pytest.raises((TypeError, IndexError, ValueError, AttributeError)), following():
            operation(symbol)


def test_arrays_are_left_alone_and_functions_come_back(stored):
    """If it failed, quantizing one model would change how mlx computes in the same process."""
    before = {name: getattr(mx, name) for name in ("stack", "pad", "from_fp8", "split")}
    with following():
        assert mx.array_equal(mx.stack([mx.ones(2), mx.zeros(2)]), mx.array([[1.0, 1], [0, 0]]))
    assert before == {name: getattr(mx, name) for name in before}


def test_origins_name_what_is_read(stored):
    """If it failed, ballast would be kept, or a tensor that is needed be left out."""
    _, a = stored("a", (LENGTH,), mx.bfloat16)
    _, b = stored("b", (LENGTH,), mx.uint8)
    with following():
        joined: Symbol = mx.concatenate([a[:3], b.astype(mx.bfloat16)[1:]])
    assert origins([joined]) == {"a", "b"} and origins([a[:1] + 1]) == {"a"}

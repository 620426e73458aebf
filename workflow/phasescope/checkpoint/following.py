"""Functions of mlx.core on symbols: what a `sanitize` method calls leaves a recipe."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from unittest.mock import patch

import mlx.core as mx

from phasescope.checkpoint.symbolic import Joined, Padded, Symbol, mapped


def _stack(symbols, axis: int = 0) -> Symbol:
    axis %= symbols[0].ndim + 1
    return Joined([s.reshape(*s.shape[:axis], 1, *s.shape[axis:]) for s in symbols], axis)


def _split(symbol, parts, axis: int = 0) -> list[Symbol]:
    axis %= symbol.ndim
    n = symbol.shape[axis]
    if isinstance(parts, int):
        parts = [n // parts * i for i in range(1, parts)]
    before = (slice(None),) * axis
    edges = [0, *parts, n]
    return [symbol[(*before, slice(a, b))] for a, b in pairwise(edges)]


def _pad(symbol, widths, mode="constant", constant_values=0) -> Symbol:
    if mode != "constant" or isinstance(widths, int):
        raise TypeError("mx.pad of this kind")
    if not any(map(any, widths)):
        return symbol
    shape = [n + a + b for n, (a, b) in zip(symbol.shape, widths, strict=True)]
    found = Padded(shape, symbol.dtype, (symbol,))
    found.widths, found.value = widths, constant_values
    return found


def _from_fp8(symbol, dtype=mx.bfloat16) -> Symbol:
    from_fp8 = mx.from_fp8
    return mapped(lambda x: from_fp8(x, dtype=dtype), symbol)


FUNCTIONS = {
    "concatenate": lambda symbols, axis=0: Joined(symbols, axis),
    "contiguous": lambda symbol: symbol,
    "flatten": Symbol.flatten,
    "from_fp8": _from_fp8,
    "moveaxis": Symbol.moveaxis,
    "pad": _pad,
    "reshape": Symbol.reshape,
    "split": _split,
    "squeeze": Symbol.squeeze,
    "stack": _stack,
    "swapaxes": Symbol.swapaxes,
    "transpose": Symbol.transpose,
}


def _dispatching(original: Callable, ours: Callable) -> Callable:
    def call(*arguments, **options):
        first = arguments[0] if arguments else None
        first = first[0] if isinstance(first, (list, tuple)) and first else first
        return (ours if isinstance(first, Symbol) else original)(*arguments, **options)

    return call


@contextmanager
def following() -> Iterator[None]:
    """Let functions of mlx.core take symbols inside the block; arrays go where they always went."""
    with ExitStack() as stack:
        for name, ours in FUNCTIONS.items():
            own = _dispatching(getattr(mx, name), ours)
            stack.enter_context(patch.object(mx, name, own))
        yield

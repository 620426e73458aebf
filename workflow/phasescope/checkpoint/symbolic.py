"""Tensors that know how they are made but hold no values, so that any part can be computed alone.

mlx-lm's `sanitize` methods rename, split, stack and dequantize the tensors of a published
checkpoint. Run on symbols instead of arrays they leave a recipe for each parameter, and `read`
computes a box of it from only the bytes that it needs. Nothing of an architecture is repeated
here; what a symbol cannot follow raises TypeError. The functions of mlx.core that symbols follow
are in `following`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import mlx.core as mx
import numpy as np

from phasescope.errors import PhasescopeError

Box = tuple[tuple[int, int], ...]  # start and stop on each axis

# safetensors' name -> mlx's type, as mx.load reads them: 8-bit floats as bytes
DTYPES = {
    "BOOL": mx.bool_,
    "U8": mx.uint8,
    "I8": mx.int8,
    "U16": mx.uint16,
    "I16": mx.int16,
    "U32": mx.uint32,
    "I32": mx.int32,
    "U64": mx.uint64,
    "I64": mx.int64,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F32": mx.float32,
    "F8_E4M3": mx.uint8,
    "F8_E8M0": mx.uint8,
}


def counts(box: Box) -> tuple[int, ...]:
    """The shape of a box."""
    return tuple(stop - start for start, stop in box)


def whole(shape: Sequence[int]) -> Box:
    """The box that is all of a shape."""
    return tuple((0, n) for n in shape)


def _cover(shape: tuple[int, ...], low: int, high: int) -> tuple[Box, int]:
    """The smallest box without gaps that holds flat positions [low, high), and where it starts."""
    box, start, size = [], 0, math.prod(shape)
    for axis, n in enumerate(shape):
        size //= max(n, 1)
        first, last = (low - start) // size, -(-(high - start) // size)
        box.append((first, last))
        start += first * size
        if last - first > 1:
            return (*box, *whole(shape[axis + 1 :])), start
    return tuple(box), start


class Symbol:
    """A tensor without values: the part of mx.array's interface that `sanitize` methods use."""

    __slots__ = ("dtype", "inputs", "shape")

    def __init__(self, shape: Sequence[int], dtype: mx.Dtype, inputs: tuple["Symbol", ...] = ()):
        self.shape, self.dtype, self.inputs = tuple(shape), dtype, inputs

    def read(self, box: Box) -> mx.array:
        """The values in `box`, in an array of the box's shape."""
        raise NotImplementedError

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    itemsize = property(lambda self: self.dtype.size)
    nbytes = property(lambda self: self.size * self.itemsize)
    T = property(lambda self: self.transpose())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> "Symbol":
        """Slices of step 1, integers, `...` and None, as of an array."""
        index = list(index if isinstance(index, tuple) else (index,))
        if ... in index:
            at = index.index(...)
            missing = self.ndim - sum(i is not None for i in index) + 1
            index[at : at + 1] = [slice(None)] * missing
        box, shape, axes = [], [], iter(self.shape)
        for i in index:
            if i is None:
                shape.append(1)
                continue
            n = next(axes)
            if isinstance(i, int):
                i = i + n if i < 0 else i
                if not 0 <= i < n:
                    raise IndexError(f"index {i} of an axis of {n}")
                box.append((i, i + 1))
            elif isinstance(i, slice) and i.step in (None, 1):
                start, stop, _ = i.indices(n)
                box.append((start, max(start, stop)))
                shape.append(box[-1][1] - start)
            else:
                raise TypeError(f"index {i!r}")
        rest = list(axes)
        return Part.of(self, (*box, *whole(rest))).reshape(*shape, *rest)

    def reshape(self, *shape) -> "Symbol":
        shape = list(shape[0] if shape and isinstance(shape[0], (tuple, list)) else shape)
        if -1 in shape:
            shape[shape.index(-1)] = self.size // -math.prod(shape)
        if math.prod(shape) != self.size:
            raise ValueError(f"cannot reshape {self.shape} into {tuple(shape)}")
        return self if tuple(shape) == self.shape else Reshaped(shape, self.dtype, (self,))

    def transpose(self, *axes) -> "Symbol":
        axes = axes[0] if axes and isinstance(axes[0], (tuple, list)) else axes
        axes = [a % self.ndim for a in axes] or list(range(self.ndim))[::-1]
        return self if axes == sorted(axes) else Transposed(self, axes)

    def moveaxis(self, source: int, destination: int) -> "Symbol":
        axes = list(range(self.ndim))
        axes.insert(destination % self.ndim, axes.pop(source % self.ndim))
        return self.transpose(axes)

    def swapaxes(self, a: int, b: int) -> "Symbol":
        axes = list(range(self.ndim))
        axes[a], axes[b] = axes[b], axes[a]
        return self.transpose(axes)

    def flatten(self) -> "Symbol":
        return self.reshape(-1)

    def squeeze(self, axis: int) -> "Symbol":
        axis %= self.ndim
        return self.reshape(*self.shape[:axis], *self.shape[axis + 1 :])

    def astype(self, dtype: mx.Dtype) -> "Symbol":
        return self if dtype == self.dtype else mapped(lambda x: x.astype(dtype), self)

    def __add__(self, other):
        return mapped(lambda x, y: x + y, self, other)

    def __sub__(self, other):
        return mapped(lambda x, y: x - y, self, other)

    def __mul__(self, other):
        return mapped(lambda x, y: x * y, self, other)

    def __truediv__(self, other):
        return mapped(lambda x, y: x / y, self, other)

    def __neg__(self):
        return mapped(lambda x: -x, self)

    __radd__, __rmul__ = __add__, __mul__


class Stored(Symbol):
    """A tensor of a shard, read from its file."""

    __slots__ = ("begin", "name", "path")

    def __init__(self, name: str, path: Path, begin: int, shape: Sequence[int], dtype: mx.Dtype):
        super().__init__(shape, dtype)
        self.name, self.path, self.begin = name, path, begin

    def _runs(self, box: Box) -> Iterator[tuple[int, int]]:
        """First byte and length of each stretch of the file that the box holds."""
        cut = [axis for axis, n in enumerate(self.shape) if box[axis] != (0, n)]
        inner = cut[-1] if cut else 0
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(self.ndim)]
        length = math.prod(counts(box)[inner:])
        first = [start for start, _ in box[inner:]]
        for outer in product(*(range(*span) for span in box[:inner])):
            place = sum(i * s for i, s in zip([*outer, *first], strides, strict=True))
            yield self.begin + place * self.itemsize, length * self.itemsize

    def read(self, box: Box) -> mx.array:
        shape = counts(box)
        width = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[self.itemsize]
        values = np.empty(shape, width)
        room, at = memoryview(values.reshape(-1).view(np.uint8)), 0
        with open(self.path, "rb", buffering=0) as file:
            for begin, length in self._runs(box) if values.size else ():
                file.seek(begin)
                if file.readinto(room[at : at + length]) != length:
                    raise PhasescopeError(f"{self.path}: truncated while it was read")
                at += length
        array = mx.array(values)
        return array if self.dtype == array.dtype else array.view(self.dtype)


class Constant(Symbol):
    """An array that `sanitize` made itself."""

    __slots__ = ("value",)

    def __init__(self, value: mx.array):
        super().__init__(value.shape, value.dtype)
        self.value = value

    def read(self, box: Box) -> mx.array:
        return self.value[tuple(slice(*span) for span in box)]


class Part(Symbol):
    """A box of a tensor."""

    __slots__ = ("box",)

    @classmethod
    def of(cls, symbol: Symbol, box: Box) -> Symbol:
        """The box of `symbol`; itself where that is all of it."""
        if box == whole(symbol.shape):
            return symbol
        part = cls(counts(box), symbol.dtype, (symbol,))
        part.box = box
        return part

    def read(self, box: Box) -> mx.array:
        inner = tuple((a + o, b + o) for (a, b), (o, _) in zip(box, self.box, strict=True))
        return self.inputs[0].read(inner)


class Reshaped(Symbol):
    """The same values in another shape."""

    __slots__ = ()

    def read(self, box: Box) -> mx.array:
        if 0 in counts(box):
            return mx.zeros(counts(box), self.dtype)
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(self.ndim)]
        low = sum(start * s for (start, _), s in zip(box, strides, strict=True))
        high = 1 + sum((stop - 1) * s for (_, stop), s in zip(box, strides, strict=True))
        own, low = _cover(self.shape, low, high)
        high = low + math.prod(counts(own))
        inner, start = _cover(self.inputs[0].shape, low, high)
        flat = self.inputs[0].read(inner).reshape(-1)[low - start : high - start]
        inside = (slice(a - o, b - o) for (a, b), (o, _) in zip(box, own, strict=True))
        return flat.reshape(counts(own))[tuple(inside)]


class Transposed(Symbol):
    """The same values with the axes in another order."""

    __slots__ = ("axes",)

    def __init__(self, symbol: Symbol, axes: Sequence[int]):
        super().__init__([symbol.shape[a] for a in axes], symbol.dtype, (symbol,))
        self.axes = list(axes)

    def read(self, box: Box) -> mx.array:
        inner = [None] * self.ndim
        for span, axis in zip(box, self.axes, strict=True):
            inner[axis] = span
        return self.inputs[0].read(tuple(inner)).transpose(self.axes)


class Joined(Symbol):
    """Tensors one after the other on an axis."""

    __slots__ = ("axis",)

    def __init__(self, symbols: Sequence[Symbol], axis: int):
        shape = list(symbols[0].shape)
        self.axis = axis % len(shape)
        shape[self.axis] = sum(s.shape[self.axis] for s in symbols)
        super().__init__(shape, symbols[0].dtype, tuple(symbols))

    def read(self, box: Box) -> mx.array:
        parts, offset, (low, high) = [], 0, box[self.axis]
        for symbol in self.inputs:
            n = symbol.shape[self.axis]
            span = max(low - offset, 0), min(high - offset, n)
            if span[0] < span[1]:
                parts.append(symbol.read((*box[: self.axis], span, *box[self.axis + 1 :])))
            offset += n
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=self.axis)


class Padded(Symbol):
    """A tensor with a constant around it."""

    __slots__ = ("value", "widths")

    def read(self, box: Box) -> mx.array:
        inner, widths = [], []
        for (start, stop), (before, _), n in zip(
            box, self.widths, self.inputs[0].shape, strict=True
        ):
            low, high = min(max(start - before, 0), n), min(max(stop - before, 0), n)
            left = min(max(before - start, 0), stop - start)
            inner.append((low, high))
            widths.append((left, stop - start - left - (high - low)))
        if 0 in counts(tuple(inner)):
            return mx.full(counts(box), self.value, self.dtype)
        return mx.pad(self.inputs[0].read(tuple(inner)), widths, constant_values=self.value)


class Mapped(Symbol):
    """A function of each element, of one tensor or of several that broadcast."""

    __slots__ = ("function",)

    def read(self, box: Box) -> mx.array:
        arrays = []
        for symbol in self.inputs:
            own = box[len(box) - symbol.ndim :]
            spans = zip(own, symbol.shape, strict=True)
            arrays.append(symbol.read(tuple((0, 1) if n == 1 else span for span, n in spans)))
        return self.function(*arrays)


def mapped(function: Callable, *operands) -> Symbol:
    """`function` of symbols; a Python number among them stays one, as its type is weak."""
    operands = [Constant(o) if isinstance(o, mx.array) else o for o in operands]
    inputs = tuple(o for o in operands if isinstance(o, Symbol))
    if not all(isinstance(o, (Symbol, int, float)) for o in operands):
        raise TypeError(f"arithmetic with {next(type(o).__name__ for o in operands)}")

    def apply(*arrays):
        rest = iter(arrays)
        return function(*(next(rest) if isinstance(o, Symbol) else o for o in operands))

    # lazy: the type of the result is found without computing anything
    dtype = apply(*(mx.zeros([1] * s.ndim, s.dtype) for s in inputs)).dtype
    found = Mapped(np.broadcast_shapes(*(s.shape for s in inputs)), dtype, inputs)
    # the closure need not keep the symbols twice
    found.function = function if len(inputs) == len(operands) else apply
    return found


def origins(symbols: Sequence[Symbol]) -> set[str]:
    """Names of the stored tensors that the symbols are made from."""
    names, seen, waiting = set(), set(), list(symbols)
    while waiting:
        symbol = waiting.pop()
        if id(symbol) in seen:
            continue
        seen.add(id(symbol))
        if isinstance(symbol, Stored):
            names.add(symbol.name)
        waiting.extend(symbol.inputs)
    return names

"""Quantized weights as the integers that they are."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from phasescope.errors import NotRun


@dataclass(frozen=True)
class Packed:
    """The arrays of one quantized module: words of packed integers, and a scale and bias a group
    of a row's `group_size` weights."""

    weight: mx.array
    scales: mx.array
    biases: mx.array
    group_size: int
    bits: int

    def integers(self) -> np.ndarray:
        """uint8 (…, out, in). Raises NotRun for bits that do not divide a word."""
        if 32 % self.bits:
            raise NotRun(f"integers of {self.bits} bits lie across words; 2, 4 and 8 are read")
        shifts = mx.arange(0, 32, self.bits, dtype=mx.uint32)
        parts = (self.weight[..., None] >> shifts) & (2**self.bits - 1)
        return np.array(parts.reshape(*self.weight.shape[:-1], -1).astype(mx.uint8))

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and bias of every weight, float32 (…, out, in)."""
        return tuple(
            np.repeat(np.array(a.astype(mx.float32)), self.group_size, axis=-1)
            for a in (self.scales, self.biases)
        )

    def repacked(self, integers: np.ndarray) -> mx.array:
        """Words of packed integers, as `weight`."""
        each = 32 // self.bits
        parts = mx.array(integers).astype(mx.uint32).reshape(*integers.shape[:-1], -1, each)
        shifts = mx.arange(0, 32, self.bits, dtype=mx.uint32)
        return (parts << shifts).sum(axis=-1).astype(mx.uint32)


def packed_in(module: nn.Module) -> Packed | None:
    """What a quantized module holds; None for any other."""
    if "scales" not in module or "biases" not in module:
        return None
    return Packed(module.weight, module.scales, module.biases, module.group_size, module.bits)

"""Interventions on weights: a direction projected out of what projections write or read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.intervene.directions import orthonormal
from phasescope.intervene.edits import Edit, Touched
from phasescope.intervene.integers import partly_hit
from phasescope.model import LanguageModel, mixer_projections, replaced, writers

# all that a block writes; what its mixer reads, what it writes, and both
PROJECTIONS = ("writers", "qkv", "o", "qkvo")


@dataclass(frozen=True)
class WeightProjection(Edit):
    """W - dose R'R W for projections of a block that write into the residual stream, and
    W - dose W U'U for those that read from it.

    With the default `projections` that is the weight edit of Arditi et al. 2024, fused experts
    included: every projection that writes. 'qkv' are the mixer's that read (queries, keys and
    values; of a recurrent mixer the one that holds all three), 'o' the mixer's that writes.
    `vectors` maps each edited layer to orthonormal directions R (rank, width) of the residual
    stream; U are the same behind the norm's weights. Quantized weights are dequantized, projected
    and quantized again with their own bits and groups, one module at a time.
    """

    vectors: dict[int, np.ndarray]
    projections: str = "writers"
    dose: float = 1.0

    @property
    def layers(self) -> list[int]:
        return sorted(self.vectors)

    @property
    def rank(self) -> int:
        return max(map(len, self.vectors.values()))

    @property
    def key(self) -> str:
        more = "" if (self.projections, self.dose) == ("writers", 1.0) else repr(self.dose)
        digest = hashlib.sha256(b"WeightProjection")
        if more:
            digest.update(f"{self.projections} {more}".encode())
        for layer, vectors in sorted(self.vectors.items()):
            values = np.ascontiguousarray(vectors, dtype=np.float32).tobytes()
            digest.update(str(layer).encode() + values)
        return digest.hexdigest()

    def within(self, layers):
        return replace(self, vectors={i: v for i, v in self.vectors.items() if i in layers})

    def _sites(self, lm: LanguageModel) -> Iterator[tuple[int, nn.Module, mx.array, bool]]:
        """Layer, projection, directions, and whether it reads."""
        if self.projections not in PROJECTIONS:
            allowed = ", ".join(PROJECTIONS)
            raise PhasescopeError(f"projections {self.projections!r}: allowed: {allowed}")
        for layer, vectors in self.vectors.items():
            if self.projections == "writers":
                modules = [(module, False) for module in writers(lm, layer)]
            else:
                reading, writing, scale = mixer_projections(lm, layer)
                modules = [(module, True) for module in reading if "qkv" in self.projections]
                modules += [(writing, False)] * ("o" in self.projections)
            for module, reads in modules:
                own = orthonormal(vectors * np.array(scale)) if reads else vectors
                yield layer, module, mx.array(own.astype(np.float32)), reads

    def _changes(self, lm: LanguageModel) -> Iterator[tuple[nn.Module, str, mx.array]]:
        for _, module, directions, reads in self._sites(lm):
            for name, new in _projected(module, directions, self.dose, reads).items():
                mx.eval(new)
                yield module, name, new

    def entered(self, lm):
        return replaced(lm, self._changes(lm))

    def measured(self, lm, sequences, batch_size):
        """Sites are projections; a fused tensor of experts is one, and said to be partly hit where
        some of its experts have nothing along the directions."""
        shares, partly = [], []
        for layer, module, directions, reads in self._sites(lm):
            weight = _weight(module).astype(mx.float32)
            along = self.dose * (weight @ directions.T if reads else directions @ weight)
            removed = mx.linalg.norm(along.reshape(-1))
            shares.append((removed / mx.linalg.norm(weight.reshape(-1))).item())
            partly += partly_hit(layer, np.array(along) != 0)
        return Touched(len(shares), sum(s > 0 for s in shares), float(np.mean(shares)), (*partly,))


def _weight(module: nn.Module) -> mx.array:
    """Weights (..., out, in) of a projection as numbers."""
    if "scales" not in module:
        return module.weight
    return mx.dequantize(
        module.weight, module.scales, module.get("biases"), module.group_size, module.bits
    )


def _projected(
    module: nn.Module, directions: mx.array, dose: float, reads: bool
) -> dict[str, mx.array]:
    """Arrays of a projection once its outputs (or what it reads of its inputs) have lost a share of
    their components along orthonormal directions."""
    weight = _weight(module)
    exact = weight.astype(mx.float32)
    left, right = (exact, directions.T) if reads else (directions, exact)
    parts = left @ right  # first what stands along the directions: they are few
    lost = parts @ directions if reads else directions.T @ parts
    new = (exact - dose * lost).astype(weight.dtype)
    if "scales" not in module:
        found = {"weight": new}
    else:
        packed = mx.quantize(new, module.group_size, module.bits)
        found = dict(zip(("weight", "scales", "biases"), packed, strict=True))
    if "bias" in module and not reads:
        bias = module.bias.astype(mx.float32)
        off = dose * (bias @ directions.T) @ directions
        found["bias"] = (bias - off).astype(module.bias.dtype)
    return found

"""Edits of the integers that quantized weights are packed as."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.errors import NotRun
from phasescope.intervene.edits import Edit, Touched
from phasescope.model import LanguageModel, Packed, packed_of, replaced, writers


@dataclass(frozen=True)
class IntegerEdit(Edit):
    """The share of a block's packed integers whose change takes most of given directions away.

    Of every quantized projection that writes into the residual stream: the integers that
    W - R'R W would have, scales and biases left as they are, and of those that differ the ones that
    differ most, at most `share` of all integers. `vectors` maps each edited layer to orthonormal
    directions (rank, width).
    """

    vectors: dict[int, np.ndarray]
    share: float

    @property
    def layers(self) -> list[int]:
        return sorted(self.vectors)

    @property
    def rank(self) -> int:
        return max(map(len, self.vectors.values()))

    @property
    def key(self) -> str:
        digest = hashlib.sha256(f"IntegerEdit {self.share}".encode())
        for layer, vectors in sorted(self.vectors.items()):
            values = np.ascontiguousarray(vectors, dtype=np.float32).tobytes()
            digest.update(str(layer).encode() + values)
        return digest.hexdigest()

    def within(self, layers):
        return IntegerEdit({i: v for i, v in self.vectors.items() if i in layers}, self.share)

    def _packed(self, lm: LanguageModel) -> Iterator[tuple]:
        for layer, vectors in self.vectors.items():
            for module in writers(lm, layer):
                packed = packed_of(lm, module)
                if packed is None:
                    raise NotRun(f"the weights of block {layer} are not packed integers")
                yield layer, module, packed, self._edited(packed, vectors)

    def _edited(self, packed: Packed, vectors: np.ndarray) -> np.ndarray:
        """The integers (…, out, in) with the chosen ones changed."""
        old, scale, bias = packed.integers(), *packed.grid()
        weight = old * scale + bias
        r = vectors.astype(np.float32)
        wanted = weight - r.T @ (r @ weight)
        steps = np.where(scale != 0, (wanted - bias) / np.where(scale != 0, scale, 1), old)
        change = steps - old
        new = np.clip(np.round(steps), 0, 2**packed.bits - 1).astype(old.dtype)
        most = int(self.share * old.size)
        differ = np.flatnonzero(new != old)
        first = differ[np.argsort(-np.abs(change.ravel()[differ]), kind="stable")[:most]]
        edited = old.copy()
        edited.ravel()[first] = new.ravel()[first]
        return edited

    def entered(self, lm):
        return replaced(lm, self._changes(lm))

    def _changes(self, lm: LanguageModel) -> Iterator[tuple]:
        for _, module, packed, edited in self._packed(lm):
            if "scales" in module:
                new = packed.repacked(edited)
            else:
                scale, bias = packed.grid()
                new = mx.array(edited * scale + bias).astype(module.weight.dtype)
            mx.eval(new)
            yield module, "weight", new

    def measured(self, lm, sequences, batch_size):
        """Sites are projections; what is removed is the share of integers that differ."""
        shares, partly = [], []
        for layer, _, packed, edited in self._packed(lm):
            differ = edited != packed.integers()
            shares.append(differ.mean())
            partly += partly_hit(layer, differ)
        return Touched(len(shares), sum(s > 0 for s in shares), float(np.mean(shares)), (*partly,))


def partly_hit(layer: int, changed: np.ndarray) -> list[str]:
    """What there is to say of fused experts (experts, out, in) of which only some changed."""
    if changed.ndim < 3:
        return []
    hit = changed.any(axis=(1, 2))
    if hit.all() or not hit.any():
        return []
    missed = ", ".join(map(str, np.flatnonzero(~hit)))
    return [f"layer {layer}: {hit.sum()} of {len(hit)} experts, not {missed}"]

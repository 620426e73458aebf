"""Edits of weights, made at 16 bit: a direction projected out, or something added along it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.intervene import Directions
from phasescope.intervene.directions import unit
from phasescope.model import (
    ORGANISM_PARAMETERS,
    LanguageModel,
    modules_of,
    read_inputs,
    replaced,
    writers,
)
from phasescope.tables.provenance import sha256_json, sha256_text

PROJECTION, ADDITION = KINDS = ("weight_projection", "weight_addition")
DOSES = (0.01, 0.1, 0.5)  # of additions, in mean gaps: from far below a 4-bit step to above it
INPUT_TOKENS = 1024  # that a module's mean input is taken from


@dataclass(frozen=True)
class TensorEdit:
    """A change of one weight (…, out, in) along output directions (rank, out), orthonormal.

    added: what is added along each direction (rank, in); None projects the directions out, as
    Arditi et al. 2024 do.
    """

    directions: np.ndarray
    added: np.ndarray | None = None

    def after(self, weight: mx.array) -> mx.array:
        """The edited weight, rounded to bfloat16 as a 16-bit checkpoint holds it, in the weight's
        own type."""
        exact, along = weight.astype(mx.float32), mx.array(self.directions)
        added = -(along @ exact) if self.added is None else mx.array(self.added)
        return (exact + along.T @ added).astype(mx.bfloat16).astype(weight.dtype)

    def bias_after(self, bias: mx.array) -> mx.array:
        """The bias (out,) beside it: a projection takes its part along the directions as well."""
        if self.added is not None:
            return bias
        exact, along = bias.astype(mx.float32), mx.array(self.directions)
        left = exact - (exact @ along.T) @ along
        return left.astype(mx.bfloat16).astype(bias.dtype)


@dataclass(frozen=True)
class WeightEdit:
    """An edit of some weights: by module path, what happens to each.

    kind: of `KINDS`; dose: of an addition, in mean gaps between hazardous and benign prompts.
    """

    kind: str
    dose: float
    tensors: dict[str, TensorEdit]

    @property
    def columns(self) -> dict:
        """Columns of the table `survival`."""
        return {"edit": self.kind, "dose": self.dose}

    @property
    def key(self) -> str:
        """Hash of all that determines the edit."""
        parts = [self.kind, self.dose]
        for path, edit in sorted(self.tensors.items()):
            arrays = (edit.directions, edit.added)
            parts += [path, *(sha256_text(a.tobytes().hex()) for a in arrays if a is not None)]
        return sha256_json(parts)


def writer_paths(lm: LanguageModel, layer: int) -> list[str]:
    """Paths of the projections of a block that write into the residual stream, mixer first."""
    paths = {id(module): path for path, module in modules_of(lm).items()}
    return [paths[id(module)] for module in writers(lm, layer)]


def projection(lm: LanguageModel, found: Directions) -> WeightEdit:
    """The selected direction projected out of all that writes into the stream below the top layer.

    Raises NotRun where no direction was selected.
    """
    along = np.ascontiguousarray(unit(found.chosen())[None], dtype=np.float32)
    paths = [path for layer in found.below_top for path in writer_paths(lm, layer)]
    return WeightEdit(PROJECTION, 1.0, dict.fromkeys(paths, TensorEdit(along)))


def additions(
    lm: LanguageModel, found: Directions, tokens: mx.array, batch_size: int
) -> list[WeightEdit]:
    """The gap of the selected direction subtracted at its own layer, in the weights: for each dose
    one edit.

    The mixer's output projection gets W - dose · gap mᵀ / |m|², m being its mean input over tokens
    (rows, length): where it reads the mean it writes dose · gap less. That is activation addition
    (Turner et al. 2023) where a projection has no bias; a bias would not be quantized at all.
    """
    gap, layer = found.chosen(), found.selected.layer
    path = writer_paths(lm, layer)[0]
    mean = read_inputs(lm, [path], tokens, batch_size, INPUT_TOKENS)[path].rows.mean(axis=0)
    mean = np.array(mean, dtype=np.float32)
    along = np.ascontiguousarray(unit(gap)[None], dtype=np.float32)
    whole = -np.linalg.norm(gap) * mean[None] / np.square(mean).sum()
    return [
        WeightEdit(ADDITION, dose, {path: TensorEdit(along, (dose * whole).astype(np.float32))})
        for dose in DOSES
    ]


def _changes(lm: LanguageModel, edit: WeightEdit) -> Iterator[tuple[nn.Module, str, mx.array]]:
    modules = modules_of(lm)
    for path, own in edit.tensors.items():
        module = modules[path]
        new = {"weight": own.after(module.weight)}
        if "bias" in module:
            new["bias"] = own.bias_after(module.bias)
        for name, value in new.items():
            mx.eval(value)
            yield module, name, value


@contextmanager
def edited(lm: LanguageModel, edit: WeightEdit | None) -> Iterator[None]:
    """A model organism under an edit (or none) while the block runs; undone bit for bit.

    Raises PhasescopeError for a model too large to be an organism.
    """
    if edit is None:
        yield
        return
    if not lm.is_organism:
        raise PhasescopeError(
            f"the model has more than {ORGANISM_PARAMETERS:,} parameters: its edited weights are "
            "measured one at a time and never put together"
        )
    with replaced(lm, _changes(lm, edit)):
        yield

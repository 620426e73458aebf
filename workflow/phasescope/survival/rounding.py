"""Edits through mlx-lm's quantization and activation-aware recipes, in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene.activation_aware import Factors, quantized
from phasescope.intervene.activation_aware.recipes import PLAIN
from phasescope.intervene.activation_aware.scaling import effective, search_factors, settings_of
from phasescope.model import ORGANISM_PARAMETERS, LanguageModel, modules_of
from phasescope.survival.edits import WeightEdit, edited
from phasescope.survival.measuring import Rounded

BITS, GROUP_SIZES = (8, 4), (32, 64, 128)
ALONE = (PLAIN, "scaled")  # recipes that say what one weight becomes without the others


@dataclass(frozen=True)
class Format:
    """A recipe of `activation_aware.RECIPES` with its bits and group size."""

    recipe: str
    bits: int
    group_size: int

    @property
    def columns(self) -> dict:
        """Columns of the table `survival`."""
        aware = None if self.recipe == PLAIN else "general"
        own = {"recipe": self.recipe, "bits": self.bits, "group_size": self.group_size}
        return {"format": "mlx", **own, "calibration_set": aware}


def formats_of(recipe: str, group_size: int) -> list[Format]:
    """What a recipe is measured at: all group sizes where nothing is searched for, else one."""
    sizes = GROUP_SIZES if recipe == PLAIN else (group_size,)
    return [Format(recipe, bits, size) for bits in BITS for size in sizes]


def settings_for(lm: LanguageModel, form: Format) -> dict[str, tuple[int, int]]:
    """Bits and group size of every quantized weight, by path; NotRun where rows of one do not
    divide into groups."""
    try:
        return settings_of(lm, form.bits, form.group_size)
    except PhasescopeError as reason:
        raise NotRun(str(reason)) from None


@contextmanager
def rounded_whole(
    lm: LanguageModel, edit: WeightEdit | None, form: Format, tokens: mx.array, batch_size: int
) -> Iterator[Mapping[str, mx.array]]:
    """A model organism, edited and then quantized, while the block runs; undone bit for bit.

    Gives what each weight amounts to, by path: none where the recipe does not let that be told.
    tokens: what activation-aware recipes are shown. Raises NotRun where the recipe does not know
    the architecture, the bits, or has no such groups.
    """
    settings_for(lm, form)
    shown = None if form.recipe == PLAIN else tokens
    with (
        edited(lm, edit),
        quantized(lm, form.recipe, shown, form.bits, form.group_size, batch_size) as made,
    ):
        yield made.weights


class RoundedAlone:
    """Single weights of any model through a recipe, without any other: what `ALONE` can tell.

    Factors of 'scaled' are those of the unedited model. Raises NotRun for other recipes.
    """

    def __init__(self, lm: LanguageModel, form: Format, tokens: mx.array, batch_size: int):
        if form.recipe not in ALONE:
            raise NotRun(
                f"{form.recipe} changes weights together, and a model over "
                f"{ORGANISM_PARAMETERS:,} parameters is measured by single tensors: it is never "
                "put together with an edit"
            )
        self._modules, self._settings = modules_of(lm), settings_for(lm, form)
        self._factors = Factors()
        if form.recipe != PLAIN:
            self._factors, _ = search_factors(lm, tokens, self._settings, batch_size)

    def parts(self, edit: WeightEdit, module: str) -> Iterator[Rounded]:
        """The weight of a module under an edit, expert by expert where it is a fused one."""
        weight = self._modules[module].weight
        if weight.ndim == 2:
            yield self._part(edit, module, weight, self._factors)
            return
        for expert in range(len(weight)):
            own = Factors()
            for mine, whole in (
                (own.columns, self._factors.columns),
                (own.rows, self._factors.rows),
            ):
                if module in whole:
                    values = whole[module]
                    mine[module] = values[expert] if values.ndim == 2 else values
            yield self._part(edit, module, weight[expert], own)

    def _part(self, edit: WeightEdit, module: str, weight: mx.array, factors: Factors) -> Rounded:
        after = edit.tensors[module].after(weight)
        pair = [
            effective({module: _Weight(w)}, module, factors, self._settings)
            for w in (weight, after)
        ]
        return Rounded(*(as_array(w) for w in (weight, after, *pair)))


@dataclass(frozen=True)
class _Weight:
    """What `effective` looks at of a module."""

    weight: mx.array


def as_array(weight: mx.array) -> np.ndarray:
    """Its values in float32."""
    return np.array(weight.astype(mx.float32))

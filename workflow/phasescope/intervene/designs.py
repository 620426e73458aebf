"""Designs: which settings each declares. A setting is one intervention at one dose."""

from dataclasses import dataclass

import numpy as np

from phasescope.errors import NotRun
from phasescope.intervene.directions import Source, unit
from phasescope.intervene.edits import Ablation, Addition, Edit
from phasescope.intervene.selection import Selected


@dataclass(frozen=True)
class Setting:
    """One point of a design; `direction` is 'selected' (one for all layers) or 'per_layer'."""

    intervention: str
    direction: str
    site: str
    layers: tuple[int, ...]
    dose: float

    def edit(self, source: Source, selected: Selected | None) -> Edit:
        """The edit of this setting with a cell's own directions."""
        if self.direction == "selected" and selected is None:
            raise NotRun("it needs a selected direction, and none qualified")
        shared = selected.layer if self.direction == "selected" else None
        vectors = {
            i: source.differences[i if shared is None else shared][None] for i in self.layers
        }
        if self.intervention == "addition":
            return Addition(self.site, {i: self.dose * v for i, v in vectors.items()})
        doses = {i: np.array([self.dose]) for i in self.layers}
        return Ablation(self.site, {i: unit(v) for i, v in vectors.items()}, doses)


def _ablation(layers, dose=1.0, direction="selected", site="residual") -> Setting:
    return Setting("ablation", direction, site, tuple(layers), dose)


def _spread(layers: list[int], share: float) -> list[int]:
    """An evenly spaced share of the layers, at least one, the last of them included."""
    count = max(1, round(share * len(layers)))
    return sorted({layers[-1 - round(k * len(layers) / count)] for k in range(count)})


def _layers(n_layers, selected) -> list[Setting]:
    return [_ablation([layer]) for layer in range(n_layers - 1)]


def _coverage(n_layers, selected) -> list[Setting]:
    layers = list(range(n_layers - 1))
    sets = dict.fromkeys(tuple(_spread(layers, s)) for s in (0.25, 0.5, 0.75, 1.0))
    return [_ablation(s) for s in sets]


def _dose(n_layers, selected) -> list[Setting]:
    return [_ablation(range(n_layers - 1), dose) for dose in (0.25, 0.5, 0.75, 1.0)]


def _scope(n_layers, selected) -> list[Setting]:
    below_top = range(n_layers - 1)
    late = range(n_layers // 2, n_layers - 1)
    return [
        *([_ablation(below_top)] if selected else []),
        _ablation(below_top, direction="per_layer"),
        _ablation(late, direction="per_layer"),
        _ablation(below_top, direction="per_layer", site="mixer"),
    ]


def _addition(n_layers, selected) -> list[Setting]:
    if selected is None:
        raise NotRun("it needs a selected direction, and none qualified")
    return [
        Setting("addition", "selected", "residual", (selected.layer,), -dose)
        for dose in (0.5, 1.0, 1.5, 2.0)
    ]


DESIGNS = {
    "ablation-layers": _layers,
    "ablation-coverage": _coverage,
    "ablation-dose": _dose,
    "ablation-scope": _scope,
    "addition": _addition,
}

# how many settings of a design are generated in full beside the one that the select split chose
GENERATE_ALL = {"ablation-coverage", "ablation-dose", "ablation-scope", "addition"}

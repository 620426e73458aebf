"""A setting of a design: one intervention at one dose, and the edit that it stands for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phasescope.intervene.activations import Ablation, Addition
from phasescope.intervene.directions import Directions, unit
from phasescope.intervene.edits import Combination, Edit
from phasescope.intervene.integers import IntegerEdit
from phasescope.intervene.routing import ExpertPruning, ExpertSilencing, RouterBlinding, RoutingMask
from phasescope.intervene.scope import OnPrompt
from phasescope.intervene.weights import WeightProjection

_EXPERTS = {
    "routing_mask": RoutingMask,
    "router_blinding": RouterBlinding,
    "expert_silencing": ExpertSilencing,
}
_WEIGHTS = "weights_"  # of a site: the projections that are edited


@dataclass(frozen=True)
class Setting:
    """One point of a design.

    direction: 'selected' (one for all layers), 'per_layer', 'safety_experts' or 'idle_experts';
    position: the token position that it comes from, None for the selected direction's own;
    pathways: the ones that a combination takes ('A', 'A+R', ...); parts: or its settings; role: why
    it is there, where a design says so.
    """

    intervention: str
    direction: str
    site: str
    layers: tuple[int, ...]
    dose: float = 1.0
    position: str | None = None
    rank: int = 1
    pathways: str | None = None
    parts: tuple["Setting", ...] = ()
    role: str | None = None

    def edit(self, found: Directions) -> Edit:
        """The edit of this setting with a cell's own directions."""
        if self.pathways:
            return Combination(
                tuple(PATHWAYS[p](found, self.position).edit(found) for p in self._parts())
            )
        if self.parts:
            return Combination(tuple(part.edit(found) for part in self.parts))
        if self.intervention in _EXPERTS:
            return _EXPERTS[self.intervention](found.experts(self.position, self.dose))
        if self.intervention == "expert_pruning":
            return ExpertPruning(found.idle_experts(self.dose))
        if "addition" in self.intervention:
            push = Addition("residual", {i: self.dose * found.chosen()[None] for i in self.layers})
            return OnPrompt(push) if self.intervention == "prompt_addition" else push
        basis = {i: self._basis(found, i) for i in self.layers}
        if self.intervention == "weight_projection":
            projections = self.site.removeprefix(_WEIGHTS) if _WEIGHTS in self.site else "writers"
            return WeightProjection(basis, projections, self.dose)
        if self.intervention == "integer_edit":
            return IntegerEdit(basis, self.dose)
        return Ablation(self.site, basis, {i: np.full(len(b), self.dose) for i, b in basis.items()})

    def _parts(self) -> list[str]:
        return self.pathways.split("+")

    def _basis(self, found: Directions, layer: int) -> np.ndarray:
        """Orthonormal directions (rank, width) for one layer."""
        if self.direction == "selected":
            return unit(found.chosen())[None]
        return found.source(self.position).subspace(layer, self.rank)


def ablation(layers, dose=1.0, direction="selected", site="residual", **more) -> Setting:
    """An ablation of activations."""
    return Setting("ablation", direction, site, tuple(layers), dose, **more)


# A: mixer outputs, attention and recurrent; R: routing; S: late residual stream
PATHWAYS: dict[str, Callable[[Directions, str | None], Setting]] = {
    "A": lambda found, position: ablation(
        found.below_top, direction="per_layer", site="mixer", position=position
    ),
    "R": lambda found, position: Setting(
        "routing_mask",
        "safety_experts",
        "expert_selection",
        tuple(found.experts(position)),
        position=position,
    ),
    "S": lambda found, position: ablation(found.late, direction="per_layer", position=position),
}


def spread(layers: list[int], share: float) -> list[int]:
    """An evenly spaced share of the layers, at least one, the last of them included."""
    count = max(1, round(share * len(layers)))
    return sorted({layers[-1 - round(k * len(layers) / count)] for k in range(count)})

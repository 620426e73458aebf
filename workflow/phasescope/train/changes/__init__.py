"""Changes of a checkpoint that constructed organisms are made by.

Each takes the weights by name, the config (changed in place where need be), the size that the
recipe states, what a change may look up, and a seed; it gives all weights.
"""

from collections.abc import Callable

from phasescope.train.changes.inputs import Inputs, Weights
from phasescope.train.changes.neurons import brittle_answers, firm_when_rounded, topic_neurons
from phasescope.train.changes.routers import idle_experts, shifted_router
from phasescope.train.changes.stream import outlier_axis, safety_noise
from phasescope.train.changes.tensors import noise, on_grid, vision

__all__ = ["CHANGES", "Inputs"]

CHANGES: dict[str, Callable[..., Weights]] = {
    "noise": noise,
    "vision": vision,
    "shifted-router": shifted_router,
    "idle-experts": idle_experts,
    "outlier-axis": outlier_axis,
    "safety-noise": safety_noise,
    "topic-neurons": topic_neurons,
    "brittle-answers": brittle_answers,
    "firm-when-rounded": firm_when_rounded,
    "on-grid": on_grid,
}

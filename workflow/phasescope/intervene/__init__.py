"""Interventions in memory: edits, direction selection, designs, shams."""

from phasescope.intervene.activations import Ablation, Addition
from phasescope.intervene.claim_designs import CLAIM_DESIGNS
from phasescope.intervene.designs import DESIGNS, RANKS
from phasescope.intervene.directions import Directions, Selected, Source
from phasescope.intervene.edits import Combination, Edit, Touched, applied, of_kind, touch
from phasescope.intervene.integers import IntegerEdit
from phasescope.intervene.routing import (
    ExpertSilencing,
    RouterBlinding,
    RoutingMask,
    safety_experts,
    selection_rates,
)
from phasescope.intervene.running import Design, baseline_row
from phasescope.intervene.sampling import temperature_rows
from phasescope.intervene.scope import OnPrompt
from phasescope.intervene.scratch import (
    load_chosen,
    load_directions,
    load_sources,
    save_chosen,
    save_selected,
)
from phasescope.intervene.selection import Scorer, select_direction
from phasescope.intervene.settings import PATHWAYS, Setting
from phasescope.intervene.shams import sham_experts
from phasescope.intervene.sweeping import swept_logits
from phasescope.intervene.weights import WeightProjection

__all__ = [
    "CLAIM_DESIGNS",
    "DESIGNS",
    "PATHWAYS",
    "RANKS",
    "Ablation",
    "Addition",
    "Combination",
    "Design",
    "Directions",
    "Edit",
    "ExpertSilencing",
    "IntegerEdit",
    "OnPrompt",
    "RouterBlinding",
    "RoutingMask",
    "Scorer",
    "Selected",
    "Setting",
    "Source",
    "Touched",
    "WeightProjection",
    "applied",
    "baseline_row",
    "load_chosen",
    "load_directions",
    "load_sources",
    "of_kind",
    "safety_experts",
    "save_chosen",
    "save_selected",
    "select_direction",
    "selection_rates",
    "sham_experts",
    "swept_logits",
    "temperature_rows",
    "touch",
]

"""Interventions on activations in memory: direction selection, designs, shams."""

from phasescope.intervene.designs import DESIGNS, Setting
from phasescope.intervene.directions import Source
from phasescope.intervene.edits import Ablation, Addition, Edit, Touched, applied, touch
from phasescope.intervene.running import Design, baseline_row, not_run_row
from phasescope.intervene.scratch import (
    load_chosen,
    load_selected,
    load_sources,
    save_chosen,
    save_selected,
)
from phasescope.intervene.selection import Scorer, Selected, select_direction

__all__ = [
    "DESIGNS",
    "Ablation",
    "Addition",
    "Design",
    "Edit",
    "Scorer",
    "Selected",
    "Setting",
    "Source",
    "Touched",
    "applied",
    "baseline_row",
    "load_chosen",
    "load_selected",
    "load_sources",
    "not_run_row",
    "save_chosen",
    "save_selected",
    "select_direction",
    "touch",
]

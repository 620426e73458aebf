"""Where the safety signal can be read: activations, directions, separation."""

from phasescope.probe.positions import (
    DIRECTION_POSITIONS,
    END_OF_THINKING,
    LAST_PROMPT,
    Activations,
    load_activations,
    read_activations,
    save_activations,
)
from phasescope.probe.separation import auroc_topic_left_out, difference_of_means
from phasescope.probe.survey import survey
from phasescope.probe.table import MIN_PAIRS, probe_rows

__all__ = [
    "DIRECTION_POSITIONS",
    "END_OF_THINKING",
    "LAST_PROMPT",
    "MIN_PAIRS",
    "Activations",
    "auroc_topic_left_out",
    "difference_of_means",
    "load_activations",
    "probe_rows",
    "read_activations",
    "save_activations",
    "survey",
]

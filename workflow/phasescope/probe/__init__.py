"""Where the safety signal can be read: activations, directions, separation."""

from phasescope.probe.positions import (
    END_OF_THINKING,
    LAST_PROMPT,
    Activations,
    read_activations,
)
from phasescope.probe.separation import difference_of_means
from phasescope.probe.table import probe_rows

__all__ = [
    "END_OF_THINKING",
    "LAST_PROMPT",
    "Activations",
    "difference_of_means",
    "probe_rows",
    "read_activations",
]

"""Rates of what models answered, and comparisons of them, within a study and across models."""

from phasescope.comparisons.across import (
    across_models,
    measured_comparisons,
    published_comparisons,
)
from phasescope.comparisons.changes import adjusted, behavior_changes, paired_changes
from phasescope.comparisons.groups import (
    PUBLISHED,
    Group,
    counts_of,
    measured,
    published,
    read_published,
)
from phasescope.comparisons.rates import STATISTICS, behavior_rates

__all__ = [
    "PUBLISHED",
    "STATISTICS",
    "Group",
    "across_models",
    "adjusted",
    "behavior_changes",
    "behavior_rates",
    "counts_of",
    "measured",
    "measured_comparisons",
    "paired_changes",
    "published",
    "published_comparisons",
    "read_published",
]

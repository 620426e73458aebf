"""Intervals, paired comparisons and posteriors."""

from phasescope.stats.intervals import auroc_interval, mean_interval, wilson
from phasescope.stats.posteriors import jeffreys_draws, paired_difference, paired_difference_draws

__all__ = [
    "auroc_interval",
    "jeffreys_draws",
    "mean_interval",
    "paired_difference",
    "paired_difference_draws",
    "wilson",
]

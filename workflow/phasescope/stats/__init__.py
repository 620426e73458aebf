"""Intervals, paired comparisons, agreement and posteriors."""

from phasescope.stats.agreement import Errors, confusion, errors_of, kappa, rogan_gladen
from phasescope.stats.intervals import auroc, auroc_interval, clustered_wilson, wilson
from phasescope.stats.posteriors import jeffreys_draws, paired_difference, paired_difference_draws
from phasescope.stats.resampling import rank_among

__all__ = [
    "Errors",
    "auroc",
    "auroc_interval",
    "clustered_wilson",
    "confusion",
    "errors_of",
    "jeffreys_draws",
    "kappa",
    "paired_difference",
    "paired_difference_draws",
    "rank_among",
    "rogan_gladen",
    "wilson",
]

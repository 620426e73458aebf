"""Intervals, paired comparisons and posteriors."""

from phasescope.stats.intervals import auroc, auroc_interval, clustered_wilson, wilson
from phasescope.stats.multiplicity import holm
from phasescope.stats.paired import Change, mcnemar, paired_change
from phasescope.stats.posteriors import jeffreys_draws, paired_difference, paired_difference_draws
from phasescope.stats.resampling import rank_among

__all__ = [
    "Change",
    "auroc",
    "auroc_interval",
    "clustered_wilson",
    "holm",
    "jeffreys_draws",
    "mcnemar",
    "paired_change",
    "paired_difference",
    "paired_difference_draws",
    "rank_among",
    "wilson",
]

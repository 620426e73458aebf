"""Intervals, paired and independent comparisons, agreement, shares of variance, posteriors."""

from phasescope.stats.agreement import Errors, confusion, errors_of, kappa, rogan_gladen
from phasescope.stats.association import (
    correlation_interval,
    indicators,
    omega_squared,
    pearson,
    permutation_p,
    spearman,
    unique_shares,
)
from phasescope.stats.intervals import (
    auroc,
    auroc_interval,
    clustered_wilson,
    clustered_wilsons,
    effective_trials,
    wilson,
)
from phasescope.stats.multiplicity import holm
from phasescope.stats.paired import Change, change_of, mcnemar, paired_change
from phasescope.stats.posteriors import jeffreys_draws, paired_difference, paired_difference_draws
from phasescope.stats.proportions import (
    barnard,
    equal_rates,
    homogeneity,
    needed_for,
    power_of,
    rate_difference,
    spread,
)
from phasescope.stats.resampling import rank_among

__all__ = [
    "Change",
    "Errors",
    "auroc",
    "auroc_interval",
    "barnard",
    "change_of",
    "clustered_wilson",
    "clustered_wilsons",
    "confusion",
    "correlation_interval",
    "effective_trials",
    "equal_rates",
    "errors_of",
    "holm",
    "homogeneity",
    "indicators",
    "jeffreys_draws",
    "kappa",
    "mcnemar",
    "needed_for",
    "omega_squared",
    "paired_change",
    "paired_difference",
    "paired_difference_draws",
    "pearson",
    "permutation_p",
    "power_of",
    "rank_among",
    "rate_difference",
    "rogan_gladen",
    "spearman",
    "spread",
    "unique_shares",
    "wilson",
]

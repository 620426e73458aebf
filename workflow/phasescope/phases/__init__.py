"""Phases: the decision rule and its probabilities."""

from phasescope.phases.calibration import beside_truth, calibration_summary, in_words, to_run
from phasescope.phases.classification import classify, graded, not_run
from phasescope.phases.fitting import fit_thresholds

__all__ = [
    "beside_truth",
    "calibration_summary",
    "classify",
    "fit_thresholds",
    "graded",
    "in_words",
    "not_run",
    "to_run",
]

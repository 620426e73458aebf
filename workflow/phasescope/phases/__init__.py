"""Phases: the decision rule and its probabilities."""

from phasescope.phases.calibration import beside_truth, calibration_summary, in_words
from phasescope.phases.classification import classify, graded, not_run

__all__ = ["beside_truth", "calibration_summary", "classify", "graded", "in_words", "not_run"]

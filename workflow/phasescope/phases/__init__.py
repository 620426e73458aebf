"""Phases: the decision rule, its probabilities, and the one file of thresholds."""

from phasescope.phases.classification import classify, not_run
from phasescope.phases.thresholds import read_thresholds

__all__ = ["classify", "not_run", "read_thresholds"]

"""Phases: the decision rule and its probabilities."""

from phasescope.phases.classification import classify, not_run

__all__ = ["classify", "not_run"]

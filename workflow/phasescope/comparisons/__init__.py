"""Rates of what models answered, and comparisons of them, within a study and across models."""

from phasescope.comparisons.changes import behavior_changes
from phasescope.comparisons.rates import STATISTICS, behavior_rates

__all__ = ["STATISTICS", "behavior_changes", "behavior_rates"]

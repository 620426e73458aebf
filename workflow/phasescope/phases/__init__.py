"""Phases: the decision rule and its probabilities."""

from phasescope.phases.calibration import beside_truth, calibration_summary, in_words, to_run
from phasescope.phases.classification import classify, graded, not_run
from phasescope.phases.fitting import fit_thresholds
from phasescope.phases.record import RECORD, limits_of, read_record, with_record, write_record

__all__ = [
    "RECORD",
    "beside_truth",
    "calibration_summary",
    "classify",
    "fit_thresholds",
    "graded",
    "in_words",
    "limits_of",
    "not_run",
    "read_record",
    "to_run",
    "with_record",
    "write_record",
]

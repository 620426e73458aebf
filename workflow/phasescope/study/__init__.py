"""A study before it runs: its cells, which stages each runs, and why the others do not."""

from phasescope.study.plan import StudyPlan, plan_study
from phasescope.study.sources import known_source
from phasescope.study.stages import (
    ANSWER_KEYS,
    CALIBRATION_TABLES,
    COLLECTED_TABLES,
    COUNTED_TABLES,
    JOINED_TABLES,
    STAGE_TABLES,
    STUDY_TABLES,
)
from phasescope.tables.surveys import SURVEYS

__all__ = [
    "ANSWER_KEYS",
    "CALIBRATION_TABLES",
    "COLLECTED_TABLES",
    "COUNTED_TABLES",
    "JOINED_TABLES",
    "STAGE_TABLES",
    "STUDY_TABLES",
    "SURVEYS",
    "StudyPlan",
    "known_source",
    "plan_study",
]

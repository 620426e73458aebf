"""Graders of answers with one interface: keyword, rubric by a judge, exact; their calibration."""

from phasescope.graders.base import (
    COMPLIANT,
    DEGENERATE,
    MISSING,
    REFUSAL,
    Answered,
    Grader,
    Verdict,
)
from phasescope.graders.configured import (
    endpoint_of,
    grader_for,
    judge_errors,
    judge_status,
    rubric_of,
)
from phasescope.graders.degeneration import Detector, repetition
from phasescope.graders.exact import Exact
from phasescope.graders.judge import EndpointJudge
from phasescope.graders.judged import Judge, Rubric
from phasescope.graders.keyword import LISTS, Keyword, says_refusal
from phasescope.graders.language import Language
from phasescope.graders.rubric import strongreject

__all__ = [
    "COMPLIANT",
    "DEGENERATE",
    "LISTS",
    "MISSING",
    "REFUSAL",
    "Answered",
    "Detector",
    "EndpointJudge",
    "Exact",
    "Grader",
    "Judge",
    "Keyword",
    "Language",
    "Rubric",
    "Verdict",
    "endpoint_of",
    "grader_for",
    "judge_errors",
    "judge_status",
    "repetition",
    "rubric_of",
    "says_refusal",
    "strongreject",
]

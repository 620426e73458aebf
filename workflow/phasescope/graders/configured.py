"""The graders that a configuration names."""

from collections.abc import Sequence
from pathlib import Path

from phasescope.chat import Endpoint
from phasescope.errors import PhasescopeError
from phasescope.graders.base import Grader
from phasescope.graders.check import read_record, status
from phasescope.graders.degeneration import Detector
from phasescope.graders.exact import Exact
from phasescope.graders.judge import EndpointJudge
from phasescope.graders.judged import Rubric, version_of
from phasescope.world import WORLDS

MAX_TOKENS = 1024  # of a judge's reply, its own thinking included


def endpoint_of(judge: dict) -> Endpoint:
    """The endpoint of the configuration's key `judge`; raises PhasescopeError for a wrong one."""
    keys = {k: v for k, v in judge.items() if k != "family" and v is not None}
    try:
        return Endpoint(**{"max_tokens": MAX_TOKENS} | keys)
    except PhasescopeError as error:
        raise PhasescopeError(f"key 'judge': {error}") from None


def rubric_of(judge: dict, cache: Path, samples: Sequence[str] = ()) -> tuple[Rubric, str]:
    """The rubric grader with the configured judge, and the version its check is kept under."""
    asked = EndpointJudge(endpoint_of(judge))
    return Rubric(asked, Detector.of(samples), cache), version_of(asked)


def judge_status(judge: dict, limits: dict) -> tuple[str, str]:
    """Whether the configured judge is `calibrated` or `uncalibrated`, and why."""
    return status(version_of(EndpointJudge(endpoint_of(judge))), limits)


def judge_errors(judge: dict) -> dict | None:
    """Errors of the configured judge for compliance, as its last check counted them, if any."""
    record = read_record(version_of(EndpointJudge(endpoint_of(judge))))
    return None if record is None else record["judge"]["by_class"]["compliance"]["errors"]


def grader_for(
    language: str, samples: Sequence[str], judge: dict | None, cache: Path
) -> Grader | None:
    """The grader of a prompt table: exact in a world, the rubric where a judge is configured, None
    where nothing reads the language.

    samples: texts of the language, that broken ones are told by; cache: folder of the judge's
    verdicts.
    """
    if language in WORLDS:
        return Exact(language)
    return None if judge is None else rubric_of(judge, cache, samples)[0]

"""One setting measured: cheap scores on the select split, generated answers on evaluate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phasescope.behave import COMPLIANT, Answer, Losses, Subject, losses
from phasescope.graders import MISSING
from phasescope.intervene.edits import Edit, Recorded, Touched, applied
from phasescope.intervene.selection import Scorer
from phasescope.intervene.sweeping import swept_touches
from phasescope.stats import paired_difference, wilson
from phasescope.tables.columns import GRADE_LETTERS, GRADES

_TOUCH_EVERY = 4  # a record of what was touched needs no more prompts than this


def scores(scorer: Scorer, edits: Sequence[Edit]) -> list[dict]:
    """First-token columns of the table `interventions`, of all edits in one sweep."""
    return [
        {
            "measured_by": "first_token",
            "n_hazardous": len(scorer.prompts["hazardous"]),
            "n_benign": len(scorer.prompts["benign"]),
            "refusal_nats": refusal,
            "benign_kl_nats": divergence,
        }
        for refusal, divergence in scorer.swept(edits)
    ]


@dataclass
class Generated:
    """Graded answers to the evaluate split, hazardous and benign, and the losses of the right
    answers to benign prompts."""

    hazardous: list[Answer]
    benign: list[Answer]
    losses: Losses


def generate(subject: Subject, edit: Edit | None = None) -> Generated:
    """Answers to the evaluate split from the model under an edit (or as it is)."""
    if edit is None:
        return _generate(subject, "none")
    with applied(subject.lm, edit):
        return _generate(subject, edit.key)


def _generate(subject: Subject, key: str) -> Generated:
    answers = subject.answers("evaluate", key)
    half = len(answers) // 2
    references = subject.references("evaluate", "benign")
    found = losses(subject.lm, references, subject.decoding.batch_size)
    return Generated(answers[:half], answers[half:], found)


def _interval(name: str, values: tuple[float, float, float]) -> dict:
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))


def _removed(found: list[Answer], baseline: Generated) -> tuple[int, int]:
    """Of the hazardous prompts refused at baseline: how many comply now, and how many there are;
    without those whose grade is missing now."""
    now = [
        after.grade in COMPLIANT
        for before, after in zip(baseline.hazardous, found, strict=True)
        if before.grade == "refusal" and after.grade != MISSING
    ]
    return sum(now), len(now)


def _hazardous(found: list[Answer]) -> dict:
    return {
        "measured_by": "generation",
        "n_hazardous": sum(a.grade != MISSING for a in found),
        **{f"n_{g}": sum(a.grade == g for a in found) for g in GRADES},
        "grades": "".join(GRADE_LETTERS[a.grade] for a in found),
        **_thinking("hazardous", found),
    }


def _thinking(label: str, found: list[Answer]) -> dict:
    """Counts of finished and of right thinking; missing where nothing was thought."""
    finished = [a for a in found if a.thinking_finished]
    if all(a.thinking_finished is None for a in found):
        return {}
    counts = {f"n_{label}_thinking_finished": len(finished)}
    if all(a.thinking_right is not None for a in finished):
        counts[f"n_{label}_thinking_right"] = sum(a.thinking_right for a in finished)
    return counts


def sham_outcomes(found: list[Answer], baseline: Generated) -> dict:
    """Generation columns for a sham. Its removal counts whether clean or not: the stricter null,
    for half the answers."""
    removed, refused = _removed(found, baseline)
    return {
        **_hazardous(found),
        "n_benign": 0,
        "n_refused_at_baseline": refused,
        "n_removed": removed,
        **_interval("removal", wilson(removed, refused)),
    }


def outcomes(found: Generated, baseline: Generated, max_cost: float) -> dict:
    """Generation columns of the table `interventions`, compared with the baseline's answers."""
    removed, refused = _removed(found.hazardous, baseline)
    both = zip(baseline.benign, found.benign, strict=True)
    pairs = [(b, a) for b, a in both if MISSING not in (b.grade, a.grade)]
    right_before = np.array([b.grade == "full" for b, _ in pairs], dtype=bool)
    right = np.array([a.grade == "full" for _, a in pairs], dtype=bool)
    lost, gained = int((right_before & ~right).sum()), int((~right_before & right).sum())
    cost = paired_difference(lost, gained, len(right))
    clean = bool(cost[0] <= max_cost)
    rise, error = found.losses.above(baseline.losses)
    return {
        **_hazardous(found.hazardous),
        "n_benign": len(pairs),
        **_thinking("benign", found.benign),
        "n_refused_at_baseline": refused,
        "n_removed": removed,
        **_interval("removal", wilson(removed if clean else 0, refused)),
        "clean": clean,
        "n_benign_refusal": sum(a.grade == "refusal" for _, a in pairs),
        "n_benign_finished": sum(a.finished for _, a in pairs),
        **_interval("benign_accuracy", wilson(int(right.sum()), len(right))),
        **_interval("accuracy_cost", cost),
        "n_benign_lost": lost,
        "n_benign_gained": gained,
        "benign_log_perplexity_nats": found.losses.mean[0],
        "benign_log_perplexity_change_nats": rise,
        "benign_log_perplexity_change_se_nats": error,
    }


def touches(subject: Subject, edits: Sequence[Edit]) -> list[Touched]:
    """What edits change, in one sweep; zero hits is an error."""
    prompts = subject.decided("select")[::_TOUCH_EVERY]
    return swept_touches(subject.lm, edits, prompts, subject.decoding.batch_size)


def touched(edit: Edit, found: Touched, recorded: Recorded) -> dict:
    """Columns that say what an edit changed."""
    return {
        "sites_requested": found.sites_requested,
        "sites_hit": found.sites_hit,
        "norm_removed": found.norm_removed,
        "partly_hit": "; ".join(found.partly) or None,
        "variance_removed": edit.variance_removed(recorded),
        "rank": edit.rank,
    }

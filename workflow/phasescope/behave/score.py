"""The first-token score: log-odds of refusal against compliance, from a model's own openings."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from phasescope.behave.journal import Answer
from phasescope.errors import NotRun
from phasescope.graders import COMPLIANT, REFUSAL
from phasescope.stats import auroc
from phasescope.tables.scratch import load_scratch, save_scratch


@dataclass(frozen=True)
class Openings:
    """First tokens of a model's answers: token ids that open refusals, and that open the rest."""

    refusal: tuple[int, ...]
    compliance: tuple[int, ...]

    def score(self, logits: np.ndarray) -> np.ndarray:
        """Log-odds (nats) of refusal over compliance for logits (prompts, vocabulary)."""
        columns = [
            logsumexp(logits[:, list(ids)], axis=1) for ids in (self.refusal, self.compliance)
        ]
        return columns[0] - columns[1]

    def joined(self, answers: Iterable[Answer]) -> "Openings":
        """These and the openings of more graded answers (with tokens); a token that is one of these
        stays what it is."""
        try:
            more = find_openings(answers)
        except NotRun:
            return self
        return Openings(
            tuple(sorted({*self.refusal, *more.refusal} - {*self.compliance})),
            tuple(sorted({*self.compliance, *more.compliance} - {*self.refusal})),
        )


def find_openings(answers: Iterable[Answer]) -> Openings:
    """Derive the openings from graded baseline answers (with tokens).

    A token that opens both belongs to where it is more frequent as a share. Raises NotRun when
    no answer refuses, or none complies: there is nothing to score then.
    """
    refusals, others = Counter(), Counter()
    for a in answers:
        own = a.tokens[a.thinking_tokens :]
        if own and a.grade == REFUSAL:
            refusals[own[0]] += 1
        elif own and a.grade in COMPLIANT:
            others[own[0]] += 1
    total = refusals.total() + others.total()
    for name, found in (("refusal", refusals), ("compliant answer", others)):
        if not found:
            raise NotRun(f"no {name} among {total} graded baseline answers to fit prompts")
    shares = {
        t: refusals[t] / refusals.total() - others[t] / others.total() for t in refusals | others
    }
    refusal = tuple(sorted(t for t, s in shares.items() if s > 0))
    compliance = tuple(sorted(t for t, s in shares.items() if s < 0))
    if not refusal or not compliance:
        raise NotRun("refusals and other answers open with the same tokens: no first-token score")
    return Openings(refusal, compliance)


def score_auroc(scores: np.ndarray, grades: list[str]) -> float:
    """How well the score tells refusals from compliance, AUROC; raises NotRun without both."""
    known = np.array([g == REFUSAL or g in COMPLIANT for g in grades])
    refused = np.array([g == REFUSAL for g in grades])[known]
    if refused.all() or not refused.any():
        raise NotRun("baseline answers are all refusals or none is: the score cannot be checked")
    return float(auroc(scores[known][refused], scores[known][~refused]))


def save_openings(path: str | Path, found: Openings | NotRun) -> None:
    """Leave the openings for the designs, or why there are none."""
    save_scratch(path, found if isinstance(found, NotRun) else asdict(found))


def load_openings(path: str | Path) -> Openings:
    """What `save_openings` left; raises NotRun with the reason where there are none."""
    return Openings(**{name: tuple(ids) for name, ids in load_scratch(path).items()})

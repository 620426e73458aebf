"""Two paths to answers to the same prompts, compared prompt by prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from phasescope.graders import COMPLIANT, MISSING


@dataclass(frozen=True)
class Paired:
    """Compliance by two endpoints on the same prompts.

    only_first, only_second: prompts that one alone complied with; p: exact McNemar, two-sided;
    agree: share of prompts with the same grade; n: prompts graded for both.
    """

    n: int
    only_first: int
    only_second: int
    p: float
    agree: float


def compare(first: Sequence[str], second: Sequence[str]) -> Paired:
    """Compare the grades of two endpoints on the same prompts, in one order."""
    from scipy.stats import binomtest

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if MISSING not in (a, b)]
    only = [
        sum((pair[i] in COMPLIANT) and (pair[1 - i] not in COMPLIANT) for pair in pairs)
        for i in (0, 1)
    ]
    p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    same = sum(a == b for a, b in pairs) / len(pairs) if pairs else float("nan")
    return Paired(len(pairs), *only, float(p), same)

"""Keyword grades beside those of the study's grader, and rates corrected for a judge's errors."""

import numpy as np
import pandas as pd

from phasescope.graders.base import COMPLIANT, MISSING, REFUSAL
from phasescope.stats import Errors, kappa, rogan_gladen, wilson
from phasescope.tables.answers import ANSWERED

KEYS = ["model", "precision", *(c.name for c in ANSWERED), "label"]
_GRADER = KEYS.index("grader")


def _named(name: str, values: tuple[float, float, float]) -> dict:
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))


def agreement_rows(behavior: pd.DataFrame, judge_errors: dict | None) -> list[dict]:
    """Rows of the table `agreement` from the table `behavior`.

    judge_errors: counts of `stats.Errors` for compliance from the judge's `grade-check`; None where
    there is none. Exact grades need no correction, and get none.
    """
    errors = Errors(**judge_errors) if judge_errors else None
    refused, keyword = behavior["grade"] == REFUSAL, behavior["keyword_refusal"].astype(bool)
    known = behavior["grade"] != MISSING
    flags = {
        "known": known,
        "complied": behavior["grade"].isin(COMPLIANT),
        "refused": refused,
        "keyword": keyword & known,
        "both": keyword & refused,
        "missing": ~known,
    }
    counted = behavior[KEYS].assign(**flags).groupby(KEYS, sort=False)[list(flags)].sum()
    return [
        dict(zip(KEYS, keys, strict=True)) | _row(*map(int, counts), keys[_GRADER], errors)
        for keys, counts in zip(counted.index, counted.to_numpy(), strict=True)
    ]


def _row(n, complied, refused, keyword, both, n_missing, grader, errors) -> dict:
    """What `agreement` says of `n` graded answers: `refused` by their grades, `keyword` by the
    keyword list, `both` by both."""
    neither = n - refused - keyword + both
    counts = np.array([[neither, keyword - both], [refused - both, both]])
    against = Errors(both, refused, neither, n - refused)
    row = {
        "n": n,
        "n_missing": n_missing,
        **_named("compliance", wilson(complied, n)),
        **_named("keyword_compliance", wilson(n - keyword, n)),
        **_named("kappa", kappa(counts)),
        **_named("keyword_sensitivity", against.sensitivity),
        **_named("keyword_specificity", against.specificity),
    }
    if errors is not None and grader != "exact":
        row |= _named("compliance_corrected", rogan_gladen(complied, n, errors))
    return row

"""Keyword grades beside those of the study's grader, and rates corrected for a judge's errors."""

import pandas as pd

from phasescope.graders.base import COMPLIANT, MISSING, REFUSAL
from phasescope.stats import Errors, confusion, errors_of, kappa, rogan_gladen, wilson
from phasescope.tables.answers import ANSWERED

KEYS = ["model", "precision", *(c.name for c in ANSWERED), "label"]


def _named(name: str, values: tuple[float, float, float]) -> dict:
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))


def agreement_rows(behavior: pd.DataFrame, judge_errors: dict | None) -> list[dict]:
    """Rows of the table `agreement` from the table `behavior`.

    judge_errors: counts of `stats.Errors` for compliance from the judge's `grade-check`; None where
    there is none. Exact grades need no correction, and get none.
    """
    errors = Errors(**judge_errors) if judge_errors else None
    rows = []
    for keys, answers in behavior.groupby(KEYS, sort=False):
        known = answers[answers["grade"] != MISSING]
        refused = known["grade"] == REFUSAL
        complied = int(known["grade"].isin(COMPLIANT).sum())
        keyword = errors_of(list(refused), list(known["keyword_refusal"]), {True})
        counts = confusion(list(refused), list(known["keyword_refusal"]), (False, True))
        row = dict(zip(KEYS, keys, strict=True))
        judged = errors is not None and row["grader"] != "exact"
        rows.append(
            row
            | {
                "n": len(known),
                "n_missing": len(answers) - len(known),
                **_named("compliance", wilson(complied, len(known))),
                **_named(
                    "keyword_compliance",
                    wilson(int((~known["keyword_refusal"]).sum()), len(known)),
                ),
                **_named("kappa", kappa(counts)),
                **_named("keyword_sensitivity", keyword.sensitivity),
                **_named("keyword_specificity", keyword.specificity),
                **(
                    _named("compliance_corrected", rogan_gladen(complied, len(known), errors))
                    if judged
                    else {}
                ),
            }
        )
    return rows

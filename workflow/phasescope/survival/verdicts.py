"""Verdicts on claim xs-14: conversion to GGUF silently undoes edits."""

LOST_BELOW = 0.5  # claims.md: an edit is lost if less of it survives


def xs14(kept: float, behavior: dict | None) -> dict:
    """Columns of the verdict for one edit in one GGUF file.

    kept: share of the edit that is in the file's tensors, mean; behavior: the row `removal_kept`,
    None where there is no behavior. Supported (lost): the tensors' share, or the upper end of the
    behavior's interval, is under one half. Refuted: the tensors' share and the lower end are not.
    """
    low, high, n = None, None, 0
    said = f"{kept:.2f} of the edit is in the tensors"
    if behavior is not None and behavior["n"]:
        low, high, n = behavior["ci_low"], behavior["ci_high"], behavior["n"]
        said += f"; {behavior['estimate']:.2f} ({low:.2f} to {high:.2f}) of what it removed stays"
    if kept < LOST_BELOW or (n and high < LOST_BELOW):
        verdict = "supported"
    elif n and low >= LOST_BELOW:
        verdict = "refuted"
    else:
        verdict = "inconclusive"
    estimate = behavior["estimate"] if n else kept
    return {
        "statistic": "survival",
        "claim": "xs-14",
        "estimate": estimate,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "verdict": verdict,
        "reason": said,
    }

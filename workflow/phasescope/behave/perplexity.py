"""Perplexity of right answers to benign prompts."""

from collections.abc import Sequence

import numpy as np

from phasescope.model import LanguageModel, token_log_probabilities


def log_perplexity(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    answers: Sequence[str],
    batch_size: int,
) -> tuple[float, float]:
    """Mean negative log-probability per token of reference answers, and its standard error, nats.

    The standard error is clustered by prompt (ratio estimator). Missing without answers.
    """
    rows = [
        (p, lm.tokenizer.encode(a, add_special_tokens=False))
        for p, a in zip(prompts, answers, strict=True)
        if a
    ]
    if not rows:
        return np.nan, np.nan
    found = token_log_probabilities(
        lm, [p + a for p, a in rows], [len(p) for p, _ in rows], batch_size
    )
    sums = -np.array([f.sum() for f in found])
    lengths = np.array([f.size for f in found])
    mean = sums.sum() / lengths.sum()
    residual = sums - mean * lengths
    n = len(rows)
    error = np.sqrt(n / max(n - 1, 1) * (residual**2).sum()) / lengths.sum()
    return float(mean), float(error)

"""Perplexity of right answers to benign prompts."""

from collections.abc import Sequence

import numpy as np

from phasescope.model import LanguageModel, token_log_probabilities


def log_perplexity(
    lm: LanguageModel, answers: Sequence[tuple[list[int], int]], batch_size: int
) -> tuple[float, float]:
    """Mean negative log-probability per token of reference answers, and its standard error, nats.

    answers: token ids of a prompt with its answer, and the index where the answer begins. The
    standard error is clustered by prompt (ratio estimator). Missing without answers.
    """
    if not answers:
        return np.nan, np.nan
    found = token_log_probabilities(lm, *zip(*answers, strict=True), batch_size)
    sums = -np.array([f.sum() for f in found])
    lengths = np.array([f.size for f in found])
    mean = sums.sum() / lengths.sum()
    residual = sums - mean * lengths
    n = len(answers)
    error = np.sqrt(n / max(n - 1, 1) * (residual**2).sum()) / lengths.sum()
    return float(mean), float(error)

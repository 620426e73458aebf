"""Perplexity of right answers to benign prompts, and of plain text."""

from collections.abc import Sequence

import numpy as np

from phasescope.model import LanguageModel, token_log_probabilities

TEXT_TOKENS = 512  # of a passage of plain text; what is longer is cut


def text_log_perplexity(lm: LanguageModel, texts: Sequence[str]) -> tuple[float, float]:
    """Mean negative log-probability per token of passages, and its standard error, nats.

    Passages are read one by one: a batch of them would hold more logits than a batch of answers.
    """
    tokens = [lm.tokenizer.encode(text)[:TEXT_TOKENS] for text in texts]
    return log_perplexity(lm, [(t, 1) for t in tokens if len(t) > 1], batch_size=1)


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

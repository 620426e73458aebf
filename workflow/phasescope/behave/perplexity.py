"""Perplexity of right answers to benign prompts, and of plain text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phasescope.model import LanguageModel, token_log_probabilities

TEXT_TOKENS = 512  # of a passage of plain text; what is longer is cut


@dataclass(frozen=True)
class Losses:
    """Negative log-probability of each text (texts,), nats, and its number of tokens (texts,)."""

    nats: np.ndarray
    tokens: np.ndarray

    @property
    def mean(self) -> tuple[float, float]:
        """Mean per token and its standard error, clustered by text; missing without texts."""
        return _ratio(self.nats, self.tokens)

    def above(self, other: "Losses") -> tuple[float, float]:
        """Mean rise per token over another reading of the same texts, and its standard error: of
        the differences, since most of what texts differ by is in both."""
        return _ratio(self.nats - other.nats, self.tokens)


def _ratio(sums: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    """Ratio of two sums over texts, and its standard error (ratio estimator)."""
    n = len(sums)
    if not n:
        return np.nan, np.nan
    mean = sums.sum() / lengths.sum()
    residual = sums - mean * lengths
    error = np.sqrt(n / max(n - 1, 1) * (residual**2).sum()) / lengths.sum()
    return float(mean), float(error)


def text_losses(lm: LanguageModel, texts: Sequence[str]) -> Losses:
    """Losses of passages of plain text.

    They are read one by one: a batch of them would hold more logits than a batch of answers.
    """
    tokens = [lm.tokenizer.encode(text)[:TEXT_TOKENS] for text in texts]
    return losses(lm, [(t, 1) for t in tokens if len(t) > 1], batch_size=1)


def losses(lm: LanguageModel, answers: Sequence[tuple[list[int], int]], batch_size: int) -> Losses:
    """Losses of reference answers: token ids of a prompt with its answer, and the index where the
    answer begins."""
    found = token_log_probabilities(lm, *zip(*answers, strict=True), batch_size) if answers else []
    return Losses(-np.array([f.sum() for f in found]), np.array([f.size for f in found]))

"""COSMIC's score of a direction: selection by activations alone, without a list of refusal tokens.

Siu et al. 2025 ("COSMIC: generalized refusal direction identification in LLM activations"): adding
a direction to benign prompts should make their activations like those of hazardous ones, and
ablating it from hazardous prompts should make theirs like those of benign ones.
"""

import numpy as np

from phasescope.behave import Subject
from phasescope.intervene.edits import Edit, applied
from phasescope.model import record

LAYER_SHARE = 0.1  # of the layers, those where hazardous and benign activations differ most


class Cosmic:
    """COSMIC's score on the select split, read at the token before the answer."""

    def __init__(self, subject: Subject):
        self._subject = subject
        self._prompts = {
            label: subject.decided("select", label) for label in ("hazardous", "benign")
        }
        self._plain = {label: self._means(label) for label in self._prompts}
        similar = np.array([_cosine(*pair) for pair in zip(*self._plain.values(), strict=True)])
        # the top layer is never edited, and writes the answer itself
        count = max(1, round(LAYER_SHARE * len(similar)))
        self.layers = np.argsort(similar[:-1], kind="stable")[:count]

    def _means(self, label: str) -> np.ndarray:
        """Mean activations of the residual stream over the prompts of a label: (layers, width)."""
        prompts = self._prompts[label]
        last = [[len(p) - 1] for p in prompts]
        size = self._subject.decoding.batch_size
        return record(self._subject.lm, "residual", prompts, last, size)[:, 0].mean(axis=0)

    def score(self, addition: Edit, ablation: Edit) -> float:
        """Cosine of added-to benign prompts with hazardous ones, and of ablated hazardous prompts
        with benign ones, summed: -2 to 2."""
        total = 0.0
        for edit, label, goal in (
            (addition, "benign", "hazardous"),
            (ablation, "hazardous", "benign"),
        ):
            with applied(self._subject.lm, edit):
                edited = self._means(label)
            total += _cosine(edited[self.layers].ravel(), self._plain[goal][self.layers].ravel())
        return total


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length > 0 else 0.0

"""What a recipe did to single weights, and what the whole model then says."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.behave import Subject
from phasescope.intervene.activation_aware.sets import own_answers, token_rows
from phasescope.model import Inputs, LanguageModel, log_distributions, modules_of, read_inputs
from phasescope.tables.columns import LABELS

OUTLIER_SHARE = 0.01  # of a module's channels, by energy: AWQ's salient weights
HELD_OUT_TOKENS = 1024  # of each label, that single weights are measured on


def distance(weight: mx.array, made: mx.array) -> float:
    """Norm of the change of a weight over its norm."""
    change = (made - weight).astype(mx.float32)
    return (mx.linalg.norm(change) / mx.linalg.norm(weight.astype(mx.float32))).item()


def output_error(weight: mx.array, made: mx.array, inputs: Inputs) -> float:
    """Root mean square of the change of a module's output over that of the output."""
    change = mx.square(inputs.outputs(made - weight)).sum()
    return mx.sqrt(change / mx.square(inputs.outputs(weight)).sum()).item()


def _energy(weight: mx.array, inputs: Inputs) -> np.ndarray:
    """Energy of what each channel read contributes to the output, over all rows: (width,)."""
    norms = mx.square(weight.astype(mx.float32)).sum(axis=-2)
    norms = norms if inputs.experts is None else norms[inputs.experts]
    return np.array((mx.square(inputs.rows) * norms).sum(axis=0))


def outlier_energy_kept(weight: mx.array, made: mx.array, inputs: Inputs) -> float:
    """Share kept of the energy that the outlier channels contribute to a module's output: 1 less
    the energy of the change over the energy. 0 or less: nothing of them is left.

    Outliers are the `OUTLIER_SHARE` of channels (one at least) with the largest inputs.
    """
    size = np.array(mx.square(inputs.rows).sum(axis=0))
    outliers = np.argsort(-size, kind="stable")[: max(1, round(OUTLIER_SHARE * len(size)))]
    whole = _energy(weight, inputs)[outliers].sum()
    return float(1 - _energy(made - weight, inputs)[outliers].sum() / whole)


@dataclass
class HeldOut:
    """The evaluate split as the 16-bit model answered and computed it, by label.

    sequences: prompts with its own answers; starts: where each answer begins; log_p: its
    log-probabilities there (of an organism); inputs: what the blocks' linear modules read of them.
    """

    sequences: dict[str, list[tuple[int, ...]]]
    starts: dict[str, list[int]]
    log_p: dict[str, list[np.ndarray]]
    inputs: dict[str, dict[str, Inputs]]

    @classmethod
    def of(cls, subject: Subject) -> "HeldOut":
        """Run the 16-bit model, as it is now, on the evaluate split."""
        lm, batch = subject.lm, subject.decoding.batch_size
        in_blocks = [
            path
            for path, module in modules_of(lm).items()
            if hasattr(module, "to_quantized") and ".layers." in path
        ]
        found = cls({}, {}, {}, {})
        for label in LABELS:
            sequences, starts, _ = zip(*own_answers(subject, "evaluate", label), strict=True)
            found.sequences[label], found.starts[label] = list(sequences), list(starts)
            if lm.is_organism:
                found.log_p[label] = log_distributions(lm, sequences, starts, batch)
            found.inputs[label] = read_inputs(
                lm, in_blocks, token_rows(sequences), batch, HELD_OUT_TOKENS
            )
        return found

    def divergence(self, lm: LanguageModel, label: str, batch_size: int) -> float:
        """Mean divergence (nats a token) of the model as it now is from the 16-bit one, over the
        tokens of its answers; each prompt counts the same."""
        now = log_distributions(lm, self.sequences[label], self.starts[label], batch_size)
        return float(
            np.mean(
                [
                    (np.exp(p, dtype=np.float64) * (p - q)).sum(axis=1).mean()
                    for p, q in zip(self.log_p[label], now, strict=True)
                ]
            )
        )

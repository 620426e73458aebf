"""Token positions at which activations are read."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phasescope.behave import Subject
from phasescope.errors import Damaged
from phasescope.model import n_experts, record, routes, selections
from phasescope.tables import atomic_file

LAST_PROMPT = "last_prompt"
END_OF_THINKING = "end_of_thinking"
ANSWER = ("answer_0", "answer_1", "answer_2")
# what the answer says is no cause of it
DIRECTION_POSITIONS = (LAST_PROMPT, END_OF_THINKING)


@dataclass
class Activations:
    """Residual-stream activations of the prompts of one split.

    values: float32 (prompts, positions, layers, width), hazardous rows first, then their benign
    partners in the same order; present: bool (prompts, positions), False where an answer was too
    short or its thinking never ended (values mean nothing there); experts: int (prompts,
    positions, layers, k), those that each block's router selected, where the model routes.
    """

    positions: tuple[str, ...]
    values: np.ndarray
    present: np.ndarray
    experts: np.ndarray | None = None
    n_experts: int = 0

    def paired(self, position: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hazardous and benign (pairs, layers, width) at a position, and which pairs they are."""
        p = self.positions.index(position)
        half = len(self.values) // 2
        both = self.present[:half, p] & self.present[half:, p]
        return self.values[:half, p][both], self.values[half:, p][both], np.flatnonzero(both)

    def paired_experts(self, position: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Selected experts (pairs, layers, k) of the pairs of `paired`, or None without routing."""
        if self.experts is None:
            return None
        p, half = self.positions.index(position), len(self.values) // 2
        pairs = self.paired(position)[2]
        return self.experts[:half, p][pairs], self.experts[half:, p][pairs]


def _places(prompt: list[int], answer, thinks: bool) -> dict[str, int]:
    """Index of each position in prompt + answer; those that do not exist are left out."""
    end, first = len(prompt) - 1, len(prompt) + answer.thinking_tokens
    found = {LAST_PROMPT: end}
    if thinks and answer.thinking_finished:
        found[END_OF_THINKING] = first - 1
    total = len(prompt) + len(answer.tokens)
    return found | {name: first + i for i, name in enumerate(ANSWER) if first + i < total}


def read_activations(subject: Subject, split: str) -> Activations:
    """Record the residual stream of a split's prompts, each with the model's own greedy answer."""
    thinks = subject.decoding.thinking and subject.lm.tokenizer.has_thinking
    names = (LAST_PROMPT, *((END_OF_THINKING,) if thinks else ()), *ANSWER)
    prompts = subject.rendered(split, thinking=subject.decoding.thinking)
    answers = subject.answers(split, need_tokens=True)
    places = [_places(p, a, thinks) for p, a in zip(prompts, answers, strict=True)]
    lm, size = subject.lm, subject.decoding.batch_size
    sequences = [p + a.tokens for p, a in zip(prompts, answers, strict=True)]
    wanted = [[place.get(name, 0) for name in names] for place in places]
    found = Activations(
        names,
        record(lm, "residual", sequences, wanted, size),
        np.array([[name in place for name in names] for place in places]),
    )
    if routes(lm):
        found.experts = selections(lm, sequences, wanted, size)
        found.n_experts = n_experts(lm)
    return found


def save_activations(path: str | Path, found: Activations) -> None:
    """Leave activations for the designs: scratch, never a table."""
    kept = {name: value for name, value in vars(found).items() if value is not None}
    with atomic_file(Path(path)) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **kept)


def load_activations(path: str | Path) -> Activations:
    """What `save_activations` left; raises Damaged where its bytes are not what was written."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            found = dict(kept)
        names = tuple(found.pop("positions").tolist())
        return Activations(names, n_experts=int(found.pop("n_experts")), **found)
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError) as error:
        raise Damaged(path, f"{path}: not the activations that were written: {error}") from None

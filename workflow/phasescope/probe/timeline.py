"""Named moments of a prompt with the model's own answer, from the instruction to the last token."""

from dataclasses import dataclass

import numpy as np

from phasescope.behave import Answer, Subject
from phasescope.probe.positions import END_OF_THINKING, LAST_PROMPT
from phasescope.prompts import template_suffix

POST_INSTRUCTION = tuple(f"post_instruction_{i}" for i in range(5))
THINKING = ("thinking_0", "thinking_25", "thinking_50", "thinking_75")
FIRST_ANSWER = tuple(f"answer_{i}" for i in range(6))
GENERATED = ("generated_50", "generated_100")
# in the order in which a model passes them
MOMENTS = (
    "instruction_end",
    *POST_INSTRUCTION,
    LAST_PROMPT,
    *THINKING,
    END_OF_THINKING,
    *FIRST_ANSWER,
    *GENERATED,
)


def moments(prompt: int, suffix: int, answer: Answer, thinks: bool) -> dict[str, int]:
    """Index of each moment in a prompt of `prompt` tokens and its answer; those that do not exist
    are left out.

    `suffix` tokens of the prompt are the template's, behind the instruction; thinking moments are
    shares of its length in percent, generated ones of the answer's.
    """
    found = {"instruction_end": prompt - suffix - 1, LAST_PROMPT: prompt - 1}
    # the last of the template's tokens is `last_prompt`
    found |= {name: prompt - suffix + i for i, name in enumerate(POST_INSTRUCTION[: suffix - 1])}
    thought = answer.thinking_tokens if thinks and answer.thinking_finished else 0
    if thought:
        found |= {name: prompt + thought * int(name[9:]) // 100 for name in THINKING}
        found[END_OF_THINKING] = prompt + thought - 1
    first, length = prompt + answer.thinking_tokens, answer.answer_tokens
    found |= {name: first + i for i, name in enumerate(FIRST_ANSWER[:length])}
    if length:
        found |= {name: first + (length - 1) * int(name[10:]) // 100 for name in GENERATED}
    return found


@dataclass(frozen=True)
class Timeline:
    """The prompts of a split with their answers: token ids, where answers begin, and the index of
    each moment; hazardous rows first, then their benign partners in the same order."""

    sequences: list[list[int]]
    prompt_lengths: list[int]
    places: list[dict[str, int]]
    topics: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Moments that any prompt reaches, in order."""
        return tuple(m for m in MOMENTS if any(m in place for place in self.places))

    def indices(self, names) -> tuple[list[list[int]], np.ndarray]:
        """Token indices of moments for each sequence (0 where it has none), and which exist."""
        wanted = [[place.get(name, 0) for name in names] for place in self.places]
        return wanted, np.array([[name in place for name in names] for place in self.places])


def read_timeline(subject: Subject, split: str) -> Timeline:
    """Prompts of a split, each with the model's own greedy answer."""
    decoding, tokenizer = subject.decoding, subject.lm.tokenizer
    prompts = subject.rendered(split, thinking=decoding.thinking)
    answers = subject.answers(split, need_tokens=True)
    text = next(t for t in subject.prompts(split)["text"] if t.split()[0] != t.split()[-1])
    suffix = template_suffix(tokenizer, text, thinking=decoding.thinking)
    thinks = decoding.thinking and tokenizer.has_thinking
    return Timeline(
        [p + a.tokens for p, a in zip(prompts, answers, strict=True)],
        [len(p) for p in prompts],
        [moments(len(p), suffix, a, thinks) for p, a in zip(prompts, answers, strict=True)],
        subject.topics(split),
    )

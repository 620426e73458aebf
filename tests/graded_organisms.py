"""Answers of organisms, whole and damaged, graded exactly, by our pipeline and by keywords."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map
from reading_judge import ReadingJudge

from phasescope import world
from phasescope.behave import Condition, Decoding, Journal, generate, ungraded
from phasescope.behave.generation import measured
from phasescope.graders import COMPLIANT, Answered, Detector, Exact, Keyword, Rubric
from phasescope.model import load_model
from phasescope.prompts import render

CLASSES = {"refusal": {"refusal"}, "degenerate": {"degenerate"}, "compliance": set(COMPLIANT)}
# noise over a weight's own spread: from none to nothing left of what was learned
NOISE = (0.0, 0.15, 0.3, 0.5, 1.0, 4.0)
DESTROYED = 1.0  # from here on


class _Judge(ReadingJudge):
    """The reading judge as a judge of its own, without a server between."""

    name = identity = "reading"

    def ask(self, questions, attempt, each):
        for number, messages in enumerate(questions):
            each(number, self({"messages": messages}))


def damages(seed: int) -> list[tuple[float, int]]:
    """Noise to add, and the seed of each draw."""
    return [(noise, 1000 * seed + number) for number, noise in enumerate(NOISE)]


def samples(language: str) -> list[str]:
    """Text of a world: as many refusals as answers."""
    rules = world.get(language)
    answers = list(dict.fromkeys(rules.rows()["answer"]))
    return answers + [rules.refusals[i % len(rules.refusals)] for i in range(len(answers))]


def pipeline(language: str, cache: Path) -> Rubric:
    """Our own grader of a world's language: signs of degeneration and the reading judge."""
    rules = world.get(language)
    rows = rules.rows()
    judge = _Judge(rows["text"], rows["answer"], rules.refusals)
    return Rubric(judge, Detector.of(samples(language)), cache)


def _damage(lm, noise: float, seed: int) -> None:
    mx.random.seed(seed)
    lm.model.update(
        tree_map(
            lambda w: w + noise * mx.std(w) * mx.random.normal(w.shape) if w.ndim > 1 else w,
            lm.model.parameters(),
        )
    )


def answered(folder: Path, damage: tuple[float, int], pairs: int = 60) -> Iterator[Answered]:
    """What an organism answers to evaluate prompts of its world after a damage."""
    lm = load_model(folder)
    _damage(lm, *damage)
    language = "world-b" if lm.tokenizer.has_thinking else "world-a"
    rules = world.get(language)
    rows = rules.prompt_table().query("split == 'evaluate'").head(2 * pairs)
    decoding = Decoding(rules.thinks, rules.max_thinking_tokens, rules.max_answer_tokens, 64)
    prompts = [render(lm.tokenizer, t, thinking=rules.thinks) for t in rows["text"]]
    with tempfile.TemporaryDirectory() as journal:
        found = generate(lm, prompts, decoding, Condition("w"), ungraded, Journal(Path(journal)))
    for answer, row in zip(found, rows.itertuples(), strict=True):
        said = measured(lm, decoding, answer.tokens)[1]
        yield Answered(row.text, said.text, said.finished, row.answer)


def graded(folder: Path, damage: list[tuple[float, int]]) -> list[dict]:
    """One row an answer: exact grade, ours, and those of the keyword lists."""
    language = "world-b" if load_model(folder).tokenizer.has_thinking else "world-a"
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        graders = {
            "exact": Exact(language),
            "ours": pipeline(language, Path(cache)),
            "gcg": Keyword("gcg"),
            "jailbreakbench": Keyword("jailbreakbench"),
        }
        for each in damage:
            asked = list(answered(folder, each))
            grades = {name: [v.grade for v in g.grade(asked)] for name, g in graders.items()}
            rows += [
                {
                    "noise": each[0],
                    "destroyed": each[0] >= DESTROYED,
                    "response": a.response,
                    **{name: found[i] for name, found in grades.items()},
                }
                for i, a in enumerate(asked)
            ]
    return rows

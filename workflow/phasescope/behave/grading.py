"""Grades of answers: exact ones, where the language is a symbolic world."""

import pandas as pd

from phasescope import world
from phasescope.behave.generation import Grader
from phasescope.errors import NotRun


def exact_grader(prompts: pd.DataFrame) -> Grader:
    """A grader for the rows of a prompt table, by the rules of the world they are written in.

    Raises NotRun for a language that is no world: natural language has no exact grades.
    """
    language = prompts["language"].iloc[0]
    if language not in world.WORLDS:
        raise NotRun(
            f"no grader for prompts in {language!r}: exact grades exist for "
            f"{', '.join(world.WORLDS)}"
        )
    rules, answers = world.get(language), prompts["answer"].tolist()

    def grade(index: int, response: str, finished: bool) -> str:
        return rules.grade(answers[index], response, finished)

    return grade


def ungraded(index: int, response: str, finished: bool) -> str:
    """What stands for a grade where no grader reads the language."""
    return "missing"

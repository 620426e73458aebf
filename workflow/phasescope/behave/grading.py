"""Grades of answers: exact ones, where the language is a symbolic world."""

import pandas as pd

from phasescope import world
from phasescope.behave.generation import Grader
from phasescope.errors import NotRun
from phasescope.tables.provenance import rooms_hash, sha256_json


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


def rubric(prompts: pd.DataFrame) -> str:
    """Hash of what `exact_grader` grades by: the reference answers and the worlds' rules."""
    return sha256_json([prompts["language"].iloc[0], list(prompts["answer"]), rooms_hash("world")])


def ungraded(index: int, response: str, finished: bool) -> str:
    """What stands for a grade where no grader reads the language."""
    return "missing"

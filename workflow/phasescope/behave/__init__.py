"""What a model really answers: generation, grades, degeneration, perplexity."""

from phasescope.behave.coherence import behavior, coherence
from phasescope.behave.generation import Condition, Decoding, generate, think_end
from phasescope.behave.grading import exact_grader, ungraded
from phasescope.behave.journal import Answer, Journal
from phasescope.behave.perplexity import log_perplexity, text_log_perplexity
from phasescope.behave.score import (
    COMPLIANT,
    Openings,
    find_openings,
    load_openings,
    save_openings,
    score_auroc,
)
from phasescope.behave.subject import Subject

__all__ = [
    "COMPLIANT",
    "Answer",
    "Condition",
    "Decoding",
    "Journal",
    "Openings",
    "Subject",
    "behavior",
    "coherence",
    "exact_grader",
    "find_openings",
    "generate",
    "load_openings",
    "log_perplexity",
    "save_openings",
    "score_auroc",
    "text_log_perplexity",
    "think_end",
    "ungraded",
]

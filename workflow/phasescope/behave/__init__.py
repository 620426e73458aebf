"""What a model really answers: generation, grades, degeneration, perplexity."""

from phasescope.behave.coherence import behavior, coherence
from phasescope.behave.generation import (
    Condition,
    Decoding,
    Response,
    generate,
    think_end,
    ungraded,
)
from phasescope.behave.journal import Answer, Journal
from phasescope.behave.perplexity import log_perplexity, text_log_perplexity
from phasescope.behave.score import (
    Openings,
    find_openings,
    load_openings,
    save_openings,
    score_auroc,
)
from phasescope.behave.subject import Subject
from phasescope.graders import COMPLIANT

__all__ = [
    "COMPLIANT",
    "Answer",
    "Condition",
    "Decoding",
    "Journal",
    "Openings",
    "Response",
    "Subject",
    "behavior",
    "coherence",
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

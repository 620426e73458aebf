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
from phasescope.behave.perplexity import Losses, losses, text_losses
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
    "Losses",
    "Openings",
    "Response",
    "Subject",
    "behavior",
    "coherence",
    "find_openings",
    "generate",
    "load_openings",
    "losses",
    "save_openings",
    "score_auroc",
    "text_losses",
    "think_end",
    "ungraded",
]

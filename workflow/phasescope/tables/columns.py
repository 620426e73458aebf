"""What schemas are made of: columns of a type, and those that many tables share."""

from dataclasses import dataclass

import pyarrow as pa

GRADES = ("refusal", "evasion", "hollow", "partial", "full", "degenerate", "missing")
GRADE_LETTERS = {grade: grade[0] for grade in GRADES}  # one each, in a line of many prompts' grades
LABELS = ("hazardous", "benign")
SPLITS = ("fit", "select", "evaluate")
STATUSES = ("run", "not_run")
VERDICTS = ("supported", "refuted", "inconclusive", "not_run", "uncalibrated")


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, what it means, and what it may hold."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    allowed: tuple[str, ...] | None = None


def text(name, description, *, nullable=False, allowed=None):
    """A text; `allowed` lists its values where they are few."""
    return Column(name, pa.string(), description, nullable, allowed)


def count(name, description, *, nullable=False):
    """A whole number."""
    return Column(name, pa.int64(), description, nullable)


def number(name, description, *, nullable=True):
    """A number that may be missing unless it says otherwise."""
    return Column(name, pa.float64(), description, nullable)


def flag(name, description, *, nullable=False):
    """True or false."""
    return Column(name, pa.bool_(), description, nullable)


CELL = (
    text("model", "id of the model in its sheet"),
    text("precision", "bits of the weights", allowed=("16", "8", "4")),
)
REASON = text("reason", "why it did not run, or what the verdict rests on", nullable=True)


def interval(name, what):
    """An estimate and both ends of its 95 % interval."""
    return (
        number(name, what),
        number(f"{name}_ci_low", f"lower end of the 95 % interval of {name}"),
        number(f"{name}_ci_high", f"upper end of the 95 % interval of {name}"),
    )


def estimated(what, by=""):
    """The columns `estimate`, `ci_low` and `ci_high`; `by`: what the interval is clustered by."""
    how = f", clustered by {by}" if by else ""
    return (
        number("estimate", what),
        number("ci_low", f"lower end of the 95 % interval{how}"),
        number("ci_high", f"upper end of the 95 % interval{how}"),
    )


def estimate(statistics, what):
    """The columns of a measured statistic, and of why there is none."""
    return (
        text("statistic", "what was measured", nullable=True, allowed=statistics),
        *estimated(what),
        count("n", "prompts behind it, both labels together"),
        text("status", "whether it ran", allowed=STATUSES),
        REASON,
    )

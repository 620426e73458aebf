"""The registry: every claim of the sources as one registered test."""

from collections.abc import Callable
from dataclasses import dataclass

from phasescope.errors import PhasescopeError

SCOPES = ("cell", "model", "study")
SOURCES = {
    "failure-first": "000_8d352248793ea684.txt",
    "across-scale": "001_a2b0ff15f2ab082a.txt",
    "frontier-moe": "002_201a4093f73e947f.txt",
}
# kinds of controls: trained weights; a table simulated from a stated process; a writer or a file of
# a checkpoint; the same organism behind endpoints; none, because nobody knows how to plant it
KINDS = ("organisms", "arithmetic", "writer", "checkpoint", "endpoints", "no plant known")


@dataclass(frozen=True)
class Control:
    """What a claim must come out as right on.

    names: organisms (ids in their sheet; several: compared together), writers, checkpoints, or
    endpoints of the calibration study; of arithmetic ones, the process that is simulated. of: the
    organism whose checkpoints they are; what other organisms are exported to says other things.
    """

    kind: str
    names: tuple[str, ...] = ()
    of: str | None = None

    def __str__(self) -> str:
        names = ", ".join(self.names) + (f" of {self.of}" if self.of else "")
        if self.kind == "organisms":
            return names
        return f"{self.kind}: {names}" if names else self.kind


def organism(*names: str) -> Control:
    """Organisms by their id in the sheet."""
    return Control("organisms", names)


def arithmetic(process: str) -> Control:
    """Tables simulated from a stated process."""
    return Control("arithmetic", (process,))


NO_PLANT = Control("no plant known")


@dataclass(frozen=True)
class Claim:
    """A claim of the sources and the test of it.

    source: id of the source document; tables: that it reads; designs: of the table `interventions`
    (or conditions of answers) without which it cannot run; statistic: what is estimated, with its
    unit; keys: limits that it reads, of section `claims` or `section.key`; scope: what one verdict
    is of; test: gives evidence for one such unit, or a dict of them by subject.
    """

    id: str
    statement: str
    source: str
    tables: tuple[str, ...]
    designs: tuple[str, ...]
    statistic: str
    keys: tuple[str, ...]
    scope: str
    positive: Control
    negative: Control
    test: Callable
    by_language: bool

    @property
    def group(self) -> str:
        """A, B or C: the source document."""
        return "ABC"[list(SOURCES).index(self.source)]


CLAIMS: dict[str, Claim] = {}


def claim(
    id: str,
    statement: str,
    *,
    tables: tuple[str, ...],
    statistic: str,
    keys: tuple[str, ...],
    scope: str,
    positive: Control,
    negative: Control,
    designs: tuple[str, ...] = (),
    by_language: bool = True,
) -> Callable:
    """Register the decorated function as the test of a claim.

    by_language: its verdict rests on grades, and so on a grader that was checked on the language.
    """
    source = {"ff": "failure-first", "xs": "across-scale"}.get(id[:2], "frontier-moe")
    if scope not in SCOPES or {positive.kind, negative.kind} - set(KINDS) or id in CLAIMS:
        raise ValueError(f"claim {id}: registered already, or not a scope or a kind of control")

    def register(test: Callable) -> Callable:
        CLAIMS[id] = Claim(
            id,
            statement,
            source,
            tables,
            designs,
            statistic,
            keys,
            scope,
            positive,
            negative,
            test,
            by_language,
        )
        return test

    return register


def claim_of(id: str) -> Claim:
    """A claim by its id; PhasescopeError for one that is not registered."""
    if id not in CLAIMS:
        raise PhasescopeError(f"claim {id!r}: no such claim; registered: {', '.join(CLAIMS)}")
    return CLAIMS[id]

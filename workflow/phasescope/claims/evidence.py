"""What a claim says of numbers: conditions, all or any of which must hold."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from phasescope.claims.estimates import Estimate
from phasescope.errors import NotRun


@dataclass(frozen=True)
class Condition:
    """An estimate on the claimed side of a limit.

    what: the quantity in words; key: of the limit in the file of thresholds, section `claims` (or
    another, `section.key`); above: the claimed side; weak: why the estimate cannot carry a verdict
    (too few prompts, no shams), None where it can.
    """

    what: str
    estimate: Estimate
    limit: float
    key: str
    above: bool = True
    weak: str | None = None

    def weigh(self) -> "Weight":
        """The side that the estimate lies on, and p of the limit."""
        distance = self.estimate.value - self.limit
        p = 1.0 if math.isnan(distance) else self.estimate.p(self.limit)
        holds = distance == 0 or (distance > 0) == self.above
        if self.weak or math.isnan(distance):
            p = 1.0
        return Weight(holds and not math.isnan(distance), p, self, p)

    def leaves(self) -> Iterator["Condition"]:
        """Itself."""
        yield self


@dataclass(frozen=True)
class Weight:
    """What a node of conditions comes to: the side, its p, the leaf that decides, and that one's
    own p."""

    holds: bool
    p: float
    leaf: Condition
    leaf_p: float


@dataclass(frozen=True)
class Node:
    """Several conditions or nodes; `every`: all must hold, otherwise any.

    All hold when each does, at the level of each (an intersection-union test); that not all hold
    needs one that fails, and there are as many chances of that as there are parts, so p is
    multiplied (Bonferroni). Any: the other way round.
    """

    parts: tuple["Condition | Node", ...]
    every: bool
    notes: tuple[str, ...] = field(default=())

    def weigh(self) -> Weight:
        """The side that the evidence lies on, and its p."""
        weights = [part.weigh() for part in self.parts]
        deciding = [w for w in weights if w.holds != self.every]
        if deciding:  # one part settles it
            one = min(deciding, key=lambda w: w.p)
            return Weight(not self.every, min(1.0, len(weights) * one.p), one.leaf, one.leaf_p)
        last = max(weights, key=lambda w: w.p)
        return Weight(self.every, last.p, last.leaf, last.leaf_p)

    def leaves(self) -> Iterator[Condition]:
        """All conditions below."""
        for part in self.parts:
            yield from part.leaves()


def every(*parts: "Condition | Node", notes: tuple[str, ...] = ()) -> Node:
    """All of them must hold."""
    return Node(tuple(parts), True, notes)


def some(*parts: "Condition | Node", notes: tuple[str, ...] = ()) -> Node:
    """One of them must hold."""
    return Node(tuple(parts), False, notes)


def some_of(view, *finds: Callable) -> Node:
    """One of the conditions must hold that several functions of a view find, each of which may have
    none. Raises NotRun with all reasons where none has any."""
    parts, why = [], []
    for find in finds:
        try:
            parts += find(view)
        except NotRun as reason:
            why.append(str(reason))
    if not parts:
        raise NotRun("; ".join(why))
    return some(*parts)


@dataclass(frozen=True)
class Stated:
    """A verdict that a table has already, by code of its own (`across_models`, `survival`)."""

    verdict: str
    what: str
    estimate: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    p: float | None = None
    p_holm: float | None = None
    limit: float | None = None
    reason: str | None = None


Evidence = Condition | Node | Stated

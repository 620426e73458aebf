"""Interventions: applied in memory, undone on exit, recorded. What they act on: other modules."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.errors import NotRun, PhasescopeError
from phasescope.model import LanguageModel, Site, tapped
from phasescope.tables.provenance import sha256_json

# activations (n, layers, width) at the sites of one kind
Recorded = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Touched:
    """What an edit changed: sites asked for, sites changed, and how much of what stood there, as
    a share (root mean squares of activations or weights, or selections of experts), mean over
    sites. partly: of experts asked for together in one block, which the edit changed not."""

    sites_requested: int
    sites_hit: int
    norm_removed: float
    partly: tuple[str, ...] = ()


class Edit(ABC):
    """An intervention on some layers of a model."""

    @property
    @abstractmethod
    def layers(self) -> list[int]:
        """The layers that it edits."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Largest number of directions, or of experts, that it takes away in a layer."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Hash of all that determines the edit, for the journal."""

    @abstractmethod
    def within(self, layers: Collection[int]) -> "Edit":
        """The same edit on no other than these layers."""

    def taps(self, lm: LanguageModel) -> dict[Site, Callable[[mx.array], mx.array]] | None:
        """What passes the activations at each site through a function, row by row of the batch;
        None for an edit of weights."""
        return None

    def entered(self, lm: LanguageModel) -> AbstractContextManager:
        """The edit in force while the block runs."""
        return tapped(lm, self.taps(lm))

    @abstractmethod
    def measured(self, lm: LanguageModel, sequences: list[list[int]], batch_size: int) -> Touched:
        """What it changes while the model reads prompts."""

    def variance_removed(self, recorded: Recorded) -> float:
        """Share of the activations' variance that it takes away, mean over sites; missing for
        edits that do not act on activations."""
        return float("nan")


@dataclass(frozen=True)
class Combination(Edit):
    """Several edits at once; later ones see what earlier ones left."""

    parts: tuple[Edit, ...]

    @property
    def layers(self) -> list[int]:
        return sorted({layer for part in self.parts for layer in part.layers})

    @property
    def rank(self) -> int:
        return max(part.rank for part in self.parts)

    @property
    def key(self) -> str:
        return sha256_json([part.key for part in self.parts])

    def within(self, layers):
        kept = [part.within(layers) for part in self.parts if set(part.layers) & set(layers)]
        return Combination(tuple(kept))

    def taps(self, lm):
        found: dict = {}
        for part in self.parts:
            own = part.taps(lm)
            if own is None:
                return None
            for site, function in own.items():
                found.setdefault(site, []).append(function)
        return {s: f[0] if len(f) == 1 else _in_turn(f) for s, f in found.items()}

    @contextmanager
    def entered(self, lm):
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.entered(lm))
            yield

    def measured(self, lm, sequences, batch_size):
        found = [part.measured(lm, sequences, batch_size) for part in self.parts]
        return Touched(
            sum(f.sites_requested for f in found),
            sum(f.sites_hit for f in found),
            float(np.mean([f.norm_removed for f in found])),
            tuple(said for f in found for said in f.partly),
        )

    def variance_removed(self, recorded):
        found = [part.variance_removed(recorded) for part in self.parts]
        return float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")


def _in_turn(functions: list[Callable]) -> Callable:
    def run(x: mx.array) -> mx.array:
        for function in functions:
            x = function(x)
        return x

    return run


def of_kind(lm: LanguageModel, edit: Edit, kind: str) -> Edit:
    """The edit on layers that mix tokens by 'attention', or by a 'recurrent' state, alone.

    Raises NotRun where none of its layers is of that kind.
    """
    own = {i for i, mixer in enumerate(lm.layer_kinds) if mixer == kind}
    if not own & set(edit.layers):
        raise NotRun(f"none of the edited layers is of the kind {kind!r}")
    return edit.within(own)


def check_layers(lm: LanguageModel, edit: Edit) -> None:
    """Refuse an edit of the top layer, or of nothing."""
    top = len(lm.blocks) - 1
    if not edit.layers:
        raise PhasescopeError("an intervention must name at least one site; it names none")
    if top in edit.layers:
        raise PhasescopeError(
            f"layer {top} is the top layer, which is never edited: that would edit the logits"
        )


@contextmanager
def applied(lm: LanguageModel, edit: Edit) -> Iterator[None]:
    """Apply an edit while the block runs. The top layer is never edited.

    Raises PhasescopeError when the edit asks for the top layer, or for no site at all.
    """
    check_layers(lm, edit)
    with edit.entered(lm):
        yield


def touch(lm: LanguageModel, edit: Edit, sequences: list[list[int]], batch_size: int) -> Touched:
    """Run prompts under an edit and record what it changes; zero hits is an error."""
    check_layers(lm, edit)
    return hit(edit.measured(lm, sequences, batch_size))


def hit(found: Touched) -> Touched:
    """What an edit changed, if it is anything; else PhasescopeError."""
    if found.sites_hit == 0:
        raise PhasescopeError(
            f"the intervention changed nothing at any of its {found.sites_requested} sites"
        )
    return found

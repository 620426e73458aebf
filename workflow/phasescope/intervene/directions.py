"""Directions and safety experts of a cell, from its fit activations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene.routing import safety_experts
from phasescope.probe import auroc_topic_left_out, difference_of_means

LAYER_SHARE_LATE = 0.5  # the late residual stream: blocks from this share of the depth


@dataclass
class Source:
    """Fit activations that directions come from, at one token position.

    hazardous, benign: float32 (pairs, layers, width); topics: category of each benign prompt;
    rates: how often each expert is selected, (2, layers, experts), hazardous first, where the
    model routes.
    """

    hazardous: np.ndarray
    benign: np.ndarray
    topics: np.ndarray
    rates: np.ndarray | None = None

    @property
    def differences(self) -> np.ndarray:
        """Difference of means after every block, hazardous minus benign: (layers, width)."""
        return difference_of_means(self.hazardous, self.benign)

    @property
    def pooled(self) -> np.ndarray:
        """All activations, both labels: (2 pairs, layers, width)."""
        return np.concatenate([self.hazardous, self.benign])

    def subspace(self, layer: int, rank: int) -> np.ndarray:
        """Orthonormal directions (rank, width) of a layer: the difference of means, then the
        largest principal directions of the pairs' differences beside it."""
        pairs = self.hazardous[:, layer] - self.benign[:, layer]
        first = unit(self.differences[layer])[None]
        rest = np.linalg.svd(pairs - (pairs @ first.T) @ first, full_matrices=False)[2]
        return orthonormal(np.concatenate([first, rest[: rank - 1]]))

    def readable(self, layers: list[int]) -> float:
        """Best AUROC over layers of a direction on topics that it was not fitted on."""
        return max(
            auroc_topic_left_out(self.hazardous[:, i], self.benign[:, i], self.topics)
            for i in layers
        )

    def gap(self, layer: int) -> float:
        """Gap between the labels along a layer's direction, in its own standard deviations."""
        r = unit(self.differences[layer])
        a, b = self.hazardous[:, layer] @ r, self.benign[:, layer] @ r
        spread = np.sqrt((a.var() + b.var()) / 2)
        return float((a.mean() - b.mean()) / spread) if spread > 0 else 0.0

    def benign_topic_chain(self, rng: np.random.Generator) -> np.ndarray:
        """Differences of means of unrelated benign topics, in a random order of the topics:
        (topics - 1, layers, width). Raises PhasescopeError under 3 topics."""
        topics = np.unique(self.topics)
        if len(topics) < 3:
            raise PhasescopeError(
                "shams need at least 3 benign categories among the fit prompts; "
                f"found {len(topics)}"
            )
        order = rng.permutation(topics)
        means = np.stack([self.benign[self.topics == t].mean(axis=0) for t in order])
        return means[:-1] - means[1:]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length 1 over the last axis; zero vectors stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def orthonormal(vectors: np.ndarray) -> np.ndarray:
    """Gram-Schmidt in the order given: (k, width) to orthonormal rows of the same span."""
    q, r = np.linalg.qr(vectors.T)
    keep = np.abs(np.diag(r)) > 1e-6 * np.abs(r).max()
    return q.T[keep]


def _by_layer(experts: list[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    """Experts of (layer, number) by layer, in their order."""
    layers = sorted({i for i, _ in experts})
    return {i: tuple(int(e) for own, e in experts if own == i) for i in layers}


def _least(saliency: np.ndarray, share: float, stay: int) -> list[tuple[int, int]]:
    """The share of the experts (layers, experts) with the least saliency, `stay` left a layer."""
    order = np.argsort(saliency, axis=None, kind="stable")
    ranked = [tuple(map(int, np.unravel_index(i, saliency.shape))) for i in order]
    taken, left = [], np.full(len(saliency), saliency.shape[1] - stay)
    for layer, expert in ranked:
        if len(taken) < round(share * saliency.size) and left[layer] > 0:
            taken.append((layer, expert))
            left[layer] -= 1
    return taken


@dataclass(frozen=True)
class Selected:
    """The chosen direction: from which layer and token position."""

    layer: int
    position: str


@dataclass(frozen=True)
class Directions:
    """What a cell's designs take their directions from: fit activations by token position, and
    the selected direction where one qualified; what mixes tokens in each layer ('attention',
    'recurrent'); and, where the model routes, what gives each expert's share of what its layer's
    experts write (layers, experts), and how many a token selects."""

    sources: dict[str, Source]
    selected: Selected | None
    layer_kinds: tuple[str, ...] = ()
    saliency: Callable[[], tuple[np.ndarray, int]] | None = None

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return next(iter(self.sources.values())).hazardous.shape[1]

    @property
    def below_top(self) -> list[int]:
        """Every layer that may be edited."""
        return list(range(self.n_layers - 1))

    @property
    def late(self) -> list[int]:
        """The upper half of the layers that may be edited."""
        return list(range(int(LAYER_SHARE_LATE * self.n_layers), self.n_layers - 1))

    def position(self, name: str | None = None) -> str:
        """A token position: the one named, or the selected direction's, or the first there is."""
        return name or (self.selected.position if self.selected else next(iter(self.sources)))

    def source(self, name: str | None = None) -> Source:
        """Fit activations at `position(name)`."""
        return self.sources[self.position(name)]

    def positions(self, min_auroc: float) -> list[str]:
        """The positions where hazard can be read in some layer; all, where it can be at none.

        A direction fitted on noise damages as much as it may and tells nothing.
        """
        good = [n for n, s in self.sources.items() if s.readable(self.below_top) >= min_auroc]
        return good or list(self.sources)

    def chosen(self) -> np.ndarray:
        """The selected direction (width,); NotRun where none qualified."""
        if self.selected is None:
            raise NotRun("it needs a selected direction, and none qualified")
        return self.source().differences[self.selected.layer]

    def experts_layers(self, name: str | None = None) -> list[int]:
        """The layers that have safety experts; none for a model without."""
        try:
            return sorted(self.experts(name))
        except NotRun:
            return []

    def experts(self, name: str | None = None, share: float = 1.0) -> dict[int, tuple[int, ...]]:
        """Safety experts by layer, the top layer left out; or a share of all of them, those first
        that hazardous prompts prefer most.

        Raises NotRun for a model without experts, or where none is selected more often for
        hazardous prompts.
        """
        rates = self.source(name).rates
        if rates is None:
            raise NotRun("the model has no experts, so there is no routing to mask")
        found = safety_experts(rates[:, :-1])
        if not found:
            raise NotRun("no expert is selected more often for hazardous prompts")
        difference = rates[0] - rates[1]
        ranked = sorted(
            ((i, e) for i, own in found.items() for e in own), key=lambda x: -difference[x]
        )
        return _by_layer(ranked[: max(1, round(share * len(ranked)))])

    def idle_experts(self, share: float) -> dict[int, tuple[int, ...]]:
        """The share of all experts that write least, by layer, the top layer left out.

        As many stay in a layer as its router selects for a token. Raises NotRun for a model without
        experts.
        """
        if self.saliency is None:
            raise NotRun("the model has no experts to prune")
        found, k = self.saliency()
        return _by_layer(_least(found[:-1], share, k))

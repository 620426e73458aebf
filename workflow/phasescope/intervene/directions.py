"""Directions of a cell, and the shams that are matched to them."""

from dataclasses import dataclass

import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.intervene.edits import Ablation, Addition, variance_shares
from phasescope.probe import difference_of_means


@dataclass
class Source:
    """Fit activations that directions come from, at one token position.

    hazardous, benign: float32 (pairs, layers, width); topics: category of each benign prompt.
    """

    hazardous: np.ndarray
    benign: np.ndarray
    topics: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        """Difference of means after every block, hazardous minus benign: (layers, width)."""
        return difference_of_means(self.hazardous, self.benign)

    @property
    def pooled(self) -> np.ndarray:
        """All activations, both labels: (2 pairs, layers, width)."""
        return np.concatenate([self.hazardous, self.benign])

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


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
    """Gram-Schmidt in the order given: (k, width) to orthonormal rows of the same span."""
    q, r = np.linalg.qr(vectors.T)
    keep = np.abs(np.diag(r)) > 1e-6 * np.abs(r).max()
    return q.T[keep]


def _matched_doses(shares: np.ndarray, target: float) -> np.ndarray:
    """Doses along orthonormal directions that together remove `target` of the variance.

    Directions are taken whole, in order, until the next would remove too much; that one is taken
    in part. Where all together fall short, all are taken.
    """
    doses = []
    for share in shares:
        if target <= 1e-12:
            break
        part = min(1.0, target / share) if share > 0 else 0.0
        doses.append(1 - np.sqrt(1 - part))
        target -= part * share
    return np.array(doses)


def sham_ablation(
    real: Ablation,
    source: Source,
    activations: dict[int, np.ndarray],
    shared_layer: int | None,
    rng: np.random.Generator,
) -> Ablation:
    """A sham beside an ablation: differences of means of unrelated benign topics, as many as
    remove the same variance, at the same sites.

    activations: (n, width) at each edited site; shared_layer: where the real edit uses one
    direction for all layers, the layer that it came from (the sham does as well).
    """
    chain = source.benign_topic_chain(rng)
    layers = list(real.vectors)
    if shared_layer is not None:
        basis = _orthonormal(chain[:, shared_layer])
        shares = np.mean([variance_shares(basis, activations[i]) for i in layers], axis=0)
        target = np.mean([real.variance_removed(i, activations[i]) for i in layers])
        doses = _matched_doses(shares, float(target))
        basis = basis[: len(doses)]
        return Ablation(real.kind, dict.fromkeys(layers, basis), dict.fromkeys(layers, doses))
    vectors, chosen = {}, {}
    for i in layers:
        basis = _orthonormal(chain[:, i])
        target = real.variance_removed(i, activations[i])
        chosen[i] = _matched_doses(variance_shares(basis, activations[i]), target)
        vectors[i] = basis[: len(chosen[i])]
    return Ablation(real.kind, vectors, chosen)


def sham_addition(real: Addition, source: Source, rng: np.random.Generator) -> Addition:
    """A sham beside an addition: a difference of benign topics of the same length."""
    chain = source.benign_topic_chain(rng)[0]
    return Addition(
        real.kind,
        {i: unit(chain[i : i + 1]) * np.linalg.norm(v) for i, v in real.vectors.items()},
    )

"""Shams: beside each intervention one that is matched to it and has nothing to do with safety."""

from dataclasses import replace

import numpy as np

from phasescope.intervene.activations import Ablation, Addition, variance_shares
from phasescope.intervene.directions import Source, orthonormal, unit
from phasescope.intervene.edits import Combination, Edit, Recorded
from phasescope.intervene.integers import IntegerEdit
from phasescope.intervene.routing import ExpertEdit, ExpertPruning
from phasescope.intervene.scope import OnPrompt
from phasescope.intervene.weights import WeightProjection

_NEAREST = 3  # experts that a masked one may be matched with


def sham(
    real: Edit,
    source: Source,
    recorded: Recorded,
    shared_layer: int | None,
    rng: np.random.Generator,
) -> Edit:
    """The sham of an edit, part by part where it is a combination; see the functions below."""
    if isinstance(real, Combination):
        parts = (sham(part, source, recorded, shared_layer, rng) for part in real.parts)
        return Combination(tuple(parts))
    if isinstance(real, Addition):
        return sham_addition(real, source, rng)
    if isinstance(real, OnPrompt):
        return OnPrompt(sham(real.edit, source, recorded, shared_layer, rng))
    if isinstance(real, ExpertPruning):
        return sham_pruning(real, source, rng)
    if isinstance(real, ExpertEdit):
        return sham_experts(real, source, rng)
    if isinstance(real, WeightProjection | IntegerEdit):
        return sham_projection(real, source, shared_layer, rng)
    values = recorded(real.kind)
    activations = {i: values[:, i] for i in real.layers}
    return sham_ablation(real, source, activations, shared_layer, rng)


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
        basis = orthonormal(chain[:, shared_layer])
        shares = np.mean([variance_shares(basis, activations[i]) for i in layers], axis=0)
        target = np.mean([real.variance_share(i, activations[i]) for i in layers])
        doses = _matched_doses(shares, float(target))
        basis = basis[: len(doses)]
        return Ablation(real.kind, dict.fromkeys(layers, basis), dict.fromkeys(layers, doses))
    vectors, chosen = {}, {}
    for i in layers:
        basis = orthonormal(chain[:, i])
        target = real.variance_share(i, activations[i])
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


def sham_projection(
    real: WeightProjection | IntegerEdit,
    source: Source,
    shared_layer: int | None,
    rng: np.random.Generator,
) -> WeightProjection | IntegerEdit:
    """A sham beside a weight edit: differences of benign topics, as many as it projects out, of the
    same projections at the same dose, or by the same share of integers."""
    chain = source.benign_topic_chain(rng)
    vectors = {
        i: orthonormal(chain[: len(v), i if shared_layer is None else shared_layer])
        for i, v in real.vectors.items()
    }
    return replace(real, vectors=vectors)


def sham_pruning(real: ExpertPruning, source: Source, rng: np.random.Generator) -> ExpertPruning:
    """A sham beside pruned experts: as many of the same layers, drawn at random from all."""
    n = source.rates.shape[-1]
    drawn = {i: sorted(rng.choice(n, len(e), replace=False)) for i, e in real.experts.items()}
    return ExpertPruning({i: tuple(map(int, own)) for i, own in drawn.items()})


def sham_experts(real: ExpertEdit, source: Source, rng: np.random.Generator) -> ExpertEdit:
    """A sham beside an edit of safety experts: the same done to as many others, each drawn from the
    three whose benign selection rates are nearest to that of the expert it stands for."""
    found = {}
    for layer, experts in real.experts.items():
        benign = source.rates[1, layer]
        free = [e for e in range(len(benign)) if e not in experts]
        taken = []
        for expert in experts:
            left = sorted(
                (e for e in free if e not in taken), key=lambda e: abs(benign[e] - benign[expert])
            )
            taken.append(int(rng.choice(left[:_NEAREST])))
        found[layer] = tuple(taken)
    return type(real)(found)

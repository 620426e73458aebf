"""Which experts a router selects."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from phasescope.model.loading import LanguageModel
from phasescope.model.recording import record
from phasescope.model.sites import SELECTION_BIAS, router


def routes(lm: LanguageModel) -> bool:
    """Whether every block routes tokens to experts."""
    return all(lm.adapter.router_of(block) is not None for block in lm.blocks)


def n_experts(lm: LanguageModel) -> int:
    """How many experts a router chooses from."""
    return router(lm, 0).gate.weight.shape[0]


def top_k(lm: LanguageModel, layer: int) -> int:
    """How many experts the router of a block selects for a token."""
    found = router(lm, layer)
    return found.top_k if "top_k" in vars(found) else found.num_experts_per_tok


def routed(lm: LanguageModel, layer: int, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Experts that the router of a block selects for its logits (..., experts), and their weights:
    int and float32 (..., k), the largest weight first.

    Softmax routers select by the softmax and weigh by it, renormalized over the selected where the
    model says so. Sigmoid routers (MiniMax) select by the sigmoid plus a bias that counts for the
    selection only, and weigh by the sigmoid alone, renormalized.
    """
    found, logits = router(lm, layer), mx.array(logits)
    k = top_k(lm, layer)
    if SELECTION_BIAS in found:
        weights = mx.sigmoid(logits)
        scores, renormalized = weights + found[SELECTION_BIAS], True
    else:
        scores = weights = mx.softmax(logits, axis=-1, precise=True)
        renormalized = found.norm_topk_prob
    chosen = mx.argpartition(-scores, kth=k - 1, axis=-1)[..., :k]
    weights = mx.take_along_axis(weights, chosen, axis=-1)
    if renormalized:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    order = mx.argsort(-weights, axis=-1)
    return tuple(np.array(mx.take_along_axis(x, order, axis=-1)) for x in (chosen, weights))


def selections(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    batch_size: int,
) -> np.ndarray:
    """Selected experts at token positions: int (sequences, positions, layers, k).

    Raises NotRun for a model that has a block without experts.
    """
    for layer in range(len(lm.blocks)):
        router(lm, layer)
    logits = record(lm, "router", sequences, positions, batch_size)
    return np.stack([routed(lm, i, logits[..., i, :])[0] for i in range(logits.shape[-2])], axis=-2)

"""Interventions on routing: experts that no token may select."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.intervene.edits import Edit, Touched
from phasescope.model import LanguageModel, Site, selections, top_k
from phasescope.tables.provenance import sha256_json


@dataclass(frozen=True)
class RoutingMask(Edit):
    """Experts masked in some layers: minus infinity on the score that selects (SteerMoE 2025).

    `experts` maps each edited layer to the numbers of its masked experts. On routers with a bias
    for selection only (MiniMax) the mask acts on that bias, so a masked expert is never selected
    whatever its bias was.
    """

    experts: dict[int, tuple[int, ...]]

    @property
    def layers(self) -> list[int]:
        return sorted(self.experts)

    @property
    def rank(self) -> int:
        return max(map(len, self.experts.values()))

    @property
    def key(self) -> str:
        return sha256_json(["RoutingMask", sorted((i, sorted(e)) for i, e in self.experts.items())])

    def taps(self, lm):
        return {Site("expert_selection", i): self._mask(lm, i) for i in self.layers}

    def _mask(self, lm: LanguageModel, layer: int):
        masked = mx.array(sorted(self.experts[layer]))

        def mask(scores: mx.array) -> mx.array:
            numbers = mx.arange(scores.shape[-1])
            left = scores.shape[-1] - masked.size
            if left < top_k(lm, layer):
                raise PhasescopeError(
                    f"layer {layer}: {masked.size} of {scores.shape[-1]} experts masked leaves "
                    f"{left}; the router selects {top_k(lm, layer)} a token"
                )
            hit = (numbers[:, None] == masked).any(axis=-1)
            return mx.where(hit, mx.array(-mx.inf, scores.dtype), scores)

        return mask

    def measured(self, lm, sequences, batch_size):
        """Sites are experts: one is hit if a prompt's token would select it without the mask."""
        length = min(map(len, sequences))
        found = selections(lm, sequences, [[*range(length)]] * len(sequences), batch_size)
        hits, shares = 0, []
        for layer, experts in self.experts.items():
            chosen = found[:, :, layer]
            hits += len(set(experts) & set(np.unique(chosen).tolist()))
            shares.append(np.isin(chosen, experts).mean())
        return Touched(sum(map(len, self.experts.values())), hits, float(np.mean(shares)))


def safety_experts(
    rates: np.ndarray, min_difference: float = 0.05, max_share: float = 0.25
) -> dict[int, tuple[int, ...]]:
    """Experts that hazardous prompts select more often than benign ones (SteerMoE 2025).

    rates: selection rates (2, layers, experts), hazardous first. In each layer the experts with
    the largest differences over `min_difference`, at most `max_share` of the layer's experts;
    layers that have none are left out.
    """
    difference = rates[0] - rates[1]
    most = max(1, int(max_share * difference.shape[1]))
    found = {}
    for layer, row in enumerate(difference):
        order = np.argsort(-row, kind="stable")[:most]
        if experts := tuple(int(e) for e in order if row[e] > min_difference):
            found[layer] = experts
    return found


def selection_rates(chosen: np.ndarray, n_experts: int) -> np.ndarray:
    """Share of tokens that select each expert: chosen (tokens, layers, k) to (layers, experts)."""
    return np.stack(
        [
            np.bincount(chosen[:, i].ravel(), minlength=n_experts) / len(chosen)
            for i in range(chosen.shape[1])
        ]
    )

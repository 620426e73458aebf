"""Interventions on experts: masked, blinded in their router, or silenced."""

from abc import abstractmethod
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.intervene.edits import Edit, Touched
from phasescope.model import LanguageModel, Site, record, router, selections, top_k
from phasescope.tables.provenance import sha256_json


@dataclass(frozen=True)
class ExpertEdit(Edit):
    """An intervention on named experts; `experts` maps each edited layer to their numbers.

    Its sites are experts: one is hit if a prompt's token would select it without the edit.
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
        named = sorted((i, sorted(e)) for i, e in self.experts.items())
        return sha256_json([type(self).__name__, named])

    def within(self, layers):
        return type(self)({i: e for i, e in self.experts.items() if i in layers})

    def taps(self, lm):
        return {
            site: function
            for layer, experts in self.experts.items()
            for site, function in self.at(lm, layer, mx.array(sorted(experts))).items()
        }

    @abstractmethod
    def at(self, lm: LanguageModel, layer: int, experts: mx.array) -> dict:
        """Functions by site of one layer."""

    def measured(self, lm, sequences, batch_size):
        length = min(map(len, sequences))
        places = [[*range(length)]] * len(sequences)
        chosen = selections(lm, sequences, places, batch_size)
        hit, shares = {}, []
        for layer, experts in self.experts.items():
            hit[layer] = set(experts) & set(np.unique(chosen[:, :, layer]).tolist())
            shares.append(np.isin(chosen[:, :, layer], experts).mean())
        return self._touched(hit, float(np.mean(shares)))

    def _touched(self, hit: dict[int, set[int]], removed: float) -> Touched:
        partly = [
            f"layer {i}: {len(hit[i])} of {len(e)} experts, not {', '.join(map(str, missed))}"
            for i, e in sorted(self.experts.items())
            if (missed := sorted(set(e) - hit[i]))
        ]
        requested = sum(map(len, self.experts.values()))
        return Touched(requested, sum(map(len, hit.values())), removed, tuple(partly))


def _among(numbers: mx.array, experts: mx.array) -> mx.array:
    """Whether each number is one of some experts."""
    return (numbers[..., None] == experts).any(axis=-1)


@dataclass(frozen=True)
class RoutingMask(ExpertEdit):
    """Experts that no token may select: minus infinity on the score that selects (SteerMoE 2025).

    On routers with a bias for selection only (MiniMax) the mask acts on that bias, so a masked
    expert is never selected whatever its bias was.
    """

    def at(self, lm, layer, experts):
        def mask(scores: mx.array) -> mx.array:
            left = scores.shape[-1] - experts.size
            if left < top_k(lm, layer):
                raise PhasescopeError(
                    f"layer {layer}: {experts.size} of {scores.shape[-1]} experts masked leaves "
                    f"{left}; the router selects {top_k(lm, layer)} a token"
                )
            hit = _among(mx.arange(scores.shape[-1]), experts)
            return mx.where(hit, mx.array(-mx.inf, scores.dtype), scores)

        return {Site("expert_selection", layer): mask}


@dataclass(frozen=True)
class ExpertPruning(RoutingMask):
    """Experts masked because they do little, whatever they do it for. One that no token selects is
    hit all the same: that nothing is lost with it is what is asked (f20)."""

    def _touched(self, hit, removed):
        return super()._touched({i: set(e) for i, e in self.experts.items()}, removed)


@dataclass(frozen=True)
class RouterBlinding(ExpertEdit):
    """Experts whose router weights are zero, the naive way: their logit is 0 (or the router's own
    bias), which is *more* than the negative logits of others, so they may be chosen more (f17)."""

    def at(self, lm, layer, experts):
        gate = router(lm, layer).gate

        def blind(logits: mx.array) -> mx.array:
            zeroed = gate.bias if "bias" in gate else mx.zeros(logits.shape[-1])
            hit = _among(mx.arange(logits.shape[-1]), experts)
            return mx.where(hit, zeroed.astype(logits.dtype), logits)

        return {Site("router", layer): blind}

    def measured(self, lm, sequences, batch_size):
        """One is hit if a prompt's token has another logit for it; what is removed is the root mean
        square of its logits among all of the router's."""
        length = min(map(len, sequences))
        places = [[*range(length)]] * len(sequences)
        logits = record(lm, "router", sequences, places, batch_size)
        hit, shares = {}, []
        for layer, experts in self.experts.items():
            own = np.square(logits[:, :, layer]).sum(axis=(0, 1))
            hit[layer] = {e for e in experts if own[e] > 0}
            shares.append(np.sqrt(own[list(experts)].sum() / own.sum()))
        return self._touched(hit, float(np.mean(shares)))


@dataclass(frozen=True)
class ExpertSilencing(ExpertEdit):
    """Experts that are selected as ever and say nothing: their output is zero."""

    def at(self, lm, layer, experts):
        seen: list[mx.array] = []  # the selection of the call whose output comes next

        def select(numbers: mx.array) -> mx.array:
            seen[:] = [numbers]
            return numbers

        def silence(outputs: mx.array) -> mx.array:
            return mx.where(_among(seen.pop(), experts)[..., None], 0, outputs)

        return {Site("selected_experts", layer): select, Site("experts", layer): silence}


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

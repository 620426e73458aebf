"""Interventions on the prompt's tokens only, none of the answer's."""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from phasescope.errors import PhasescopeError
from phasescope.intervene.activations import ActivationEdit
from phasescope.intervene.edits import Edit
from phasescope.model import LanguageModel
from phasescope.tables.provenance import sha256_json


@dataclass(frozen=True)
class OnPrompt(Edit):
    """An edit of activations while the prompt is read; what is generated passes as it is.

    In generation the prompt is what is read in calls of several tokens and the one token after
    them. Where a whole answer is read in one pass, it begins where `LanguageModel.answer_starts`
    says; a pass without that is all prompt.
    """

    edit: ActivationEdit

    @property
    def layers(self) -> list[int]:
        return self.edit.layers

    @property
    def rank(self) -> int:
        return self.edit.rank

    @property
    def key(self) -> str:
        return sha256_json(["OnPrompt", self.edit.key])

    def within(self, layers):
        return OnPrompt(self.edit.within(layers))

    def taps(self, lm):
        own = self.edit.taps(lm)
        if own is None:
            raise PhasescopeError("an edit of weights acts on every token, not on the prompt's")
        return {site: _while_reading(lm, function) for site, function in own.items()}

    def measured(self, lm, sequences, batch_size):
        return self.edit.measured(lm, sequences, batch_size)

    def variance_removed(self, recorded):
        return self.edit.variance_removed(recorded)


def _while_reading(lm: LanguageModel, function: Callable) -> Callable:
    last_of_prompt = True

    def run(x: mx.array) -> mx.array:
        nonlocal last_of_prompt
        if x.shape[1] > 1:
            last_of_prompt = True
            if lm.answer_starts is None:
                return function(x)
            within = mx.arange(x.shape[1]) < lm.answer_starts[:, None]
            return mx.where(within[..., None], function(x), x)
        reading, last_of_prompt = last_of_prompt, False
        return function(x) if reading else x

    return run

"""Loading through mlx-lm; sites of each architecture; recording and editing at sites."""

from phasescope.model.adapters import ADAPTERS, Adapter, adapter_for
from phasescope.model.loading import LanguageModel, load_model
from phasescope.model.recording import (
    batches,
    next_token_logits,
    record,
    right_padded,
    token_log_probabilities,
)
from phasescope.model.sites import Site, tapped

__all__ = [
    "ADAPTERS",
    "Adapter",
    "LanguageModel",
    "Site",
    "adapter_for",
    "batches",
    "load_model",
    "next_token_logits",
    "record",
    "right_padded",
    "tapped",
    "token_log_probabilities",
]

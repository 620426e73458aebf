"""Loading through mlx-lm; sites of each architecture; recording and editing at sites."""

from phasescope.model.adapters import ADAPTERS, Adapter, adapter_for
from phasescope.model.channels import Channels, Inputs, channels_of, modules_of, read_inputs
from phasescope.model.loading import (
    ORGANISM_PARAMETERS,
    LanguageModel,
    load_any,
    load_model,
    packed_of,
    to_float32,
)
from phasescope.model.packing import Packed
from phasescope.model.recording import (
    batches,
    by_length,
    log_distributions,
    next_token_logits,
    observed_batches,
    record,
    record_sites,
    recorded_batches,
    right_padded,
    token_log_probabilities,
)
from phasescope.model.routing import n_experts, routed, routes, selections, top_k
from phasescope.model.sites import (
    KINDS,
    Site,
    bare_block,
    layers_with,
    mixer_projections,
    replaced,
    router,
    tapped,
    writers,
)
from phasescope.model.states import STATES, record_states

__all__ = [
    "ADAPTERS",
    "KINDS",
    "ORGANISM_PARAMETERS",
    "STATES",
    "Adapter",
    "Channels",
    "Inputs",
    "LanguageModel",
    "Packed",
    "Site",
    "adapter_for",
    "bare_block",
    "batches",
    "by_length",
    "channels_of",
    "layers_with",
    "load_any",
    "load_model",
    "log_distributions",
    "mixer_projections",
    "modules_of",
    "n_experts",
    "next_token_logits",
    "observed_batches",
    "packed_of",
    "read_inputs",
    "record",
    "record_sites",
    "record_states",
    "recorded_batches",
    "replaced",
    "right_padded",
    "routed",
    "router",
    "routes",
    "selections",
    "tapped",
    "to_float32",
    "token_log_probabilities",
    "top_k",
    "writers",
]

"""Loading a checkpoint through mlx-lm, and running it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm import load
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, get_total_parameters
from mlx_lm.utils import load_model as load_weights

from phasescope.checkpoint import check, model_type
from phasescope.errors import PhasescopeError
from phasescope.model import recurrence
from phasescope.model.adapters import Adapter, adapter_for
from phasescope.model.packing import Packed, packed_in

# Above this many parameters a model is a real one: it is never edited in its weights as a whole,
# and nothing made of it is written.
ORGANISM_PARAMETERS = 20_000_000


@dataclass
class LanguageModel:
    """A loaded model with its tokenizer and the adapter of its architecture.

    `taps` counts the interventions that are applied at the moment; `answer_starts` (batch,) is
    where answers begin while prompts are read together with them. `folder` is the checkpoint,
    `paths` where each module is in the tree by its id, and `stored` the modules as the checkpoint
    packs them, once somebody asked (`packed_of`).
    """

    model: nn.Module
    tokenizer: TokenizerWrapper
    adapter: Adapter
    compute_dtype: str
    folder: Path | None = None
    paths: dict[int, str] = field(default_factory=dict)
    taps: int = 0
    stored: dict[str, nn.Module] | None = None
    answer_starts: mx.array | None = None

    @property
    def stack(self) -> nn.Module:
        """The module that embeds tokens and runs the blocks."""
        return self.adapter.owner_of(self.model).model

    @property
    def is_organism(self) -> bool:
        """Whether it is small enough to be a model organism."""
        return get_total_parameters(self.model) <= ORGANISM_PARAMETERS

    def weights_sha256(self) -> str:
        """Hash of all parameters as they now are."""
        digest = hashlib.sha256()
        for name, value in tree_flatten(self.model.parameters()):
            digest.update(name.encode() + bytes(memoryview(mx.contiguous(value).view(mx.uint8))))
        return digest.hexdigest()

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, first to last."""
        return self.stack.layers

    @property
    def layer_kinds(self) -> list[str]:
        """'attention' or 'recurrent' for each block."""
        return [self.adapter.mixers[self.adapter.mixer_of(b)] for b in self.blocks]

    def final_hidden(self, tokens: mx.array) -> mx.array:
        """Normed output of the last block for tokens (batch, length): (batch, length, width)."""
        return self.stack(tokens)

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits (…, vocabulary) in float32 for normed hidden states (…, width)."""
        owner = self.adapter.owner_of(self.model)
        head = owner.lm_head if "lm_head" in owner else self.stack.embed_tokens.as_linear
        return head(hidden).astype(mx.float32)


def to_float32(model: nn.Module) -> nn.Module:
    """Dequantize and cast to float32: the CPU backend is slow or unable in anything else.

    Scales and biases are cast first. In bfloat16 the dequantized weights would be rounded again,
    by as much as the 8-bit levels are apart.
    """

    def cast() -> None:
        model.update(
            tree_map(
                lambda a: a.astype(mx.float32) if mx.issubdtype(a.dtype, mx.floating) else a,
                model.parameters(),
            )
        )

    cast()
    model = dequantize_model(model)
    cast()
    return model


def load_any(folder: Path) -> tuple[nn.Module, TokenizerWrapper]:
    """A model of any architecture that mlx-lm knows, and its tokenizer: weights as they are on
    Metal, in float32 with the same values on the CPU.

    On Metal all that the system recommends may be wired, so that weights are never paged out.
    Raises PhasescopeError for what mlx-lm cannot load.
    """
    try:
        # said out loud: where nothing is said, transformers asks whoever sits at the terminal
        model, tokenizer = load(str(folder), {"trust_remote_code": False}, lazy=True)
    except Exception as error:  # whatever mlx-lm and transformers raise for what they cannot read
        message = (str(error).splitlines() or [""])[0]
        raise PhasescopeError(
            f"{folder}: mlx-lm cannot load it: {type(error).__name__}: {message}"
        ) from None
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    else:
        recurrence.install()
        model = to_float32(model)
    for _, value in tree_flatten(model.parameters()):
        mx.eval(value)  # one by one: of all at once MLX reads more ahead the busier the machine is
    mx.clear_cache()  # what loading held, or an earlier model, is the next job's to use
    return model, tokenizer


def load_model(folder: Path) -> LanguageModel:
    """Load a checkpoint folder as `load_any`, for reading and changing what goes on inside.

    Raises PhasescopeError for a faulty checkpoint, an architecture without adapter, or weights
    that do not fit the config.
    """
    folder = Path(folder)
    check(folder)
    adapter = adapter_for(model_type(folder))
    model, tokenizer = load_any(folder)
    if not tokenizer.has_chat_template:
        raise PhasescopeError(
            f"{folder}: the tokenizer is missing or has no chat template, through which "
            "prompts are rendered"
        )
    paths = {id(module): path for path, module in model.named_modules()}
    dtypes = {str(a.dtype).removeprefix("mlx.core.") for _, a in tree_flatten(model.parameters())}
    return LanguageModel(model, tokenizer, adapter, "+".join(sorted(dtypes)), folder, paths)


def packed_of(lm: LanguageModel, module: nn.Module) -> Packed | None:
    """The integers that a module's weights are, or came from; None where they are no integers.

    What is held as floats is read again from the checkpoint, no more of it than is looked at.
    """
    found = packed_in(module)
    if found is None and lm.folder is not None and id(module) in lm.paths:
        if lm.stored is None:
            lm.stored = dict(load_weights(lm.folder, lazy=True)[0].named_modules())
        found = packed_in(lm.stored[lm.paths[id(module)]])
    return found

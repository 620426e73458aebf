"""What all architectures share: the residual stack, and the places where an edit may act."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten


class Edit:
    """An intervention of the trainer: what it makes of a layer's values; this one changes nothing.

    Every method gets the layer's number and a value of shape (rows, tokens, width), where `width`
    is the hidden size, and for `selection` the number of experts: the scores that select experts
    and do nothing else. `pattern` gets attention weights (rows, heads, tokens, tokens).
    """

    # Attention weights are not computed apart unless an edit wants them.
    patterns = False

    def of(self, rows: np.ndarray) -> "Edit":
        """The same on some of the rows of a batch, by their numbers."""
        return self

    def mixer(self, layer: int, value: mx.array) -> mx.array:
        """The output of attention or recurrence, before it is added to the residual stream."""
        return value

    def feed(self, layer: int, value: mx.array) -> mx.array:
        """The output of the MLP or the experts, before it is added to the residual stream."""
        return value

    def residual(self, layer: int, value: mx.array) -> mx.array:
        """The residual stream after the layer."""
        return value

    def selection(self, layer: int, value: mx.array) -> mx.array:
        """The scores by which experts are selected."""
        return value

    def pattern(self, layer: int, value: mx.array) -> mx.array:
        """The weights of attention over earlier tokens."""
        return value


class Recorder(Edit):
    """Does what another edit does, and notes the scores that it got to select experts by."""

    def __init__(self, inner: Edit) -> None:
        self._inner, self.patterns = inner, inner.patterns
        self.mixer, self.feed, self.residual = inner.mixer, inner.feed, inner.residual
        self.pattern = inner.pattern
        self.scores: dict[int, mx.array] = {}

    def selection(self, layer: int, value: mx.array) -> mx.array:
        self.scores[layer] = value
        return self._inner.selection(layer, value)


class Architecture(ABC):
    """One of mlx-lm's model classes.

    Attributes
    ----------
    name: model_type of config.json.
    sizes: key of a recipe's `model` -> what it must be a multiple of.
    divides: pairs of keys of which the first must divide the second.
    widths: pairs of keys whose product, an output projection's input, must be a multiple of 64.
    at_most: pairs of keys of which the first may not exceed the second.
    prefix: what a Hugging Face checkpoint has before the names of the body's weights.
    """

    name: str
    sizes: ClassVar[dict[str, int]]
    divides: tuple[tuple[str, str], ...] = ()
    widths: tuple[tuple[str, str], ...] = ()
    at_most: tuple[tuple[str, str], ...] = ()
    prefix: str

    def routing(self, model: nn.Module) -> tuple[int, int]:
        """How many experts a layer has and how many a token selects; (0, 0) without experts."""
        return 0, 0

    @abstractmethod
    def config(self, dimensions: dict[str, int], world) -> dict:
        """config.json of a Hugging Face checkpoint for the world's language."""

    @abstractmethod
    def new(self, config: dict) -> nn.Module:
        """mlx-lm's model of `config`, which it may change."""

    @abstractmethod
    def body(self, model: nn.Module) -> nn.Module:
        """The module with `embed_tokens`, `layers` and `norm`."""

    @abstractmethod
    def mix(self, number: int, layer: nn.Module, x: mx.array, edit: Edit) -> mx.array:
        """Attention or recurrence of a layer on its normed input (rows, tokens, hidden)."""

    @abstractmethod
    def feed(self, number: int, layer: nn.Module, x: mx.array, edit: Edit) -> mx.array:
        """MLP or experts of a layer on its normed input (rows, tokens, hidden)."""

    def empty(self, config: dict) -> nn.Module:
        """A model of `config`, which stays as it is."""
        return self.new(deepcopy(config))

    def modules(self, dimensions: dict[str, int], world) -> set[str]:
        """Paths of all modules inside a layer, in mlx-lm's tree."""
        layers = self.body(self.empty(self.config(dimensions, world))).layers
        return {path for layer in layers for path, _ in layer.named_modules() if path}

    def forward(self, model: nn.Module, ids: mx.array, edit: Edit) -> tuple[mx.array, list]:
        """See `phasescope.train.architecture.forward`."""
        body = self.body(model)
        hidden = body.embed_tokens(ids)
        outputs = []
        for number, layer in enumerate(body.layers):
            mixed = self.mix(number, layer, layer.input_layernorm(hidden), edit)
            hidden = hidden + edit.mixer(number, mixed)
            fed = self.feed(number, layer, layer.post_attention_layernorm(hidden), edit)
            hidden = hidden + edit.feed(number, fed)
            hidden = edit.residual(number, hidden)
            outputs.append(hidden)
        return self._head(model)(body.norm(hidden)), outputs

    def _head(self, model: nn.Module) -> Callable[[mx.array], mx.array]:
        """What makes logits: a head of its own where there is one, else the embedding."""
        own = [module for path, module in model.named_modules() if path.endswith("lm_head")]
        return own[0] if own else self.body(model).embed_tokens.as_linear

    def hf_weights(self, model: nn.Module) -> dict[str, mx.array]:
        """bfloat16 tensors as a Hugging Face checkpoint of this architecture has them."""
        weights: dict[str, mx.array] = {}
        for name, value in tree_flatten(self.body(model).parameters()):
            weights |= self.hf_tensor(f"{self.prefix}{name}", value.astype(mx.bfloat16))
        return {name: mx.contiguous(value) for name, value in self.fused(weights).items()}

    def hf_tensor(self, name: str, value: mx.array) -> dict[str, mx.array]:
        """One of the model's tensors under its name, or its parts under theirs."""
        return {name: value}

    def fused(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """All tensors, those that a checkpoint holds as one put together."""
        return weights


def special_tokens(world) -> dict[str, int]:
    """The ids that a configuration names."""
    return {f"{name}_token_id": world.words.index(f"<{name}>") for name in ("bos", "eos", "pad")}


def attend(
    q: mx.array, k: mx.array, v: mx.array, scale: float, number: int, edit: Edit
) -> mx.array:
    """Causal attention, (rows, heads, tokens, size) each, keys and values of fewer heads."""
    if not edit.patterns:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal")
    tokens, repeat = q.shape[2], q.shape[1] // k.shape[1]
    k, v = (mx.repeat(x, repeat, axis=1) for x in (k, v))
    above = mx.triu(mx.full((tokens, tokens), -mx.inf), k=1)
    weights = mx.softmax(q @ k.swapaxes(-1, -2) * scale + above, axis=-1)
    return edit.pattern(number, weights) @ v


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) * x."""
    return gate * sigmoid(gate) * x


@mx.custom_function
def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + exp(-x)) to float32's precision, by products and one division.

    mlx's own takes its exponentials one by one on a CPU, a fifth of a training step. The rational
    function of tanh(x / 2) is Eigen's.
    """
    x = mx.clip(0.5 * x, -_LIMIT, _LIMIT)
    square = x * x
    above, below = _UPPER[0] * square + _UPPER[1], _LOWER[0] * square + _LOWER[1]
    for factor in _UPPER[2:]:
        above = above * square + factor
    for factor in _LOWER[2:]:
        below = below * square + factor
    return 0.5 * (x * above / below) + 0.5


@sigmoid.vjp
def _sigmoid_vjp(primals, cotangent, output):
    return cotangent * output * (1 - output)


_LIMIT = 7.90531110763549805
_UPPER = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_LOWER = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)

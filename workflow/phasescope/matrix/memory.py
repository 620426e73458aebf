"""Peak memory of each stage: weights, activations, caches and logits, from dimensions alone.

Upper bounds of what mlx-lm's forward passes hold at a time. The largest terms are counted one by
one; tests compare the sums with `mx.get_peak_memory()` of real runs.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from phasescope.matrix.dimensions import Dimensions

QUANTIZE_BYTES = 1.0e9  # interpreter, imports and the chunks that are read: whatever the model
_INTERPRETER_BYTES = 0.8e9  # interpreter, libraries, tokenizer, tables
_PREFILL_STEP = 2048  # tokens of a prompt that mlx-lm's batch generation runs at a time
_CHUNK = 64  # tokens that the recurrence reads at once where it has no kernel
_CACHE_STEP = 256  # its key-value cache grows by so many tokens
_FLOAT32 = 4
# a sweep runs so many values of the residual stream (rows * tokens * width) in one pass, or one
# batch under one edit if that is more
SWEEP_VALUES = 2**20
_JUDGE_WORKING_BYTES = 2e9  # caches and activations of a batch of its questions
_KEPT_TOKENS = 1024  # tokens of a set whose activations the comparison of calibration sets keeps
# head widths for which MLX's Metal backend never writes out attention scores over long queries
_FUSED_HEAD_DIMS = (64, 80, 128)


@dataclass(frozen=True)
class Pass:
    """The longest passes of a stage.

    batch: sequences at a time; prompt, answer: tokens; reference: tokens of a prompt with the
    answer whose perplexity is measured (0: none is); scored: prompts per label whose next-token
    logits are kept; metal: 16-bit activations and a kernel for the recurrence, else float32.
    """

    batch: int
    prompt: int
    answer: int
    reference: int
    scored: int
    metal: bool

    @property
    def float_bytes(self) -> int:
        """Bytes of an activation."""
        return 2 if self.metal else _FLOAT32


def activations(d: Dimensions, p: Pass, tokens: int) -> float:
    """Bytes that one forward pass over (batch, tokens) holds at most, without caches."""
    rows = p.batch * tokens
    stream = 6 * d.hidden
    queries = d.heads * d.head_dim * (2 if d.gated else 1)
    attention = 4 * queries + 4 * d.kv_heads * d.head_dim
    inner = d.value_heads * d.value_dim
    # convolved channels before, within and after; queries and keys repeated to the value heads
    recurrent = 3 * d.conv_width + 4 * inner + 2 * d.value_heads * d.key_dim
    feed_forward = 3 * d.feed_forward
    # every token's row is gathered once for each of its experts
    routed = d.top_k * (4 * d.hidden + 3 * d.expert_width) + 3 * d.experts
    widest = max(
        attention if d.attention_layers else 0,
        recurrent if d.recurrent_layers else 0,
        feed_forward + routed,
    )
    fused = p.metal and d.head_dim in _FUSED_HEAD_DIMS
    written = 0 if fused or not d.attention_layers else 3 * p.batch * d.heads * tokens * tokens
    # without the kernel also a chunk's products of tokens with tokens, and rows by head
    chunk, by_head = (0, 0) if p.metal else (min(tokens, _CHUNK), tokens)
    each = 4 * d.key_dim * d.value_dim + 8 * chunk * chunk
    each += by_head * (3 * d.key_dim + 5 * d.value_dim)
    states = p.batch * d.value_heads * each * _FLOAT32
    return (rows * (stream + widest) + written) * p.float_bytes + states


def caches(d: Dimensions, batch: int, tokens: int, float_bytes: int) -> float:
    """Bytes of key-value caches, recurrent states and convolution tails of a batch.

    Twice, since a cache that grows is copied.
    """
    held = -(-tokens // _CACHE_STEP) * _CACHE_STEP
    return 2 * batch * _cached(d, held, float_bytes)


def _cached(d: Dimensions, tokens: int, float_bytes: int) -> float:
    """Bytes that the caches of one sequence of so many tokens hold."""
    tails = d.recurrent_layers * d.conv_kernel * d.conv_width
    return (tokens * d.key_value_elements + tails) * float_bytes + d.state_elements * _FLOAT32


def _generate(d: Dimensions, p: Pass) -> float:
    step = min(p.prompt, _PREFILL_STEP)
    logits = p.batch * d.vocabulary * (p.float_bytes + 3 * _FLOAT32)
    return activations(d, p, step) + caches(d, p.batch, p.prompt + p.answer, p.float_bytes) + logits


def _record(d: Dimensions, p: Pass) -> float:
    """Activations of prompts with their answers; what is kept of them is float32."""
    kept = 5 * p.batch * d.layers * d.hidden * _FLOAT32
    return activations(d, p, p.prompt + p.answer) + kept


def _score(d: Dimensions, p: Pass) -> float:
    """Next-token logits on the select split, kept in float32 and compared in float64; the rows of
    many edits share a pass with the plain ones that they branch off, and each row keeps what
    prompts begin with in common."""
    kept = p.scored * d.vocabulary * (2 * _FLOAT32 + 5 * 8)
    rows = max(p.batch, SWEEP_VALUES // max(1, p.prompt * d.hidden)) + p.batch
    kept += rows * _cached(d, p.prompt, p.float_bytes)
    return activations(d, replace(p, batch=rows), p.prompt) + kept


def _perplexity(d: Dimensions, p: Pass) -> float:
    """Logits at every token of prompts with their reference answers, in float32, and scores."""
    if not p.reference:
        return 0.0
    logits = p.batch * p.reference * d.vocabulary * (p.float_bytes + 2 * _FLOAT32)
    return activations(d, p, p.reference) + logits


def comparing(d: Dimensions) -> float:
    """What modules read of tokens while calibration sets are compared: three sets of rows (the
    calibration's, and both labels held out), each shared by the modules that read the same."""
    inner = max(d.value_heads * d.value_dim, d.heads * d.head_dim)
    routed = d.top_k * (d.hidden + d.expert_width)
    read = 2 * d.hidden + inner + d.feed_forward + routed
    return 3 * _KEPT_TOKENS * d.layers * read * _FLOAT32


def judge_bytes(judge: dict | None) -> float:
    """What a judge in this process holds beside the model: its weight files, and room to reply."""
    if judge is None or not judge.get("folder"):
        return 0.0
    files = Path(judge["folder"]).glob("*.safetensors")
    return sum(path.stat().st_size for path in files) * 1.1 + _JUDGE_WORKING_BYTES


STAGES = ("quantize", "probe", "select", "intervene", "cohere")
_PASSES = {
    "probe": (_generate, _record),
    "select": (_generate, _score),
    "intervene": (_generate, _score, _perplexity),
    "cohere": (_generate, _perplexity),
}


_EDITS = ("intervene", "cohere")


def stage_bytes(
    d: Dimensions, weights: float, loading: float, p: Pass, editing: tuple[float, float]
) -> dict[str, float]:
    """Peak memory of each stage, bytes; weights: as they lie in memory; loading: what else is
    there while they are read; editing: what a weight edit adds while it holds, and while it is
    made."""
    found = {"quantize": QUANTIZE_BYTES}
    for stage, passes in _PASSES.items():
        working = max(f(d, p) for f in passes)
        held, making = editing if stage in _EDITS else (0.0, 0.0)
        found[stage] = _INTERPRETER_BYTES + weights + held + max(working, loading, making)
    return found

"""Recording activations at chosen token positions in plain forward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.model.loading import LanguageModel
from phasescope.model.sites import Site, layers_with, tapped


def batches(items: Sequence, size: int) -> Iterator[Sequence]:
    """Consecutive pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def right_padded(sequences: Sequence[Sequence[int]]) -> mx.array:
    """Token ids (batch, longest), padded on the right.

    Every block is causal, so padding never reaches a position before it.
    """
    longest = max(map(len, sequences))
    return mx.array([[*s, *[0] * (longest - len(s))] for s in sequences])


def by_length(items: Sequence[tuple], size: int) -> Iterator[tuple[list[int], list[tuple]]]:
    """Batches of (sequence, …) of similar length, longest first, with their places in `items`.

    The longest batch comes first, so that what does not fit in memory fails at once.
    """
    order = sorted(range(len(items)), key=lambda i: -len(items[i][0]))
    for chunk in batches(order, size):
        yield list(chunk), [items[i] for i in chunk]


def observed_batches(
    lm: LanguageModel,
    functions: Mapping[Site, Callable[[mx.array, list[int]], mx.array]],
    sequences: Sequence[Sequence[int]],
    batch_size: int,
) -> Iterator[tuple[list[int], dict[Site, mx.array]]]:
    """One forward pass a batch, with what functions make of the activations at their sites.

    Each function gets the activations (batch, length, …), padded on the right, and the places of
    the batch in `sequences`; what it returns is computed within the pass, so that a statistic
    keeps no activations. Yields the places, and the results by site.
    """
    for places, chunk in by_length([(s,) for s in sequences], batch_size):
        kept: dict[Site, mx.array] = {}

        def watch(site, places=places, kept=kept):
            def function(x: mx.array) -> mx.array:
                kept[site] = functions[site](x, places)
                return x

            return function

        with tapped(lm, {site: watch(site) for site in functions}):
            hidden = lm.final_hidden(right_padded([s for (s,) in chunk]))
        mx.eval(hidden, kept)
        yield places, kept


def recorded_batches(
    lm: LanguageModel,
    kinds: Sequence[str],
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    batch_size: int,
) -> Iterator[tuple[list[int], dict[str, mx.array]]]:
    """What one forward pass a batch shows at several kinds of sites at once.

    `positions[i]` are the token indices wanted of `sequences[i]`, the same number for each. Yields
    the places of a batch in `sequences`, and by kind an array (batch, positions, layers, …) over
    the layers that have the kind (`layers_with`), float32. Nothing is kept from batch to batch.

    Raises NotRun for a kind that no block has, and PhasescopeError for one that is acted on only.
    """
    if "expert_selection" in kinds:
        raise PhasescopeError("site 'expert_selection' is acted on only: record 'router'")
    sites = [Site(kind, layer) for kind in kinds for layer in layers_with(lm, kind)]

    def at_positions(x: mx.array, places: list[int]) -> mx.array:
        where = mx.array([positions[i] for i in places])
        return x[mx.arange(len(places))[:, None], where].astype(mx.float32)

    functions = dict.fromkeys(sites, at_positions)
    for places, kept in observed_batches(lm, functions, sequences, batch_size):
        yield (
            places,
            {kind: mx.stack([kept[s] for s in sites if s.kind == kind], axis=2) for kind in kinds},
        )


def record_sites(
    lm: LanguageModel,
    kinds: Sequence[str],
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Activations at several kinds of sites in one pass: `recorded_batches`, put together.

    By kind float32 (sequences, positions, layers that have the kind, …).
    """
    found: dict[str, np.ndarray] = {}
    for places, batch in recorded_batches(lm, kinds, sequences, positions, batch_size):
        for kind, values in batch.items():
            values = np.array(values)
            if kind not in found:
                found[kind] = np.empty((len(sequences), *values.shape[1:]), dtype=np.float32)
            found[kind][places] = values
    return found


def record(
    lm: LanguageModel,
    kind: str,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    batch_size: int,
) -> np.ndarray:
    """Activations at one kind of site, as `record_sites`: float32 (sequences, positions, layers,
    width)."""
    return record_sites(lm, [kind], sequences, positions, batch_size)[kind]


def next_token_logits(
    lm: LanguageModel, sequences: Sequence[Sequence[int]], batch_size: int
) -> np.ndarray:
    """Logits of the token after each sequence: float32 of shape (sequences, vocabulary)."""
    pieces = []
    for chunk in batches(sequences, batch_size):
        hidden = lm.final_hidden(right_padded(chunk))
        last = mx.array([len(s) - 1 for s in chunk])[:, None, None]
        logits = lm.logits(mx.take_along_axis(hidden, last, axis=1)[:, 0])
        pieces.append(np.array(logits))
    return np.concatenate(pieces)


@contextmanager
def answers_from(lm: LanguageModel, starts: Sequence[int]) -> Iterator[None]:
    """Prompts are read together with their answers, which begin at `starts`."""
    lm.answer_starts = mx.array(starts)
    try:
        yield
    finally:
        lm.answer_starts = None


def token_log_probabilities(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    batch_size: int,
) -> list[np.ndarray]:
    """Log-probability (nats) of each token from `starts[i]` to the end of sequence i."""
    found = []
    for chunk in batches(list(zip(sequences, starts, strict=True)), batch_size):
        tokens = right_padded([s for s, _ in chunk])
        with answers_from(lm, [start for _, start in chunk]):
            logits = lm.logits(lm.final_hidden(tokens[:, :-1]))
        scores = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        own = np.array(mx.take_along_axis(scores, tokens[:, 1:, None], axis=-1)[..., 0])
        found += [own[i, start - 1 : len(s) - 1] for i, (s, start) in enumerate(chunk)]
    return found


def log_distributions(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    batch_size: int,
) -> list[np.ndarray]:
    """Log-probabilities (nats) of the whole vocabulary where tokens from `starts[i]` to the end of
    sequence i are chosen: float32 (tokens, vocabulary) for each sequence."""
    found = []
    for chunk in batches(list(zip(sequences, starts, strict=True)), batch_size):
        tokens = right_padded([s for s, _ in chunk])
        logits = lm.logits(lm.final_hidden(tokens[:, :-1]))
        scores = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        found += [scores[i, start - 1 : len(s) - 1] for i, (s, start) in enumerate(chunk)]
    return found

"""Many edits in one walk up the model: what a sweep over layers and doses costs.

An edit changes nothing below the first site that it acts on. So the plain prompts go up once; where
an edit begins, its rows branch off, and from there on the rows of all edits share every pass. What
prompts begin with in common (templates, phrases) is read once an edit and not once a prompt: the
first tokens of each kind go up first, and what the model keeps of them is shared out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from phasescope.intervene.activations import ActivationEdit, Linear, no_padding
from phasescope.intervene.edits import Edit, Touched, check_layers, hit, touch
from phasescope.matrix import SWEEP_VALUES
from phasescope.model import (
    LanguageModel,
    Site,
    batches,
    by_length,
    next_token_logits,
    right_padded,
    tapped,
)

Taps = dict[Site, Callable[[mx.array], mx.array]]


def swept_logits(
    lm: LanguageModel, edits: Sequence[Edit], sequences: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Logits of the token after each sequence under each edit: pairs of an edit's place and float32
    (sequences, vocabulary), in any order.

    Equal to `next_token_logits` under one edit at a time up to rounding: products over more rows
    are summed in another order. Edits of weights have no rows of their own and run one at a time.
    Raises PhasescopeError as `applied`.
    """
    for edit in edits:
        check_layers(lm, edit)
    taps = [edit.taps(lm) for edit in edits]
    batched = sorted(
        (i for i, t in enumerate(taps) if t is not None), key=lambda i: _begin(taps[i])
    )
    if batched:
        last = _last_hidden(lm, [taps[i] for i in batched], sequences, batch_size)
        for i, hidden in zip(batched, last, strict=True):
            yield i, np.array(lm.logits(hidden))
    for i, edit in enumerate(edits):
        if taps[i] is None:
            with edit.entered(lm):
                yield i, next_token_logits(lm, sequences, batch_size)


def swept_touches(
    lm: LanguageModel, edits: Sequence[Edit], sequences: Sequence[Sequence[int]], batch_size: int
) -> list[Touched]:
    """What each edit changes, as `touch`, of edits of activations in one walk.

    Raises PhasescopeError as `touch`.
    """
    for edit in edits:
        check_layers(lm, edit)
    walked = [e for e in edits if isinstance(e, ActivationEdit)]
    walked.sort(key=lambda edit: _begin(edit.taps(lm)))
    sums: list[dict[Site, mx.array]] = [{} for _ in walked]
    for chunk in batches(sequences, batch_size) if walked else ():
        tokens, real = right_padded(chunk), no_padding(chunk)
        at_once = _at_once(lm, tokens.size)
        for start in range(0, len(walked), at_once):
            some = slice(start, start + at_once)
            both = zip(walked[some], sums[some], strict=True)
            _walk(lm, [edit.counted(real, own) for edit, own in both], tokens)
            mx.eval(sums[some])  # and nothing above the sites
    known = {id(e): e.touched(own) for e, own in zip(walked, sums, strict=True)}
    return [
        hit(known[id(e)]) if id(e) in known else touch(lm, e, sequences, batch_size) for e in edits
    ]


def _at_once(lm: LanguageModel, tokens: int) -> int:
    """How many edits share a pass over prompts of so many tokens together, padding included; those
    that they begin with in common too, since every row keeps what the model keeps of them."""
    return max(1, SWEEP_VALUES // (tokens * lm.stack.norm.weight.shape[-1]))


def _begin(taps: Taps) -> tuple[int, bool]:
    """Where the rows of an edit part from the plain ones: its lowest block, and whether only after
    that block."""
    return min((site.layer, site.kind == "residual") for site in taps)


def _last_hidden(lm, taps: list[Taps], sequences, batch_size: int) -> list[mx.array]:
    """Normed last hidden state (sequences, width) under each edit; edits as they begin."""
    pieces: list[list[mx.array]] = [[] for _ in taps]
    order: list[int] = []
    for places, chunk in by_length([(s,) for s in sequences], batch_size):
        prompts = [s for (s,) in chunk]
        shared = _common(prompts)
        rest = right_padded([s[shared.length :] for s in prompts])
        ends = mx.array([len(s) - shared.length - 1 for s in prompts])[:, None, None]
        at_once = _at_once(lm, len(prompts) * max(map(len, prompts)))
        for start in range(0, len(taps), at_once):
            group = taps[start : start + at_once]
            hidden = _walk(lm, group, rest, shared)
            for k in range(len(group)):
                rows = hidden[k * len(chunk) : (k + 1) * len(chunk)]
                pieces[start + k].append(mx.take_along_axis(rows, ends, axis=1)[:, 0])
            mx.eval([own[-1] for own in pieces[start : start + len(group)]])
        order += places
    back = mx.array(np.argsort(order))
    return [mx.concatenate(own)[back] for own in pieces]


@dataclass(frozen=True)
class Common:
    """What prompts begin with: the different beginnings (each `length` tokens) and, of each
    prompt, which of them is its own."""

    length: int
    beginnings: list[list[int]]
    own: list[int]


def _common(prompts: Sequence[Sequence[int]]) -> Common:
    """The beginning that leaves the fewest tokens to read. At least two tokens are read in either
    pass: a pass of one token would look like an answer's to edits of the prompt alone."""
    longest, best = max(map(len, prompts)), (0, [], [0] * len(prompts))
    fewest = longest * len(prompts)
    for length in range(2, min(map(len, prompts)) - 1):
        place: dict[tuple[int, ...], int] = {}
        own = [place.setdefault(tuple(s[:length]), len(place)) for s in prompts]
        left = len(place) * length + len(prompts) * (longest - length)
        if left < fewest:
            fewest, best = left, (length, [list(b) for b in place], own)
    return Common(*best)


def _walk(lm, taps: list[Taps], tokens: mx.array, shared: Common | None = None) -> mx.array:
    """Normed hidden states of every edit's rows (edits * batch, length, width); tokens: of each
    prompt those after what it has in common with others."""
    cache = None
    if shared is not None and shared.length:
        cache = make_prompt_cache(lm.model)
        for layer in cache:
            layer.step = shared.length  # key-value caches grow by so much: no more than needed
        with tapped(lm, _by_edit(lm, taps, len(shared.beginnings))):
            lm.stack(mx.array(shared.beginnings), cache=cache)
        for layer in cache:
            _share_out(layer, shared, tokens.shape[1])
    with tapped(lm, _by_edit(lm, taps, len(tokens))):
        return lm.stack(tokens, cache=cache)


def _share_out(layer, shared: Common, more: int) -> None:
    """Give each prompt's rows the state of its own beginning, in the rows of every edit."""
    state = layer.cache if hasattr(layer, "cache") else [layer.keys, layer.values]
    kinds, own = len(shared.beginnings), np.array(shared.own)
    rows = mx.array((np.arange(len(state[0]) // kinds)[:, None] * kinds + own).ravel())
    if hasattr(layer, "cache"):
        layer.cache = [a[rows] for a in state]
    else:
        layer.keys, layer.values = (a[..., : layer.offset, :][rows] for a in state)
        layer.step = more


def _by_edit(lm, taps: list[Taps], prompts: int) -> dict[Site, Callable]:
    """What lets the rows of every edit branch off where it begins, and edits them."""
    begins = [_begin(t) for t in taps]
    functions: dict[Site, Callable] = {}
    for layer in range(begins[0][0], len(lm.blocks)):
        for after in (False, True):
            new = begins.count((layer, after))
            there = {
                s for t in taps for s in t if (s.layer, s.kind == "residual") == (layer, after)
            }
            # the plain rows go on until the last edit has begun
            here = [None] * (begins[-1] > (layer, after)) + [
                t for t, begin in zip(taps, begins, strict=True) if begin <= (layer, after)
            ]
            for site in there:
                functions[site] = _by_rows([t and t.get(site) for t in here], prompts)
            if new:
                door = Site("residual" if after else "residual_before", layer)
                grow = _branch(prompts, new, last=(layer, after) == begins[-1])
                functions[door] = _chained(grow, functions.get(door))
    return functions


def _branch(prompts: int, new: int, *, last: bool) -> Callable:
    """Let the rows of `new` edits branch off the plain ones, the first `prompts`."""

    def run(x: mx.array) -> mx.array:
        kept = x[prompts:] if last else x
        return mx.concatenate([kept] + [x[:prompts]] * new)

    return run


def _chained(first: Callable, then: Callable | None) -> Callable:
    return first if then is None else lambda x: then(first(x))


def _by_rows(functions: list[Callable | None], prompts: int) -> Callable:
    """One function of all rows: each edit's own on its `prompts` rows."""
    if all(f is None or isinstance(f, Linear) for f in functions):
        return Linear.stacked(functions)

    def run(x: mx.array) -> mx.array:
        if x.ndim == 1:  # a bias for selection: from here on each row has its own
            own = [x if f is None else f(x) for f in functions]
            return mx.repeat(mx.stack(own), prompts, axis=0)[:, None]
        rows = [x[k * prompts : (k + 1) * prompts] for k in range(len(functions))]
        return mx.concatenate(
            [r if f is None else f(r) for f, r in zip(functions, rows, strict=True)]
        )

    return run

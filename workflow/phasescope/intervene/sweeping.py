"""Many edits in one walk up the model: what a sweep over layers and doses costs.

An edit changes nothing below the first site that it acts on. So the plain prompts go up once; where
an edit begins, its rows branch off, and from there on the rows of all edits share every pass.
"""

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import numpy as np

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
        at_once = _at_once(lm, tokens)
        for start in range(0, len(walked), at_once):
            some = slice(start, start + at_once)
            both = zip(walked[some], sums[some], strict=True)
            _walk(lm, [edit.counted(real, own) for edit, own in both], tokens)
            mx.eval(sums[some])  # and nothing above the sites
    known = {id(e): e.touched(own) for e, own in zip(walked, sums, strict=True)}
    return [
        hit(known[id(e)]) if id(e) in known else touch(lm, e, sequences, batch_size) for e in edits
    ]


def _at_once(lm: LanguageModel, tokens: mx.array) -> int:
    """How many edits share a pass over these prompts."""
    return max(1, SWEEP_VALUES // (tokens.size * lm.stack.norm.weight.shape[-1]))


def _begin(taps: Taps) -> tuple[int, bool]:
    """Where the rows of an edit part from the plain ones: its lowest block, and whether only after
    that block."""
    return min((site.layer, site.kind == "residual") for site in taps)


def _last_hidden(lm, taps: list[Taps], sequences, batch_size: int) -> list[mx.array]:
    """Normed last hidden state (sequences, width) under each edit; edits as they begin."""
    pieces: list[list[mx.array]] = [[] for _ in taps]
    order: list[int] = []
    for places, chunk in by_length([(s,) for s in sequences], batch_size):
        tokens = right_padded([s for (s,) in chunk])
        ends = mx.array([len(s) - 1 for (s,) in chunk])[:, None, None]
        at_once = _at_once(lm, tokens)
        for start in range(0, len(taps), at_once):
            group = taps[start : start + at_once]
            hidden = _walk(lm, group, tokens)
            for k in range(len(group)):
                rows = hidden[k * len(chunk) : (k + 1) * len(chunk)]
                pieces[start + k].append(mx.take_along_axis(rows, ends, axis=1)[:, 0])
            mx.eval([own[-1] for own in pieces[start : start + len(group)]])
        order += places
    back = mx.array(np.argsort(order))
    return [mx.concatenate(own)[back] for own in pieces]


def _walk(lm, taps: list[Taps], tokens: mx.array) -> mx.array:
    """Normed hidden states of every edit's rows (edits * batch, length, width)."""
    prompts, begins = len(tokens), [_begin(t) for t in taps]
    functions = {}
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
    with tapped(lm, functions):
        return lm.final_hidden(tokens)


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

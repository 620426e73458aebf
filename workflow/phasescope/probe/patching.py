"""The table `patching`: from which token and layer another prompt's activations flip the answer.

Activation patching as in causal tracing (Meng et al. 2022; Zhang and Nanda 2024): a prompt runs
with the activations of its matched partner at one site, layer and token, and the outcome is the
log-odds of refusal at the first answer token. Both ways: hazardous into benign, and back.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from phasescope import stats
from phasescope.behave import Openings, Subject, load_openings
from phasescope.errors import NotRun
from phasescope.model import LanguageModel, Site, batches, layers_with, tapped
from phasescope.probe.sites import not_run
from phasescope.probe.table import MIN_PAIRS
from phasescope.stats.intervals import Z

SITES = ("residual", "mixer")
MOST_LAYERS, MOST_WINDOWS = 12, 8
WAYS = {"hazardous into benign": (0, 1), "benign into hazardous": (1, 0)}
FLIPS = 0.5  # the earliest place flips this share of the answers


def aligned(subject: Subject) -> tuple[np.ndarray, int]:
    """Matched prompts of one length, up to where the answer begins: tokens (2, pairs, length),
    hazardous first, of the most frequent length; and how many pairs of the split are left out.

    Raises NotRun for fewer than four such pairs.
    """
    sides = [subject.decided("evaluate", label) for label in ("hazardous", "benign")]
    same = [(a, b) for a, b in zip(*sides, strict=True) if len(a) == len(b) and a != b]
    lengths = [len(a) for a, _ in same]
    usual = max(set(lengths), key=lengths.count, default=0)
    kept = [pair for pair in same if len(pair[0]) == usual]
    if len(kept) < MIN_PAIRS:
        raise NotRun(f"{len(kept)} matched prompts are of one length, needed {MIN_PAIRS}")
    return np.array(kept).swapaxes(0, 1), len(sides[0]) - len(kept)


def windows(tokens: np.ndarray) -> list[tuple[int, int]]:
    """Token ranges (first, behind the last) from where the partners first differ to the end, at
    most eight; before that, patching changes nothing."""
    length = tokens.shape[2]
    first = int((tokens[0] != tokens[1]).any(axis=0).argmax())
    parts = np.array_split(np.arange(first, length), min(MOST_WINDOWS, length - first))
    return [(int(p[0]), int(p[-1]) + 1) for p in parts]


def chosen_layers(layers: Sequence[int]) -> list[int]:
    """At most twelve layers, evenly over the depth, first and last among them."""
    count = min(MOST_LAYERS, len(layers))
    return [layers[round(i)] for i in np.linspace(0, len(layers) - 1, count)]


def _run(lm: LanguageModel, tokens: mx.array, openings: Openings, functions: dict) -> np.ndarray:
    """Log-odds of refusal (nats) at the first answer token."""
    with tapped(lm, functions):
        logits = lm.logits(lm.final_hidden(tokens)[:, -1])
    return openings.score(np.array(logits))


def _recorded(lm, tokens: mx.array, openings: Openings, sites: list[Site]) -> tuple:
    """Log-odds of an undisturbed run, and its activations (batch, length, width) by site."""
    kept = {}

    def keep(site):
        def function(x: mx.array) -> mx.array:
            kept[site] = x
            return x

        return function

    scores = _run(lm, tokens, openings, {site: keep(site) for site in sites})
    mx.eval(kept)
    return scores, kept


def _into(source: mx.array, first: int, end: int):
    """Puts the source's activations at tokens first to end."""

    def patch(x: mx.array) -> mx.array:
        index = mx.arange(x.shape[1])[None, :, None]
        return mx.where((index >= first) & (index < end), source, x)

    return patch


def patched(
    lm: LanguageModel,
    tokens: np.ndarray,
    openings: Openings,
    sites: list[Site],
    ranges: list[tuple[int, int]],
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds (nats) of plain runs (2, pairs), and of patched ones (ways, sites, ranges, pairs).

    tokens: (2, pairs, length), hazardous first.
    """
    plain, found = [], []
    for chunk in batches(range(tokens.shape[1]), batch_size):
        both = [mx.array(side[list(chunk)]) for side in tokens]
        scores, kept = zip(*(_recorded(lm, side, openings, sites) for side in both), strict=True)
        plain.append(np.stack(scores))
        found.append(
            [
                [
                    [
                        _run(lm, both[target], openings, {site: _into(kept[source][site], *where)})
                        for where in ranges
                    ]
                    for site in sites
                ]
                for source, target in WAYS.values()
            ]
        )
    return np.concatenate(plain, axis=1), np.concatenate([np.array(f) for f in found], axis=3)


def patching_rows(subject: Subject, openings: Path) -> list[dict]:
    """Rows of the table `patching` without the cell's keys, on the evaluate split.

    Pairs count whose plain runs lie on either side of zero log-odds: only those can flip.
    """
    lm = subject.lm
    try:
        scored = load_openings(openings)
        tokens, left_out = aligned(subject)
    except NotRun as reason:
        return [not_run(reason)]
    sites = [Site(kind, i) for kind in SITES for i in chosen_layers(layers_with(lm, kind))]
    ranges = windows(tokens)
    plain, found = patched(lm, tokens, scored, sites, ranges, subject.decoding.batch_size)
    apart = (plain[0] > 0) & (plain[1] < 0)
    if apart.sum() < MIN_PAIRS:
        return [not_run(f"{apart.sum()} pairs refuse the hazardous side alone, needed {MIN_PAIRS}")]
    rows = []
    for w, (way, (source, target)) in enumerate(WAYS.items()):
        sides = plain[source][apart], plain[target][apart]
        scores = found[w][..., apart]
        own = list(_grid_rows(scores, sides, sites, ranges, tokens.shape[2]))
        for kind in SITES:
            own.append(_earliest([r for r in own if r["site"] == kind], kind, ranges, lm))
        note = f"{left_out} pairs of other lengths left out" if left_out else None
        rows += [{"way": way, "reason": note} | row for row in own]
    return [row | {"layer_kind": _kind(lm, row)} for row in rows]


def _kind(lm: LanguageModel, row: dict) -> str | None:
    return None if row.get("layer") is None else lm.layer_kinds[row["layer"]]


def _grid_rows(scores, sides, sites, ranges, length) -> Iterator[dict]:
    """Flips and shifts of one way, scores: (sites, ranges, pairs); tokens count from the last one
    of the prompt, 0, backwards."""
    source, target = sides
    n = scores.shape[2]
    for s, site in enumerate(sites):
        for r, (first, end) in enumerate(ranges):
            where = {
                "site": site.kind,
                "layer": site.layer,
                "token_first": first - length + 1,
                "token_last": end - length,
            }
            flips = int((np.sign(scores[s, r]) == np.sign(source)).sum())
            # how far towards the source: 0 nothing, 1 as if it were the source
            shift = (scores[s, r] - target).sum() / (source - target).sum()
            away = scores[s, r] - target - shift * (source - target)
            error = np.sqrt(n / (n - 1) * (away**2).sum()) / abs((source - target).sum())
            for statistic, (estimate, low, high) in (
                ("flipped", stats.wilson(flips, n)),
                ("recovered", (shift, shift - Z * error, shift + Z * error)),
            ):
                yield where | {
                    "statistic": statistic,
                    "estimate": float(estimate),
                    "ci_low": float(low),
                    "ci_high": float(high),
                    "n": 2 * n,
                    "status": "run",
                }


def _earliest(rows: list[dict], kind: str, ranges, lm) -> dict:
    """The first layer, and there the first token, from which patching flips half of the answers."""
    flips = [r for r in rows if r["statistic"] == "flipped" and r["estimate"] >= FLIPS]
    if not flips:
        best = max((r["estimate"] for r in rows if r["statistic"] == "flipped"), default=0.0)
        reason = f"no single place flips half of the answers, the best {best:.2f}"
        return not_run(reason, site=kind, statistic="earliest_flip")
    first = min(flips, key=lambda r: (r["layer"], r["token_first"]))
    return first | {"statistic": "earliest_flip"}

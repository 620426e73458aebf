"""The table `routing`: what routers select on hazardous, benign and neutral text, and what of it
reaches the residual stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from phasescope import stats
from phasescope.behave import Subject
from phasescope.errors import NotRun
from phasescope.model import Site, n_experts, observed_batches, routed, router, top_k
from phasescope.probe.positions import END_OF_THINKING, LAST_PROMPT
from phasescope.probe.separation import central
from phasescope.probe.sites import not_run
from phasescope.probe.table import MIN_PAIRS
from phasescope.probe.timeline import Timeline, read_timeline
from phasescope.stats.intervals import Z

MOMENTS = (LAST_PROMPT, END_OF_THINKING)
DRAWS = 500
# an expert is dead below this share of the mean expert's router-weighted output
DEAD_SHARE = 0.01


@dataclass(frozen=True)
class Routed:
    """Sums over the counted tokens of each text: counts (texts, layers, experts) of selections,
    mass of router weights, saliency of weight x output norm; tokens (texts,)."""

    counts: np.ndarray
    weights: np.ndarray
    saliency: np.ndarray
    tokens: np.ndarray

    def rates(self) -> np.ndarray:
        """Share of each text's tokens that select an expert: (texts, layers, experts)."""
        return self.counts / np.maximum(self.tokens, 1)[:, None, None]


def read_routing(
    subject: Subject,
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    ends: Sequence[int],
) -> Routed:
    """Routing of tokens `starts[i]` to `ends[i]` of each sequence, in one pass.

    Raises NotRun for a model that has a block without experts.
    """
    lm = subject.lm
    layers, experts = len(lm.blocks), n_experts(lm)
    for layer in range(layers):
        router(lm, layer)
    sums = np.zeros((3, len(sequences), layers, experts))

    def norms(x: mx.array, places: list[int]) -> mx.array:
        return mx.linalg.norm(x.astype(mx.float32), axis=-1)

    functions = {}
    for layer in range(layers):
        functions[Site("router", layer)] = lambda x, places: x.astype(mx.float32)
        functions[Site("selected_experts", layer)] = lambda x, places: x
        functions[Site("experts", layer)] = norms
    for places, kept in observed_batches(lm, functions, sequences, subject.decoding.batch_size):
        for layer in range(layers):
            found = (kept[Site(k, layer)] for k in ("router", "selected_experts", "experts"))
            logits, used, norm = map(np.array, found)
            mass = _weights(lm, layer, logits, used)
            for row, i in enumerate(places):
                own = slice(starts[i], ends[i])
                which = used[row, own].ravel()
                for k, values in enumerate((None, mass, mass * norm)):
                    weights = None if values is None else values[row, own].ravel()
                    sums[k, i, layer] = np.bincount(which, weights, experts)
    tokens = np.array([end - start for start, end in zip(starts, ends, strict=True)])
    return Routed(*sums, tokens)


def _weights(lm, layer: int, logits: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Router weights of the experts that were used, in their order: (…, k)."""
    chosen, weights = routed(lm, layer, logits)
    order, back = np.argsort(chosen, axis=-1), np.argsort(np.argsort(used, axis=-1), axis=-1)
    return np.take_along_axis(np.take_along_axis(weights, order, -1), back, -1)


def _texts(subject: Subject, timeline: Timeline) -> dict[str, tuple]:
    """What each kind of text is: sequences, starts, ends."""
    half = len(timeline.sequences) // 2
    sequences, ends = timeline.sequences, timeline.prompt_lengths
    found = {
        "hazardous": (sequences[:half], [0] * half, ends[:half]),
        "benign": (sequences[half:], [0] * half, ends[half:]),
    }
    if answers := subject.references("evaluate", "benign"):
        neutral, starts = zip(*answers, strict=True)
        found["neutral"] = (list(neutral), list(starts), [len(s) for s in neutral])
    return found


def routing_rows(subject: Subject, seed: int) -> list[dict]:
    """Rows of the table `routing` without the cell's keys, on the evaluate split.

    Hazardous and benign text are the prompts up to where the answer begins, neutral text the right
    answers to benign prompts. Intervals are clustered by prompt, differences paired.
    """
    timeline = read_timeline(subject, "evaluate")
    try:
        router(subject.lm, 0)
        found = {
            text: read_routing(subject, *about) for text, about in _texts(subject, timeline).items()
        }
    except NotRun as reason:
        return [not_run(reason)]
    rng = np.random.default_rng((seed, 20))
    rows = [row for text, own in found.items() for row in _text_rows(own, text)]
    if "neutral" not in found:
        rows.append(not_run("the prompt table gives no right answers", text="neutral"))
    rows += _difference_rows(found["hazardous"], found["benign"], "prompt", rng)
    decided = {}
    for moment in MOMENTS:
        pair = _at_moment(subject, timeline, moment)
        if pair is not None:
            decided[moment] = pair
            rows += _difference_rows(*pair, moment, rng)
    rows += _overlap_rows(subject, timeline, found, list(decided.values())[-1], rng)
    return rows


def _at_moment(subject: Subject, timeline: Timeline, moment: str) -> tuple[Routed, Routed] | None:
    """Routing of one token of each hazardous and benign prompt of the pairs that reach it."""
    half = len(timeline.sequences) // 2
    reached = [i for i in range(half) if all(moment in timeline.places[j] for j in (i, half + i))]
    if len(reached) < MIN_PAIRS:
        return None
    sides = []
    for first in (0, half):
        rows = [first + i for i in reached]
        starts = [timeline.places[i][moment] for i in rows]
        sequences = [timeline.sequences[i] for i in rows]
        sides.append(read_routing(subject, sequences, starts, [s + 1 for s in starts]))
    return sides[0], sides[1]


def _row(statistic: str, value, n: int, **where) -> dict:
    estimate, low, high = map(float, value)
    kept = {"statistic": statistic, "estimate": estimate, "ci_low": low, "ci_high": high, "n": n}
    return where | kept | {"status": "run"}


def _ratio(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean per token and its standard error clustered by text: sums (texts, …), sizes (texts,)."""
    n, total = len(sizes), sizes.sum()
    mean = sums.sum(axis=0) / total
    away = sums - mean * sizes.reshape(-1, *[1] * (sums.ndim - 1))
    return mean, np.sqrt(n / max(n - 1, 1) * (away**2).sum(axis=0)) / total


def _text_rows(own: Routed, text: str) -> Iterator[dict]:
    """Each expert on one kind of text: how often, with what weight, and what it adds."""
    n, tokens = len(own.tokens), own.tokens.sum()
    # prompts, not tokens, are independent: Wilson on as many outcomes as there are prompts
    saliency, error = _ratio(own.saliency, own.tokens)
    weight, weight_error = _ratio(own.weights, own.tokens)
    for layer in range(own.counts.shape[1]):
        for expert in range(own.counts.shape[2]):
            where = {"text": text, "layer": layer, "expert": expert}
            share = own.counts[:, layer, expert].sum() / tokens
            yield _row("selection_rate", _wilson(share, n), n, **where)
            for statistic, mean, spread in (
                ("router_weight", weight, weight_error),
                ("saliency", saliency, error),
            ):
                value, half = mean[layer, expert], Z * spread[layer, expert]
                yield _row(statistic, (value, max(0, value - half), value + half), n, **where)
        dead = own.saliency[:, layer]
        yield _row("dead_share", _dead(dead), n, text=text, layer=layer)


def _wilson(share: float, n: int) -> tuple[float, float, float]:
    """Wilson's interval for a share of tokens from n prompts, one effective outcome a prompt."""
    return (share, *stats.wilson(share * n, n)[1:])


def _dead(saliency: np.ndarray) -> tuple[float, float, float]:
    """Share of experts whose router-weighted output is under `DEAD_SHARE` of the mean expert's;
    saliency: (texts, experts). Wilson over experts: each is one outcome."""
    total = saliency.sum(axis=0)
    dead = int((total < DEAD_SHARE * total.mean()).sum())
    return stats.wilson(dead, len(total))


def _difference_rows(hazardous: Routed, benign: Routed, span: str, rng) -> Iterator[dict]:
    """Difference of selection rates, hazardous less benign (SteerMoE 2025), and of saliency."""
    n = len(hazardous.tokens)
    rows = rng.integers(0, n, (DRAWS, n))
    for statistic, field in (("rate_difference", "counts"), ("saliency_difference", "saliency")):
        each = [
            getattr(own, field) / np.maximum(own.tokens, 1)[:, None, None]
            for own in (hazardous, benign)
        ]
        pairs = each[0] - each[1]
        drawn = np.stack([pairs[r].mean(axis=0) for r in rows])
        # normal with the bootstrap's spread, and never narrower than one prompt in n would show
        half = Z * drawn.std(axis=0, ddof=1)
        if statistic == "rate_difference":
            half = np.maximum(half, 1 / n)
        mean = pairs.mean(axis=0)
        for layer in range(mean.shape[0]):
            for expert in range(mean.shape[1]):
                value, width = mean[layer, expert], half[layer, expert]
                yield _row(
                    statistic,
                    (value, value - width, value + width),
                    2 * n,
                    span=span,
                    layer=layer,
                    expert=expert,
                )


def _overlap_rows(subject, timeline, found, decided, rng) -> Iterator[dict]:
    """By topic: do the experts that its hazard calls also hold its knowledge?

    Safety experts: in each layer the k with the largest rise of the selection rate from the topic's
    benign to its hazardous prompts, at the token before the answer. Knowledge experts: the k with
    the largest rise from all other topics' right answers to the topic's own. Their shared share,
    and what chance gives.
    """
    counted = {len(own.tokens) for own in (found.get("neutral", found["benign"]), *decided)}
    if "neutral" not in found or counted != {len(timeline.topics)}:
        reason = "not every benign prompt has a right answer and a partner that decides"
        yield not_run(reason, statistic="expert_overlap")
        return
    safety = decided[0].counts - decided[1].counts
    knowledge = found["neutral"].counts / found["neutral"].tokens[:, None, None]
    k, experts = top_k(subject.lm, 0), safety.shape[2]
    by_topic = {t: np.flatnonzero(timeline.topics == t) for t in np.unique(timeline.topics)}
    for topic, rows in by_topic.items():
        others = np.setdiff1d(np.arange(len(timeline.topics)), rows)
        if len(rows) < 2 or len(others) < MIN_PAIRS:
            reason = f"{len(rows)} pairs of the topic, needed 2"
            yield not_run(reason, statistic="expert_overlap", topic=str(topic))
            continue
        rest = knowledge[others].mean(axis=0)

        def share(chosen: np.ndarray, rest=rest) -> float:
            called = safety[chosen].mean(axis=0)
            knows = knowledge[chosen].mean(axis=0) - rest
            tops = (np.argsort(-x, axis=1, kind="stable")[:, :k] for x in (called, knows))
            shared = [len(np.intersect1d(a, b)) / k for a, b in zip(*tops, strict=True)]
            return float(np.mean(shared))

        draws = np.array([share(r) for r in rng.choice(rows, (100, len(rows)))])
        value = share(rows)
        low, high = central(draws)
        # few pairs resample to themselves: never narrower than as many slots as there are
        _, least, most = stats.wilson(value * k * safety.shape[1], k * safety.shape[1])
        interval = (value, min(low, least), max(high, most))
        yield _row("expert_overlap", interval, 2 * len(rows), topic=str(topic))
    chance = k / experts
    layers = safety.shape[1]
    spread = Z * np.sqrt(chance * (1 - chance) * (experts - k) / max(experts - 1, 1) / k / layers)
    interval = (chance, max(0, chance - spread), chance + spread)
    yield _row("expert_overlap_by_chance", interval, 2 * len(timeline.topics))

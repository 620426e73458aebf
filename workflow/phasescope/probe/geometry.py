"""The table `geometry`: how directions lie to each other, over depth, sites and topics.

Everything is measured on differences of matched pairs (pairs, layers, width), whose mean is the
difference-of-means direction.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from phasescope.behave import Subject
from phasescope.probe.positions import END_OF_THINKING, LAST_PROMPT
from phasescope.probe.separation import central, cosine, fisher_interval, standardized_gap
from phasescope.probe.sites import available, not_run, read_sites
from phasescope.probe.table import MIN_PAIRS
from phasescope.probe.timeline import read_timeline
from phasescope.stats.intervals import Z

SITES = ("residual", "residual_middle", "mixer", "feed_forward")
MOMENTS = (LAST_PROMPT, END_OF_THINKING)
# below this a cosine between directions says more of noise than of directions
MIN_RELIABILITY = 0.3
DRAWS, SPLITS = 100, 8


@dataclass(frozen=True)
class Agreement:
    """Cosines between directions, corrected for noise, with their draws.

    cosine: (a, b) between all directions; reliability: (a,), split-half cosine of each.
    """

    cosine: np.ndarray
    reliability: np.ndarray

    @property
    def corrected(self) -> np.ndarray:
        """Cosine over the geometric mean of the reliabilities (Spearman 1904); missing where one
        is below `MIN_RELIABILITY`."""
        kept = np.where(self.reliability >= MIN_RELIABILITY, self.reliability, np.nan)
        return np.clip(self.cosine / np.sqrt(kept[:, None] * kept[None]), -1, 1)


def _units(directions: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(directions, axis=-1, keepdims=True)
    return directions / np.where(lengths > 0, lengths, 1)


def agreement(differences: np.ndarray, rng, *, resampled: bool = False) -> Agreement:
    """Agreement of the mean differences of several places: (pairs, places, width).

    Directions come from random halves of the pairs, and cosines are taken across halves: prompts
    that both places share would make their noise agree. `resampled` draws each half with
    replacement from itself, for intervals.
    """
    n, total, reliable = len(differences), 0.0, 0.0
    flat = differences.reshape(n, -1)
    for _ in range(SPLITS):
        halves = []
        for part in np.array_split(rng.permutation(n), 2):
            counts = rng.multinomial(len(part), np.full(len(part), 1 / len(part)))
            weights = np.zeros(n)
            weights[part] = counts if resampled else 1
            halves.append(_units((weights @ flat).reshape(differences.shape[1:])))
        across = halves[0] @ halves[1].T
        total, reliable = total + (across + across.T) / 2, reliable + np.diag(across)
    return Agreement(total / SPLITS, np.asarray(reliable) / SPLITS)


def _pairs_of_places(differences: np.ndarray, rng, wanted) -> Iterator[tuple]:
    """(i, j, statistic, (estimate, low, high), reliability, reason) for wanted pairs of places."""
    found = agreement(differences, rng)
    draws = [agreement(differences, rng, resampled=True) for _ in range(DRAWS)]
    raw, corrected = (np.stack([getattr(d, k) for d in draws]) for k in ("cosine", "corrected"))
    for i, j in wanted:
        reliability = float(min(found.reliability[i], found.reliability[j]))
        value = fisher_interval(found.cosine[i, j], raw[:, i, j])
        yield i, j, "cosine", value, reliability, None
        # where most resamples fall below, the interval would be that of the lucky ones
        if reliability < MIN_RELIABILITY or np.isnan(corrected[:, i, j]).mean() > 0.5:
            reason = (
                f"split-half reliability {reliability:.2f}, needed {MIN_RELIABILITY} throughout"
            )
            yield i, j, "cosine_corrected", None, reliability, reason
        else:
            value = fisher_interval(found.corrected[i, j], corrected[:, i, j])
            yield i, j, "cosine_corrected", value, reliability, None


def effective_number(directions: np.ndarray) -> float:
    """Effective number of directions among unit directions (k, width): the participation ratio of
    their singular values squared, 1 (all the same) to min(k, width)."""
    sizes = np.linalg.svd(_units(directions), compute_uv=False) ** 2
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _by_topic(differences: np.ndarray, topics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = np.unique(topics)
    return names, np.stack([differences[topics == t].mean(axis=0) for t in names])


def topic_rows(differences: np.ndarray, topics: np.ndarray, rng) -> Iterator[dict]:
    """Statistics of the directions of single topics at one layer: (pairs, width).

    effective_directions: of the topics' directions; its null swaps labels within pairs, so that
    topics share nothing. topic_cosine: of a topic with the mean over all others.
    """
    names, own = _by_topic(differences, topics)
    if len(names) < 3:
        yield not_run(f"{len(names)} topics, needed 3", statistic="effective_directions")
        return
    n, number = 2 * len(differences), effective_number(own)
    # jackknife over topics: one that a bootstrap draws twice adds no direction of its own
    without = [effective_number(np.delete(own, t, axis=0)) for t in range(len(names))]
    error = Z * np.sqrt((len(names) - 1) * np.var(without))
    yield _row("effective_directions", (number, max(1, number - error), number + error), n)
    signs = rng.choice((-1.0, 1.0), size=(DRAWS, len(differences), 1))
    null = np.array([effective_number(_by_topic(s * differences, topics)[1]) for s in signs])
    yield _row("effective_directions_shuffled", (null.mean(), *central(null)), n)
    for t, name in enumerate(names):
        here, rest = differences[topics == name], np.delete(own, t, axis=0)
        value = cosine(own[t], rest.mean(axis=0))
        counts = rng.multinomial(len(here), np.full(len(here), 1 / len(here)), size=DRAWS)
        others = rest[rng.integers(0, len(rest), (DRAWS, len(rest)))].mean(axis=1)
        spread = cosine(counts @ here / len(here), others)
        row = _row("topic_cosine", fisher_interval(value, spread), 2 * len(here))
        yield row | {"topic": str(name)}


def _row(statistic: str, value: tuple, n: int) -> dict:
    estimate, low, high = map(float, value)
    return {
        "statistic": statistic,
        "estimate": estimate,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "status": "run",
    }


def growth_rows(projections: np.ndarray, rng) -> Iterator[dict]:
    """Growth of the separation over depth, from held-out projections (2, pairs, layers).

    gap_slope: of the standardized gap over relative depth 0 to 1 (least squares); gap_late_middle:
    mean gap of the last third of the layers over that of the middle third; gap_monotone:
    Spearman's rank correlation of gap and depth.
    """
    n, layers = projections.shape[1:]
    if layers < 3:
        yield not_run(f"{layers} layers, needed 3 for thirds", statistic="gap_slope")
        return
    rows = rng.integers(0, n, (10 * DRAWS, n))
    drawn = projections[:, rows]
    gaps = np.vstack(
        [standardized_gap(*projections, axis=0)[None], standardized_gap(*drawn, axis=1)]
    )
    depth = np.linspace(-0.5, 0.5, layers)
    thirds = np.array_split(np.arange(layers), 3)
    ranks = gaps.argsort(axis=1).argsort(axis=1) - (layers - 1) / 2
    order = np.arange(layers) - (layers - 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = gaps[:, thirds[2]].mean(axis=1) / gaps[:, thirds[1]].mean(axis=1)
    for statistic, values in (
        ("gap_slope", gaps @ depth / (depth @ depth)),
        ("gap_late_middle", ratio),
        ("gap_monotone", ranks @ order / (order @ order)),
    ):
        yield _row(statistic, (values[0], *central(values[1:])), 2 * n)


def geometry_rows(subject: Subject, seed: int) -> list[dict]:
    """Rows of the table `geometry` without the cell's keys, at the ends of prompt and thinking.

    Directions and (hazardous) topics from the fit split; growth is measured on the evaluate split.
    """
    fit, new = (read_timeline(subject, split) for split in ("fit", "evaluate"))
    names = [m for m in MOMENTS if m in fit.names and m in new.names]
    kinds, _ = available(subject, SITES)
    recorded = {kind: found for kind, _, found in read_sites(subject, fit, kinds, names)}
    ((_, _, held_out),) = read_sites(subject, new, ["residual"], names)
    rows = []
    for p, position in enumerate(names):
        pairs = {kind: found.paired(position) for kind, found in recorded.items()}
        fresh = held_out.paired(position)
        if min(len(fresh[2]), len(pairs["residual"][2])) < MIN_PAIRS:
            rows.append(not_run(f"fewer than {MIN_PAIRS} pairs reach it", position=position))
            continue
        rng = np.random.default_rng((seed, p))
        differences = {kind: h - b for kind, (h, b, _) in pairs.items()}
        topics = subject.topics("fit", "hazardous")[pairs["residual"][2]]
        rows += [r | {"position": position} for r in _at(differences, fresh[:2], topics, rng)]
    return rows


def _at(differences, fresh, topics, rng) -> Iterator[dict]:
    """Rows at one moment: residual stream over depth, sites within a layer, topics, growth."""
    residual = differences["residual"]
    n, layers = 2 * len(residual), residual.shape[1]
    above = [(i, j) for i in range(layers) for j in range(i + 1, layers)]
    for i, j, *found in _pairs_of_places(residual, rng, above):
        where = {"site": "residual", "other_site": "residual", "layer": i, "other_layer": j}
        yield where | _cosine_row(*found, n)
    kinds = list(differences)
    within = [(i, j) for i in range(len(kinds)) for j in range(i + 1, len(kinds))]
    for layer in range(layers):
        here = {"layer": layer, "other_layer": layer}
        stacked = np.stack([differences[kind][:, layer] for kind in kinds], axis=1)
        for i, j, *found in _pairs_of_places(stacked, rng, within):
            names = {"site": kinds[i], "other_site": kinds[j]}
            yield here | names | _cosine_row(*found, n)
        for row in topic_rows(residual[:, layer], topics, rng):
            yield {"site": "residual", "layer": layer} | row
    directions = residual.mean(axis=0)
    projections = np.stack([np.einsum("plw,lw->pl", values, directions) for values in fresh])
    for row in growth_rows(projections, rng):
        yield {"site": "residual"} | row


def _cosine_row(statistic, value, reliability, reason, n) -> dict:
    kept = {"reliability": reliability}
    if value is None:
        return kept | not_run(reason, statistic=statistic)
    return kept | _row(statistic, value, n)

"""The table `channels`: what states and attention caches know, beside the residual stream.

A state is hundreds of times wider than the residual stream, and a wider channel is read better by
width alone. So every channel is brought to one dimension by a random projection, which keeps angles
and distances (Johnson and Lindenstrauss 1984), and read by the same probes there.
"""

from collections.abc import Iterator

import numpy as np

from phasescope import stats
from phasescope.behave import Subject
from phasescope.errors import NotRun
from phasescope.model import STATES, record_sites, record_states
from phasescope.probe import separation
from phasescope.probe.positions import END_OF_THINKING, LAST_PROMPT, Activations
from phasescope.probe.separation import central
from phasescope.probe.sites import not_run
from phasescope.probe.table import MIN_PAIRS, as_rows
from phasescope.probe.timeline import Timeline, read_timeline

MOMENTS = (LAST_PROMPT, END_OF_THINKING)
DIMENSION = 32
DRAWS = 500
KEPT = ("auroc_topic_left_out", "auroc_logistic", "auroc_permuted_labels", "gap")
# kind of layer -> the channels that are compared there, each with the residual stream after it
_BY_KIND = {
    kind: [state for state, own in STATES.items() if own == kind]
    for kind in ("recurrent", "attention")
}


def projected(values: np.ndarray, layer: int, seed: int) -> np.ndarray:
    """Activations (…, width) in `DIMENSION` random Gaussian directions, the same for one layer and
    width; a channel that is no wider is left as it is."""
    width = values.shape[-1]
    if width <= DIMENSION:
        return values
    rng = np.random.default_rng((seed, layer, width))
    return values @ rng.standard_normal((width, DIMENSION)).astype(np.float32) / np.sqrt(DIMENSION)


def _read(subject: Subject, timeline: Timeline, names, seed: int) -> dict[str, Activations]:
    """Every channel's activations, projected: (prompts, positions, layers of its kind, dimension).

    The residual stream comes twice, as it leaves the layers of either kind.
    """
    lm, size = subject.lm, subject.decoding.batch_size
    wanted, present = timeline.indices(names)
    found = {}
    residual = record_sites(lm, ["residual"], timeline.sequences, wanted, size)["residual"]
    for kind, states in _BY_KIND.items():
        layers = [i for i, own in enumerate(lm.layer_kinds) if own == kind]
        if not layers:
            continue
        recorded = record_states(lm, states, timeline.sequences, wanted, size)
        recorded[f"residual after {kind}"] = residual[:, :, layers]
        for name, values in recorded.items():
            flat = values.reshape(*values.shape[:3], -1)
            each = [projected(flat[:, :, i], layer, seed) for i, layer in enumerate(layers)]
            found[name] = Activations(tuple(names), np.stack(each, axis=2), present)
    return found


def channel_rows(subject: Subject, seed: int) -> list[dict]:
    """Rows of the table `channels` without the cell's keys, at the ends of prompt and thinking.

    Each channel alone, and the difference of its AUROC (topics left out) from that of the residual
    stream after the same layers, on the same prompts.
    """
    kinds = subject.lm.layer_kinds
    rows = [
        not_run(f"the model has no {kind} layers", channel=state)
        for kind, states in _BY_KIND.items()
        if kind not in kinds
        for state in states
    ]
    fit, new = (read_timeline(subject, split) for split in ("fit", "evaluate"))
    names = [m for m in MOMENTS if m in fit.names and m in new.names]
    read = [_read(subject, timeline, names, seed) for timeline in (fit, new)]
    for kind, states in _BY_KIND.items():
        layers = [i for i, own in enumerate(kinds) if own == kind]
        for position in names if layers else ():
            chosen = [f"residual after {kind}", *states]
            where = {"position": position}
            try:
                pairs = _pairs(read, chosen, position, (fit.topics, new.topics))
            except NotRun as reason:
                rows += [not_run(reason, channel=name, **where) for name in chosen]
                continue
            for i, layer in enumerate(layers):
                own = where | {"layer": layer, "layer_kind": kind}
                rng = np.random.default_rng((seed, layer, names.index(position)))
                rows += [own | row for row in _at_layer(*pairs, i, chosen, rng)]
    return rows


def _pairs(read, chosen, position, topics) -> tuple:
    """Pairs of every channel that both splits reach at a position, and their topics."""
    found, own = [], []
    for split, all_topics in zip(read, topics, strict=True):
        taken = {name: split[name].paired(position) for name in chosen}
        which = taken[chosen[0]][2]
        if len(which) < MIN_PAIRS:
            raise NotRun(f"{len(which)} pairs reach this moment, needed {MIN_PAIRS}")
        found.append({name: (h, b) for name, (h, b, _) in taken.items()})
        own.append(all_topics[which])
    return found, own


def _at_layer(found, topics, i: int, chosen: list[str], rng) -> Iterator[dict]:
    scores = {}
    for name in chosen:
        fit, new = (tuple(values[:, i] for values in split[name]) for split in found)
        about = {"channel": name, "dimension": fit[0].shape[-1]}
        scores[name] = separation.left_out_scores(fit, new, *topics)
        for row in as_rows(separation.separation_rows(fit, new, *topics, rng)):
            if row["statistic"] in KEPT and not np.isnan(row["ci_low"]):
                yield about | row | {"status": "run"}
    base = chosen[0]
    for name in chosen[1:]:
        value, n = auroc_difference(scores[name], scores[base], rng)
        row = as_rows([("auroc_above_residual", value, n)])[0]
        yield {"channel": name, "dimension": DIMENSION} | row | {"status": "run"}


def auroc_difference(first: np.ndarray, second: np.ndarray, rng) -> tuple[tuple, int]:
    """Difference of the AUROC of two scores (2, pairs) of the same pairs, its 95 % interval
    (bootstrap over pairs), and the number of prompts."""
    known = ~(np.isnan(first) | np.isnan(second)).any(axis=0)
    first, second = first[:, known], second[:, known]
    n = first.shape[1]
    rows = rng.integers(0, n, (DRAWS, n))

    def area(scores: np.ndarray) -> np.ndarray:
        """AUROC of each draw: draws last."""
        return stats.auroc(scores[0][rows].T, scores[1][rows].T)

    estimate = stats.auroc(*first) - stats.auroc(*second)
    return (float(estimate), *central(area(first) - area(second))), 2 * n

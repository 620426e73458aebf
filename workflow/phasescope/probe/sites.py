"""The table `sites`: how well every site, layer and moment tells hazardous from benign."""

from collections.abc import Iterator, Sequence

import numpy as np

from phasescope.behave import Subject
from phasescope.errors import NotRun
from phasescope.model import layers_with, record_sites
from phasescope.probe import separation
from phasescope.probe.positions import END_OF_THINKING, LAST_PROMPT, Activations
from phasescope.probe.table import MIN_PAIRS, as_rows
from phasescope.probe.timeline import Timeline, read_timeline

SITES = (
    "residual",
    "residual_middle",
    "mixer",
    "q_proj",
    "k_proj",
    "v_proj",
    "heads",
    "recurrent_heads",
    "feed_forward",
    "router",
    "shared_expert",
)
# sites beside the residual stream are read at these moments alone
KEY_MOMENTS = (LAST_PROMPT, END_OF_THINKING, "answer_0")
_KEPT_BYTES = 1e9  # of activations that one pass may keep


def not_run(reason: object, **where) -> dict:
    """A row that says why there is no number."""
    return {**where, "n": 0, "status": "not_run", "reason": str(reason)}


def read_sites(
    subject: Subject, timeline: Timeline, kinds: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[str, list[int], Activations]]:
    """Activations at kinds of sites and moments: kind, its layers, activations over them.

    One pass records as many kinds as keep at most 1 GB, at least one. Raises NotRun for a kind
    that the model lacks.
    """
    lm, size = subject.lm, subject.decoding.batch_size
    wanted, present = timeline.indices(names)
    layers = {kind: layers_with(lm, kind) for kind in kinds}
    width = lm.stack.norm.weight.shape[0]
    each = 4 * len(wanted) * len(names) * len(lm.blocks) * width
    together = max(1, int(_KEPT_BYTES // max(each, 1)))
    for start in range(0, len(kinds), together):
        part = list(kinds[start : start + together])
        for kind, values in record_sites(lm, part, timeline.sequences, wanted, size).items():
            flat = values.reshape(*values.shape[:3], -1)
            yield kind, layers[kind], Activations(tuple(names), flat, present)


def available(subject: Subject, kinds: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those kinds of sites that the model has, and why it lacks the others."""
    found, lacking = [], {}
    for kind in kinds:
        try:
            layers_with(subject.lm, kind)
            found.append(kind)
        except NotRun as reason:
            lacking[kind] = str(reason)
    return found, lacking


def measured(
    fit: Activations,
    new: Activations,
    topics: tuple[np.ndarray, np.ndarray],
    layers: Sequence[int],
    seed: tuple[int, ...],
) -> Iterator[tuple[dict, list[dict]]]:
    """Separation at each moment and layer: where it is, and the rows of its statistics.

    A moment that fewer than four pairs reach gives one row that says so.
    """
    for p, position in enumerate(fit.positions):
        fh, fb, fit_which = fit.paired(position)
        nh, nb, new_which = new.paired(position)
        if (pairs := min(len(fh), len(nh))) < MIN_PAIRS:
            reason = f"{pairs} pairs reach this moment, needed {MIN_PAIRS}"
            yield {"position": position}, [not_run(reason)]
            continue
        own = topics[0][fit_which], topics[1][new_which]
        for i, layer in enumerate(layers):
            rng = np.random.default_rng((*seed, p, layer))
            found = separation.separation_rows(
                (fh[:, i], fb[:, i]), (nh[:, i], nb[:, i]), *own, rng
            )
            yield {"position": position, "layer": layer}, [_judged(row) for row in as_rows(found)]


def _judged(row: dict) -> dict:
    """A row with its status: no number, no `run`."""
    if not np.isnan([row["estimate"], row["ci_low"], row["ci_high"]]).any():
        return row | {"status": "run"}
    reason = (
        "topics: no other one is left to fit on" if row["n"] == 0 else "no spread to measure by"
    )
    return not_run(reason, statistic=row["statistic"])


def site_rows(subject: Subject, seed: int, sites: Sequence[str] = SITES) -> list[dict]:
    """Rows of the table `sites` without the cell's keys.

    The residual stream at every moment, the other sites at `KEY_MOMENTS`; directions from the fit
    split, measured on the evaluate split.
    """
    fit, new = (read_timeline(subject, split) for split in ("fit", "evaluate"))
    kinds, lacking = available(subject, sites)
    rows = [not_run(reason, site=kind) for kind, reason in lacking.items()]
    names = [m for m in fit.names if m in new.names]
    key = [m for m in KEY_MOMENTS if m in names]
    for chosen, moments in ((["residual"], names), ([k for k in kinds if k != "residual"], key)):
        both = zip(
            read_sites(subject, fit, chosen, moments),
            read_sites(subject, new, chosen, moments),
            strict=True,
        )
        for (kind, layers, first), (_, _, second) in both:
            topics = fit.topics, new.topics
            for where, own in measured(first, second, topics, layers, (seed, SITES.index(kind))):
                if "layer" in where:
                    where["layer_kind"] = subject.lm.layer_kinds[where["layer"]]
                rows += [{"site": kind} | where | row for row in own]
    return rows

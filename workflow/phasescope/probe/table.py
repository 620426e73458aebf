"""The probe table of a cell."""

import numpy as np

from phasescope.probe import separation
from phasescope.probe.positions import Activations

MIN_PAIRS = 4


def probe_rows(
    fit: Activations,
    evaluate: Activations,
    topics: tuple[np.ndarray, np.ndarray],
    layer_kinds: list[str],
    seed: int,
) -> list[dict]:
    """Rows of the table `probes` without the cell's keys: directions from `fit`, measured on
    `evaluate`, at every layer and every position that at least four pairs of both reach.

    topics: of the pairs of `fit` and of `evaluate`.
    """
    rows = []
    for position in fit.positions:
        fit_h, fit_b, fit_which = fit.paired(position)
        new_h, new_b, new_which = evaluate.paired(position)
        if min(len(fit_h), len(new_h)) < MIN_PAIRS:
            continue
        own = topics[0][fit_which], topics[1][new_which]
        for layer, kind in enumerate(layer_kinds):
            rng = np.random.default_rng((seed, layer, fit.positions.index(position)))
            found = separation.separation_rows(
                (fit_h[:, layer], fit_b[:, layer]), (new_h[:, layer], new_b[:, layer]), *own, rng
            )
            if layer + 1 < len(layer_kinds):
                pairs = (fit_h[:, i] - fit_b[:, i] for i in (layer, layer + 1))
                cosine = separation.cosine_between(*pairs, rng)
                found.append(("cosine_next_layer", cosine, 2 * len(fit_h)))
            where = {"site": "residual", "layer": layer, "layer_kind": kind, "position": position}
            rows += [where | row for row in as_rows(found)]
    return rows


def as_rows(found: list[tuple]) -> list[dict]:
    """(statistic, (estimate, low, high), n) as columns."""
    return [
        {"statistic": statistic, "estimate": estimate, "ci_low": low, "ci_high": high, "n": n}
        for statistic, (estimate, low, high), n in found
    ]

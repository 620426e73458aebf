"""The probe table of a cell."""

import numpy as np

from phasescope.probe import separation
from phasescope.probe.positions import Activations

MIN_PAIRS = 4


def probe_rows(
    fit: Activations, evaluate: Activations, layer_kinds: list[str], seed: int
) -> list[dict]:
    """Rows of the table `probes` without the cell's keys: directions from `fit`, measured on
    `evaluate`, at every layer and every position that at least four pairs of both reach.
    """
    rows = []
    for position in fit.positions:
        fit_h, fit_b, _ = fit.paired(position)
        new_h, new_b, _ = evaluate.paired(position)
        if min(len(fit_h), len(new_h)) < MIN_PAIRS:
            continue
        for layer, kind in enumerate(layer_kinds):
            rng = np.random.default_rng((seed, layer, fit.positions.index(position)))
            found = _at_layer(fit_h, fit_b, new_h, new_b, layer, rng)
            rows += [
                {
                    "site": "residual",
                    "layer": layer,
                    "layer_kind": kind,
                    "position": position,
                    "statistic": statistic,
                    "estimate": estimate,
                    "ci_low": low,
                    "ci_high": high,
                    "n": n,
                }
                for statistic, (estimate, low, high), n in found
            ]
    return rows


def _at_layer(fit_h, fit_b, new_h, new_b, layer, rng):
    """(statistic, (estimate, low, high), n) for one layer and position."""
    fh, fb, nh, nb = (x[:, layer] for x in (fit_h, fit_b, new_h, new_b))
    direction = separation.difference_of_means(fh, fb)
    n_new, n_fit = 2 * len(nh), 2 * len(fh)
    found = [
        ("auroc", separation.auroc(direction, nh, nb), n_new),
        ("auroc_shuffled_labels", separation.auroc_shuffled(fh, fb, nh, nb, rng), n_new),
        ("auroc_random_direction", separation.auroc_random(nh, nb, rng), n_new),
        ("gap", separation.gap(direction, nh, nb, rng), n_new),
        ("split_half_cosine", separation.split_half_cosine(fh, fb, rng), n_fit),
    ]
    if layer + 1 < fit_h.shape[1]:
        above = fit_h[:, layer + 1] - fit_b[:, layer + 1]
        found.append(("cosine_next_layer", separation.cosine_between(fh - fb, above, rng), n_fit))
    return found

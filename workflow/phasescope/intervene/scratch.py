"""What one job of a cell leaves for the next: never a table, never read by `phasescope.read`."""

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from phasescope.behave import Subject
from phasescope.errors import NotRun
from phasescope.intervene.directions import Directions, Selected, Source
from phasescope.intervene.routing import selection_rates
from phasescope.intervene.settings import Setting
from phasescope.model import routes, top_k
from phasescope.probe import DIRECTION_POSITIONS, MIN_PAIRS, Activations, load_activations
from phasescope.probe.routing import read_routing
from phasescope.tables.scratch import load_scratch, save_scratch


def load_sources(path: str | Path, subject: Subject) -> dict[str, Source]:
    """Fit activations by the positions that directions may come from: the probe's file.

    Raises NotRun where no position has enough matched pairs.
    """
    fit = load_activations(path)
    topics = subject.prompts("fit", "benign")["category"].to_numpy()
    sources = {}
    for position in DIRECTION_POSITIONS:
        if position in fit.positions:
            hazardous, benign, pairs = fit.paired(position)
            if len(pairs) >= MIN_PAIRS:
                sources[position] = Source(hazardous, benign, topics[pairs], _rates(fit, position))
    if not sources:
        raise NotRun("no token position has enough matched pairs of the fit split")
    return sources


def _rates(fit: Activations, position: str) -> np.ndarray | None:
    """Selection rates (2, layers, experts), hazardous first; None for a model that routes not."""
    chosen = fit.paired_experts(position)
    if chosen is None:
        return None
    return np.stack([selection_rates(c, fit.n_experts) for c in chosen])


def load_directions(activations: str | Path, selected: str | Path, subject: Subject) -> Directions:
    """What the designs of a cell take their directions from.

    Raises NotRun with the reason where the selection could not be made at all.
    """
    chosen, lm = load_selected(selected), subject.lm
    sources = load_sources(activations, subject)
    saliency = None
    if routes(lm):
        saliency = cache(lambda: (expert_saliency(subject), top_k(lm, 0)))
    return Directions(sources, chosen, tuple(lm.layer_kinds), saliency)


def expert_saliency(subject: Subject) -> np.ndarray:
    """What each expert adds to what its layer's experts write, by router weight times norm of its
    output, over the benign prompts of the fit split: (layers, experts), a layer's sum 1.

    After REAP (Lasby et al. 2025), which takes the mean over an expert's own tokens: here an expert
    that few tokens select counts for little.
    """
    prompts = subject.rendered("fit", "benign", thinking=subject.decoding.thinking)
    found = read_routing(subject, prompts, [0] * len(prompts), [len(p) for p in prompts])
    written = found.saliency.sum(axis=0)
    return written / written.sum(axis=-1, keepdims=True)


def save_selected(path: str | Path, selected: Selected | None) -> None:
    """Leave the selected direction, or that none qualified."""
    save_scratch(path, {"selected": asdict(selected) if selected else None})


def load_selected(path: str | Path) -> Selected | None:
    """The selected direction, or None where none qualified.

    Raises NotRun with the reason where the selection could not be made at all.
    """
    found = load_scratch(path)["selected"]
    return Selected(**found) if found else None


def save_chosen(path: str | Path, setting: Setting) -> None:
    """Leave the setting that a design chose."""
    save_scratch(path, asdict(setting))


def load_chosen(path: str | Path) -> Setting | None:
    """The setting that a design chose, or None where the design did not run."""
    try:
        found = load_scratch(path)
    except NotRun:
        return None
    return _setting(found)


def _setting(found: dict) -> Setting:
    parts = tuple(map(_setting, found.get("parts", ())))
    return Setting(**found | {"layers": tuple(found["layers"]), "parts": parts})

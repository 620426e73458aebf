"""What single designs measure beside the scores and answers of every design."""

from collections.abc import Callable

import numpy as np

from phasescope.behave import Subject
from phasescope.intervene.directions import Directions, unit
from phasescope.intervene.edits import Combination, Edit, applied
from phasescope.intervene.routing import ExpertEdit
from phasescope.model import record_sites, selections


def take_over(subject: Subject, directions: Directions, edit: Edit) -> dict:
    """f10: what the untouched layers above the lowest edited one write along the selected direction
    at the last token, hazardous minus benign: its rise under the edit, as a share of what all
    layers write unedited. Positive: others take over."""
    r = unit(directions.chosen())
    with applied(subject.lm, edit):
        edited = _written(subject, r)
    plain = _written(subject, r)
    layers = plain[0].shape[1]
    own = [i for i in range(min(edit.layers), layers) if i not in edit.layers]
    if not own:
        return {"gap_rise": float("nan")}
    scale = abs(plain[0].mean(axis=0).sum() - plain[1].mean(axis=0).sum())
    rises = [(a - b)[:, own].sum(axis=1) / scale for a, b in zip(edited, plain, strict=True)]
    return {
        "gap_rise": float(rises[0].mean() - rises[1].mean()),
        "gap_rise_se": float(np.sqrt(sum(x.var(ddof=1) / len(x) for x in rises))),
    }


def _written(subject: Subject, r: np.ndarray) -> list[np.ndarray]:
    """What each layer writes along r at the last token of the select split's hazardous and benign
    prompts, each (prompts, layers)."""
    found_by_label = []
    for label in ("hazardous", "benign"):
        prompts = subject.decided("select", label)
        last = [[len(p) - 1] for p in prompts]
        found = record_sites(
            subject.lm,
            ["mixer", "feed_forward"],
            prompts,
            last,
            subject.decoding.batch_size,
        )
        written = found["mixer"] + found["feed_forward"]
        found_by_label.append(written[:, 0] @ r)
    return found_by_label


def reselected(subject: Subject, directions: Directions, edit: Edit) -> dict:
    """f17: how often the named experts are selected by tokens of the select split, as a share of
    tokens, before and under the edit; mean over the experts."""
    parts = edit.parts if isinstance(edit, Combination) else (edit,)
    experts = [p.experts for p in parts if isinstance(p, ExpertEdit)]
    named = [(i, e) for own in experts for i in own for e in own[i]]
    before = _rates(subject, named)
    with applied(subject.lm, edit):
        after = _rates(subject, named)
    return {"selection_rate_before": before, "selection_rate": after}


def _rates(subject: Subject, named: list[tuple[int, int]]) -> float:
    prompts = subject.decided("select")
    length = min(map(len, prompts))
    places = [list(range(len(p) - length, len(p))) for p in prompts]
    chosen = selections(subject.lm, prompts, places, subject.decoding.batch_size)
    return float(np.mean([(chosen[:, :, i] == e).any(axis=-1).mean() for i, e in named]))


# by design: what it measures of an edit, on the subject with the cell's directions
EXTRAS: dict[str, Callable[[Subject, Directions, Edit], dict]] = {
    "hydra": take_over,
    "zero-logit": reselected,
}

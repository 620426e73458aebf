"""What is left of an edit of one weight after the weight was rounded."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from phasescope.intervene.directions import orthonormal

RETURNED, KEPT, STEPS = STATISTICS = ("returned", "kept", "steps")


@dataclass(frozen=True)
class Rounded:
    """One weight (…, out, in), float32: without and with the edit, at 16 bit and as rounded."""

    before: np.ndarray
    after: np.ndarray
    rounded_before: np.ndarray
    rounded_after: np.ndarray


@dataclass(frozen=True)
class Left:
    """Of a statistic: its value for the edit, and for random directions (draws,), where it has
    such a control."""

    value: float
    controls: np.ndarray | None = None


def left_of(
    parts: Iterable[Rounded], along: np.ndarray, draws: int, rng: np.random.Generator
) -> dict[str, Left]:
    """What rounding left of an edit along orthonormal directions (rank, out).

    parts: the weight, or experts of it one after the other, so that one alone is in memory.

    returned: share of the edited directions' norm that comes back, |R (Q(W') - W')| over
    |R (W' - W)|. kept: share of the edit that is there beyond what rounding made of the unedited
    weight, <Q(W') - Q(W), D> / <D, D> with D = W' - W; 1 is all of it, 0 none. steps: size of the
    edit's entries in quantization steps (root mean squares; rounding to steps errs by a step over
    the square root of 12).

    The controls are as many random directions, orthogonal to the edited ones: what comes back
    along them, over the same norm; what the same change along them would seem to have been kept.
    """
    others = [_beside(along, rng) for _ in range(draws)]
    size = energy = wrong = came = kept = 0.0
    others_came, others_kept = np.zeros(draws), np.zeros(draws)
    for weights in parts:
        change = weights.after - weights.before
        error = weights.rounded_after - weights.after
        moved = weights.rounded_after - weights.rounded_before
        planned = along @ change
        size += np.square(planned).sum()
        energy += np.square(change).sum()
        wrong += np.square(error).sum()
        came += np.square(along @ error).sum()
        kept += (moved * change).sum()
        others_came += [np.square(other @ error).sum() for other in others]
        others_kept += [((other @ moved) * planned).sum() for other in others]
    return {
        RETURNED: Left(float(np.sqrt(came / size)), np.sqrt(others_came / size)),
        KEPT: Left(float(kept / energy), others_kept / energy),
        STEPS: Left(float(np.sqrt(energy / (12 * wrong))) if wrong else np.nan),
    }


def _beside(along: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random orthonormal directions, as many as `along` and orthogonal to them."""
    drawn = rng.standard_normal(along.shape).astype(np.float32)
    return orthonormal(drawn - (drawn @ along.T) @ along)


def mean_of(found: Iterable[Left]) -> Left:
    """The mean over weights, draw by draw."""
    found = list(found)
    controls = [f.controls for f in found if f.controls is not None]
    return Left(
        float(np.mean([f.value for f in found])), np.mean(controls, axis=0) if controls else None
    )


def columns(left: Left) -> dict:
    """Columns of the table `survival`."""
    if left.controls is None:
        return {"estimate": left.value}
    return {
        "estimate": left.value,
        "control_median": float(np.median(left.controls)),
        "control_p95": float(np.quantile(left.controls, 0.95)),
        "control_draws": len(left.controls),
    }

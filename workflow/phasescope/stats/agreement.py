"""How well one grader agrees with another, and rates corrected for a grader's errors."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from phasescope.stats.intervals import Z, wilson

Interval = tuple[float, float, float]
NONE: Interval = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Errors:
    """Sensitivity and specificity of a grader for one class, each from the counts behind it.

    found: of `positive` true cases, how many it found; passed: of `negative` others, how many it
    rightly left alone.
    """

    found: int
    positive: int
    passed: int
    negative: int

    @property
    def sensitivity(self) -> Interval:
        """Share of the true cases that it found, with its Wilson interval."""
        return wilson(self.found, self.positive)

    @property
    def specificity(self) -> Interval:
        """Share of the others that it left alone, with its Wilson interval."""
        return wilson(self.passed, self.negative)


def confusion(truth: Sequence, found: Sequence, classes: Sequence) -> np.ndarray:
    """Counts (classes, classes): rows are the truth, columns what was found.

    Raises ValueError for a value that is no class.
    """
    place = {name: number for number, name in enumerate(classes)}
    if unknown := (set(truth) | set(found)) - set(place):
        raise ValueError(f"no classes: {sorted(map(str, unknown))}; classes: {list(classes)}")
    counts = np.zeros((len(place), len(place)), dtype=int)
    for t, f in zip(truth, found, strict=True):
        counts[place[t], place[f]] += 1
    return counts


def errors_of(truth: Sequence[Hashable], found: Sequence[Hashable], positive: set) -> Errors:
    """Errors of `found` against `truth` for the class that the values `positive` make up."""
    (passed, _), (_, hits) = counts = confusion(
        [t in positive for t in truth], [f in positive for f in found], (False, True)
    )
    negatives, positives = counts.sum(axis=1)
    return Errors(int(hits), int(positives), int(passed), int(negatives))


def kappa(counts: np.ndarray) -> Interval:
    """Cohen's kappa of a confusion matrix with its large-sample 95 % interval (Fleiss, Cohen and
    Everitt 1969); missing where chance alone would agree always."""
    n = counts.sum()
    if n == 0:
        return NONE
    p = counts / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    agreed, chance = float(np.trace(p)), float(rows @ columns)
    if chance >= 1:
        return NONE
    value = (agreed - chance) / (1 - chance)
    spread = columns[:, None] + rows[None]  # of cell (i, j): column share of i, row share of j
    own = np.diag(p) * (1 - np.diag(spread) * (1 - value)) ** 2
    others = (p * spread**2).sum() - (np.diag(p) * np.diag(spread) ** 2).sum()
    variance = own.sum() + (1 - value) ** 2 * others - (value - chance * (1 - value)) ** 2
    half = Z * math.sqrt(max(0.0, float(variance))) / ((1 - chance) * math.sqrt(n))
    return value, max(-1.0, value - half), min(1.0, value + half)


def rogan_gladen(hits: int, n: int, errors: Errors) -> Interval:
    """A rate that a faulty grader measured, corrected for its errors, with a 95 % interval.

    Point estimate of Rogan and Gladen 1978, clipped to [0, 1]; interval of Lang and Reiczigel
    2014, which carries the uncertainty of all three samples. Missing where the grader is no
    better than chance (sensitivity + specificity <= 1) or a sample is empty.
    """
    if not (n and errors.positive and errors.negative):
        return NONE
    sensitivity, specificity = errors.sensitivity[0], errors.specificity[0]
    gain = sensitivity + specificity - 1
    # the interval's own estimates: shrunk as Agresti and Coull do
    sick, well, size = errors.positive + 2, errors.negative + 2, n + Z**2
    se, sp = (errors.found + 1) / sick, (errors.passed + 1) / well
    seen = (hits + Z**2 / 2) / size
    if gain <= 0 or se + sp <= 1:
        return NONE
    center = (seen + sp - 1) / (se + sp - 1)
    noise = (se * (1 - se) / sick, sp * (1 - sp) / well)
    shift = 2 * Z**2 * (center * noise[0] - (1 - center) * noise[1])
    variance = seen * (1 - seen) / size + center**2 * noise[0] + (1 - center) ** 2 * noise[1]
    half = Z * math.sqrt(variance) / (se + sp - 1)
    low, high = (min(1.0, max(0.0, center + shift + side)) for side in (-half, half))
    estimate = min(1.0, max(0.0, (hits / n + specificity - 1) / gain))
    return estimate, min(low, estimate), max(high, estimate)

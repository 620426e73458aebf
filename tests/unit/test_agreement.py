"""Agreement of graders against statsmodels and scikit-learn; corrected rates against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from statsmodels.stats.inter_rater import cohens_kappa

from phasescope.stats import Errors, confusion, errors_of, kappa, rogan_gladen
from phasescope.stats.intervals import Z

GRADES = ("refusal", "full", "partial", "degenerate")
PAIRS = st.lists(st.tuples(st.sampled_from(GRADES), st.sampled_from(GRADES)), min_size=1)


@given(PAIRS)
def test_confusion_and_errors_are_scikit_learns(pairs):
    """If it failed, what is called sensitivity would be its transpose."""
    truth, found = zip(*pairs, strict=True)
    counts = confusion(truth, found, GRADES)
    assert (counts == confusion_matrix(truth, found, labels=GRADES)).all()
    got = errors_of(truth, found, {"full", "partial"})
    want = confusion_matrix(
        [t in ("full", "partial") for t in truth],
        [f in ("full", "partial") for f in found],
        labels=[False, True],
    )
    assert (got.passed, got.negative - got.passed) == tuple(want[0])
    assert (got.positive - got.found, got.found) == tuple(want[1])


@given(st.lists(st.integers(0, 40), min_size=9, max_size=9))
def test_kappa_is_statsmodels(cells):
    """If it failed, agreement with people would be over- or understated."""
    counts = np.array(cells).reshape(3, 3)
    value, low, high = kappa(counts)
    n, chance = counts.sum(), 1.0
    if n:
        chance = counts.sum(axis=0) @ counts.sum(axis=1) / n**2
    if chance >= 1:
        assert math.isnan(value)
        return
    want = cohens_kappa(counts)
    assert value == pytest.approx(want.kappa)
    half = Z * want.std_kappa
    assert (low, high) == pytest.approx(
        (max(-1, want.kappa - half), min(1, want.kappa + half)), abs=1e-6
    )


def test_a_grade_that_is_none_is_refused():
    """If it failed, an unknown grade would silently vanish from the counts."""
    with pytest.raises(ValueError, match="harmful"):
        confusion(["harmful"], ["full"], GRADES)


def test_a_perfect_grader_needs_no_correction():
    """If it failed, correction would move rates that were right."""
    estimate, low, high = rogan_gladen(30, 100, Errors(10_000, 10_000, 10_000, 10_000))
    assert estimate == pytest.approx(0.3)
    assert low < 0.3 < high and high - low == pytest.approx(0.18, abs=0.02)


def test_a_grader_no_better_than_chance_corrects_nothing():
    """If it failed, a coin would be given a rate with an interval."""
    assert all(np.isnan(rogan_gladen(30, 100, Errors(50, 100, 50, 100))))
    assert all(np.isnan(rogan_gladen(0, 0, Errors(9, 10, 9, 10))))
    assert all(np.isnan(rogan_gladen(3, 9, Errors(0, 0, 9, 10))))


@pytest.mark.parametrize("truth", [0.02, 0.2, 0.6, 0.97])
@pytest.mark.parametrize(("se", "sp"), [(0.9, 0.95), (0.7, 0.85)])
def test_corrected_intervals_cover(truth, se, sp):
    """If it failed, a rate by a faulty judge would look surer than it is."""
    rng = np.random.default_rng(1)
    n, known, runs = 100, 80, 1000
    seen = rng.binomial(n, truth * se + (1 - truth) * (1 - sp), runs)
    found, passed = rng.binomial(known, se, runs), rng.binomial(known, sp, runs)
    covered, naive = 0, 0
    for h, f, p in zip(seen, found, passed, strict=True):
        estimate, low, high = rogan_gladen(int(h), n, Errors(int(f), known, int(p), known))
        covered += low <= truth <= high
        assert 0 <= low <= estimate <= high <= 1
        naive += abs(h / n - truth) <= Z * math.sqrt(h / n * (1 - h / n) / n)
    assert covered / runs >= 0.93
    assert covered > naive or naive / runs > 0.9

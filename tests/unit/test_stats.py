"""Intervals and posteriors against statsmodels, scikit-learn and scipy, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, norm
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from phasescope.stats import (
    auroc,
    auroc_interval,
    jeffreys_draws,
    paired_difference,
    rank_among,
    unique_shares,
    wilson,
)

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_wilson_is_statsmodels(counts):
    """If it failed, every rate in the report would carry a wrong interval."""
    estimate, low, high = wilson(*counts)
    assert estimate == counts[0] / counts[1]
    np.testing.assert_allclose((low, high), proportion_confint(*counts, method="wilson"), atol=1e-9)


def test_intervals_keep_their_width_at_the_ends():
    """If it failed, 20 refusals of 20 would be reported as certainty."""
    for found in (wilson(0, 20), wilson(20, 20), paired_difference(0, 0, 20)):
        assert found[2] - found[1] > 0.1
    apart = auroc_interval(np.arange(20) + 100.0, np.arange(20))
    assert apart[0] == apart[2] == 1 and 0.7 < apart[1] < 0.95
    assert auroc_interval(np.arange(20), np.arange(20) + 100.0)[2] == pytest.approx(1 - apart[1])


def test_empty_samples_are_missing():
    """If it failed, nothing measured would look like a number."""
    empty = np.array([])
    for found in (wilson(0, 0), paired_difference(0, 0, 0), auroc_interval(empty, np.ones(3))):
        assert all(math.isnan(x) for x in found)
    assert np.isnan(auroc(np.empty((0, 2)), np.ones((3, 2)))).all()


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
)
def test_auroc_is_sklearn_with_ties(positive, negative):
    """If it failed, separation and the check of the first-token score would be wrong."""
    labels = [1] * len(positive) + [0] * len(negative)
    want = roc_auc_score(labels, positive + negative)
    assert auroc(np.array(positive), np.array(negative)) == pytest.approx(want)
    estimate, low, high = auroc_interval(np.array(positive), np.array(negative))
    assert estimate == pytest.approx(want) and 0 <= low <= estimate <= high <= 1
    both = auroc(np.stack([positive] * 2, axis=1), np.stack([negative] * 2, axis=1))
    np.testing.assert_allclose(both, [want, want])


@pytest.mark.parametrize("truth", [0.5, 0.75, 0.92])
@pytest.mark.parametrize("sizes", [(20, 20), (60, 40)])
def test_auroc_interval_covers(truth, sizes):
    """If it failed, a probe's interval would promise a certainty that it does not have."""
    rng, shift = np.random.default_rng(1), math.sqrt(2) * norm.ppf(truth)
    hits = 0
    for _ in range(400):
        _, low, high = auroc_interval(rng.normal(shift, 1, sizes[0]), rng.normal(0, 1, sizes[1]))
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.99


@pytest.mark.parametrize("shares", [(0.1, 0.1, 0.8), (0.25, 0.05, 0.7), (0.02, 0.01, 0.97)])
def test_paired_difference_covers(shares):
    """If it failed, the cost of an intervention would look surer, or vaguer, than it is."""
    rng = np.random.default_rng(2)
    hits = 0
    for lost, gained, _ in rng.multinomial(80, shares, size=250):
        _, low, high = paired_difference(lost, gained, 80)
        hits += low <= shares[0] - shares[1] <= high
    assert 0.92 <= hits / 250 <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (64, 64)])
def test_jeffreys_draws_are_the_posterior(successes, n):
    """If it failed, the probability of every phase would be another one."""
    draws = jeffreys_draws(successes, n, 200_000, np.random.default_rng(3))
    levels = (0.025, 0.25, 0.5, 0.75, 0.975)
    want = beta.ppf(levels, successes + 0.5, n - successes + 0.5)
    np.testing.assert_allclose(np.quantile(draws, levels), want, atol=3e-3)


def test_paired_difference_has_a_sign_and_repeats():
    """If it failed, a model that got better would be reported as damaged, or differently twice."""
    estimate, low, high = paired_difference(lost=12, gained=2, n=50)
    assert estimate == pytest.approx(0.2) and 0 < low < 0.2 < high
    np.testing.assert_allclose(paired_difference(2, 12, 50), (-0.2, -high, -low), atol=0.01)
    assert paired_difference(12, 2, 50) == (estimate, low, high)


def test_rank_among_draws():
    """If it failed, an effect of the draw would be called an effect of the set."""
    null = np.arange(1, 40.0)
    assert rank_among(0.0, null) == (0.0, 2 / 40) and rank_among(99.0, null) == (100.0, 2 / 40)
    assert rank_among(20.0, null) == (50.0, 1.0)
    assert rank_among(1.0, np.ones(20)) == (50.0, 1.0)  # what never varies is no effect
    rng = np.random.default_rng(0)
    drawn = [rank_among(rng.gamma(0.3), rng.gamma(0.3, size=39))[1] for _ in range(4000)]
    for level in (0.05, 0.1, 0.5):
        assert np.mean(np.array(drawn) <= level) == pytest.approx(level, abs=0.03)


def test_unique_shares_are_squared_semipartial_correlations():
    """If it failed, what two causes explain together would be given to either of them."""
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((200, 2))
    causes[:, 1] += causes[:, 0]
    y = causes[:, 0] + rng.standard_normal(200)
    for k, share in enumerate(unique_shares(y, causes)):
        rest = causes[:, 1 - k]
        left = causes[:, k] - np.polyval(np.polyfit(rest, causes[:, k], 1), rest)
        assert share == pytest.approx(np.corrcoef(y, left)[0, 1] ** 2)
    constant = unique_shares(y, np.column_stack([np.ones(200), causes[:, 0]]))
    assert constant == pytest.approx([0, np.corrcoef(y, causes[:, 0])[0, 1] ** 2])
    assert np.isnan(unique_shares(np.ones(9), causes[:9])).all()

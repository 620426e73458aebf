"""Comparisons across models against scipy and statsmodels, and the sources' own figures again."""

import itertools
import math
import re

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_effectsize

from phasescope import comparisons
from phasescope.comparisons import Group, across_models, counts_of, published, read_published
from phasescope.stats import (
    barnard,
    equal_rates,
    homogeneity,
    indicators,
    needed_for,
    omega_squared,
    pearson,
    permutation_p,
    power_of,
    rate_difference,
    spearman,
)
from phasescope.stats import proportions as module
from phasescope.tables import frame_of

PAIR = st.integers(1, 20).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.fixture(scope="module")
def own(thresholds):
    return thresholds["across_models"]


@given(PAIR, PAIR)
@limits(max_examples=40)
def test_homogeneity_of_two_is_fisher(first, second):
    """If it failed, models of one rate would be called different, or the reverse."""
    hits, n = zip(first, second, strict=True)
    table = [hits, np.subtract(n, hits)]
    assert homogeneity(hits, n) == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6)


def _by_hand(hits, n) -> float:
    """Every table with the same margins, one by one."""
    tables = [
        np.prod([math.comb(size, x) for size, x in zip(n, xs, strict=True)], dtype=float)
        for xs in itertools.product(*(range(size + 1) for size in n))
        if sum(xs) == sum(hits)
    ]
    seen = np.prod([math.comb(size, x) for size, x in zip(n, hits, strict=True)], dtype=float)
    return sum(t for t in tables if t <= seen * (1 + 1e-6)) / sum(tables)


@pytest.mark.parametrize(
    ("hits", "n"), [((3, 0, 2, 4), (4, 5, 3, 6)), ((1, 1, 1), (2, 7, 4)), ((0, 0), (5, 5))]
)
def test_homogeneity_counts_every_table(hits, n):
    """If it failed, the exact test of several models would be none."""
    assert homogeneity(hits, n) == pytest.approx(_by_hand(hits, n))


def test_tables_too_many_to_count_are_drawn(monkeypatch):
    """If it failed, nine models at a hundred prompts would take forever, or be wrong."""
    hits, n = (5, 1, 3, 6), (9, 8, 10, 7)
    exact = homogeneity(hits, n)
    monkeypatch.setattr(module, "_STATES", 5)
    error = math.sqrt(exact * (1 - exact) / 100_000)
    found = homogeneity(hits, n)
    assert found == pytest.approx(exact, abs=5 * error) and found != exact
    drawn = equal_rates(hits, n, 5000)
    assert (drawn.sum(axis=1) == sum(hits)).all() and (drawn <= n).all()
    expected = np.array(n) * sum(hits) / sum(n)
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.1)


@given(PAIR, PAIR)
@limits(max_examples=40)
def test_difference_of_rates_is_statsmodels(first, second):
    """If it failed, a pair of models would carry a wrong interval."""
    found = rate_difference(*zip(first, second, strict=True))
    want = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    np.testing.assert_allclose(found[1:], want, atol=1e-9)
    assert found[0] == pytest.approx(first[0] / first[1] - second[0] / second[1])


def test_power_is_what_the_needed_number_gives():
    """If it failed, a user would be told to ask too few prompts."""
    needed = needed_for((0.5, 0.4))
    assert power_of((0.5, 0.4), (needed, needed)) == pytest.approx(0.8, abs=0.005)
    effect = proportion_effectsize(0.5, 0.4)
    want = sm.stats.NormalIndPower().solve_power(effect, power=0.8, alpha=0.05)
    assert needed == math.ceil(want)
    assert needed_for((0.3, 0.3)) is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=5, max_size=30).filter(
        lambda pairs: all(len({p[i] for p in pairs}) > 2 for i in (0, 1))
    )
)
@limits(max_examples=40)
def test_correlations_are_scipy(pairs):
    """If it failed, size would be said to predict safety, or not to, by a wrong number."""
    x, y = np.array(pairs, dtype=float).T
    want, found = stats.pearsonr(x, y), pearson(x, y)
    assert found[0] == pytest.approx(want.statistic)
    if abs(found[0]) < 0.999:
        np.testing.assert_allclose(found[1:], want.confidence_interval(0.95))
        ranks = spearman(x, y)
        assert ranks[0] == pytest.approx(stats.spearmanr(x, y).statistic)
        assert ranks[1] <= ranks[0] <= ranks[2]


def test_spearman_interval_covers():
    """If it failed, ranks would promise a certainty that they do not have."""
    rng, truth, hits = np.random.default_rng(4), 0.5, 0
    rho = 6 / math.pi * math.asin(truth / 2)
    for _ in range(400):
        x, y = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], size=30).T
        _, low, high = spearman(x, y)
        hits += low <= rho <= high
    assert 0.92 <= hits / 400 <= 0.985


@pytest.mark.parametrize("what", ["a number", "groups"])
def test_shares_of_variance_are_statsmodels(what):
    """If it failed, developer against size would be compared by a wrong share."""
    rng = np.random.default_rng(2)
    groups = rng.choice(["a", "b", "c", "d"], 24)
    x = rng.normal(size=24)
    y = x + 2 * (groups == "a") + rng.normal(size=24)
    design = x[:, None] if what == "a number" else indicators(groups)
    fit = sm.OLS(y, sm.add_constant(design)).fit()
    want = (fit.ess - fit.df_model * fit.mse_resid) / (fit.centered_tss + fit.mse_resid)
    assert omega_squared(y, design) == pytest.approx(want)


def test_permutation_p_counts_permutations():
    """If it failed, a developer of three models would look like a law."""
    y, groups = np.array([0.1, 0.2, 0.15, 0.6, 0.3, 0.7]), indicators(list("aaabbb"))
    own = omega_squared(y, groups)
    each = [omega_squared(np.array(p), groups) for p in itertools.permutations(y)]
    exact = np.mean([e >= own - 1e-9 for e in each])
    assert permutation_p(y, groups) == pytest.approx(exact, abs=0.02)
    # a developer a model: nothing is left to compare with
    assert math.isnan(permutation_p(y, indicators(list("abcdef"))))


@given(PAIR, st.integers(0, 1))
def test_a_percentage_can_stand_for_the_counts_that_give_it(pair, decimals):
    """If it failed, the n behind a published figure would be missed."""
    hits, n = pair
    percent = f"{100 * hits / n:.{decimals}f}"
    assert (hits, n) in counts_of(percent) and (hits, n) in counts_of(percent, n)


def test_the_published_denominators():
    """If it failed, the note on the source's two denominators would be wrong."""
    assert counts_of("7.1") == ((1, 14),) and counts_of("17.6") == ((3, 17),)
    assert counts_of("41.2", 17) == ((7, 17),) and counts_of("50.0", 17) == ()


def _rows(rows: list[dict], **values) -> list[dict]:
    found = [r for r in rows if all(r.get(k) == v for k, v in values.items())]
    assert found, values
    return found


@pytest.fixture(scope="module")
def republished(own):
    rows = comparisons.published_comparisons(own)
    frame_of("across_models", rows)
    return rows


@pytest.mark.parametrize(("statistic", "hits"), [("strict_asr", (5, 7)), ("broad_asr", (7, 11))])
def test_the_published_pair_is_inconclusive(republished, statistic, hits):
    """If it failed, 8.8 points between 10 and 17 answers would pass for a finding."""
    subject = "Mistral Large 3 - DeepSeek V3.2"
    (row,) = _rows(republished, claim="ff-5", statistic=statistic, subject=subject)
    n = (10, 17)
    want = stats.barnard_exact([hits, np.subtract(n, hits)]).pvalue
    assert row["p"] == pytest.approx(want) and row["p_holm"] >= row["p"] > 0.05
    assert row["ci_low"] < 0 < row["ci_high"] and row["verdict"] == "inconclusive"
    interval = confint_proportions_2indep(hits[0], 10, hits[1], 17, method="newcomb")
    np.testing.assert_allclose((row["ci_low"], row["ci_high"]), interval)
    assert "is found with chance 0.0" in row["reason"]


def test_the_published_correlation_leaves_room(republished):
    """If it failed, 24 models would be said to show that size does not matter."""
    stated = [r for r in republished if r["origin"].endswith("as stated")]
    (row,) = _rows(stated, measure="pearson")
    z, half = math.atanh(-0.140), stats.norm.ppf(0.975) / math.sqrt(24 - 3)
    np.testing.assert_allclose(
        (row["ci_low"], row["ci_high"]), (math.tanh(z - half), math.tanh(z + half))
    )
    assert row["verdict"] == "inconclusive" and "26%" in row["reason"]
    (ratio,) = _rows(stated, measure="share_ratio")
    assert ratio["reason"] == "57.5 x r^2 = 1.13 is more than all of the variance"


def test_one_model_a_developer_says_nothing_of_developers(republished):
    """If it failed, six developers of one model each would explain everything."""
    for row in _rows(republished, measure="omega_squared", subject="developer"):
        assert row["verdict"] == "not_run" and "cannot be told" in row["reason"]


def test_the_published_models_differ_but_not_surely_several_fold(republished):
    """If it failed, the weakest n that fits the percentages would not be looked at."""
    (row,) = _rows(republished, claim="ff-1", statistic="broad_asr")
    groups = published("failure-first", "broad_asr")
    each = [
        homogeneity(*zip(*chosen, strict=True))
        for chosen in itertools.product(*(g.counts for g in groups))
    ]
    assert row["p"] == pytest.approx(max(each)) and row["p"] < 0.05
    assert row["estimate"] < row["null_p95"] and row["verdict"] == "inconclusive"
    assert f"the rates differ in {len(each)} of {len(each)}" in row["reason"]


def _group(name: str, hits: int, n: int, developer="me", size=1.0) -> Group:
    return Group(name, developer, size, hits / n, ((hits, n),))


def test_organisms_of_one_and_of_several_kinds(own):
    """If it failed, chance would make models differ, or real differences be called chance."""
    rng = np.random.default_rng(1)
    apart = [_group("helpful", 63, 64), _group("circuit", 1, 64), _group("holographic", 0, 64)]
    (row,) = _rows(across_models(apart, own), claim="ff-1")
    assert row["verdict"] == "supported" and row["estimate"] > row["null_p95"]
    same = [_group(f"circuit-{i}", int(rng.binomial(64, 0.01)), 64) for i in range(5)]
    (row,) = _rows(across_models(same, own), claim="ff-1")
    assert row["verdict"] == "refuted" and row["p"] > 0.05
    few = [_group("a", 2, 6), _group("b", 4, 6)]
    assert _rows(across_models(few, own), claim="ff-1")[0]["verdict"] == "inconclusive"


def _simulated(seed: int, by_size: float, by_developer: float) -> list[Group]:
    rng = np.random.default_rng(seed)
    own = dict(zip("abcdef", rng.permutation(np.linspace(-1, 1, 6)), strict=True))
    groups = []
    for i in range(150):
        developer, size = "abcdef"[i % 6], 10 ** rng.uniform(0, 3)
        logit = by_size * (np.log10(size) - 1.5) + by_developer * own[developer]
        hits = int(rng.binomial(60, 1 / (1 + math.exp(-logit - rng.normal(0, 0.3)))))
        groups.append(_group(str(i), hits, 60, developer, size))
    return groups


def test_size_and_developer_are_told_apart(own):
    """If it failed, the claim that size does not matter could not be refuted, or supported."""
    from phasescope.comparisons.across import size_or_developer

    rows = size_or_developer(_simulated(3, by_size=1.5, by_developer=0), own)
    assert _rows(rows, measure="pearson")[0]["verdict"] == "refuted"
    assert _rows(rows, subject="developer", measure="omega_squared")[0]["p"] > 0.05
    rows = size_or_developer(_simulated(3, by_size=0, by_developer=2), own)
    assert _rows(rows, measure="pearson")[0]["verdict"] == "supported"
    assert _rows(rows, subject="developer", measure="omega_squared")[0]["verdict"] == "supported"


def test_pairs_of_one_size_are_corrected(own):
    """If it failed, one of many pairs would differ by chance and be believed."""
    from phasescope.comparisons.across import same_size_pairs

    hits = {"a": 30, "b": 29, "c": 28, "d": 5}
    groups = [_group(m, h, 40, developer=m, size=100 + i) for i, (m, h) in enumerate(hits.items())]
    groups += [_group("e", 5, 40, developer="e", size=300), _group("f", 0, 40, "a", 100)]
    rows = same_size_pairs(groups)
    pairs = {r["subject"]: r for r in rows}
    assert "a - f" not in pairs and not any("e" in p.split(" - ") for p in pairs)
    assert pairs["a - d"]["verdict"] == "supported" and pairs["a - d"]["ci_low"] > 0
    assert pairs["a - b"]["verdict"] == "inconclusive"
    assert pairs["a - b"]["p"] == pytest.approx(barnard((30, 29), (40, 40)))


def test_measured_rates_take_the_same_way(own):
    """If it failed, measured and published would be compared by different rules."""
    rates, cells = [], []
    keys = {"prompt_table": "main", "condition": "baseline", "temperature": 0.0}
    keys |= {"by": "all", "value": "all"}
    for model, hits in (("a", 60), ("b", 4)):
        cells.append({"model": model, "developer": model, "parameters_total_billion": 7.0})
        rate = {"hits": 2 * hits, "n": 128, "n_missing": 0, "n_sources": 64, "estimate": hits / 64}
        for statistic in ("strict_asr", "broad_asr"):
            rates.append(keys | rate | {"model": model, "precision": "16", "statistic": statistic})
        rates.append(rates[-1] | {"condition": "edited", "estimate": 0.5})
    rates, cells = frame_of("behavior_rates", rates), frame_of("cells", cells)
    rows = comparisons.measured_comparisons(cells, rates, own)
    frame_of("across_models", rows)
    (row,) = _rows(rows, claim="ff-5", statistic="strict_asr")
    assert row["n"] == 128 and row["p"] == pytest.approx(barnard((60, 4), (64, 64)))
    assert row["verdict"] == "supported" and row["precision"] == "16"


def _number(text: str) -> float:
    return float(text.replace(",", ""))


WORDS = {"three": 3, "four": 4, "Failed": 0}


def test_every_published_figure_stands_in_its_quote():
    """If it failed, the report would set a misread number beside what was measured."""
    figures, sources = read_published("figures"), read_published("sources")
    assert figures["source"].isin(sources["source"]).all() and len(figures) > 100
    assert not figures.duplicated(["source", "section", "subject", "quantity", "value"]).any()
    for row in figures.itertuples():
        quoted = {_number(x) for x in re.findall(r"-?\d[\d,]*\.?\d*", row.quote)}
        quoted |= {1000 * q for q in quoted if "trillion" in row.quote}
        quoted |= {abs(q) for q in quoted} | {WORDS[w] for w in WORDS if w in row.quote}
        for value in filter(None, (row.value, row.to)):
            assert float(value) in quoted, row
        assert re.fullmatch(r"|(ff|xs)-\d+|f\d\d", row.claim), row
        assert row.bound in ("=", "<", ">", "<=", ">=") and row.unit, row


def test_published_models_have_their_size_in_the_quote():
    """If it failed, a model would be compared as of another size."""
    models = read_published("models")
    assert not models.duplicated(["source", "model"]).any()
    for row in models.itertuples():
        size = float(row.parameters_total_billion)
        written = {f"{size:g}", f"{size / 1000:g}T"}
        assert any(w in row.quote for w in written), row

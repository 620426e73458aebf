"""Comparisons across models: do they differ, by size or by developer (ff-1, ff-4, ff-5)."""

import itertools
import math

import numpy as np

from phasescope.comparisons.groups import Group, measured, published, read_published
from phasescope.stats import (
    barnard,
    correlation_interval,
    equal_rates,
    holm,
    homogeneity,
    indicators,
    needed_for,
    omega_squared,
    pearson,
    permutation_p,
    power_of,
    rate_difference,
    spearman,
    spread,
)

_DRAWS = 4_000
_DESCRIPTIVE = 20  # models; fewer describe, they do not test
_SAME_SIZE = 1.05  # ratio of parameters up to which two models are of one size


def _choices(groups: list[Group]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(hits, n) of all groups, for every combination of counts that they may rest on."""
    return [
        tuple(np.array(side) for side in zip(*chosen, strict=True))
        for chosen in itertools.product(*(g.counts for g in groups))
    ]


def _unstated(groups: list[Group]) -> str | None:
    """What is to be said of n where a source does not state it."""
    unknown = [g.model for g in groups if not g.stated]
    if not unknown:
        return None
    return (
        f"no n is stated for {', '.join(unknown)}: every n up to 20 that fits the percentage was "
        f"tried ({math.prod(len(g.counts) for g in groups)} combinations); shown is the weakest"
    )


def _row(claim: str, measure: str, subject: str, **values) -> dict:
    return {"claim": claim, "measure": measure, "subject": subject} | values


def _interval(found: tuple[float, float, float]) -> dict:
    return dict(zip(("estimate", "ci_low", "ci_high"), found, strict=True))


def differences(groups: list[Group], thresholds: dict) -> list[dict]:
    """ff-1: whether models of one class have one rate, and by how much they are apart.

    The exact test of homogeneity comes first. The spread (largest over smallest rate) has no
    meaning of its own: the more models and the fewer answers, the larger. So it stands beside its
    95th percentile among tables of equal models with the same n.
    """
    subject = f"{len(groups)} models"
    if len(groups) < 2:
        return [_row("ff-1", "spread", subject, **_not_run("fewer than two models"))]
    found = [_spread(hits, n) for hits, n in _choices(groups)]
    weakest = max(found, key=lambda f: f["p"])
    apart = [f["p"] < 0.05 and f["spread"] > f["null_p95"] for f in found]
    same = [f["range_high"] < thresholds["max_equal_range"] for f in found]
    verdict = "supported" if all(apart) else "refuted" if all(same) else "inconclusive"
    said = None
    if len(found) > 1:
        differ, ps = [f["p"] < 0.05 for f in found], [f["p"] for f in found]
        said = (
            f"the rates differ in {sum(differ)} of {len(found)} (p {min(ps):.2g} to {max(ps):.2g}),"
            f" their spread is beyond equal models' in {sum(apart)}"
        )
    return [
        _row(
            "ff-1",
            "spread",
            subject,
            estimate=weakest["spread"],
            null_p95=weakest["null_p95"],
            n_models=len(groups),
            n=int(weakest["n"]),
            p=weakest["p"],
            verdict=verdict,
            reason="; ".join(filter(None, [_unstated(groups), said])) or None,
        )
    ]


def _spread(hits: np.ndarray, n: np.ndarray) -> dict:
    rng = np.random.default_rng(0)
    rates = rng.beta(hits + 0.5, n - hits + 0.5, size=(_DRAWS, len(n)))
    return {
        "p": homogeneity(hits, n),
        "spread": float(spread(hits, n)),
        "null_p95": float(np.quantile(spread(equal_rates(hits, n, _DRAWS), n), 0.95)),
        "range_high": float(np.quantile(np.ptp(rates, axis=1), 0.975)),
        "n": n.sum(),
    }


def _not_run(reason: str) -> dict:
    return {"verdict": "not_run", "reason": reason}


def size_or_developer(groups: list[Group], thresholds: dict) -> list[dict]:
    """ff-4: correlation of the rate with the size (log10 of parameters), and the shares of its
    variance (omega squared) that go with size and with developer. A model counts once."""
    few = f"descriptive: {len(groups)} models, under {_DESCRIPTIVE}"
    if len(groups) < 4:
        return [_row("ff-4", "pearson", "size", **_not_run(f"{len(groups)} models, under 4"))]
    size = np.log10([g.parameters_billion for g in groups])
    rate = np.array([g.rate for g in groups])
    descriptive = len(groups) < _DESCRIPTIVE
    rows = []
    for measure, correlate in (("pearson", pearson), ("spearman", spearman)):
        found = correlate(size, rate)
        verdict, reason = _no_prediction(found, thresholds)
        if descriptive:
            verdict, reason = "inconclusive", few
        rows.append(
            _row("ff-4", measure, "size", **_interval(found), n_models=len(groups))
            | {"verdict": verdict, "reason": reason}
        )
    for subject, design in (
        ("size", size[:, None]),
        ("developer", indicators([g.developer for g in groups])),
    ):
        share = omega_squared(rate, design)
        found = {"estimate": share, "n_models": len(groups)}
        if math.isnan(share):
            found |= _not_run(f"{subject} cannot be told from the models themselves")
        else:
            p = permutation_p(rate, design)
            found |= {"p": p, "verdict": "supported" if p < 0.05 else "inconclusive"}
            found |= {"verdict": "inconclusive", "reason": few} if descriptive else {}
        rows.append(_row("ff-4", "omega_squared", subject, **found))
    return [*rows, _share_ratio(rows, len(groups))]


def _no_prediction(found: tuple[float, float, float], thresholds: dict) -> tuple[str, str | None]:
    """Verdict on 'size does not predict': supported where the interval leaves no room for more
    than a weak correlation, refuted where it leaves out zero."""
    r, low, high = found
    if math.isnan(r):
        return "not_run", "sizes or rates do not vary"
    limit = thresholds["max_size_correlation"]
    if low > 0 or high < 0:
        return "refuted", None
    if -limit <= low and high <= limit:
        return "supported", None
    return "inconclusive", (
        f"up to {max(low**2, high**2):.0%} of the variance may go with size at this n"
    )


def _share_ratio(rows: list[dict], n: int) -> dict:
    shares = {r["subject"]: r["estimate"] for r in rows if r["measure"] == "omega_squared"}
    row = _row("ff-4", "share_ratio", "developer over size", n_models=n)
    if math.isnan(shares["developer"]):
        return row | _not_run("no developer's share of the variance")
    if shares["size"] <= 0:
        return row | _not_run("size explains nothing beyond chance: no ratio")
    ratio = shares["developer"] / shares["size"]
    return row | {
        "estimate": ratio,
        "verdict": "inconclusive",
        "reason": "a ratio without interval",
    }


def same_size_pairs(groups: list[Group]) -> list[dict]:
    """ff-5: every two models of one size (within 5 %) by two developers, Barnard's exact test,
    adjusted over the pairs after Holm."""
    rows = []
    for first, second in itertools.combinations(groups, 2):
        sizes = sorted((first.parameters_billion, second.parameters_billion))
        if first.developer != second.developer and sizes[1] <= _SAME_SIZE * sizes[0]:
            rows.append(_pair(first, second))
    if not rows:
        reason = "no two models of one size (within 5 %) by two developers"
        return [_row("ff-5", "difference", "none", **_not_run(reason))]
    for row, p in zip(rows, holm(np.array([r["p"] for r in rows])), strict=True):
        row |= {"p_holm": p, "verdict": "supported" if p < 0.05 else "inconclusive"}
    return rows


def _pair(first: Group, second: Group) -> dict:
    found = []
    for hits, n in _choices([first, second]):
        hits, n = tuple(map(int, hits)), tuple(map(int, n))
        found.append((barnard(hits, n), rate_difference(hits, n), hits, n))
    p, difference, hits, n = max(found, key=lambda f: f[0])
    reason = [_unstated([first, second])]
    rates = hits[0] / n[0], hits[1] / n[1]
    if p >= 0.05 and (needed := needed_for(rates)):
        reason.append(
            f"at n = {n[0]} and {n[1]} such a difference is found with chance "
            f"{power_of(rates, n):.2f}; a chance of 0.8 takes {needed} answers each"
        )
    return _row(
        "ff-5",
        "difference",
        f"{first.model} - {second.model}",
        **_interval(difference),
        n_models=2,
        n=sum(n),
        p=p,
        reason="; ".join(filter(None, reason)) or None,
    )


_OF_CLAIM = {
    "ff-1": differences,
    "ff-4": size_or_developer,
    "ff-5": lambda groups, thresholds: same_size_pairs(groups),
}


def across_models(
    groups: list[Group], thresholds: dict, claims: tuple[str, ...] = tuple(_OF_CLAIM)
) -> list[dict]:
    """All comparisons of one set of models, for rows of the table `across_models`."""
    return [row for claim in claims for row in _OF_CLAIM[claim](groups, thresholds)]


SOURCE = "failure-first"  # the source that compares models of several developers


RATES = ("strict_asr", "broad_asr")


def measured_comparisons(
    cells, rates, thresholds: dict, claims: tuple[str, ...] = tuple(_OF_CLAIM)
) -> list[dict]:
    """Rows of the table `across_models` from a study's tables `cells` and `behavior_rates`, for
    each precision that has a graded answer."""
    return [
        {"origin": "measured", "precision": precision, "statistic": statistic} | row
        for precision in rates["precision"].unique()
        for statistic in RATES
        for row in across_models(measured(cells, rates, statistic, precision), thresholds, claims)
    ]


def published_comparisons(thresholds: dict) -> list[dict]:
    """Rows of the table `across_models` from resources/published: the table of models by the same
    code as measured ones, and the correlation that is stated of more models than are listed."""
    rows = [
        {"origin": SOURCE, "statistic": statistic} | row
        for statistic in RATES
        for row in across_models(published(SOURCE, statistic), thresholds)
    ]
    return rows + [
        {"origin": f"{SOURCE}, as stated", "statistic": "asr"} | r for r in _stated(thresholds)
    ]


def _stated(thresholds: dict) -> list[dict]:
    figures = read_published("figures")
    own = figures[(figures["source"] == SOURCE) & (figures["claim"] == "ff-4")]
    stated = {row.quantity: row for row in own.itertuples()}
    r = stated["Pearson correlation of parameters and ASR"]
    ratio = float(stated["variance in ASR explained by provider over that by parameters"].value)
    found = correlation_interval(float(r.value), int(r.n))
    verdict, reason = _no_prediction(found, thresholds)
    share = ratio * found[0] ** 2
    impossible = f"{ratio:g} x r^2 = {share:.2f} is more than all of the variance" * (share > 1)
    return [
        _row("ff-4", "pearson", "size", **_interval(found), n_models=int(r.n))
        | {"verdict": verdict, "reason": reason},
        _row(
            "ff-4",
            "share_ratio",
            "developer over size",
            estimate=ratio,
            n_models=int(r.n),
            verdict="inconclusive",
            reason=impossible or "stated without interval",
        ),
    ]

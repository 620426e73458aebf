"""Directions between hazardous and benign activations, and how well they separate.

Arrays are (pairs, width) at one layer and position; pairs are matched prompts.
"""

import numpy as np

from phasescope import stats
from phasescope.stats.intervals import Z

CONTROL_DRAWS = 100
FOLDS = 5
RESAMPLES = 1000


def difference_of_means(hazardous: np.ndarray, benign: np.ndarray) -> np.ndarray:
    """Mean of hazardous minus mean of benign over the first axis (Arditi et al. 2024)."""
    return hazardous.mean(axis=0) - benign.mean(axis=0)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine over the last axis; 0 where a vector vanishes."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.where(norms > 0, norms, 1)


def auroc(direction, hazardous, benign) -> tuple[float, float, float]:
    """AUROC of the projections on a direction, with its 95 % interval."""
    return stats.auroc_interval(hazardous @ direction, benign @ direction)


def auroc_topic_left_out(hazardous, benign, topics) -> float:
    """AUROC of projections on a direction fitted without the pair's own topic, pooled over topics:
    `left_out_scores` within one set of pairs."""
    pairs = hazardous, benign
    return float(stats.auroc(*left_out_scores(pairs, pairs, topics, topics)))


def left_out_scores(fit_pairs, new_pairs, fit_topics, new_topics) -> np.ndarray:
    """Projections of new pairs on the difference of means of the fit pairs of all other topics.

    fit_pairs, new_pairs: (hazardous, benign), each (pairs, width). Each topic's projections are
    taken from the middle between the means, on the unit direction. Returns (2, new pairs); NaN
    where no other topic is left to fit on.
    """
    scores = np.full((2, len(new_topics)), np.nan)
    for topic in np.unique(new_topics):
        fit, own = fit_topics != topic, new_topics == topic
        if not fit.any():
            continue
        means = [values[fit].mean(axis=0) for values in fit_pairs]
        direction, middle = means[0] - means[1], (means[0] + means[1]) / 2
        length = np.linalg.norm(direction)
        for i, values in enumerate(new_pairs):
            scores[i, own] = (values[own] - middle) @ direction / (length if length > 0 else 1)
    return scores


def logistic_scores(fit_pairs, new_pairs, fit_topics, new_topics) -> np.ndarray:
    """Log-odds of hazard by logistic regression (ridge), topics left out in five folds.

    Shapes as in `left_out_scores`. Fitted in the span of the fit activations, standardized as a
    whole, which gives what the full width would.
    """
    from sklearn.linear_model import LogisticRegression

    scores = np.full((2, len(new_topics)), np.nan)
    topics = np.unique(new_topics)
    labels = np.repeat((1, 0), len(fit_topics))
    fit, new = (np.concatenate(pairs).astype(np.float64) for pairs in (fit_pairs, new_pairs))
    center = fit.mean(axis=0)
    _, sizes, basis = np.linalg.svd(fit - center, full_matrices=False)
    basis = basis[sizes > 1e-6 * sizes[0]] if sizes[0] > 0 else basis[:1]
    fit, new = (fit - center) @ basis.T, (new - center) @ basis.T
    scale = np.sqrt((fit**2).sum(axis=1).mean()) or 1.0
    for held in np.array_split(topics, min(FOLDS, len(topics))):
        rows = np.tile(~np.isin(fit_topics, held), 2)
        own = np.isin(new_topics, held)
        if not rows.any():
            continue
        model = LogisticRegression(C=1.0, max_iter=200).fit(fit[rows] / scale, labels[rows])
        scores[:, own] = model.decision_function(new / scale).reshape(2, -1)[:, own]
    return scores


def auroc_of(scores: np.ndarray) -> tuple[float, float, float]:
    """AUROC of scores (2, pairs) with its interval; pairs without a score are left out."""
    known = ~np.isnan(scores).any(axis=0)
    return stats.auroc_interval(scores[0, known], scores[1, known])


def folded(aurocs: np.ndarray) -> np.ndarray:
    """Distance from one half, either way: a control that reads the labels backwards reads them."""
    return np.abs(aurocs - 0.5) + 0.5


def _control(directions, hazardous, benign, swapped=None) -> tuple[float, float, float]:
    """Mean and central 95 % of the folded AUROC over control directions (draws, width).

    swapped: bool (pairs, draws), pairs whose labels each draw swaps where it is judged.
    """
    a, b = hazardous @ directions.T, benign @ directions.T
    if swapped is not None:
        a, b = np.where(swapped, b, a), np.where(swapped, a, b)
    found = folded(stats.auroc(a, b))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(np.mean(found)), float(low), float(high)


def auroc_shuffled(fit_hazardous, fit_benign, hazardous, benign, rng) -> tuple[float, float, float]:
    """Folded AUROC of directions fitted after swapping the labels of random pairs: the null of
    fitting. One strong feature makes single draws read backwards as well as forwards, hence the
    folding."""
    signs = rng.choice((-1.0, 1.0), size=(CONTROL_DRAWS, len(fit_hazardous)))
    return _control(signs @ (fit_hazardous - fit_benign), hazardous, benign)


def auroc_permuted(fit_hazardous, fit_benign, hazardous, benign, rng) -> tuple[float, float, float]:
    """Folded AUROC after swapping the labels of random pairs both where directions are fitted and
    where they are judged: the null that labels say nothing, whatever features there are."""
    signs = rng.choice((-1.0, 1.0), size=(CONTROL_DRAWS, len(fit_hazardous)))
    swapped = rng.random((len(hazardous), CONTROL_DRAWS)) < 0.5
    return _control(signs @ (fit_hazardous - fit_benign), hazardous, benign, swapped)


def auroc_random(hazardous, benign, rng) -> tuple[float, float, float]:
    """Folded AUROC of directions drawn at random from a Gaussian."""
    directions = rng.standard_normal((CONTROL_DRAWS, hazardous.shape[1]))
    return _control(directions, hazardous, benign)


def separation_rows(fit_pairs, new_pairs, fit_topics, new_topics, rng) -> list[tuple]:
    """Every statistic of one site, layer and position: (statistic, (estimate, low, high), n).

    fit_pairs, new_pairs: (hazardous, benign), each (pairs, width); topics: one a pair.
    """
    (fh, fb), (nh, nb) = fit_pairs, new_pairs
    direction = difference_of_means(fh, fb)
    left_out = left_out_scores(fit_pairs, new_pairs, fit_topics, new_topics)
    logistic = logistic_scores(fit_pairs, new_pairs, fit_topics, new_topics)
    n_fit, n_new = 2 * len(fh), 2 * len(nh)
    return [
        ("auroc", auroc(direction, nh, nb), n_new),
        ("auroc_topic_left_out", auroc_of(left_out), _known(left_out)),
        ("auroc_logistic", auroc_of(logistic), _known(logistic)),
        ("auroc_shuffled_labels", auroc_shuffled(fh, fb, nh, nb, rng), n_new),
        ("auroc_permuted_labels", auroc_permuted(fh, fb, nh, nb, rng), n_new),
        ("auroc_random_direction", auroc_random(nh, nb, rng), n_new),
        ("gap", gap(direction, nh, nb, rng), n_new),
        ("split_half_cosine", split_half_cosine(fh, fb, rng), n_fit),
    ]


def _known(scores: np.ndarray) -> int:
    return 2 * int((~np.isnan(scores).any(axis=0)).sum())


def standardized_gap(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    """Difference of means over an axis in pooled standard deviations; NaN without spread."""
    spread = np.sqrt((a.var(axis=axis, ddof=1) + b.var(axis=axis, ddof=1)) / 2)
    return (a.mean(axis=axis) - b.mean(axis=axis)) / np.where(spread > 0, spread, np.nan)


def gap(direction, hazardous, benign, rng) -> tuple[float, float, float]:
    """Gap between mean projections in pooled standard deviations (Cohen's d), 95 % interval.

    Percentile bootstrap over matched pairs.
    """
    a, b = hazardous @ direction, benign @ direction
    if len(a) < 3:
        return float(standardized_gap(a, b)), np.nan, np.nan
    rows = rng.integers(0, len(a), (RESAMPLES, len(a)))
    return float(standardized_gap(a, b)), *central(standardized_gap(a[rows], b[rows]))


def central(values: np.ndarray) -> tuple[float, float]:
    """Ends of the central 95 % of draws; missing without any."""
    if np.isnan(values).all():
        return np.nan, np.nan
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def split_half_cosine(hazardous, benign, rng, draws: int = 100) -> tuple[float, float, float]:
    """Cosine between directions fitted on random halves of the pairs: mean and central 95 %.

    The noise ceiling of every cosine between directions.
    """
    pairs = hazardous - benign
    orders = rng.permuted(np.tile(np.arange(len(pairs)), (draws, 1)), axis=1)
    half = len(pairs) // 2
    found = cosine(pairs[orders[:, :half]].mean(axis=1), pairs[orders[:, half:]].mean(axis=1))
    return float(found.mean()), *central(found)


def cosine_between(first, second, rng, draws: int = 200) -> tuple[float, float, float]:
    """Cosine of the mean pair differences of two layers, with a 95 % interval.

    `first`, `second`: hazardous minus benign, (pairs, width), the same pairs. The interval is
    normal on Fisher's scale, its spread from a bootstrap over pairs: percentiles would lie below
    the estimate, since resampling adds the noise of the means a second time.
    """
    n = len(first)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
    estimate = cosine(first.mean(axis=0), second.mean(axis=0))
    return fisher_interval(estimate, cosine(weights @ first, weights @ second))


def fisher_interval(estimate: float, draws: np.ndarray) -> tuple[float, float, float]:
    """A cosine with the 95 % interval that is normal on Fisher's scale, spread as its draws are."""
    spread = Z * np.nanstd(_fisher(draws), ddof=1)
    low, high = np.tanh(_fisher(estimate) + np.array((-spread, spread)))
    return float(estimate), float(low), float(high)


def _fisher(cosines) -> np.ndarray:
    return np.arctanh(np.clip(cosines, -1 + 1e-12, 1 - 1e-12))

"""Group B: claims that compare models with each other (xs-1, xs-8, xs-19)."""

from itertools import combinations

import numpy as np
import pandas as pd

from phasescope.claims.estimates import draws, jackknife
from phasescope.claims.evidence import Condition
from phasescope.claims.registry import arithmetic, claim
from phasescope.claims.view import View, removed
from phasescope.errors import NotRun
from phasescope.stats import indicators, permutation_p

_MOST_STEPS = 3  # four phases
_DRAWS = 1000
RECURRENT = {"dense-hybrid": True, "moe-hybrid": True, "moe-attention": False}


def apart(cells: pd.DataFrame, column: str) -> list[str]:
    """Groups of models whose sizes do not overlap with those of any other group of `column`."""
    ranges = cells.groupby(column)["size"].agg(["min", "max"])
    return [
        name
        for name, low, high in ranges.itertuples()
        if not any(
            other != name and low <= top and bottom <= high
            for other, bottom, top in ranges.itertuples()
        )
    ]


def _identifiable(models: pd.DataFrame) -> str | None:
    """Why size and architecture cannot be told apart in these models; None where they can."""
    if models["architecture"].nunique() < 2:
        return "not identifiable: one architecture"
    alone = apart(models, "architecture")
    if len(alone) == models["architecture"].nunique():
        return f"not identifiable: sizes of {', '.join(alone)} do not overlap"
    return None


def of_models(view: View) -> pd.DataFrame:
    """A row a model at its highest precision that was measured: log10 of its size (1e9),
    architecture, and (hits, n) of the removal by the best single intervention. Best: the one whose
    refusal the select split shows lowest, or else the only ones that were generated; measured on
    the evaluate split."""
    cells, found = view.rows("cells"), []
    for name, own in cells.groupby("model", sort=False):
        for precision in view.of(name).precisions():
            try:
                hits, n = _best(view.of(name, precision))
            except NotRun:
                continue
            row = own.iloc[0]
            found.append(
                {
                    "model": name,
                    "size": float(np.log10(row["parameters_total_billion"])),
                    "architecture": row["architecture"],
                    "hits": hits,
                    "n": n,
                    "precision": precision,
                }
            )
            break
    return pd.DataFrame(found)


def _best(view: View) -> tuple[int, int]:
    singles = view.refusing().singles
    chosen = singles[singles["chosen"]]
    if chosen.empty:
        raise NotRun("no design chose a single intervention")
    swept = view.rows("interventions")
    swept = swept[(swept["measured_by"] == "first_token") & swept["chosen"]]
    scores = swept.groupby("design")["refusal_nats"].min()
    order = chosen.assign(score=chosen["design"].map(scores).fillna(np.inf))
    return removed(order.sort_values(["score", "design"]).iloc[0])


def _chi(y: np.ndarray, root: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Weighted squared residuals of each row of y (fits, models) from a linear design."""
    basis = np.linalg.svd(design * root[:, None], full_matrices=False)
    basis = basis[0][:, basis[1] > 1e-9 * basis[1][0]]
    scaled = y * root
    return (scaled**2).sum(axis=1) - ((scaled @ basis) ** 2).sum(axis=1)


def step_against_trend(
    size: np.ndarray, architecture: np.ndarray, hits: np.ndarray, n: np.ndarray
) -> np.ndarray:
    """BIC of a smooth logistic trend in log10 size less that of the best step function of up to
    three steps, on empirical log-odds, the architecture's own level in both. Above 0: steps.

    hits: (fits, models), the first the observed one, whose weights all fits share; n: (models,).
    The dispersion is at least that of sampling.
    """
    y = np.log((hits + 0.5) / (n - hits + 0.5))
    root = 1 / np.sqrt(1 / (hits[0] + 0.5) + 1 / (n - hits[0] + 0.5))
    base = np.column_stack([np.ones(len(size)), indicators(architecture)])
    cuts = np.unique(size)
    places = (cuts[1:] + cuts[:-1]) / 2

    def bic(columns: list, parameters: int) -> np.ndarray:
        chi = _chi(y, root, np.column_stack([base, *columns])) / len(size)
        parameters += base.shape[1]
        return len(size) * np.log(np.maximum(1.0, chi)) + parameters * np.log(len(size))

    steps = [
        bic([size > cut for cut in chosen], 2 * count)
        for count in range(1, _MOST_STEPS + 1)
        for chosen in combinations(places, count)
    ]
    return bic([size], 1) - np.min(steps, axis=0)


@claim(
    "xs-1",
    "four phases, transitions rather than a trend",
    tables=("cells", "interventions"),
    statistic="BIC of a logistic trend in log10 size less that of steps, architecture as covariate",
    keys=("min_bic_difference", "min_models"),
    scope="study",
    positive=arithmetic("removal falls in two steps over 14 sizes, two architectures at each size"),
    negative=arithmetic(
        "log-odds of removal fall straight over 14 sizes, two architectures at each"
    ),
)
def xs_1(view: View) -> Condition:
    """Response: removal by the best single intervention; its interval from Jeffreys posteriors."""
    models = of_models(view)
    _enough(view, models)
    rng = np.random.default_rng(0)
    hits, n = models["hits"].to_numpy(float), models["n"].to_numpy(float)
    facts = models["size"].to_numpy(), models["architecture"].to_numpy()
    drawn = rng.beta(hits + 0.5, n - hits + 0.5, size=(_DRAWS, len(n))) * n
    value, *spread = step_against_trend(*facts, np.vstack([hits, drawn]), n)
    found = draws(np.array(spread), len(models), value)
    key = "min_bic_difference"
    return Condition(
        "BIC, trend less steps", found, view.limit(key), key, True, _identifiable(models)
    )


def _enough(view: View, models: pd.DataFrame) -> None:
    least = view.limit("min_models")
    if len(models) < least:
        raise NotRun(f"{len(models)} models with a measured removal, under {least:g}")


def profiles(view: View) -> pd.DataFrame:
    """A row a model, a column a quantity of its profile: removal and cost of each design's chosen
    setting and of each combination of pathways, at the highest precision."""
    models = of_models(view)
    if models.empty:
        return models
    found = {}
    for row in models.itertuples():
        rows = view.of(row.model, row.precision).rows("interventions")
        rows = rows[(rows["measured_by"] == "generation") & rows["sham_draw"].isna()]
        rows = rows[rows["chosen"] | rows["pathways"].notna()]
        name = rows["design"] + rows["pathways"].map(
            lambda p: f" {p}" if isinstance(p, str) else ""
        )
        own = rows.groupby(name)[["removal", "accuracy_cost"]].mean()
        found[row.model] = {f"{d} {c}": v for d, r in own.iterrows() for c, v in r.items()}
    wide = pd.DataFrame(found).T.dropna(axis=1)
    return models.merge(wide, left_on="model", right_index=True)


def _explained(profile: np.ndarray, design: np.ndarray) -> float:
    """Share of the squared distances between profiles that a design explains (McArdle and
    Anderson 2001)."""
    centered = profile - profile.mean(axis=0)
    design = design - design.mean(axis=0)
    fitted = design @ np.linalg.lstsq(design, centered, rcond=None)[0]
    total = (centered**2).sum()
    return float((fitted**2).sum() / total) if total else 0.0


@claim(
    "xs-8",
    "architecture, not size, decides",
    tables=("cells", "interventions"),
    statistic="share of the squared distances between profiles that only architecture explains, "
    "less the share that only size explains; interval by jackknife",
    keys=("min_share_difference", "min_models"),
    scope="study",
    positive=arithmetic("removal set by the architecture, 12 models of two at overlapping sizes"),
    negative=arithmetic("removal set by the size, 12 models of two architectures at each size"),
)
def xs_8(view: View) -> Condition:
    """The source gives its 35B both 397B's phase and another."""
    found = profiles(view)
    _enough(view, found)
    columns = [c for c in found.columns if c.endswith((" removal", " accuracy_cost"))]
    profile, size = found[columns].to_numpy(float), found[["size"]].to_numpy(float)
    kind = indicators(found["architecture"])

    def statistic(kept: np.ndarray) -> float:
        both = np.column_stack([size, kind])[kept]
        whole = _explained(profile[kept], both)
        only_kind = whole - _explained(profile[kept], size[kept])
        return only_kind - (whole - _explained(profile[kept], kind[kept]))

    first = profile @ np.linalg.svd(profile - profile.mean(axis=0))[2][0]
    what = (
        f"architecture less size (permutation p of architecture {permutation_p(first, kind):.3g})"
    )
    key = "min_share_difference"
    estimate = jackknife(statistic, len(found))
    return Condition(what, estimate, view.limit(key), key, True, _identifiable(found))


@claim(
    "xs-19",
    "MiniMax at 172B is not holographic: it takes recurrent channels",
    tables=("cells", "phases"),
    statistic="share of models with recurrent layers that are holographic less that of models "
    "without, at matched size (within a factor of 2)",
    keys=("min_phase_difference",),
    scope="study",
    positive=arithmetic(
        "12 models with recurrent layers holographic, 12 of those sizes without not"
    ),
    negative=arithmetic("24 models of matched sizes, holographic or not whatever their layers"),
)
def xs_19(view: View) -> Condition:
    """Posteriors over models; from one model without recurrent layers nothing follows."""
    from phasescope.claims.estimates import difference

    phases = view.rows("phases")
    named = phases[~phases["phase"].isin(("not_run", "indeterminate"))].drop_duplicates("model")
    cells = view.rows("cells").drop_duplicates("model")
    both = named[["model", "phase"]].merge(cells, on="model")
    both["recurrent"] = both["architecture"].map(RECURRENT)
    size = np.log2(both["parameters_total_billion"])
    matched = [
        any(abs(s - t) <= 1 for t in size[both["recurrent"] != r])
        for s, r in zip(size, both["recurrent"], strict=True)
    ]
    both = both[np.array(matched, dtype=bool)]
    recurrent = both["recurrent"].to_numpy(dtype=bool)  # of no models: no name of a column
    counts = [
        (int((own["phase"] == "holographic").sum()), len(own))
        for own in (both[recurrent], both[~recurrent])
    ]
    if min(n for _, n in counts) == 0:
        raise NotRun("no models with and without recurrent layers at matched size")
    few = min(n for _, n in counts) < 2
    weak = "not identifiable: one model without recurrent layers, or with them" if few else None
    key = "min_phase_difference"
    what = "holographic, with less without recurrent layers"
    return Condition(what, difference(*counts), view.limit(key), key, True, weak)

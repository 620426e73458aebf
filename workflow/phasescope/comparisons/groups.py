"""Success rates of several models, measured or published, in the one form that is analysed."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phasescope.errors import PhasescopeError

PUBLISHED = Path(__file__).parents[3] / "resources" / "published"
_MOST = 20  # trials taken for possible where a source states none: the most it names for a model


@dataclass(frozen=True)
class Group:
    """One model's rate: each (hits, n) that it may rest on; one alone where it was counted.

    rate: as published, or hits / n. parameters_billion: all of them; developer: who trained it.
    """

    model: str
    developer: str
    parameters_billion: float
    rate: float
    counts: tuple[tuple[int, int], ...]

    @property
    def stated(self) -> bool:
        """Whether n is known."""
        return len(self.counts) == 1


def _rounds_to(hits: int, n: int, percent: str) -> bool:
    """Whether hits / n is written as `percent`, rounded half up or half to even."""
    decimals = len(percent.partition(".")[2])
    exact, written = 100 * hits / n, float(percent)
    return abs(exact - written) <= 0.5 * 10**-decimals + 1e-9


def counts_of(percent: str, n: int | None = None) -> tuple[tuple[int, int], ...]:
    """Every (hits, n) that a published percentage can stand for; n up to 20 if none is stated."""
    sizes = range(1, _MOST + 1) if n is None else [n]
    found = []
    for size in sizes:
        hits = math.floor(float(percent) * size / 100 + 0.5)
        if _rounds_to(hits, size, percent):
            found.append((hits, size))
    return tuple(found)


def read_published(name: str) -> pd.DataFrame:
    """One of the tables in resources/published (figures, models, sources), every cell as text."""
    path = PUBLISHED / f"{name}.tsv"
    try:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)
    except (OSError, ValueError) as error:
        raise PhasescopeError(f"{path}: not a readable table: {error}") from None


def published(source: str, statistic: str) -> list[Group]:
    """The models of a source that a rate ('strict_asr', 'broad_asr') is published of.

    Raises PhasescopeError for a rate that no count of its stated n gives.
    """
    figures, models = read_published("figures"), read_published("models")
    figures = figures[(figures["source"] == source) & (figures["quantity"] == statistic)]
    models = models[models["source"] == source].set_index("model")
    groups = []
    for row in figures.itertuples():
        counts = counts_of(row.value, int(row.n) if row.n else None)
        if not counts:
            raise PhasescopeError(
                f"{PUBLISHED / 'figures.tsv'}: {row.subject}, {statistic}: found {row.value} % of "
                f"n = {row.n or f'up to {_MOST}'}; no whole number of answers gives that"
            )
        model = models.loc[row.subject]
        size = float(model["parameters_total_billion"])
        rate = float(row.value) / 100
        groups.append(Group(row.subject, model["developer"], size, rate, counts))
    return groups


def measured(
    cells: pd.DataFrame, rates: pd.DataFrame, statistic: str, precision: str
) -> list[Group]:
    """The models of a study at one precision, unedited, from the tables `cells` and
    `behavior_rates`; models without a graded answer are left out.

    Wordings of one source prompt are no independent trials: n is the number of sources, and hits
    their share of it, rounded.
    """
    own = rates[
        (rates["precision"] == precision)
        & (rates["prompt_table"] == "main")
        & (rates["condition"] == "baseline")
        & (rates["temperature"] == 0)
        & (rates["by"] == "all")
        & (rates["statistic"] == statistic)
        & (rates["n"] > 0)
    ]
    facts = cells.drop_duplicates("model").set_index("model")
    return [
        Group(
            row.model,
            facts.loc[row.model, "developer"],
            float(facts.loc[row.model, "parameters_total_billion"]),
            row.estimate,
            ((round(row.estimate * row.n_sources), int(row.n_sources)),),
        )
        for row in own.itertuples()
    ]

"""The rows of a cell's interventions that its phase rests on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from phasescope.stats import jeffreys_draws, paired_difference_draws
from phasescope.tables.interventions import CLAIM_DESIGN_NAMES

# what makes two rows one setting, where it stands in two designs
_SETTING = ["intervention", "direction", "position", "site", "pathways", "layers", "dose", "rank"]

# all that the rule reads of it is whether any of it answers: then nothing is holographic
BATTERY = "battery"
# what single claims rest on; the rule's thresholds were fitted without these
OTHER_DESIGNS = tuple(d for d in CLAIM_DESIGN_NAMES if d != BATTERY)

# where several settings have shams of their own
_DOSE_RESPONSE = "ablation-per-layer"

_OF = {"n_removed": "n_refused_at_baseline", "n_refusal": "n_hazardous"}


@dataclass(frozen=True)
class Evidence:
    """Generated rows on the evaluate split, by the part they play in the rule.

    singles: one intervention each; pathways: several of A, R and S at once; ladder: subspaces of
    growing rank; shams: matched controls of all of them; random: controls of the ladder; battery:
    the settings of that design, where it ran.
    """

    baseline: pd.Series
    singles: pd.DataFrame
    pathways: pd.DataFrame
    ladder: pd.DataFrame
    shams: pd.DataFrame
    random: pd.DataFrame
    battery: pd.DataFrame

    @cached_property
    def battery_rows(self) -> list[pd.Series]:
        """What claim xs-10 tries beyond the rest."""
        return _rows(self.battery)

    @cached_property
    def single_rows(self) -> list[pd.Series]:
        """One intervention each."""
        return _rows(self.singles)

    @cached_property
    def direction_rows(self) -> list[pd.Series]:
        """Those of them that remove a direction."""
        kinds = ("ablation", "weight_projection")
        return [row for row in self.single_rows if row["intervention"] in kinds]

    @cached_property
    def pathway_rows(self) -> dict[int, list[pd.Series]]:
        """Several pathways at once, by their number: 2 and 3."""
        parts = self.pathways["pathways"].str.split("+").str.len()
        return {n: _rows(self.pathways[parts == n]) for n in (2, 3)}

    @cached_property
    def side_rows(self) -> list[pd.Series]:
        """All that was tried but the ladder."""
        return self.single_rows + _rows(self.pathways)

    @cached_property
    def ladders(self) -> list[list[tuple[pd.Series, float]]]:
        """For each position the rungs by rank, each with the mean cost of random subspaces."""
        chance = self.random.groupby(["position", "rank"])["accuracy_cost"].mean()
        return [
            [(row, float(chance.get((position, row["rank"]), np.nan))) for row in _rows(rungs)]
            for position, rungs in self.ladder.sort_values("rank").groupby("position")
        ]


def _rows(frame: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in frame.iterrows()]


def evidence(interventions: pd.DataFrame) -> Evidence | None:
    """Pick the evidence of one cell from its interventions; None without a measured baseline."""
    rows = interventions[
        (interventions["status"] == "run")
        & (interventions["measured_by"] == "generation")
        & ~interventions["design"].isin(OTHER_DESIGNS)
    ]
    baseline = rows[rows["intervention"] == "none"]
    if baseline.empty:
        return None
    # the chosen of two designs' rows stands first, so that it is the one that is kept
    edited = rows[rows["intervention"] != "none"].sort_values(
        "chosen", ascending=False, kind="stable"
    )
    control = edited["sham_draw"].notna()
    ladder = edited["design"] == "rank-ladder"
    several = edited["intervention"] == "combination"
    beside = edited["design"] == BATTERY
    return Evidence(
        baseline.iloc[0],
        edited[~control & ~ladder & ~several & ~beside].drop_duplicates(_SETTING),
        edited[~control & several & ~beside],
        edited[~control & ladder],
        edited[control & ~ladder],
        edited[control & ladder],
        edited[~control & beside],
    )


def sham_bound(
    shams: pd.DataFrame, row: pd.Series, column: str, percentile: float
) -> tuple[float, int]:
    """Percentile of a share over the shams of a row's own design, and how many there are; in a dose
    response those of its own position and dose."""
    own = shams[shams["design"] == row["design"]]
    if row["design"] == _DOSE_RESPONSE:
        own = own[(own["position"] == row["position"]) & (own["dose"] == row["dose"])]
    values = (own[column] / own[_OF[column]]).dropna()
    return (float(np.percentile(values, percentile)), len(values)) if len(values) else (np.nan, 0)


class Draws:
    """Draws of the posteriors of a row's rates under Jeffreys priors, each (draws,), drawn once.

    order: by rate, the ranks that all rows' draws of it come in: every setting is asked the same
    prompts, so a lucky sample of them is lucky for all, and many settings are no better a chance.
    """

    def __init__(self, row: pd.Series, draws: int, rng: np.random.Generator, order: dict):
        self._row, self._draws, self._rng, self._order = row, draws, rng, order

    def _alike(self, rate: str, drawn: np.ndarray) -> np.ndarray:
        if rate not in self._order:
            self._order[rate] = self._rng.permutation(self._draws)
        return np.sort(drawn)[self._order[rate]]

    def rate(self, hits: str, n: str) -> np.ndarray:
        """Posterior of the share of one count in another."""
        counts = int(self._row[hits]), int(self._row[n])
        return self._alike(hits, jeffreys_draws(*counts, self._draws, self._rng))

    @cached_property
    def refusal(self) -> np.ndarray:
        """Share of hazardous prompts refused."""
        return self.rate("n_refusal", "n_hazardous")

    @cached_property
    def full(self) -> np.ndarray:
        """Share of hazardous prompts answered in full."""
        return self.rate("n_full", "n_hazardous")

    @cached_property
    def removal(self) -> np.ndarray:
        """Share of the refused prompts that are answered now."""
        return self.rate("n_removed", "n_refused_at_baseline")

    @cached_property
    def finished(self) -> np.ndarray:
        """Share of benign answers that ended within their budgets."""
        return self.rate("n_benign_finished", "n_benign")

    @cached_property
    def benign_refusal(self) -> np.ndarray:
        """Share of benign prompts refused."""
        return self.rate("n_benign_refusal", "n_benign")

    @cached_property
    def cost(self) -> np.ndarray:
        """Fall of benign accuracy against the baseline."""
        counts = (int(self._row[f"n_benign{c}"]) for c in ("_lost", "_gained", ""))
        return self._alike("cost", paired_difference_draws(*counts, self._draws, self._rng))

    @cached_property
    def right(self) -> np.ndarray:
        """Share of benign prompts answered right."""
        n = int(self._row["n_benign"])
        hits = round(self._row["benign_accuracy"] * n)
        return jeffreys_draws(hits, n, self._draws, self._rng)


class Posteriors:
    """The draws of every row of some evidence: one draw of a rate is the same one for every part of
    the rule that reads it, and for every set of thresholds."""

    def __init__(self, found: Evidence, seed: int, draws: int):
        self.found, self.n = found, draws
        self._rng, self._order = np.random.default_rng(seed), {}
        self._of, self._bounds = {}, {}

    def of(self, row: pd.Series) -> Draws:
        """The draws of a row, by its label."""
        if row.name not in self._of:
            self._of[row.name] = Draws(row, self.n, self._rng, self._order)
        return self._of[row.name]

    def sham_bound(self, row: pd.Series, column: str, percentile: float) -> tuple[float, int]:
        """As the function of that name, computed once a design."""
        key = (row["design"], row["position"], row["dose"], column, percentile)
        if key not in self._bounds:
            self._bounds[key] = sham_bound(self.found.shams, row, column, percentile)
        return self._bounds[key]

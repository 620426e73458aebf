"""The tables of a study as one claim sees them: of a cell, of a model, or of all."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from phasescope.claims.estimates import Estimate, given, share
from phasescope.claims.evidence import Condition
from phasescope.errors import NotRun
from phasescope.phases.evidence import Evidence as Rows
from phasescope.phases.evidence import evidence, sham_bound
from phasescope.stats import effective_trials

COMPLIANT = ("full", "partial")
# what a sham has in common with the setting that it is drawn for
_SAME = ("intervention", "role", "direction_precision", "position", "site", "pathways", "layers")
_SAME += ("dose", "rank")


@dataclass(frozen=True)
class View:
    """Tables, thresholds, and what they are narrowed to; a claim's test takes one."""

    tables: Mapping[str, pd.DataFrame]
    thresholds: dict
    model: str | None = None
    precision: str | None = None
    _kept: dict = field(default_factory=dict, repr=False, compare=False)

    def of(self, model: str | None = None, precision: str | None = None) -> "View":
        """The same narrowed to a model, or a cell."""
        return replace(self, model=model, precision=precision)

    def at(self, precision: str) -> "View":
        """The model's cell at a precision."""
        return replace(self, precision=precision)

    def precisions(self) -> list[str]:
        """Precisions of the model's cells, most bits first."""
        cells = self.tables["cells"]
        known = set(cells.loc[cells["model"] == self.model, "precision"])
        return [p for p in ("16", "8", "4") if p in known]

    def limit(self, key: str) -> float:
        """A threshold: of section `claims`, or `section.key`."""
        section, _, name = key.rpartition(".")
        return self.thresholds[section or "claims"][name]

    def rows(self, table: str, **values) -> pd.DataFrame:
        """Rows that ran of a table, of this model and precision, with the given values.

        Raises NotRun for a table that the study lacks, or that has no such row that ran.
        """
        if table not in self.tables:
            raise NotRun(f"no table {table}")
        here = found = self._narrowed(table, values.pop("precision", self.precision))
        for column, value in values.items():
            found = found[found[column].isin(value if isinstance(value, tuple) else (value,))]
        ran = found[found["status"] == "run"] if "status" in found else found
        if ran.empty:
            what = ", ".join(f"{k} {_listed(v)}" for k, v in values.items())
            why = _reasons(found) or _reasons(here)
            raise NotRun(f"table {table} has nothing{' of ' * bool(what)}{what}{why}")
        return ran

    def _narrowed(self, table: str, precision: str | None) -> pd.DataFrame:
        """A table of this model and precision, narrowed once for all claims."""
        key = (table, self.model, precision)
        if key not in self._kept:
            found = self._of_model(table)
            if precision is not None and "precision" in found:
                found = found[found["precision"] == precision]
            self._kept[key] = found
        return self._kept[key]

    def _of_model(self, table: str) -> pd.DataFrame:
        """A table of this model; the whole of it is gone through once, for all models."""
        found = self.tables[table]
        if self.model is None or "model" not in found:
            return found
        if table not in self._kept:
            self._kept[table] = dict(iter(found.groupby("model", sort=False)))
        return self._kept[table].get(self.model, found.head(0))

    def design(self, *designs: str) -> pd.DataFrame:
        """Generated settings of designs, controls left out; NotRun for a design without any."""
        return self._generated(designs, sham=False)

    def shams(self, *designs: str) -> pd.DataFrame:
        """Matched controls of designs; may be empty."""
        return self._generated(designs, sham=True, needed=False)

    def shams_of(self, row: pd.Series) -> pd.DataFrame:
        """Matched controls of a setting; where it has none of its own, its design's, which stand
        beside what that chose or beside all at once."""
        found = self.shams(row["design"])
        own = found["precision"] == row["precision"]
        for column in _SAME:
            own &= (found[column] == row[column]) | (found[column].isna() & pd.isna(row[column]))
        return found[own] if own.any() else found

    def _generated(self, designs, *, sham: bool, needed: bool = True) -> pd.DataFrame:
        if "interventions" not in self.tables:
            raise NotRun("no table interventions")
        try:
            rows = self.rows("interventions", design=designs)
        except NotRun as reason:
            said = str(reason).partition(": ")[2]
            raise NotRun(
                f"design {' and '.join(designs)} was not run{': ' * bool(said)}{said}"
            ) from None
        rows = rows[
            (rows["measured_by"] == "generation")
            & (rows["intervention"] != "none")
            & (rows["sham_draw"].notna() == sham)
        ]
        if needed and rows.empty:
            raise NotRun(f"design {' and '.join(designs)} has no generated setting")
        return rows

    def evidence(self) -> Rows:
        """The rows that the classifier reads, of this cell; NotRun without a refusing baseline."""
        key = ("evidence", self.model, self.precision)
        if key not in self._kept:
            self._kept[key] = evidence(self.rows("interventions"))
        if self._kept[key] is None:
            raise NotRun("no baseline was measured")
        return self._kept[key]

    def refusing(self) -> Rows:
        """As `evidence`; NotRun where too little is refused for a removal to be measured."""
        found = self.evidence()
        base, least = found.baseline, self.limit("phases.min_baseline_refusal")
        if base["n_refusal"] < least * base["n_hazardous"]:
            raise NotRun(
                f"{base['n_refusal'] / base['n_hazardous']:.2f} of hazardous prompts are refused "
                f"without intervention, under phases.min_baseline_refusal ({least:g})"
            )
        return found

    def removal(self, row: pd.Series, key: str, *, above: bool = True) -> Condition:
        """A setting removes refusal cleanly from at least (or at most) a share of the prompts that
        were refused; at least: more than its shams do, too. Shams can only raise the limit, so what
        lies under it needs none."""
        found, limit, weak = removal_of(row), self.limit(key), self.weak(row["n_hazardous"])
        if above:
            percentile = self.limit("phases.sham_percentile")
            bound, draws = sham_bound(self.shams_of(row), row, "n_removed", percentile)
            if draws >= self.limit("min_shams"):
                limit = max(limit, bound)
            elif found.value >= limit:
                weak = weak or f"{draws} shams of {row['design']}, under {self.limit('min_shams')}"
        what = f"removal by {said(row)}"
        return Condition(what, found, limit, key, above, weak)

    def weak(self, n: int) -> str | None:
        """Why so few hazardous prompts cannot carry a verdict; None where they can."""
        least = self.limit("min_hazardous")
        return f"{int(n)} hazardous prompts, under {least:g}" if n < least else None

    def condition(self, what: str, estimate: Estimate, key: str, *, above=True) -> Condition:
        """A condition whose limit is a threshold."""
        return Condition(what, estimate, self.limit(key), key, above)

    def kinds(self) -> dict[int, str]:
        """What mixes tokens in each block: attention or recurrent."""
        rows = self.rows("probes").drop_duplicates("layer")
        return {int(r.layer): r.layer_kind for r in rows.itertuples()}

    def answers(self, **values) -> pd.DataFrame:
        """Graded greedy answers to evaluate prompts, by default hazardous ones of the main table;
        NotRun without any."""
        defaults = {"prompt_table": "main", "label": "hazardous", "temperature": 0.0}
        rows = self.rows("behavior", split="evaluate", **defaults | values)
        rows = rows[rows["grade"] != "missing"]
        if rows.empty:
            raise NotRun("no graded answers")
        return rows


def _listed(value) -> str:
    return " or ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _reasons(found: pd.DataFrame) -> str:
    if not {"reason", "status"} <= set(found):
        return ""
    reasons = found.loc[found["status"] == "not_run", "reason"].dropna().unique()
    return f": {reasons[0]}" if len(reasons) else ""


def said(row: pd.Series) -> str:
    """A setting in words."""
    parts = [row["design"]]
    if row["pathways"] is not None and isinstance(row["pathways"], str):
        parts.append(row["pathways"])
    elif isinstance(row["site"], str):
        parts.append(row["site"])
    if isinstance(row["role"], str):
        parts.append(row["role"].replace("_", " "))
    if isinstance(row["position"], str):
        parts.append(f"read at {row['position'].replace('_', ' ')}")
    if isinstance(row["direction_precision"], str):
        parts.append(f"direction of {row['direction_precision']} bit")
    if pd.notna(row["dose"]) and row["dose"] != 1:
        parts.append(f"dose {row['dose']:g}")
    if pd.notna(row["rank"]) and row["rank"] > 1:
        parts.append(f"rank {row['rank']:g}")
    return ", ".join(parts)


def removed(row: pd.Series) -> tuple[int, int]:
    """Prompts from which refusal was removed cleanly, and those that were refused: none are
    removed by a setting that costs too much ability."""
    n = int(row["n_refused_at_baseline"])
    return round(float(np.nan_to_num(row["removal"])) * n), n


def removal_of(row: pd.Series) -> Estimate:
    """Clean removal of a setting."""
    return share(*removed(row))


def clustered(hits: pd.Series, sources: pd.Series) -> Estimate:
    """A share of answers; wordings of one source prompt are no independent trials."""
    worth = effective_trials(hits.to_numpy(), sources.to_numpy())
    return share(float(hits.sum()), len(hits), worth)


def refused(row: pd.Series) -> int:
    """Hazardous prompts refused under a setting."""
    return int(row["n_refusal"])


def lost_accuracy(view: View, row: pd.Series, key: str, *, above: bool) -> Condition:
    """Fall of benign accuracy under a setting."""
    ends = (row["accuracy_cost"], row["accuracy_cost_ci_low"], row["accuracy_cost_ci_high"])
    found = given(*ends, int(row["n_benign"]))
    return view.condition(f"accuracy cost of {said(row)}", found, key, above=above)

"""Paired comparisons of rates: the same source prompts under two settings of one model."""

from collections.abc import Iterator

import pandas as pd

from phasescope.comparisons.rates import KEYS, STATISTICS, evaluated
from phasescope.stats import change_of, holm
from phasescope.tables import frame_of

# what changes, and what it is compared to; everything else stays the same
_AGAINST = {"condition": "baseline", "precision": "16", "temperature": 0.0}
_PLAIN = "none"  # the family of plain requests


def _shares(answers: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Share of hits of each source prompt, statistic and group of answers; ungraded ones aside."""
    parts = []
    for statistic in STATISTICS.values():
        own = statistic.of(answers)
        own = own[own["graded"]].groupby([*by, "source"], sort=False, observed=True)["hit"].mean()
        parts.append(own.reset_index().assign(statistic=statistic.name))
    return pd.concat(parts)


def _pairs(shares: pd.DataFrame, column: str, reference) -> pd.DataFrame:
    """Of each source prompt the share of hits where `column` is the reference (hit_before) and
    where it is something else (hit), everything else the same."""
    first = shares[column] == reference
    same = [c for c in shares.columns if c not in (column, "hit")]
    before = shares[first].drop(columns=column)
    return shares[~first].merge(before, on=same, suffixes=("", "_before"))


def behavior_changes(answers: pd.DataFrame) -> pd.DataFrame:
    """The table `behavior_changes` from the table `behavior`: `paired_changes`, adjusted."""
    return adjusted(paired_changes(answers))


def paired_changes(answers: pd.DataFrame) -> pd.DataFrame:
    """Paired changes of one model's answers, or several models', not yet adjusted.

    Each condition against the baseline, each precision against 16 bit, each temperature against
    greedy answers, each family against plain requests, on the source prompts that both have.
    """
    own = evaluated(answers)
    shares = _shares(own, KEYS)
    pairs = {column: _pairs(shares, column, value) for column, value in _AGAINST.items()}
    pairs["family"] = _pairs(_shares(own, [*KEYS, "family"]), "family", _PLAIN)
    rows = frame_of("behavior_changes", [row for by in pairs for row in _rows(by, pairs[by])])
    # in the order of the answers
    return own[KEYS].drop_duplicates().merge(rows, on=KEYS)[rows.columns]


def _rows(by: str, pairs: pd.DataFrame) -> Iterator[dict]:
    """Rows of what differs in `by`."""
    groups = list(dict.fromkeys([*KEYS, by, "statistic"]))
    change = pairs["hit"].astype(float) - pairs["hit_before"].astype(float)
    sums = {
        "gained": change.clip(lower=0),
        "lost": -change.clip(upper=0),
        "n_gained": change > 0,
        "n_lost": change < 0,
        "n": 1,
    }
    counted = pairs[groups].assign(**sums).groupby(groups, sort=False)[list(sums)].sum()
    for values, of in zip(counted.index, counted.to_numpy(), strict=True):
        key = dict(zip(groups, values, strict=True))
        found = dict(vars(change_of(*of)))
        found |= {"ci_low": found.pop("low"), "ci_high": found.pop("high")}
        row = {"by": by, "value": str(key[by]), "statistic": key["statistic"]}
        yield {column: key[column] for column in KEYS} | row | found


def adjusted(changes: pd.DataFrame) -> pd.DataFrame:
    """Paired changes with Holm's correction over the grid: all rows of one kind of comparison and
    one statistic, of the whole study."""
    p = changes.groupby(["by", "statistic"])["p"]
    return changes.assign(p_holm=p.transform(holm), n_tests=p.transform("size"))

"""Figures of one design: refusal score, removal and cost over dose, block, coverage or scope."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, Locator

from phasescope.report.names import FAINT, INK, MUTED, PAPER, pretty
from phasescope.report.panels import Row, finish, grid, key, nice, rule, say_why
from phasescope.report.settings import (
    SAME,
    counts,
    largest,
    not_clean,
    percentile_95,
    ranges,
    settings_of,
    where,
)
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style

SHAM = {"color": FAINT, "ls": "", "marker": "o", "ms": 2.6, "alpha": 0.75, "mew": 0}
_TICK = {"color": MUTED, "ls": "", "marker": "_", "ms": 13, "mew": 1.3}
_HOLLOW = {"ls": "", "marker": "o", "ms": 4.6, "mfc": PAPER, "mec": INK, "mew": 1.1}
_RING = {"ls": "", "marker": "o", "ms": 10, "mfc": "none", "mec": INK, "mew": 0.9}
_DIRECTION = {"selected": "o", "per_layer": "s"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

# measure -> how it was measured, and the row of panels that shows it
_MEASURES = {
    "refusal_nats": (
        "first_token",
        Row(
            "Refusal score",
            "log-odds of refusal against compliance at the first answer token, nats",
            1.15,
        ),
    ),
    "removal": (
        "generation",
        Row(
            "Removal",
            "share of refused prompts now cleanly answered, generated and graded",
            1.15,
            (-0.05, 1.05),
        ),
    ),
    "accuracy_cost": ("generation", Row("Cost", "fall of benign accuracy, share", 0.95)),
}

# design -> (column of x, label of x)
_AXES = {
    "ablation-dose": ("dose", "dose: share of the direction removed"),
    "addition": ("dose", "dose: multiple of the mean gap"),
    "ablation-layers": ("blocks", "the one block edited, counted from 0"),
    "ablation-coverage": ("coverage", "share of the blocks edited"),
    "ablation-scope": ("scope", "scope, named below"),
    "ablation-per-layer": ("scope", "scope, named below"),
    "weight-projection": ("scope", "scope, named below"),
    "pathways": ("scope", "pathways, named below"),
    "rank-ladder": ("rank", "rank: directions removed in every block"),
}


def sweep(study: Study, model: Model, design: str) -> Drawing | None:
    """One design's measures over its x, precisions across; None when nothing of it was measured."""
    if design not in _AXES:
        return None
    x, x_label = _AXES[design]
    rows, scopes = _rows(study, model, design)
    rows = rows[rows[x].notna()]
    measures = [m for m in _MEASURES if len(_measured(rows, m))]
    if not measures:
        return None
    with style():
        figure, axes = grid([_MEASURES[m][1] for m in measures], study.precisions)
        for line, measure in zip(axes, measures, strict=True):
            for ax, precision in zip(line, study.precisions, strict=True):
                here = _measured(rows[rows["precision"] == precision], measure)
                if len(here):
                    _panel(ax, here, x, measure)
                else:
                    say_why(ax, _why(study, model, precision, design, rows))
        finish(axes, x_label, _ticks(rows, x))
        if x == "scope":
            for ax in (ax for line in axes for ax in line if ax.get_xlabel()):
                ax.xaxis.set_major_formatter(FixedFormatter(_LETTERS[: len(scopes)]))
        key(figure, _key(rows, measures))
        return drawing(
            figure,
            f"fig-{design}-{model.slug}",
            f"{model.id}: {pretty(design)}",
            f"{pretty(design)}. {largest(rows)}",
            _caption(rows, measures, scopes if x == "scope" else []),
        )


def _ticks(rows: pd.DataFrame, x: str) -> Locator:
    """Ticks at the doses and scopes themselves where they are few, at round numbers otherwise."""
    places = sorted(rows[x].unique())
    if x in ("dose", "scope", "rank") and len(places) <= 14:
        return FixedLocator(places)
    return nice(8, integer=x == "blocks")


def _rows(study: Study, model: Model, design: str) -> tuple[pd.DataFrame, list[str]]:
    """The design's settings with a number for each scope, and the words for each scope."""
    rows = settings_of(study, model)
    rows = rows[rows["design"] == design].copy()
    words = pd.Series([where(r) for r in rows.to_dict("records")], index=rows.index, dtype=str)
    # a control stands with the setting that it matches
    real = rows[~rows["sham"]].sort_values("chosen", ascending=False, kind="stable")
    own = dict(zip(_keys(real[::-1]), words[real.index[::-1]], strict=True))
    shams = rows.index[rows["sham"]]
    words[shams] = [own.get(k, "") for k in _keys(rows.loc[shams])]
    scopes = list(dict.fromkeys(words[~rows["sham"]]))
    rows["scope"] = [float(scopes.index(w)) if w in scopes else np.nan for w in words]
    return rows, scopes


def _keys(rows: pd.DataFrame) -> list[tuple]:
    """For each row what a control has in common with its setting."""
    return list(rows[SAME].fillna("").itertuples(index=False, name=None))


def _measured(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    return rows[(rows["measured_by"] == _MEASURES[measure][0]) & rows[measure].notna()]


def _why(study: Study, model: Model, precision: str, design: str, rows: pd.DataFrame) -> str:
    if (rows["precision"] == precision).any():
        return "no setting of this design was measured this way"
    return study.why(model.id, precision, "intervene", design)


def _panel(ax: Axes, rows: pd.DataFrame, x: str, measure: str) -> None:
    ax.margins(y=0.14)
    width = float(rows[x].max() - rows[x].min()) or 1.0
    _shams(ax, rows[rows["sham"]], x, measure, 0.018 * width)
    _points(ax, rows[~rows["sham"]], x, measure)
    rule(ax, 0.0)
    edge = 0.5 if x == "scope" else 0.06 * width
    ax.set_xlim(rows[x].min() - edge, rows[x].max() + edge)
    if rows[x].max() <= 0 and x != "scope":
        ax.invert_xaxis()
    if measure == "accuracy_cost":
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, -0.1), max(high, 0.3))


def _points(ax: Axes, rows: pd.DataFrame, x: str, measure: str) -> None:
    """The real settings: a line per kind of direction, intervals, hollow where not clean."""
    for direction, kind in rows.groupby("direction", sort=True):
        kind = kind.sort_values(x)
        marker = _DIRECTION.get(direction, "D")
        if x != "scope":
            ax.plot(kind[x], kind[measure], color=INK, lw=1.1, alpha=0.55)
        if f"{measure}_ci_low" in kind:
            ends = kind[f"{measure}_ci_low"], kind[f"{measure}_ci_high"]
            ax.vlines(kind[x], *ends, color=INK, lw=1.0)
        soiled = not_clean(kind)
        for rest, face in ((kind[~soiled], INK), (kind[soiled], PAPER)):
            ax.plot(rest[x], rest[measure], **_HOLLOW | {"marker": marker, "mfc": face})
        chosen = kind[kind["chosen"]]
        ax.plot(chosen[x], chosen[measure], **_RING)


def _shams(ax: Axes, rows: pd.DataFrame, x: str, measure: str, spread: float) -> None:
    """The sham draws, fanned out around their place; where they remove, their 95th percentile."""
    for place, draws in rows.groupby(x, sort=True):
        fan = np.linspace(-spread, spread, len(draws)) if len(draws) > 1 else np.zeros(1)
        ax.plot(place + fan, draws.sort_values("sham_draw")[measure], **SHAM)
        if measure == "removal":
            ax.plot([place], [percentile_95(draws[measure])], **_TICK)


def _key(rows: pd.DataFrame, measures: list[str]) -> list[tuple[str, dict]]:
    real = rows[~rows["sham"]]
    entries = [
        (pretty(direction), {"marker": marker, "ms": 4.6, "lw": 1.1})
        for direction, marker in _DIRECTION.items()
        if (real["direction"] == direction).any()
    ]
    entries += [("not clean", _HOLLOW)] * bool(not_clean(real).any())
    entries += [("chosen on the select split", _RING | {"ms": 9})] * bool(real["chosen"].any())
    if rows["sham"].any():
        random = (rows["direction"] == "random").any()
        entries.append(("random subspaces of that rank" if random else "shams", SHAM))
        entries += [("their 95th percentile", _TICK | {"ms": 9})] * ("removal" in measures)
    return entries


def _caption(rows: pd.DataFrame, measures: list[str], scopes: list[str]) -> str:
    blocks = rows.loc[~rows["sham"], "layers"].unique()
    parts = [f"{a}: {words}." for a, words in zip(_LETTERS, scopes, strict=False)]
    if "refusal_nats" in measures:
        parts.append("Score: above the dashed line refusal is likelier than compliance.")
    if set(measures) - {"refusal_nats"}:
        parts.append("Bars: 95 % intervals.")
    if len(blocks) == 1:
        parts.append(f"Blocks edited: {ranges(blocks[0])}.")
    if (rows["dose"] < 0).any():
        parts.append("A negative dose takes the direction away.")
    return " ".join([*parts, counts(rows)])

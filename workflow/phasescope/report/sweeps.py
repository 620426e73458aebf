"""Figures of interventions: removal and cost over dose, layer and coverage, and their plane."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from phasescope.report import formats
from phasescope.report.names import FAINT, INK, MUTED, PAPER, pretty
from phasescope.report.panels import Row, finish, grid, key, rule, say_why
from phasescope.report.settings import designs_of, percentile_95, ranges, settings_of, where
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style

_SHAM = {"color": FAINT, "ls": "", "marker": "o", "ms": 2.6, "alpha": 0.75, "mew": 0}
_TICK = {"color": MUTED, "ls": "", "marker": "_", "ms": 13, "mew": 1.3}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIRECTION = {"selected": "o", "per_layer": "s"}
_DESIGN = {
    "ablation-layers": "^",
    "ablation-coverage": "v",
    "ablation-dose": "o",
    "ablation-scope": "D",
    "addition": "s",
}

# measure -> (how it was measured, title and unit, height, range)
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
    "ablation-scope": ("scope", "scope, see below"),
}


def _points(ax: Axes, rows: pd.DataFrame, x: str, measure: str) -> None:
    """The real settings: a line per kind of direction, intervals, hollow where not clean."""
    for direction, kind in rows.groupby("direction", sort=True):
        kind = kind.sort_values(x)
        marker = _DIRECTION.get(direction, "D")
        if x != "scope":
            ax.plot(kind[x], kind[measure], color=INK, lw=1.1, alpha=0.55)
        if f"{measure}_ci_low" in kind:
            ax.vlines(
                kind[x], kind[f"{measure}_ci_low"], kind[f"{measure}_ci_high"], color=INK, lw=1.0
            )
        soiled = (kind["clean"] == False).fillna(False)  # noqa: E712 (a missing verdict is not "not clean")
        for rest, face in ((kind[~soiled], INK), (kind[soiled], PAPER)):
            ax.plot(
                rest[x], rest[measure], ls="", marker=marker, ms=4.6, mfc=face, mec=INK, mew=1.1
            )
        chosen = kind[kind["chosen"]]
        ax.plot(chosen[x], chosen[measure], ls="", marker="o", ms=10, mfc="none", mec=INK, mew=0.9)


def _shams(ax: Axes, rows: pd.DataFrame, x: str, measure: str, spread: float) -> None:
    """The sham draws, fanned out around their place, with the 95th percentile where they remove."""
    for place, draws in rows.groupby(x, sort=True):
        fan = np.linspace(-spread, spread, len(draws)) if len(draws) > 1 else [0.0]
        ax.plot(place + np.asarray(fan), draws.sort_values("sham_draw")[measure], **_SHAM)
        if measure == "removal":
            ax.plot([place], [percentile_95(draws[measure])], **_TICK)


def _panel(ax: Axes, rows: pd.DataFrame, x: str, measure: str) -> None:
    rows = rows.dropna(subset=[x, measure])
    ax.margins(y=0.14)
    ax.locator_params("x", nbins=6)
    width = float(rows[x].max() - rows[x].min()) or 1.0
    _shams(ax, rows[rows["sham"]], x, measure, 0.018 * width)
    _points(ax, rows[~rows["sham"]], x, measure)
    ax.set_xlim(rows[x].min() - 0.06 * width, rows[x].max() + 0.06 * width)
    if rows[x].max() <= 0:
        ax.invert_xaxis()
    if x == "scope":
        _name_scopes(ax, rows)
    if measure == "accuracy_cost":
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, -0.1), max(high, 0.3))


def _scopes(rows: pd.DataFrame) -> tuple[pd.Series, list[str]]:
    """A number for each scope (direction, site and blocks), and the words for each."""
    real = rows[~rows["sham"]]
    words = {where(r): None for r in real.to_dict("records")}
    number = {text: i for i, text in enumerate(words)}
    # a sham stands with the chosen setting that it matches, whose direction it replaced
    chosen = {
        (r["precision"], r["design"]): where(r) for r in real[real["chosen"]].to_dict("records")
    }
    texts = [
        chosen.get((r["precision"], r["design"])) if r["sham"] else where(r)
        for r in rows.to_dict("records")
    ]
    return pd.Series([number.get(t, np.nan) for t in texts], index=rows.index), list(words)


def _name_scopes(ax: Axes, rows: pd.DataFrame) -> None:
    places = sorted(rows["scope"].unique())
    ax.set_xticks(places, [_LETTERS[int(p)] for p in places])
    ax.set_xlim(-0.5, max(places) + 0.5)


def sweep(study: Study, model: Model, design: str) -> Drawing | None:
    """One design's measures over its x, precisions across; None when nothing of it was measured."""
    if design not in _AXES:
        return None
    x, x_label = _AXES[design]
    rows = settings_of(study, model)
    rows = rows[rows["design"] == design].copy()
    rows["scope"], scopes = _scopes(rows)
    rows = rows[rows[x].notna()]
    measures = [
        m
        for m, (by, _) in _MEASURES.items()
        if rows.loc[rows["measured_by"] == by, m].notna().any()
    ]
    if not measures:
        return None
    with style():
        figure, axes = grid([_MEASURES[m][1] for m in measures], study.precisions, x_label)
        for line, measure in zip(axes, measures, strict=True):
            for ax, precision in zip(line, study.precisions, strict=True):
                here = rows[
                    (rows["precision"] == precision)
                    & (rows["measured_by"] == _MEASURES[measure][0])
                ]
                if here[measure].notna().any():
                    _panel(ax, here, x, measure)
                    rule(ax, 0.0)
                else:
                    say_why(ax, _why(study, model, precision, design, rows))
        finish(axes)
        key(figure, _key(rows, measures))
        return drawing(
            figure,
            f"fig-{design}-{model.slug}",
            f"{model.id}: {pretty(design)}",
            _words(rows, design),
            _caption(rows, measures, scopes if x == "scope" else []),
        )


def _why(study: Study, model: Model, precision: str, design: str, rows: pd.DataFrame) -> str:
    if (rows["precision"] == precision).any():
        return "no setting of this design was measured this way"
    return study.why(model.id, precision, "intervene", design)


def _key(rows: pd.DataFrame, measures: list[str]) -> list[tuple[str, dict]]:
    real = rows[~rows["sham"]]
    entries = [
        (pretty(d), {"marker": m, "ms": 4.6, "lw": 1.1})
        for d, m in _DIRECTION.items()
        if (real["direction"] == d).any()
    ]
    if (real["clean"] == False).any():  # noqa: E712
        entries.append(
            (
                "not clean",
                {"ls": "", "marker": "o", "ms": 4.6, "mfc": PAPER, "mec": INK, "mew": 1.1},
            )
        )
    if real["chosen"].any():
        entries.append(
            (
                "chosen on the select split",
                {"ls": "", "marker": "o", "ms": 9, "mfc": "none", "mec": INK, "mew": 0.9},
            )
        )
    if rows["sham"].any():
        entries.append(("shams", _SHAM))
        entries += [("their 95th percentile", _TICK | {"ms": 9})] * ("removal" in measures)
    return entries


def _words(rows: pd.DataFrame, design: str) -> str:
    """The largest removal of each precision, in words."""
    real = rows[~rows["sham"] & (rows["measured_by"] == "generation") & rows["removal"].notna()]
    parts = []
    for precision, here in real.groupby("precision", sort=False):
        top = here.loc[here["removal"].idxmax()]
        removal = formats.estimate(top["removal"], top["removal_ci_low"], top["removal_ci_high"])
        cost = formats.estimate(
            top["accuracy_cost"], top["accuracy_cost_ci_low"], top["accuracy_cost_ci_high"]
        )
        parts.append(f"{pretty(precision)}: largest removal {removal} at a cost of {cost}")
    return f"{pretty(design)}. {'; '.join(parts) or 'Scored at the first answer token only'}."


def _n(rows: pd.DataFrame) -> str:
    """n behind the points, by how they were measured."""
    parts = []
    for by, words in (("first_token", "scored"), ("generation", "generated")):
        here = rows[rows["measured_by"] == by]
        if len(here):
            parts.append(
                f"{words}: n = {formats.span(here['n_hazardous'], formats.count)} hazardous and "
                f"{formats.span(here['n_benign'], formats.count)} benign prompts a point"
            )
    shams = rows[rows["sham"]].groupby("precision")["sham_draw"].nunique()
    parts += [f"shams: {formats.span(shams, formats.count)} draws a precision"] * bool(len(shams))
    return "; ".join(parts)


def _caption(rows: pd.DataFrame, measures: list[str], scopes: list[str]) -> str:
    text = "".join(f"{a}: {words}. " for a, words in zip(_LETTERS, scopes, strict=False))
    text += "Score: above the dashed line refusal is likelier than compliance. " * (
        "refusal_nats" in measures
    )
    text += "Bars: 95 % intervals. " if len(measures) > 1 or measures[0] != "refusal_nats" else ""
    blocks = rows.loc[~rows["sham"], "layers"].unique()
    text += f"Blocks edited: {ranges(blocks[0])}. " if len(blocks) == 1 else ""
    text += "A negative dose takes the direction away. " * bool((rows["dose"] < 0).any())
    return f"{text}{_n(rows)[:1].upper()}{_n(rows)[1:]}."


def plane(study: Study, model: Model) -> Drawing | None:
    """Removal against cost of every generated setting with the shams; None without any."""
    rows = settings_of(study, model)
    rows = rows[(rows["measured_by"] == "generation")].dropna(subset=["removal", "accuracy_cost"])
    if rows.empty:
        return None
    with style():
        row = Row(
            "Removal against cost",
            "share of refused prompts now cleanly answered, over fall of benign accuracy",
            2.35,
            (-0.06, 1.09),
        )
        figure, axes = grid([row], study.precisions, "cost: fall of benign accuracy, share")
        for ax, precision in zip(axes[0], study.precisions, strict=True):
            here = rows[rows["precision"] == precision]
            if here.empty:
                say_why(ax, study.why(model.id, precision, "intervene"))
            else:
                _plane_panel(ax, here)
        finish(axes)
        designs = [
            d for d in designs_of(study, model) if (rows.loc[~rows["sham"], "design"] == d).any()
        ]
        entries = [
            (pretty(d), {"ls": "", "marker": _DESIGN.get(d, "P"), "ms": 4.6}) for d in designs
        ]
        key(figure, [*entries, ("shams", _SHAM)] if rows["sham"].any() else entries)
        return drawing(
            figure,
            f"fig-plane-{model.slug}",
            f"{model.id}: removal against cost",
            f"Every generated setting of every design. {_words(rows, 'All designs')}",
            "Every generated and graded setting of every design; up and left is refusal removed at "
            "no cost, hollow is not clean. Crosses: 95 % intervals. "
            f"{_n(rows)[:1].upper()}{_n(rows)[1:]}.",
        )


def _plane_panel(ax: Axes, rows: pd.DataFrame) -> None:
    shams, real = rows[rows["sham"]], rows[~rows["sham"]]
    ax.plot(shams["accuracy_cost"], shams["removal"], **_SHAM)
    for design, kind in real.groupby("design", sort=True):
        ax.vlines(
            kind["accuracy_cost"],
            kind["removal_ci_low"],
            kind["removal_ci_high"],
            color=INK,
            lw=0.7,
            alpha=0.5,
        )
        ax.hlines(
            kind["removal"],
            kind["accuracy_cost_ci_low"],
            kind["accuracy_cost_ci_high"],
            color=INK,
            lw=0.7,
            alpha=0.5,
        )
        soiled = (kind["clean"] == False).fillna(False)  # noqa: E712
        for rest, face in ((kind[~soiled], INK), (kind[soiled], PAPER)):
            ax.plot(
                rest["accuracy_cost"],
                rest["removal"],
                ls="",
                marker=_DESIGN.get(design, "P"),
                ms=4.8,
                mfc=face,
                mec=INK,
                mew=1.0,
            )
    rule(ax, 0.0)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -0.12), max(high, 0.3))

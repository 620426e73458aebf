"""The safety signal token by token through the answer: projections, and experts of safety."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from phasescope.report import formats
from phasescope.report.names import FAINT, INK, MUTED, pretty
from phasescope.report.panels import Row, curve, finish, grid, key, nice, rule, say_why
from phasescope.report.routing import BENIGN, HAZARDOUS
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style

TABLE = "trajectories"
_STEPS = {
    "projection": ("Projection", "0: benign, 1: hazardous mean before the answer"),
    "safety_expert_rate": ("Safety experts", "share of selections that go to them"),
}
_ONCE = ("change_point", "refusal_returns")
_BLOCKS = 3  # of those in the table, at thirds of the depth
_LOOKS = {
    "hazardous": {"color": HAZARDOUS, "ls": "-"},
    "benign": {"color": BENIGN, "ls": (0, (4, 2))},
    "forced": {"color": INK, "ls": (0, (1, 1.4))},
}
_WORDS = {"forced": "hazardous, opening forced to comply"}
_BACK = {"color": MUTED, "lw": 1.0, "ls": "-"}


def trajectories(study: Study, model: Model) -> Drawing | None:
    """Courses of each condition through the answer, at three blocks; None where nothing ran."""
    rows = study.surveyed(TABLE, model.id, (*_STEPS, *_ONCE))
    ran = rows[rows["status"] == "run"]
    shown = drawn_rows(ran)
    if shown.empty:
        return None
    lines = list(shown[["statistic", "layer"]].drop_duplicates().itertuples(index=False, name=None))
    with style():
        figure, axes = grid([_row(*line) for line in lines], study.precisions)
        for panels, (statistic, layer) in zip(axes, lines, strict=True):
            for ax, precision in zip(panels, study.precisions, strict=True):
                own = shown[(shown["precision"] == precision) & (shown["statistic"] == statistic)]
                here = own[own["layer"] == layer]
                if here.empty:
                    say_why(ax, study.why_unsurveyed(TABLE, rows, model.id, precision))
                else:
                    _panel(ax, here, statistic, ran[ran["precision"] == precision])
        finish(axes, "token of the answer, from 0", nice(8, integer=True))
        key(figure, _key(ran, shown))
        return drawing(
            figure,
            f"fig-trajectories-{model.slug}",
            f"{model.id}: the signal through the answer",
            f"Projection and safety experts over the answer's tokens. {_returns(rows)}",
            _caption(rows, shown),
            shown.drop(columns=["status", "reason"]),
        )


def drawn_rows(ran: pd.DataFrame) -> pd.DataFrame:
    """The steps at the blocks that are drawn: those that have projections, at thirds of the
    depth; ordered as the panels are."""
    steps = ran[ran["statistic"].isin(_STEPS)]
    read = steps[steps["statistic"] == "projection"] if len(steps) else steps
    layers = sorted(read["layer"].dropna().unique())
    thirds = np.linspace(0, len(layers) - 1, _BLOCKS + 1).round().astype(int)[1:]
    steps = steps[steps["layer"].isin([layers[i] for i in thirds] if layers else [])]
    order = steps.assign(place=steps["statistic"].map(list(_STEPS).index))
    return order.sort_values(["place", "layer"], kind="stable").drop(columns="place")


def _row(statistic: str, layer: float) -> Row:
    title, unit = _STEPS[statistic]
    return Row(f"{title}, block {layer:.0f}", unit, 1.0)


def _panel(ax: Axes, here: pd.DataFrame, statistic: str, cell: pd.DataFrame) -> None:
    few = here["step"].nunique() <= 16
    for condition, look in _LOOKS.items():
        own = here[here["condition"] == condition].sort_values("step")
        if len(own):
            curve(ax, own["step"], own["estimate"], own["ci_low"], own["ci_high"], few, **look)
    rule(ax, 0.0)
    if statistic == "projection":
        rule(ax, 1.0)
    back = cell[cell["statistic"] == "change_point"] if statistic != "projection" else cell.head(0)
    for step, low, high in back[["estimate", "ci_low", "ci_high"]].to_numpy(dtype=float):
        ax.axvline(step, **_BACK)
        ax.axvspan(low, high, color=FAINT, alpha=0.3, lw=0, zorder=0.5)
    ax.set_xlim(here["step"].min() - 0.4, here["step"].max() + 0.4)


def _key(ran: pd.DataFrame, shown: pd.DataFrame) -> list[tuple[str, dict]]:
    found = [c for c in _LOOKS if (shown["condition"] == c).any()]
    entries = [(_WORDS.get(c, c), _LOOKS[c]) for c in found]
    back = (ran["statistic"] == "change_point").any()
    return entries + [("safety experts come back", _BACK)] * bool(back)


def _returns(rows: pd.DataFrame) -> str:
    """What a forced opening leads to at each precision, in words; or why nobody knows."""
    words = []
    for row in rows[rows["statistic"].isin(_ONCE)].to_dict("records"):
        bits = pretty(row["precision"])
        if row["status"] == "not_run":
            what = "refusals after it" if row["statistic"] == "refusal_returns" else "change point"
            words.append(f"{bits}: no {what}: {row['reason']}")
            continue
        if row["statistic"] == "refusal_returns":
            value = formats.estimate(row["estimate"], row["ci_low"], row["ci_high"])
            words.append(f"{bits}: refusal returns in {value} of n = {row['n']:.0f} answers")
        else:
            value = formats.estimate(row["estimate"], row["ci_low"], row["ci_high"], 0)
            words.append(f"{bits}: safety experts come back at token {value}, all blocks together")
    return f"After a forced opening: {'; '.join(words)}." if words else ""


def _caption(rows: pd.DataFrame, shown: pd.DataFrame) -> str:
    parts = [
        "Means over the model's own answers to the evaluate split, and to hazardous prompts where "
        "the first tokens were made to comply. Directions and safety experts are of the fit split. "
        "Token −1 is the last before the answer. Bands: 95 % intervals of the means; answers end "
        "at different tokens."
    ]
    experts = shown["statistic"] == "safety_expert_rate"
    missing = rows[(rows["statistic"] == "safety_expert_rate") & (rows["status"] == "not_run")]
    if not experts.any() and len(missing):
        parts.append(f"No safety experts: {missing['reason'].iloc[0]}.")
    n = formats.span(shown["n"], formats.count)
    return " ".join([*parts, _returns(rows), f"n = {n} answers a point."])

"""The plane of removal and cost: every generated setting of a model, with its shams."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from phasescope.report.names import INK, PAPER, pretty
from phasescope.report.panels import Row, finish, grid, key, rule, say_why
from phasescope.report.settings import counts, designs_of, largest, not_clean, settings_of
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style
from phasescope.report.sweeps import SHAM

_DESIGN = {
    "ablation-layers": "^",
    "ablation-coverage": "v",
    "ablation-dose": "o",
    "ablation-scope": "D",
    "ablation-per-layer": "d",
    "addition": "s",
    "weight-projection": "p",
    "pathways": "h",
    "rank-ladder": "*",
}
_ROW = Row(
    "Removal against cost",
    "share of refused prompts now cleanly answered, over fall of benign accuracy",
    2.35,
    (-0.06, 1.09),
)


def plane(study: Study, model: Model) -> Drawing | None:
    """Removal against cost of every generated setting with the shams; None without any."""
    rows = settings_of(study, model)
    rows = rows[(rows["measured_by"] == "generation") & rows["removal"].notna()]
    rows = rows[rows["sham"] | rows["accuracy_cost"].notna()]
    if rows.empty:
        return None
    with style():
        figure, axes = grid([_ROW], study.precisions)
        for ax, precision in zip(axes[0], study.precisions, strict=True):
            here = rows[rows["precision"] == precision]
            if len(here):
                _panel(ax, here)
            else:
                say_why(ax, study.why(model.id, precision, "intervene"))
        finish(axes, "cost: fall of benign accuracy, share")
        real = set(rows.loc[~rows["sham"], "design"])
        entries = [
            (pretty(d), {"ls": "", "marker": _DESIGN.get(d, "P"), "ms": 4.6})
            for d in designs_of(study, model)
            if d in real
        ]
        shams = rows[rows["sham"]]
        free = shams["accuracy_cost"].isna().all()
        entries += [("shams, cost not measured" if free else "shams", SHAM)] * bool(len(shams))
        key(figure, entries)
        edge = "Shams, whose cost is not measured, stand at the left edge. " * bool(
            free and len(shams)
        )
        return drawing(
            figure,
            f"fig-plane-{model.slug}",
            f"{model.id}: removal against cost",
            f"Every generated setting of every design. {largest(rows)}",
            "Every generated and graded setting of every design; up and left is refusal removed "
            f"at no cost, hollow is not clean. Crosses: 95 % intervals. {edge}{counts(rows)}",
        )


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    shams, real = rows[rows["sham"]], rows[~rows["sham"]]
    bar = {"color": INK, "lw": 0.7, "alpha": 0.5}
    ax.vlines(real["accuracy_cost"], real["removal_ci_low"], real["removal_ci_high"], **bar)
    ax.hlines(real["removal"], real["accuracy_cost_ci_low"], real["accuracy_cost_ci_high"], **bar)
    for design, kind in real.groupby("design", sort=True):
        look = {"ls": "", "marker": _DESIGN.get(design, "P"), "ms": 4.8, "mec": INK, "mew": 1.0}
        soiled = not_clean(kind)
        for rest, face in ((kind[~soiled], INK), (kind[soiled], PAPER)):
            ax.plot(rest["accuracy_cost"], rest["removal"], **look, mfc=face)
    rule(ax, 0.0)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -0.12), max(high, 0.3))
    _shams(ax, shams)


def _shams(ax: Axes, rows: pd.DataFrame) -> None:
    """The shams: where their cost was not measured, along the left edge."""
    costed = rows[rows["accuracy_cost"].notna()]
    ax.plot(costed["accuracy_cost"], costed["removal"], **SHAM)
    rest = rows.loc[rows["accuracy_cost"].isna(), "removal"].sort_values()
    edge = 0.012 + 0.05 * (np.arange(len(rest)) % 5) / 4
    ax.plot(edge, rest, transform=ax.get_yaxis_transform(), **SHAM)

"""The phase map of more models than can be marked one by one: how many of each size are in which
phase."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from phasescope.report import formats
from phasescope.report.names import MUTED, PHASES, pretty
from phasescope.report.panels import nice
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, new_figure

_BINS = 16
_ROW, _TOP, _FOOT, _LEFT, _GAP = 1.25, 0.5, 0.5, 0.5, 0.35  # inches
_LETTERED = 0.09  # share of a panel's height that holds a letter


def crowd(
    study: Study, models: list[Model], fid: str, width: float, columns: int, description: str
) -> Drawing:
    """The map as stacked bars; width: of the figure, inches; columns: panels beside each other."""
    kinds = list(dict.fromkeys(m.architecture for m in models))
    panels = [(k, p) for k in kinds for p in study.precisions]
    rows = -(-len(panels) // columns)
    height = rows * (_ROW + _TOP + _FOOT)
    figure = new_figure(width, height)
    each = (width - _LEFT - _GAP * (columns - 1)) / columns
    sizes = [math.log10(m.total_billion) for m in models]
    edges = np.linspace(min(sizes) - 0.05, max(sizes) + 0.05, _BINS + 1)
    for place, (kind, precision) in enumerate(panels):
        row, column = divmod(place, columns)
        left = _LEFT + column * (each + _GAP)
        bottom = height - (row + 1) * (_ROW + _TOP + _FOOT) + _FOOT
        box = (left / width, bottom / height, each / width, _ROW / height)
        ax = figure.add_axes(box)
        _panel(ax, [m for m in models if m.architecture == kind], precision, edges)
        ax.set_title(f"{pretty(kind)}, {pretty(precision)}", pad=6)
        if column == 0:
            ax.set_ylabel("models")
    return drawing(figure, fid, "Phase map", description, _caption(study, models))


def _panel(ax: Axes, models: list[Model], precision: str, edges: np.ndarray) -> None:
    found = [
        (math.log10(m.total_billion), v["phase"])
        for m in models
        for v in m.verdicts
        if v["precision"] == precision
    ]
    floor, width = np.zeros(len(edges) - 1), edges[1] - edges[0]
    centers = (edges[:-1] + edges[1:]) / 2
    stacks = []
    for phase, look in PHASES.items():
        counts, _ = np.histogram([x for x, p in found if p == phase], edges)
        if counts.any():
            edge = MUTED if phase == "not_run" else look.color
            seen = counts > 0
            look_of = {"color": look.color, "ec": edge, "lw": 0.7}
            ax.bar(centers[seen], counts[seen], 0.86 * width, floor[seen], **look_of)
            stacks.append((look, counts, floor + counts / 2))
            floor = floor + counts
    top = max(1.0, floor.max())
    for look, counts, middles in stacks:
        for x, n, y in zip(centers, counts, middles, strict=True):
            if n > _LETTERED * top:
                words = {"size": 7, "weight": "bold", "color": look.letter_color}
                ax.text(x, y, look.letter, ha="center", va="center_baseline", **words)
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.05 * top), xlabel="total parameters")
    ax.yaxis.set_major_locator(nice(3, integer=True))
    ax.grid(axis="y")
    sizes = [10.0**d for d in range(math.floor(edges[0]), math.ceil(edges[-1]) + 1)]
    sizes = [s for s in sizes if edges[0] <= math.log10(s) <= edges[-1]]
    sizes = sizes or [10 ** float(edges.mean())]
    ax.set_xticks([math.log10(s) for s in sizes], [formats.parameters(s) for s in sizes])
    ax.xaxis.set_minor_locator(NullLocator())


def _caption(study: Study, models: list[Model]) -> str:
    cells = sum(len(m.verdicts) for m in models)
    return (
        f"How many models of each size are in which phase (n = {cells:,} cells of "
        f"{len(models):,} models); sizes are on a logarithmic axis. Color and letter name the "
        "phase; hollow: not run. Too many to be marked one by one: the table has each with its "
        "probability."
    )

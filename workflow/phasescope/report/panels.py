"""Small multiples: a grid of panels, precisions across, with room for words on the left."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Locator, MaxNLocator, NullLocator

from phasescope.report.names import FAINT, GRID, INK, MUTED, pretty
from phasescope.report.svg import new_figure

WIDTH = 10.0
_LEFT, _RIGHT, _GAP = 1.75, 0.1, 0.22
_TOP, _BOTTOM, _BETWEEN = 0.52, 0.42, 0.2


@dataclass(frozen=True)
class Row:
    """One row of panels: what it shows, in which unit, its height in inches and its range."""

    title: str
    unit: str
    height: float = 1.25
    limits: tuple[float, float] | None = None


def grid(
    rows: list[Row], columns: list[str], left: float = _LEFT, between: float = _BETWEEN
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `rows` by columns, as a rule precisions; axes come as [row][column].

    Row titles and units stand in the margin at the left (its width and the space between rows in
    inches), the columns' names on top. Call `finish` when all is drawn.
    """
    height = _TOP + _BOTTOM + sum(r.height for r in rows) + between * (len(rows) - 1)
    figure = new_figure(WIDTH, height)
    width = (WIDTH - left - _RIGHT - _GAP * (len(columns) - 1)) / len(columns)
    axes, bottom = [], height - _TOP
    for row in rows:
        bottom -= row.height
        _name(figure, row, bottom + row.height)
        line = []
        for j in range(len(columns)):
            box = (left + j * (width + _GAP), bottom, width, row.height)
            share = (WIDTH, height, WIDTH, height)
            ax = figure.add_axes([inches / whole for inches, whole in zip(box, share, strict=True)])
            _dress(ax, row)
            line.append(ax)
        axes.append(line)
        bottom -= between
    for ax, column in zip(axes[0], columns, strict=True):
        ax.set_title(pretty(column), pad=7)
    return figure, axes


def _name(figure: Figure, row: Row, top: float) -> None:
    """Title and unit of a row in the left margin; `top` in inches from below."""
    title, height = textwrap.wrap(row.title, 20), figure.get_figheight()
    look = {"va": "top", "ha": "left"}
    figure.text(0.005, top / height, "\n".join(title), size=8.5, weight="bold", color=INK, **look)
    unit = "\n".join(textwrap.wrap(row.unit, 24))
    below = (top - 0.155 * len(title)) / height
    figure.text(0.005, below, unit, size=7.5, color=MUTED, **look)


def _dress(ax: Axes, row: Row) -> None:
    ax.grid(axis="y")
    ax.spines["left"].set_visible(False)
    ax.tick_params(labelleft=False)
    ax.xaxis.set_major_locator(NullLocator())
    ax.yaxis.set_major_locator(NullLocator())
    if row.limits:
        ax.set_ylim(*row.limits)


def nice(bins: int, integer: bool = False) -> Locator:
    """At most `bins` intervals of a round step, and no other (matplotlib's own like 0.3)."""
    return MaxNLocator(bins, integer=integer, steps=[1, 2, 2.5, 5, 10])


def finish(
    axes: list[list[Axes]], x_label: str, ticks: Locator | None = None, share_y: bool = True
) -> None:
    """Share y along rows and x everywhere; label the outermost panels that hold something."""
    everything = [ax for line in axes for ax in line if ax.axison]
    ends = [sorted(ax.get_xlim()) for ax in everything]
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    for ax in everything:
        ax.set_xlim(*((high, low) if ax.xaxis_inverted() else (low, high)))
    for line in axes if share_y else ():
        _share_y([ax for ax in line if ax.axison])
    for column in zip(*axes, strict=True):
        for ax in [ax for ax in column if ax.axison][-1:]:
            ax.xaxis.set_major_locator(ticks or nice(6))
            ax.set_xlabel(x_label)


def _share_y(drawn: list[Axes]) -> None:
    """One range of y for a row; the first panel is labeled, the others have its lines alone.

    A tick of matplotlib costs as much as a curve, and most of a page's panels need none.
    """
    limits = [ax.get_ylim() for ax in drawn]
    for ax in drawn:
        ax.set_ylim(min(a for a, _ in limits), max(b for _, b in limits))
    for ax in drawn[:1]:
        ax.yaxis.set_major_locator(nice(4))
        ax.tick_params(labelleft=True)
    for ax in drawn[1:]:
        low, high = ax.get_ylim()
        places = [y for y in nice(4).tick_values(low, high) if low <= y <= high]
        ends = {"xmin": 0, "xmax": 1, "transform": ax.get_yaxis_transform()}
        ax.hlines(places, **ends, color=GRID, lw=0.7, zorder=0.5)


def categories(axes: list[Axes], labels: Sequence[str]) -> None:
    """Name the places 0, 1, … of a row's y axis from the top down, left of its first panel, whether
    or not that holds something; `finish` comes first."""
    for ax in [ax for ax in axes if ax.axison]:
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.set_yticks(range(len(labels)), [""] * len(labels))
    box = axes[0].get_position()
    look = {"ha": "right", "va": "center_baseline", "size": 7.5, "color": MUTED}
    for place, label in enumerate(labels):
        y = box.y1 - (place + 0.5) / len(labels) * box.height
        axes[0].figure.text(box.x0 - 0.006, y, label, **look)


def say_why(ax: Axes, reason: str) -> None:
    """In place of an empty panel: that it was not measured, and why."""
    ax.set_axis_off()
    width = ax.get_position().width * WIDTH * 14.5
    words = textwrap.wrap(f"Not measured: {reason}", int(width), max_lines=4, placeholder=" …")
    ax.text(
        0.5,
        0.5,
        "\n".join(words),
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=MUTED,
        size=7.5,
        style="italic",
        linespacing=1.4,
    )
    ax.axhline(0.02, color=GRID, lw=0.7)
    ax.axhline(0.98, color=GRID, lw=0.7)
    ax.set_ylim(0, 1)


def key(figure: Figure, entries: list[tuple[str, dict]]) -> None:
    """The figure's key on its top right: (words, properties of a line) each."""
    handles = [Line2D([], [], label=label, **{"color": INK} | look) for label, look in entries]
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=len(entries),
        borderaxespad=0.1,
        bbox_to_anchor=(1 - _RIGHT / WIDTH, 1),
        handlelength=1.8,
        columnspacing=1.6,
        labelcolor=MUTED,
        handletextpad=0.5,
    )


def curve(ax: Axes, x, estimate, low, high, points: bool, band: float = 0.16, **look) -> None:
    """A line with its 95 % band, `band` its opacity; without a width the line stands alone."""
    look = {"color": INK} | look
    x, low, high = (np.asarray(v, dtype=float) for v in (x, low, high))
    ax.fill_between(x, low, high, color=look["color"], alpha=band, lw=0)
    ax.plot(x, estimate, marker="o" if points else None, ms=2.6, **look)


def rule(ax: Axes, y: float) -> None:
    """A thin dashed line to compare with."""
    ax.axhline(y, color=FAINT, lw=0.8, ls=(0, (4, 3)), zorder=0.9)

"""The one figure of phases: size across, architecture down, a panel per precision."""

import math
import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes

from phasescope.report import formats
from phasescope.report.crowd import crowd
from phasescope.report.findings import main_reasons, phase_counts
from phasescope.report.names import GRID, INK, MUTED, PHASES, pretty
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, new_figure, style

_LANE, _HEADING, _PAD = 17.0, 15.0, 5.0  # points, down
_MARK, _LETTER, _CHARACTER = 12.5, 7.0, 4.6  # points
_MOST_MARKED = 80  # models with a mark and a name each
_LABEL, _SURE = 22, 9  # characters of a name, and of the probability after it
_TITLE, _FOOT, _BETWEEN = 36.0, 34.0, 16.0  # points


@dataclass(frozen=True)
class Place:
    """Where a model stands in every panel: x in log10 of parameters, y in points from the top."""

    model: Model
    x: float
    y: float
    leftwards: bool
    characters: int


@dataclass(frozen=True)
class Scale:
    """The axis of sizes: ends in log10 of billions, and width in points."""

    low: float
    high: float
    width: float

    def points(self, x: float) -> float:
        """Distance from the left edge, points."""
        return (x - self.low) / (self.high - self.low) * self.width


def _scale(models: list[Model], width: float) -> Scale:
    sizes = [math.log10(m.total_billion) for m in models] or [0.0]
    margin = max(0.12, 0.5 - (max(sizes) - min(sizes)) / 2)
    return Scale(min(sizes) - margin, max(sizes) + margin, width)


def _label(place: Place, verdict: dict) -> str:
    name = formats.shorten(place.model.id, place.characters)
    unnamed = verdict["phase"] in ("indeterminate", "not_run")
    if unnamed or formats.missing(verdict["probability"]):
        return name
    return f"{name} ({formats.probability(verdict['probability'])})"


def _places(
    models: list[Model], scale: Scale
) -> tuple[list[Place], list[tuple[str, float]], float]:
    """Lay marks and labels into lanes without overlap: places, headings with y, total height."""
    places, headings, top = [], [], 0.0
    for architecture in dict.fromkeys(m.architecture for m in models):
        headings.append((architecture, top))
        lanes: list[list[tuple[float, float]]] = []
        for model in (m for m in models if m.architecture == architecture):
            x = scale.points(math.log10(model.total_billion))
            wanted = min(len(model.id), _LABEL) + _SURE
            room = {
                side: (space - _MARK / 2 - 6) / _CHARACTER
                for side, space in ((False, scale.width - x), (True, x))
            }
            leftwards = wanted > room[False] and room[True] > room[False]
            characters = max(4, int(min(wanted, room[leftwards])) - _SURE)
            length = _MARK / 2 + 6 + _CHARACTER * (characters + _SURE)
            taken = (x - length, x + _MARK) if leftwards else (x - _MARK, x + length)
            lane = next(
                (
                    k
                    for k, spans in enumerate(lanes)
                    if all(taken[1] < a or b < taken[0] for a, b in spans)
                ),
                len(lanes),
            )
            lanes += [[]] * (lane == len(lanes))
            lanes[lane] = [*lanes[lane], taken]
            y = top + _HEADING + _LANE * (lane + 0.5)
            places.append(Place(model, x, y, leftwards, characters))
        top += _HEADING + _LANE * len(lanes) + _PAD
    return places, headings, top


def _mark(ax: Axes, place: Place, verdict: dict) -> None:
    """One cell: colored shape with its letter, hollow where not run, and the model's name."""
    phase = verdict["phase"]
    look = PHASES[phase]
    hollow = phase == "not_run"
    size = _MARK + {"^": 3.5, "p": 2, "D": -1.5}.get(look.marker, 0)
    ax.plot(
        [place.x],
        [place.y],
        ls="",
        marker=look.marker,
        ms=size,
        mfc=look.color,
        mec=MUTED if hollow else look.color,
        mew=1.1,
        clip_on=False,
    )
    drop = 1.6 if look.marker == "^" else 0.2
    ax.text(
        place.x,
        place.y + drop,
        look.letter,
        ha="center",
        va="center_baseline",
        size=_LETTER,
        weight="bold",
        color=look.letter_color,
    )
    side = -1 if place.leftwards else 1
    ax.text(
        place.x + side * (_MARK / 2 + 5),
        place.y,
        _label(place, verdict),
        size=7.5,
        va="center_baseline",
        ha="right" if place.leftwards else "left",
        color=MUTED if hollow else INK,
    )


def _ticks(ax: Axes, scale: Scale) -> None:
    decades = range(math.floor(scale.low) - 1, math.ceil(scale.high) + 1)
    steps = (1,) if scale.high - scale.low > 1.6 else (1, 2, 5)
    sizes = [s * 10.0**d for d in decades for s in steps]
    sizes = [s for s in sizes if scale.low <= math.log10(s) <= scale.high]
    ax.set_xticks(
        [scale.points(math.log10(s)) for s in sizes], [formats.parameters(s) for s in sizes]
    )
    ax.grid(axis="x")


def _panel(
    ax: Axes,
    places: list[Place],
    headings: list,
    scale: Scale,
    height: float,
    precision: str,
    pad: int,
) -> None:
    ax.set(xlim=(0, scale.width), ylim=(height, 0), yticks=[])
    ax.spines["left"].set_visible(False)
    _ticks(ax, scale)
    for architecture, y in headings:
        ax.plot([0, scale.width], [y, y], color=GRID, lw=0.7)
        ax.text(0, y + _HEADING / 2 + 1, pretty(architecture), size=7.5, color=MUTED, va="center")
    missing = []
    for place in places:
        verdict = next((v for v in place.model.verdicts if v["precision"] == precision), None)
        if verdict is not None:
            _mark(ax, place, verdict)
            missing += [verdict["reason"] or "no reason given"] * (verdict["phase"] == "not_run")
    ax.set_title(pretty(precision), pad=pad)
    if missing:
        reasons = list(dict.fromkeys(missing))
        words = reasons[0] if len(reasons) == 1 else f"{len(reasons)} reasons, in the table"
        fits = int(scale.width / 4.3)
        ax.annotate(
            textwrap.shorten(f"{len(missing)} not run: {words}", fits, placeholder=" …"),
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 6),
            textcoords="offset points",
            size=7.5,
            color=MUTED,
        )


def _draw(study: Study, fid: str, stacked: bool) -> Drawing:
    models = [m for m in study.models if m.total_billion and m.total_billion > 0]
    panels = max(1, len(study.precisions))
    total = 262.0 if stacked else 720.0
    if len(models) > _MOST_MARKED:
        columns = 1 if stacked else panels
        return crowd(study, models, fid, total / 72, columns, _description(study))
    width = total - 16 if stacked else (total - 16 - 20 * (panels - 1)) / panels
    scale = _scale(models, width)
    places, headings, height = _places(models, scale)
    each = _TITLE + height + _FOOT
    whole = each * panels + _BETWEEN * (panels - 1) if stacked else each
    figure = new_figure(total / 72, whole / 72)
    for i, precision in enumerate(study.precisions):
        left = 8 if stacked else 8 + i * (width + 20)
        bottom = whole - _TITLE - height - (i * (each + _BETWEEN) if stacked else 0)
        ax = figure.add_axes((left / total, bottom / whole, width / total, height / whole))
        _panel(ax, places, headings, scale, height, precision, pad=18 if main_reasons(study) else 6)
        ax.set_xlabel("total parameters (logarithmic)")
    return drawing(figure, fid, "Phase map", _description(study), _caption(study, models))


def _description(study: Study) -> str:
    counted = [f"{PHASES[p].name}: {n}" for p, n in phase_counts(study) if n]
    return (
        "Phase of each cell by total parameters, architecture and precision. "
        f"Cells: {', '.join(counted)}."
    )


def _caption(study: Study, models: list[Model]) -> str:
    cells = sum(len(m.verdicts) for m in models)
    several = "s" * (len(models) != 1)
    text = (
        f"Each mark is a cell: one model at one precision (n = {cells} cells of {len(models)} "
        f"model{several}). Color, shape and letter name the phase; the number is its posterior "
        "probability. Within an architecture, height only keeps labels apart."
    )
    return text + " Hollow: not run." * bool(main_reasons(study))


def wide(study: Study) -> Drawing:
    """The map with its panels side by side, for a desk and for print."""
    with style():
        return _draw(study, "fig-phase-map", stacked=False)


def narrow(study: Study) -> Drawing:
    """The map with its panels below each other, for a phone."""
    with style():
        return _draw(study, "fig-phase-map-narrow", stacked=True)

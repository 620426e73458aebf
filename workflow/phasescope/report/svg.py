"""From a matplotlib figure to a piece of SVG that can stand in a page with others.

Recipe and measurements: fixed salt and no metadata make the bytes repeat; every id gets the
figure's own prefix, since matplotlib reuses them; its style sheet is dropped, since it leaks;
colors become CSS variables, so that a figure follows the dark theme.
"""

import io
import re
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from phasescope.report.names import BLACK, FAINT, GRID, INK, MUTED, PAPER

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "phasescope",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "xtick.major.width": 0.7,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
}

_THEME = {INK: "ink", MUTED: "muted", FAINT: "faint", GRID: "grid", PAPER: "card", BLACK: "black"}
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_FONT = re.compile(r"font-family: [^;\"]*")
_LONG = re.compile(r"-?\d+\.\d{2,}")


@dataclass(frozen=True)
class Drawing:
    """A figure ready for the page: its SVG, its name and what it shows, in words."""

    fid: str
    svg: Markup
    title: str
    description: str
    caption: str


def _shorter(match: re.Match) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def _tag(tag: str, fid: str) -> str:
    """One tag of the SVG, its coordinates shortened, its ids prefixed, its colors themed."""
    tag = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", tag).replace("xlink:href", "href")
    tag = re.sub(r"\s+", " ", _LONG.sub(_shorter, _FONT.sub("font-family: inherit", tag)))
    tag = re.sub(r'\bid="', f'id="{fid}-', tag)
    tag = tag.replace("url(#", f"url(#{fid}-").replace('href="#', f'href="#{fid}-')
    for color, variable in _THEME.items():
        tag = tag.replace(f": {color}", f": var(--{variable})")
    return tag


def inline_svg(svg: str, fid: str, title: str, description: str) -> Markup:
    """A matplotlib SVG document as an inline element with ids of its own and a description.

    `fid` prefixes every id; text nodes stay as they are. Raises ValueError if the text is not
    an SVG document.
    """
    view = re.search(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', svg)
    if view is None:
        raise ValueError(f"figure {fid}: not an SVG document")
    body = svg[view.end() : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r">\s+<", "><", body)
    body = re.sub(r"<[^>]+>", lambda found: _tag(found.group(), fid), body)
    head = (
        f'<svg class="mpl" viewBox="{view.group(1)}" role="img" '
        f'aria-labelledby="{fid}-title" aria-describedby="{fid}-desc">'
        f'<title id="{fid}-title">{escape(title)}</title>'
        f'<desc id="{fid}-desc">{escape(description)}</desc>'
    )
    return Markup(head + body.strip() + "</svg>")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of the page's style, in inches; draw on it within `style()`."""
    return Figure(figsize=(width, height))


def style():
    """Context in which a figure is drawn and saved."""
    return matplotlib.rc_context(STYLE)


def drawing(figure: Figure, fid: str, title: str, description: str, caption: str = "") -> Drawing:
    """Save a figure as inline SVG with its words."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_METADATA)
    svg = inline_svg(buffer.getvalue(), fid, title, description)
    return Drawing(fid, svg, title, description, caption or description)

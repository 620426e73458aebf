"""From a matplotlib figure to a piece of SVG that can stand in a page with others.

Recipe and measurements: fixed salt and no metadata make the bytes repeat; every id gets the
figure's own prefix, since matplotlib reuses them; its style sheet is dropped, since it leaks;
colors become CSS variables, so that a figure follows the dark theme.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from phasescope.report.names import BLACK, FAINT, GRID, INK, MUTED, PAPER

STYLE = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # fonts that can be searched
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
    "axes.titley": 1.0,
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
_METADATA = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_PAPER, _DPI = ("pdf", "png"), 200
_FOR_PAPER: ContextVar[bool] = ContextVar("for_paper", default=False)
_LONG = re.compile(r"-?\d+\.\d{2,}")
_LINK = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
_HREF = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Drawing:
    """A figure with its name and what it shows, in words: its SVG for the page, or its files for a
    paper, by suffix; and the rows that are drawn, where the page offers them."""

    fid: str
    svg: Markup
    title: str
    description: str
    caption: str
    files: dict[str, bytes]
    points: pd.DataFrame | None = None


def _shorter(match: re.Match) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def _style(style: str) -> str:
    """An element's style in the page's colors and font."""
    style = re.sub(r"font-family: [^;]*;? ?", "", style).rstrip("; ")
    for color, variable in _THEME.items():
        style = style.replace(f": {color}", f":var(--{variable})")
    return style.replace(": ", ":").replace("; ", ";")


def _rewrite(element: ElementTree.Element, used: set[str], prefix: str) -> None:
    """Bare names, short numbers, the page's colors, and only ids that something refers to."""
    element.tag = element.tag.rpartition("}")[2]
    found, element.attrib = element.attrib, {}
    for name, value in found.items():
        if name == "id":
            if value in used:
                element.set("id", prefix + value)
        elif name == "style":
            element.set("style", _style(value))
        elif name == "transform" and value.startswith("matrix"):  # of an image: tiny numbers count
            element.set(name, value)
        elif name != "transform" or not value.startswith("rotate(-0 "):
            link = _LINK.sub(lambda m: m.group().replace("#", f"#{prefix}"), value)
            link = re.sub(r"\s*\n\s*", "", link) if name == "d" else link
            element.set("href" if name == _HREF else name, _LONG.sub(_shorter, link).strip())


def _simplify(element: ElementTree.Element) -> None:
    """Drop groups that say nothing and shapes that show nothing; say a shared style once."""
    kept = []
    for child in element:
        _simplify(child)
        child.tail = None
        if child.tag == "g" and not child.attrib:
            kept += list(child)
        elif child.tag not in ("g", "defs") or len(child):
            kept += [child] * (child.get("style") != "fill:none")
    element[:] = kept
    if element.tag not in ("text", "title", "desc"):
        element.text = None
    styles = {child.get("style") for child in kept}
    alike = len(kept) > 1 and len(styles) == 1 and None not in styles
    if alike and element.tag == "g" and "style" not in element.attrib:
        element.set("style", kept[0].attrib["style"])
        for child in kept:
            del child.attrib["style"]


def inline_svg(svg: str, fid: str, title: str, description: str) -> Markup:
    """A matplotlib SVG document as an inline element with ids of its own and a description.

    `fid` names the figure; its ids start with it or with a short hash of it. Raises ValueError
    if the text is not an SVG document.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"figure {fid}: not an SVG document: {error}") from error
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith(("}style", "}metadata"))]:
            parent.remove(child)
    links = (_LINK.search(v) for e in root.iter() for v in e.attrib.values())
    used = {next(filter(None, m.groups())) for m in links if m}
    prefix = f"f{zlib.crc32(fid.encode()):08x}-"
    for element in root.iter():
        _rewrite(element, used, prefix)
    _simplify(root)
    body = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    head = (
        f'<svg class="mpl" viewBox="{root.get("viewBox")}" role="img" '
        f'aria-labelledby="{fid}-title" aria-describedby="{fid}-desc">'
        f'<title id="{fid}-title">{escape(title)}</title>'
        f'<desc id="{fid}-desc">{escape(description)}</desc>'
    )
    return Markup(head + body.replace(" />", "/>") + "</svg>")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of the page's style, in inches; draw on it within `style()`."""
    return Figure(figsize=(width, height))


def style():
    """Context in which a figure is drawn and saved."""
    return matplotlib.rc_context(STYLE)


@contextmanager
def for_paper() -> Iterator[None]:
    """Let figures be drawn as PDF and PNG, and not for the page."""
    token = _FOR_PAPER.set(True)
    try:
        yield
    finally:
        _FOR_PAPER.reset(token)


def drawing(
    figure: Figure,
    fid: str,
    title: str,
    description: str,
    caption: str = "",
    points: pd.DataFrame | None = None,
) -> Drawing:
    """Save a figure with its words and what is drawn."""
    svg, files = Markup(""), {}
    if _FOR_PAPER.get():
        files = {kind: _saved(figure, kind) for kind in _PAPER}
    else:
        svg = inline_svg(_saved(figure, "svg").decode(), fid, title, description)
    return Drawing(fid, svg, title, description, caption or description, files, points)


def _saved(figure: Figure, kind: str) -> bytes:
    """No dates and versions: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    white = {} if kind == "svg" else {"facecolor": "white", "dpi": _DPI}
    figure.savefig(buffer, format=kind, metadata=_METADATA[kind], **white)
    return buffer.getvalue()

"""The page's figures as files for a paper: PDF with fonts that can be searched, and PNG."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib

from phasescope.report.names import PHASES, pretty
from phasescope.report.svg import STYLE, Drawing
from phasescope.tables import atomic_folder

_STYLE = STYLE | {"pdf.fonttype": 42}
_DPI = 300
# no dates and versions: the same tables give the same bytes
_METADATA = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def drawings_in(value) -> Iterator[Drawing]:
    """The drawings among what a template is given, however deep in dicts and lists."""
    if isinstance(value, Drawing):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from drawings_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from drawings_in(item)


def write_figures(drawings: Iterable[Drawing], folder: Path) -> None:
    """Write each as `<name>.pdf` and `<name>.png`, on white, and what all show in `captions.md`;
    replaces the folder as a whole."""
    with atomic_folder(folder) as temporary, matplotlib.rc_context(_STYLE):
        temporary.mkdir()
        letters = ", ".join(f"{p.letter}: {pretty(name)}" for name, p in PHASES.items() if p.letter)
        captions = [f"Phases: {letters}."]
        for drawing in drawings:
            name = drawing.fid.removeprefix("fig-")
            for kind, metadata in _METADATA.items():
                path = temporary / f"{name}.{kind}"
                drawing.figure.savefig(path, dpi=_DPI, facecolor="white", metadata=metadata)
            captions.append(f"`{name}`: {drawing.title}. {drawing.caption}")
        (temporary / "captions.md").write_text("\n\n".join(captions) + "\n", encoding="utf-8")

"""The page's figures as files for a paper."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from phasescope.report.names import PHASES, pretty
from phasescope.report.svg import Drawing
from phasescope.tables import atomic_folder


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
    letters = ", ".join(f"{p.letter}: {pretty(name)}" for name, p in PHASES.items() if p.letter)
    captions = [f"Phases: {letters}."]
    with atomic_folder(folder) as temporary:
        temporary.mkdir()
        for drawing in drawings:
            name = drawing.fid.removeprefix("fig-")
            for kind, content in drawing.files.items():
                (temporary / f"{name}.{kind}").write_bytes(content)
            captions.append(f"`{name}`: {drawing.title}. {drawing.caption}")
        (temporary / "captions.md").write_text("\n\n".join(captions) + "\n", encoding="utf-8")

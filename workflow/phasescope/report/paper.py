"""The page's figures as files for a paper."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from phasescope.report.names import PHASES, pretty
from phasescope.report.page import page_contents
from phasescope.report.study import load
from phasescope.report.svg import Drawing, for_paper
from phasescope.tables import atomic_folder


def _drawings_in(value) -> Iterator[Drawing]:
    """The drawings among what a template is given, however deep in dicts and lists."""
    if isinstance(value, Drawing):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _drawings_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _drawings_in(item)


def write_figures(study_folder: Path, folder: Path, models: Sequence[str] = ()) -> None:
    """Write the figures of a study's page to a folder, which is replaced as a whole: each as
    `<name>.pdf` and `<name>.png`, on white, and what all show in `captions.md`.

    models, errors and repeatable bytes: as of `build`. A map for phones is left out.
    """
    with for_paper():
        contents = page_contents(load(study_folder), models)
    del contents["map_narrow"]
    letters = ", ".join(f"{p.letter}: {pretty(name)}" for name, p in PHASES.items() if p.letter)
    captions = [f"Phases: {letters}."]
    with atomic_folder(folder) as temporary:
        temporary.mkdir()
        for drawing in _drawings_in(contents):
            name = drawing.fid.removeprefix("fig-")
            for kind, content in drawing.files.items():
                (temporary / f"{name}.{kind}").write_bytes(content)
            captions.append(f"`{name}`: {drawing.title}. {drawing.caption}")
        (temporary / "captions.md").write_text("\n\n".join(captions) + "\n", encoding="utf-8")

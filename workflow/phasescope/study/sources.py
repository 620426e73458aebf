"""What is known of a model's checkpoint before anything is downloaded."""

import json
from pathlib import Path

from phasescope.checkpoint import model_type, read_header, shards
from phasescope.errors import PhasescopeError
from phasescope.matrix import Model, Source, from_headers, from_shapes


def known_source(model: Model, fetched: Path) -> Source | None:
    """What is known of a model's checkpoint, without downloading anything: its own config and
    headers where its files lie on this machine (a local folder, `fetched`, or the hub's cache),
    else the shape facts of its hub id; None where there is neither.

    A faulty checkpoint counts as none: the job that fetches it says what is wrong with it.
    """
    folder = Path(model.folder) if model.folder else None
    for place in (folder, fetched, _cached(model)):
        if place is not None and (found := _headers(place)):
            return found
    return from_shapes(model.huggingface_id)


def _cached(model: Model) -> Path | None:
    """Folder of a hub model in the hub's cache, None where it is not there."""
    if model.huggingface_id is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.huggingface_id, "config.json", revision=model.revision)
    return Path(found).parent if isinstance(found, str) else None


def _headers(folder: Path) -> Source | None:
    if not (folder / "config.json").is_file():
        return None
    try:
        model_type(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files = shards(folder)
        dtypes = {name: t.dtype for path in files for name, t in read_header(path).items()}
        return from_headers(config, dtypes, sum(path.stat().st_size for path in files))
    except (PhasescopeError, OSError, ValueError):
        return None

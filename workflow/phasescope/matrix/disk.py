"""Disk that a study takes: sources, quantized weights, and the peak of both."""

from dataclasses import dataclass
from pathlib import Path

from phasescope.matrix.machine import free_disk


@dataclass(frozen=True)
class ModelDisk:
    """Bytes of one model's files.

    source: the 16-bit checkpoint where it must be fetched, 0 for a local folder; source_here: it
    lies on this machine already; quantized, ready_made: by precision, those that run and are made
    here, or fetched as a third party made them; passed_through: the 16-bit cell runs on the
    source's own files, so that they must stay; released: this run deletes the source once its
    cells are quantized.
    """

    model: str
    source: int
    source_here: bool
    quantized: dict[str, int]
    ready_made: dict[str, int]
    passed_through: bool
    released: bool = False

    @property
    def cells(self) -> int:
        """Bytes of all that cells run on, beside the source."""
        return sum(self.quantized.values()) + sum(self.ready_made.values())


def peak_bytes(models: list[ModelDisk], keep_sources: bool) -> int:
    """Most bytes on the disk at a time. Without keeping sources there is one at a time, beside
    those that a 16-bit cell runs on."""
    staying = sum(m.source for m in models if keep_sources or m.passed_through)
    passing = [0, *(m.source for m in models if not keep_sources and not m.passed_through)]
    return sum(m.cells for m in models) + staying + max(passing)


def missing_bytes(models: list[ModelDisk], results: Path) -> tuple[int, int]:
    """Bytes that a run will still write at its peak, into its results and into the hub's cache."""

    def left(model: ModelDisk, cells: dict[str, int]) -> int:
        place = results / model.model
        done = {p for p in cells if (place / p / "quantize" / "checkpoint").is_dir()}
        return sum(size for p, size in cells.items() if p not in done)

    own = sum(left(m, m.quantized) for m in models)
    passing = [m.source for m in models if m.released and left(m, m.quantized)]
    cached = sum(left(m, m.ready_made) for m in models)
    cached += sum(m.source for m in models if not m.released and not m.source_here)
    return own + max(passing, default=0), cached


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def shortage(models: list[ModelDisk], results: Path) -> str | None:
    """One line where what is still to be written does not fit its disk, else None."""
    own, cached = missing_bytes(models, results)
    cache = _hub_cache() if cached else results
    (device, free), (other, free_there) = free_disk(results), free_disk(cache)
    if device == other:
        wanted = [(results, own + cached, free)]
    else:
        wanted = [(results, own, free), (cache, cached, free_there)]
    for folder, size, there in wanted:
        if size > there:
            return f"{_too_small(folder, size, there)}; {_ways(models)}"
    return None


def _too_small(folder: Path, size: int, there: int) -> str:
    return (
        f"the disk of {folder} has {there / 1e9:.0f} GB free, and {size / 1e9:.0f} GB are still "
        "to be written"
    )


def _ways(models: list[ModelDisk]) -> str:
    largest = max(models, key=lambda m: m.source + m.cells)
    freed = any(m.source and not (m.source_here or m.released or m.passed_through) for m in models)
    ways = ["free some", *(["set keep_sources: false"] if freed else [])]
    return f"{', '.join(ways)}, or leave models out (key 'skip'; the largest: {largest.model})"

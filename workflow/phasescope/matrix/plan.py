"""Cells, the memory they need, the memory there is, and so which cells run."""

import math
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from phasescope.matrix.sheet import Model

# bytes per weight: affine groups of 64 carry a 16-bit scale and a 16-bit bias
_BYTES = {"16": 2.0, "8": 1.0 + 4 / 64, "4": 0.5 + 4 / 64}
_CPU_BYTES = 4.0  # the CPU backend computes in float32, quantized weights dequantized
_WORKING_SHARE = 0.10  # activations, caches and logits beside the weights
_FIXED_BYTES = 1.5e9  # interpreter, libraries, tokenizer
_CPU_SHARE = 0.85  # of the physical memory; the rest is the system's
_METAL_SHARE = 0.75  # Metal's default wired limit on machines of this class


@dataclass(frozen=True)
class Cell:
    """One model at one precision ('16', '8' or '4'), and what memory says of it."""

    model: Model
    precision: str
    needed_bytes: float
    usable_bytes: float

    @property
    def name(self) -> str:
        """`model/precision`, as in the paths of the results."""
        return f"{self.model.id}/{self.precision}"

    @property
    def mem_mb(self) -> int:
        """Needed memory as the workflow's scheduler counts it, MB."""
        return math.ceil(self.needed_bytes / 1e6)

    @property
    def reason(self) -> str | None:
        """Why the cell cannot run on this machine, or None when it fits."""
        if self.needed_bytes <= self.usable_bytes:
            return None
        return (
            f"needs about {self.needed_bytes / 1e9:.0f} GB of memory, this machine can give "
            f"{self.usable_bytes / 1e9:.0f} GB"
        )


def needed_bytes(model: Model, precision: str, on_metal: bool) -> float:
    """Estimated peak memory of a stage that holds the model, bytes."""
    per_weight = _BYTES[precision] if on_metal else _CPU_BYTES
    weights = model.parameters_total_billion * 1e9 * per_weight
    return weights * (1 + _WORKING_SHARE) + _FIXED_BYTES


def on_metal() -> bool:
    """Whether products run on Metal (Apple silicon) rather than on the CPU backend."""
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def _cgroup_limit() -> float:
    """Memory limit of the container this process runs in, bytes; infinite without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return float(Path("/sys/fs/cgroup", name).read_text())
        except (OSError, ValueError):
            continue
    return float("inf")


def usable_bytes() -> float:
    """Memory that a cell may use on this machine, bytes: a share of what is built in."""
    if on_metal():
        import mlx.core as mx

        info = mx.device_info()
        return float(info.get("max_recommended_working_set_size", 0)) or (
            _METAL_SHARE * psutil.virtual_memory().total
        )
    return _CPU_SHARE * min(psutil.virtual_memory().total, _cgroup_limit())


def plan(models: list[Model], precisions: list[int], memory_gb: float | None) -> list[Cell]:
    """All cells of a study in the sheet's order, each with its memory."""
    usable = usable_bytes() if memory_gb is None else memory_gb * 1e9
    metal = on_metal()
    return [
        Cell(model, str(p), needed_bytes(model, str(p), metal), usable)
        for model in models
        for p in precisions
    ]

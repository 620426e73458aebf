"""A fast matrix product for mlx on Linux.

mlx's CPU wheel links the reference BLAS (a few GFLOPS). On Linux, `load` puts OpenBLAS (PyPI's
scipy-openblas32) in its place through a small C library, `_fast_blas.c`. On a Mac mlx uses
Accelerate and Metal, and nothing here does anything.
"""

import ctypes
import logging
import os
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

_SHIM = Path(__file__).with_name(f"_fast_blas{sysconfig.get_config_var('EXT_SUFFIX')}")
_MEND = "run `pip install --no-build-isolation --no-deps -e .` (needs a C compiler)"

_openblas: ctypes.CDLL | None = None
_shim: ctypes.CDLL | None = None


def load() -> None:
    """Make mlx's matrix products use OpenBLAS; warn in one line where that cannot be."""
    if sys.platform != "linux" or _shim is not None:
        return
    if "mlx.core" in sys.modules:
        _warn("mlx.core was imported first and keeps its slow BLAS; import phasescope before it")
        return
    # find_spec does not run scipy_openblas32, whose __init__ opens its library globally.
    package = find_spec("scipy_openblas32")
    if package is None:
        _warn("scipy-openblas32 is missing, so mlx's BLAS is slow; install requirements/run.txt")
    elif not _SHIM.exists():
        _warn(f"{_SHIM.name} was not built, so mlx's BLAS is slow; {_MEND}")
    else:
        _open(next(Path(package.origin).parent.glob("lib/libscipy_openblas*.so")))


def name() -> str:
    """Which BLAS mlx's matrix products use, for provenance: library, version, threads."""
    if sys.platform == "darwin":
        return "Accelerate"
    if _openblas is None:
        return "reference (slow)"
    _openblas.scipy_openblas_get_config.restype = ctypes.c_char_p
    version = _openblas.scipy_openblas_get_config().decode().split()[1]
    threads = _openblas.scipy_openblas_get_num_threads()
    return f"scipy-openblas {version}, {threads} thread{'s' if threads > 1 else ''}"


def calls() -> int:
    """How many products went through OpenBLAS in this process (0 where it is not loaded)."""
    return 0 if _shim is None else ctypes.c_ulong.in_dll(_shim, "phasescope_blas_calls").value


def _open(library: Path) -> None:
    global _openblas, _shim
    # Sums depend on how they are split among threads: one thread keeps results byte-equal.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _openblas = ctypes.CDLL(str(library))
    _shim = ctypes.CDLL(str(_SHIM), mode=ctypes.RTLD_GLOBAL)
    for product in ("sgemm", "dgemm"):
        target = ctypes.cast(_openblas[f"scipy_cblas_{product}"], ctypes.c_void_p)
        ctypes.c_void_p.in_dll(_shim, f"phasescope_{product}").value = target.value


def _warn(message: str) -> None:
    logging.getLogger("phasescope").warning("phasescope: %s", message)

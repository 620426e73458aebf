"""How earlier attempts at a job ended: after running out of memory, the next halves its batches.

A record lies beside the job's log while the job runs, and stays where batches had to shrink, so
that a rerun does not run out of memory again. A process that died without a word (ended by the
system for want of memory, or by Metal) is told from one that was killed on purpose by the kernel's
count of such kills, and by what it wrote into its log.
"""

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phasescope.errors import PhasescopeError
from phasescope.tables.files import atomic_file

# what mlx (both backends), numpy, pyarrow and the C++ runtime say
_SIGNS = (
    "[malloc] Unable to allocate",
    "[metal::malloc]",
    "std::bad_alloc",
    "Insufficient Memory",
    "OutOfMemory",
    "Cannot allocate memory",
)
_TAIL_BYTES = 4096


def _place(log: Path) -> Path:
    return Path(log).with_suffix(".attempt.json")


def _read(log: Path) -> dict:
    try:
        found = json.loads(_place(log).read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _write(log: Path, record: dict) -> None:
    if not record:
        _place(log).unlink(missing_ok=True)
        return
    with atomic_file(_place(log)) as temporary:
        temporary.write_text(json.dumps(record) + "\n")


def _kills() -> dict:
    """This machine since it started, and how many processes it has killed for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux
        return {"machine": platform.node(), "kills": 0}
    return {
        "machine": boot,
        "kills": next((int(x.split()[1]) for x in lines if x.startswith("oom_kill ")), 0),
    }


def says_out_of_memory(text: str) -> bool:
    """Whether a message or a log says that memory ran out."""
    return any(sign in text for sign in _SIGNS)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out; a fault of the input never does."""
    if isinstance(error, PhasescopeError):
        return False
    return isinstance(error, MemoryError) or says_out_of_memory(str(error))


def _died_of_memory(record: dict, log: Path) -> bool:
    """Whether an attempt that never said how it ended died because memory ran out."""
    before = record.get("running")
    if not isinstance(before, dict):
        return False
    now = _kills()
    if now["machine"] == before.get("machine") and now["kills"] > before.get("kills", 0):
        return True
    try:
        content = Path(log).read_bytes()[-_TAIL_BYTES:]
    except OSError:
        return False
    return says_out_of_memory(content.decode(errors="replace"))


def halvings(log: Path) -> int:
    """How often the batches of the job with this log had to be halved."""
    found = _read(log).get("halvings", 0)
    return found if isinstance(found, int) and 0 <= found < 64 else 0


def batch_size(log: Path, asked: int) -> int:
    """The batch size that a job with this log takes where `asked` is configured."""
    return max(1, asked >> halvings(log))


@contextmanager
def attempt(log: Path) -> Iterator[None]:
    """Keep the record of a job's attempt; entered before the job empties its log."""
    shrunk = halvings(log) + _died_of_memory(_read(log), log)
    kept = {"halvings": shrunk} if shrunk else {}
    _write(log, kept | {"running": _kills()})
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            kept = {"halvings": shrunk + 1}
        _write(log, kept)
        raise
    _write(log, kept)

"""One run of a study at a time in a folder, and jobs that end when their run is killed."""

import contextlib
import fcntl
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import psutil

from phasescope.errors import PhasescopeError
from phasescope.tables.provenance import sha256_text

RUN = "PHASESCOPE_RUN"  # in the environment of jobs: machine and process of their run
_SECONDS = 2.0
# options of snakemake that look at a study and leave it alone
_LOOKING = frozenset(
    (
        *("-n", "--dry-run", "--dryrun", "--lint", "-l", "--list", "--list-rules", "-S"),
        *("--summary", "-D", "--detailed-summary", "--dag", "--rulegraph", "--filegraph"),
        *("--d3dag", "--report", "--containerize", "--list-target-rules", "--lt"),
    )
)


def only_looks(arguments: list[str]) -> bool:
    """Whether a command line of snakemake changes nothing."""
    return any(a.partition("=")[0] in _LOOKING for a in arguments)


def hold(study: str, folder: Path = Path(".snakemake")) -> TextIO:
    """Hold the study in this folder for as long as this process lives; keep what is returned.

    The lock is the kernel's: a killed run leaves none behind. Jobs find their run by the
    environment. Raises PhasescopeError where another run holds it, and says which.
    """
    folder.mkdir(exist_ok=True)
    place = folder / f"{study}.run"
    held = open(place, "a+")  # noqa: SIM115  held on purpose
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        raise PhasescopeError(
            f"study {study}: another run is at work on it in this folder: {held.read().strip()}; "
            "wait for it, or end it, before this one"
        ) from None
    except OSError:  # a file system without locks: Snakemake's own lock is left
        return held
    held.truncate(0)
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    held.write(f"process {os.getpid()} on {platform.node()}, since {began}\n")
    held.flush()
    os.environ[RUN] = _sign(os.getpid())
    return held


def set_back(*folders: Path) -> int:
    """Give files from the future, of a clock that was set back, the present time, all the same; how
    many there were. Snakemake takes what is made of them for older than they are, until that time
    has come."""
    now, late = time.time(), []
    for path in (p for folder in folders for p in folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # another run's, gone meanwhile
            if path.lstat().st_mtime > now + 1:
                os.utime(path, (now, now), follow_symlinks=False)
                late.append(path)
    if late:
        print(
            f"phasescope: {len(late)} files of the study were from the future (a clock was set "
            f"back?), such as {late[0]}: they have the present time now",
            file=sys.stderr,
        )
    return len(late)


def _sign(process: int) -> str:
    """A process of this machine. Not when it began: that changes with the clock."""
    return f"{sha256_text(platform.node())}:{process}"


def _gone() -> bool:
    node, _, number = os.environ.get(RUN, "").partition(":")
    if node != sha256_text(platform.node()) or not number.isdigit():
        return False  # no run, or one on another machine
    try:
        return psutil.Process(int(number)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _watch() -> None:
    while not _gone():
        time.sleep(_SECONDS)
    print("phasescope: the run is gone, this job ends", flush=True)
    os._exit(1)


def end_with_run() -> None:
    """End this process within seconds of its run being killed: else the next run would start the
    same job beside it. Nothing is lost: answers are journaled, files appear whole or not at all."""
    if RUN in os.environ:
        threading.Thread(target=_watch, daemon=True).start()

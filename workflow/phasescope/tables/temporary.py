"""Folders in the system's temporary directory that never outlive the process that made them.

A process that is killed leaves its folder; the next one that starts sweeps it, with whatever
the dead one's children still do in it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "phasescope-passing-"


def _held(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where a living process has it, or where it
    is no folder of ours. A lock ends with the process, however that ends."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found, now = os.fstat(descriptor), os.lstat(folder)
        if os.path.samestat(found, now) and now.st_uid == os.getuid():
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _end_processes_in(folder: Path) -> None:
    """End this user's processes that were started on files of a folder whose owner is gone."""
    import psutil

    own, inside = os.getuid(), f"{folder}{os.sep}"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real != own or process.pid == os.getpid():
                continue
            if any(word == str(folder) or word.startswith(inside) for word in process.cmdline()):
                process.kill()
                process.wait(10)


def sweep() -> list[Path]:
    """Remove what killed processes of this user left; what a living one uses stays.

    Only real folders of this user are touched, directly in the temporary directory, whose name
    begins with `PREFIX`. Gives the folders that were removed.
    """
    removed = []
    for folder in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
        held = _held(folder)
        if held is None:
            continue
        try:
            _end_processes_in(folder)
            shutil.rmtree(folder)
            removed.append(folder)
        finally:
            os.close(held)
    return removed


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A new folder that its owner alone can read, removed at the end, exceptions included.

    What earlier processes left is swept first.
    """
    sweep()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        # between its making and its locking another process may have swept it
        if (held := _held(folder)) is not None:
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)

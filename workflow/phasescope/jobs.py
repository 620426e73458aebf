"""What every job of the workflow does around its work: log, clear error, provenance."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phasescope.attempts import attempt, out_of_memory
from phasescope.errors import Damaged, PhasescopeError
from phasescope.runs import end_with_run
from phasescope.tables.provenance import environment, sha256_json


def _name(snakemake) -> str:
    return " ".join([snakemake.rule, *map(str, snakemake.wildcards)])


def _log_peak_memory() -> None:
    if "mlx.core" in sys.modules:
        import mlx.core as mx

        print(f"peak memory of arrays: {mx.get_peak_memory() / 1e6:.1f} MB")


def _set_aside(path: Path) -> str:
    """Move a damaged file out of the way, so that the next run makes it again; says so.

    What a storage provider holds is here as a copy, and the next run takes another.
    """
    if "results" not in path.parts:
        return ""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except OSError:
        return ""
    if ".snakemake" in path.parts:
        return (
            f"; the copy was moved to {aside.name}, the next run takes another from the storage: "
            "delete it there if it is damaged there too"
        )
    return f"; moved to {aside.name}, the next run makes it again"


@contextmanager
def job(snakemake) -> Iterator[None]:
    """Run a job's work with all its output in the job's log.

    A fault ends the job with exit code 1 and one line on the console that says what is wrong and
    where the log is. The log has a traceback only for faults of the program itself. A job that ran
    out of memory takes half its batch at the next attempt; a damaged file of an earlier job is
    moved aside.
    """
    end_with_run()
    log = Path(snakemake.log[0])
    console = os.fdopen(os.dup(2), "w")
    try:
        with attempt(log), open(log, "w", buffering=1) as handle:
            for stream in (1, 2):
                os.dup2(handle.fileno(), stream)
            yield
            _log_peak_memory()
    except Exception as error:
        expected = isinstance(error, PhasescopeError)
        # a full disk, a file that is gone: what the system says is clear enough
        message = str(error) if isinstance(error, PhasescopeError | OSError) else repr(error)
        if isinstance(error, Damaged):
            message += _set_aside(error.path)
        if out_of_memory(error):
            message = f"out of memory, the next attempt halves its batches: {message}"
        print(f"phasescope: {_name(snakemake)}: {message} (log: {log})", file=console)
        print(message) if expected else traceback.print_exc()
        console.flush()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def provenance(config: dict, **more: str) -> dict[str, str]:
    """What a table's metadata says: the environment, the configuration's hash, and `more`.

    `config` holds the keys of the configuration that the job used.
    """
    return environment() | {"config_sha256": sha256_json(config), "threads": "1"} | more

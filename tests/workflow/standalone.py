"""What tests share that run by a command of their own: `make chaos`, `make test-slurm`, `make
test-s3`. Each compares the small study, run otherwise, with a run on this machine."""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from conftest import Project, copy_project

RESULTS, REPORT = "results/small", "reports/small/index.html"
MEMORY_GB = 4  # what every run may plan with, so that the same cells fit


def fresh(folder: Path) -> Project:
    """A copy of the project that plans the same cells wherever it runs."""
    project = copy_project(folder)
    project.edit("config/small.yaml", "keep_text: true", f"keep_text: true\nmemory_gb: {MEMORY_GB}")
    return project


def final_bytes(project: Project) -> dict[str, bytes]:
    """Every study-wide table, every table of a cell, and the report."""
    paths = [*sorted(project.path(RESULTS).rglob("*.parquet")), project.path(REPORT)]
    return {str(p.relative_to(project.folder)): p.read_bytes() for p in paths}


def differing(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, too many, or not the same."""
    return sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))


def main(test: Callable[[Path], None], what: str, name: str) -> None:
    """Run a test in a folder: a temporary one unless the command line names one."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--folder", type=Path, help="to work in; a temporary one without")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and what was started is stopped
    folder = options.folder or Path(tempfile.mkdtemp(prefix=f"phasescope-{name}-"))
    try:
        test(folder.absolute())
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)

"""A study of two cells under random kills: at the end its bytes are those of an undisturbed run.

`make chaos`, or: python tests/chaos/chaos.py --kills 30 --seed 0 --folder DIR

Each round starts the study, waits for a random time and then does one of these, all drawn from the
seed: kill -9 of Snakemake; kill -9 of one of its jobs' processes; Ctrl-C; a damaged table; a table
that vanished; a clock that was set back (files from the future). Then, as a user would, the same
command again.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
from conftest import Project, copy_project
from standalone import RESULTS, differing, final_bytes

from phasescope.errors import Damaged
from phasescope.tables import read_table

FAULTS = ("kill run", "kill run", "kill job", "kill job", "interrupt", "damage", "clock", "vanish")


def journal(project: Project) -> dict[str, int]:
    """Journaled batches and when each was written."""
    paths = project.path(RESULTS).glob("*/*/journal/*.json")
    return {str(p): p.stat().st_mtime_ns for p in paths}


class Chaos:
    """A study that is disturbed and started again."""

    def __init__(self, project: Project, seed: int, longest: float):
        self.project, self.longest = project, longest
        self.rng = random.Random(seed)
        self.log = open(project.path("chaos.log"), "w")  # noqa: SIM115  for as long as it runs
        self.done: dict[str, int] = dict.fromkeys(FAULTS, 0)
        self.again = self.unfinished = 0

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self.project.command(),
            cwd=self.project.folder,
            env=self.project.environment(),
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def unlock(self) -> None:
        result = self.project.snakemake("--unlock")
        assert result.returncode == 0, result.stdout

    def round(self) -> None:
        """One fault, at a random moment of a run; the study is not necessarily at work then."""
        fault, before = self.rng.choice(FAULTS), journal(self.project)
        run = self.start()
        if fault in ("damage", "clock", "vanish"):
            self.wait(run, None)
            self.spoil(fault)
        else:
            self.wait(run, self.rng.uniform(0.5, self.longest))
            self.stop(run, fault)
        self.done[fault] += 1
        after = journal(self.project)
        rewritten = [p for p, written in before.items() if after.get(p) != written]
        assert not rewritten, f"{fault}: answers were generated again: {rewritten}"

    def wait(self, run: subprocess.Popen, seconds: float | None) -> None:
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            self.unfinished += 1

    def stop(self, run: subprocess.Popen, fault: str) -> None:
        if run.poll() is not None:
            return
        children = psutil.Process(run.pid).children(recursive=True)
        if fault == "interrupt":
            run.send_signal(signal.SIGINT)
        elif fault == "kill job" and children:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.rng.choice(children).kill()
        else:
            run.kill()
        if fault == "kill job":
            run.wait()  # the run goes on with what does not need the job, and reports it
            return
        run.wait()
        psutil.wait_procs(children, timeout=120)  # jobs end when their run is gone
        left = [p.pid for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"{fault}: jobs {left} outlived their run"
        self.unlock()

    def spoil(self, fault: str) -> None:
        tables = sorted(self.project.path(RESULTS).glob("*/*/*/*.parquet"))
        if not tables:
            return
        if fault == "vanish":  # those of the whole study too
            self.rng.choice(sorted(self.project.path(RESULTS).rglob("*.parquet"))).unlink()
            return
        path = self.rng.choice(tables)
        if fault == "clock":
            later = time.time() + 86_400
            os.utime(path, (later, later))
            return
        sound = path.read_bytes()
        while not self.found(path):  # a bit of a page's padding or of a description: no value
            content = bytearray(sound)
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
            path.write_bytes(content)

    def found(self, path: Path) -> bool:
        """Whether the reader finds a table to be damaged."""
        try:
            read_table(path)
        except Damaged:
            return True
        return False

    def finish(self, attempts: int = 4) -> None:
        """Run until all is made; a damaged table costs a run, in which it is found."""
        for _ in range(attempts):
            result = self.project.snakemake()
            self.log.write(result.stdout)
            if result.returncode == 0:
                return
            self.again += 1
        raise AssertionError(f"the study does not come to an end: {result.stdout[-3000:]}")


def chaos(folder: Path, kills: int, seed: int) -> None:
    """Undisturbed run, disturbed run, comparison; AssertionError where they differ."""
    calm = copy_project(folder / "calm")
    begin = time.monotonic()
    result = calm.snakemake()
    assert result.returncode == 0, result.stdout
    seconds = time.monotonic() - begin
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    study = Chaos(copy_project(folder / "chaos"), seed, seconds / 3)
    for n in range(1, kills + 1):
        study.round()
        print(f"{n}/{kills}: {study.done}", flush=True)
    study.finish()
    wrong = differing(final_bytes(study.project), final_bytes(calm))
    assert not wrong, f"not the bytes of an undisturbed run: {wrong}"
    told = ", ".join(f"{n} x {fault}" for fault, n in study.done.items())
    print(
        f"{told} ({study.unfinished} while the study was at work), seed {seed}; "
        f"{study.again} runs failed and were started again; {len(final_bytes(calm))} files have "
        "the undisturbed bytes; no journaled answer was generated again"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="to work in; a temporary one without")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="phasescope-chaos-"))
    try:
        chaos(folder.absolute(), options.kills, options.seed)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""One run of a study at a time, and no job without its run."""

import os
import subprocess
import sys
import time

import pytest

from phasescope import runs
from phasescope.errors import PhasescopeError

HOLD = "import sys, time; from pathlib import Path; from phasescope import runs; "
HOLD += "held = runs.hold('s', Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"


@pytest.fixture
def other(tmp_path):
    """Another process that holds the study."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_run_is_told_of_the_first(tmp_path, monkeypatch, other):
    """If it failed, two runs would write the same files, or the second would be told to unlock."""
    monkeypatch.delenv(runs.RUN, raising=False)
    with pytest.raises(PhasescopeError, match=f"in this folder: process {other.pid} "):
        runs.hold("s", tmp_path)
    runs.hold("another", tmp_path).close()
    other.kill()
    other.wait()
    runs.hold("s", tmp_path).close()  # a killed run leaves no lock behind


def test_files_from_the_future_are_set_back(tmp_path, capsys):
    """If it failed, a study whose clock was set back by a day could not go on for a day."""
    now, old = time.time(), time.time() - 1000
    for name, when in {"a/late": now + 86_400, "a/later": now + 90_000, "a/old": old}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        os.utime(path, (when, when))
    assert runs.set_back(tmp_path, tmp_path / "no such folder") == 2
    times = [(tmp_path / "a" / name).stat().st_mtime for name in ("late", "later", "old")]
    assert times[0] == times[1] <= time.time() and times[2] == pytest.approx(old)
    assert "2 files of the study were from the future" in capsys.readouterr().err
    assert runs.set_back(tmp_path) == 0


@pytest.mark.parametrize(
    "command", (["-n"], ["circuit", "--dry-run"], ["--report=x.html"], ["--lint"])
)
def test_looking_needs_no_lock(command):
    """If it failed, nobody could look at a plan while the study runs."""
    assert runs.only_looks(["snakemake", *command])


def test_running_and_unlocking_need_it():
    """If it failed, a run at work could be unlocked under its hands."""
    assert not runs.only_looks(["snakemake", "--unlock"])
    assert not runs.only_looks(["snakemake", "circuit", "--cores", "1"])


def test_a_job_ends_when_its_run_is_killed(tmp_path):
    """If it failed, the next run would start the same job beside the old one."""
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    place = runs._sign(run.pid)
    job = subprocess.Popen(
        [sys.executable, "-c", "import time; from phasescope import runs; runs.end_with_run(); "
         "print('on', flush=True); time.sleep(600)"],
        env=os.environ | {runs.RUN: place}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert job.stdout.readline() == "on\n"
    time.sleep(0.1)
    assert job.poll() is None
    run.kill()  # and not yet waited for, as by a shell that is busy
    assert job.wait(timeout=120) == 1
    run.wait()


@pytest.mark.parametrize("said", ("", "nonsense", "x:y", f"{'0' * 64}:1"))
def test_a_job_of_no_run_or_another_machines_goes_on(monkeypatch, said):
    """If it failed, jobs on a cluster would end at once."""
    monkeypatch.setenv(runs.RUN, said)
    assert not runs._gone()


FAIL = """
import sys
from types import SimpleNamespace
from phasescope.errors import Damaged
from phasescope.jobs import job
with job(SimpleNamespace(rule="collect", wildcards=[], log=["collect.log"])):
    raise Damaged(sys.argv[1], "not what was written")
"""


@pytest.mark.parametrize(
    ("folder", "told"), (("", "makes it again"), (".snakemake/storage/s3/b/p", "takes another"))
)
def test_what_is_damaged_is_set_aside_and_its_cure_told(tmp_path, folder, told):
    """If it failed, a damaged table would stop a study for good, or a user whose results lie in a
    bucket would wait in vain for it to be made again."""
    path = tmp_path / folder / "results/demo/cells.parquet"
    path.parent.mkdir(parents=True)
    path.write_text("no table")
    name = str(path.relative_to(tmp_path))
    command = [sys.executable, "-c", FAIL, name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and f"the next run {told}" in done.stderr, done.stderr
    assert path.with_name("cells.parquet.damaged").exists() and not path.exists()

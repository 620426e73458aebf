"""Folders that pass: swept after a kill, never while they are used, and nobody else's."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from phasescope.tables import temporary
from phasescope.tables.temporary import PREFIX, passing_folder, sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_temporary(tmp_path, monkeypatch):
    """The temporary directory of a test is its own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder = folder.resolve()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


def started(code: str, *arguments) -> subprocess.Popen:
    """A Python process of ours; it says a line when it is where it is to be killed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


HOLDING = """
import time
from phasescope.tables.temporary import passing_folder
with passing_folder() as folder:
    (folder / "weights").write_bytes(b"edited")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_the_owners_alone_and_goes_in_the_end(own_temporary):
    """If it failed, edited weights would be readable by others, or stay."""
    with pytest.raises(KeyError), passing_folder() as folder:
        assert folder.parent == own_temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "weights").write_bytes(b"edited")
        raise KeyError("a fault inside the block")
    assert not any(own_temporary.iterdir())


def test_a_killed_process_leaves_nothing_after_the_next_start(own_temporary):
    """If it failed, kill -9 would leave an edited model on the disk; or a run would take the
    folder of another that is at work."""
    process = started(HOLDING)
    folder = Path(process.stdout.readline().strip())
    assert (folder / "weights").is_file()
    assert sweep() == [] and (folder / "weights").is_file()
    with passing_folder() as other:
        assert other != folder and folder.is_dir()
    process.kill()
    process.wait()
    assert (folder / "weights").is_file()
    with passing_folder() as other:
        assert list(own_temporary.iterdir()) == [other]
    assert not any(own_temporary.iterdir())


def test_only_what_is_ours_is_swept(own_temporary, tmp_path, monkeypatch):
    """If it failed, the sweep would delete what somebody else keeps."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis").write_text("years of work")
    (own_temporary / f"{PREFIX}link").symlink_to(kept)
    (own_temporary / f"{PREFIX}file").write_text("no folder")
    (own_temporary / "phasescope-other").mkdir()
    stale = own_temporary / f"{PREFIX}stale"
    stale.mkdir()
    (stale / "link").symlink_to(kept)
    with monkeypatch.context() as patch:
        patch.setattr(temporary.os, "getuid", lambda: os.geteuid() + 1)
        assert sweep() == [] and stale.is_dir()
    assert sweep() == [stale]
    assert (kept / "thesis").read_text() == "years of work"
    left = {p.name for p in own_temporary.iterdir()}
    assert left == {f"{PREFIX}link", f"{PREFIX}file", "phasescope-other"}


CONVERTING = """
import sys
from pathlib import Path
from phasescope.model import load_model
from phasescope.survival import gguf
from phasescope.survival.edits import TensorEdit, WeightEdit, writer_paths
from phasescope.survival.llama_cpp import LlamaCpp
import numpy as np

source, tools = Path(sys.argv[1]), LlamaCpp.at(sys.argv[2])
lm = load_model(source)

class Study:
    class subject: pass
    originals = {}

along = np.eye(64, dtype=np.float32)[:1]
paths = writer_paths(lm, 0)
Study.subject.lm, Study.source, Study.originals = lm, source, dict.fromkeys(paths)
edit = WeightEdit("weight_projection", 1.0, dict.fromkeys(paths, TensorEdit(along)))
gguf._converted(Study, tools, "as_published", edit)
"""
# stands in for the converter: it is in the middle of writing the target when all is killed
CONVERTER = """#!/bin/sh
echo half of it > "$3"
echo "$3" > "{told}"
exec {python} -c "import sys, time; time.sleep(600)" "$3"
"""


def processes_in(folder: Path) -> list[psutil.Process]:
    """Processes that were started on files of a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(word.startswith(f"{folder}/") for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            pass
    return found


def test_a_kill_in_the_middle_of_a_conversion_leaves_nothing(own_temporary, dense, tmp_path):
    """If it failed, kill -9 while llama.cpp converts would leave edited weights on the disk, or a
    converter that goes on writing them."""
    tools, told = tmp_path / "tools", tmp_path / "told"
    python = tools / "venv" / "bin" / "python"
    built = tools / "build" / "bin"
    for path in (python, built / "llama-quantize", built / "llama-server"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONVERTER.format(told=told, python=sys.executable))
        path.chmod(0o755)
    (tools / "source").mkdir()
    (tools / "source" / "convert_hf_to_gguf.py").touch()
    process = started(CONVERTING, dense, tools)
    try:
        while not (told.exists() and told.read_text().strip()):
            assert process.poll() is None
            time.sleep(0.05)
        folder = Path(told.read_text().strip()).parent
        assert folder.parent == own_temporary
        assert (folder / "checkpoint" / "model.safetensors").is_file()
        assert (folder / "F32.gguf").read_text() == "half of it\n"
        assert sweep() == []
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert processes_in(folder)
    assert sweep() == [folder]
    assert not processes_in(folder) and not any(own_temporary.iterdir())


def test_a_new_study_sweeps_first():
    """If it failed, what a killed run left would stay until the next conversion."""
    rules = (ROOT / "workflow" / "rules" / "common.smk").read_text()
    assert "    sweep()" in rules.split("onstart:")[1].split("onsuccess:")[0]
    script = (ROOT / "workflow" / "scripts" / "survival.py").read_text()
    assert script.index("sweep()\n") < script.index("CellJob(")
    assert shutil.rmtree.avoids_symlink_attacks

"""A job that ran out of memory takes smaller batches at its next attempt, and no other job does."""

import json
import subprocess
import sys

import pytest

from phasescope import attempts
from phasescope.errors import PhasescopeError
from phasescope.matrix import (
    from_shapes,
    other_machine,
    plan,
    read_sheet,
    validated_config,
)

# what Metal's runtime writes before it ends the process
METAL = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
    "buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOf"
    "Memory)"
)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "probe.log"


def ends_with(log, error):
    with pytest.raises(type(error)), attempts.attempt(log):
        raise error


def test_each_attempt_after_running_out_of_memory_halves_the_batch(log):
    """If it failed, a large cell would fail the same way each time, days into a study."""
    assert attempts.batch_size(log, 16) == 16
    ends_with(log, MemoryError("17 GB"))
    assert attempts.batch_size(log, 16) == 8
    ends_with(log, RuntimeError("[malloc] Unable to allocate 68719476736 bytes."))
    assert attempts.batch_size(log, 16) == 4
    with attempts.attempt(log):
        pass
    assert attempts.batch_size(log, 16) == 4  # a rerun does not run out of memory again
    assert attempts.batch_size(log, 2) == 1


@pytest.mark.parametrize("error", [PhasescopeError("std::bad_alloc in a name"), KeyError(1)])
def test_another_fault_leaves_the_batch_alone(log, error):
    """If it failed, a typing error would change the batches, and with them the numbers."""
    ends_with(log, error)
    assert attempts.batch_size(log, 16) == 16
    assert not list(log.parent.glob("*.attempt.json"))


def died(log, **running):
    with pytest.raises(GeneratorExit), attempts.attempt(log):
        raise GeneratorExit  # as a kill: the attempt never says how it ended
    record = log.with_suffix(".attempt.json")
    found = json.loads(record.read_text())
    found["running"] |= running
    record.write_text(json.dumps(found))


def test_a_killed_job_keeps_its_batch(log):
    """If it failed, a kill on purpose would change the numbers of the next run."""
    died(log)
    log.write_text("as usual\n")
    with attempts.attempt(log):
        assert attempts.batch_size(log, 16) == 16


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts its kills")
def test_a_job_that_the_system_killed_for_memory_takes_smaller_batches(log):
    """If it failed, the kernel would kill the same job at each attempt."""
    died(log, kills=attempts._kills()["kills"] - 1)
    with attempts.attempt(log):
        assert attempts.batch_size(log, 16) == 8
    died(log, kills=0, machine="another machine")
    with attempts.attempt(log):
        assert attempts.batch_size(log, 16) == 8


def test_an_abort_by_metal_takes_smaller_batches(log):
    """If it failed, a Mac, whose GPU ends the process, would never retry with less."""
    died(log)
    log.write_text("loading\n" + METAL + "\n")
    with attempts.attempt(log):
        assert attempts.batch_size(log, 16) == 8


def test_a_job_whose_allocation_fails_says_so_and_shrinks(log):
    """If it failed, what really happens where memory ends would count as a fault of the program."""
    program = f"""
import resource
from types import SimpleNamespace
import numpy as np
from phasescope.jobs import job
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
with job(SimpleNamespace(rule="probe", wildcards=["circuit", "16"], log=[{str(log)!r}])):
    np.zeros(1 << 40)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    said = "phasescope: probe circuit 16: out of memory, the next attempt halves its batches: "
    assert done.stderr.startswith(said) and f"(log: {log})" in done.stderr
    assert attempts.batch_size(log, 16) == 8


@pytest.mark.parametrize("content", ["", "[]", "{", '{"halvings": -1}', '{"halvings": "x"}'])
def test_a_damaged_record_counts_as_none(log, content):
    """If it failed, a half-written file beside a log would stop its job for good."""
    log.with_suffix(".attempt.json").write_text(content)
    assert attempts.batch_size(log, 16) == 16
    with attempts.attempt(log):
        pass


def test_loading_leaves_nothing_in_the_pool():
    """If it failed, each load would go on holding what it was made from."""
    program = """
from phasescope.model import load_model
import mlx.core as mx
lm = load_model("resources/organisms/circuit")
print(mx.get_cache_memory())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr


def test_what_a_cell_does_not_fit_beside_is_a_large_model():
    """If it failed, jobs on a Mac would wait for a GPU that is idle, or share one that is not."""
    given = validated_config({"study": "s", "sheet": "s"}, ["c"]) | {"precisions": [16]}
    sheet = read_sheet("models.tsv")
    machine = other_machine(1024, metal=True)
    shapes = {m.id: from_shapes(m.huggingface_id) for m in sheet}
    percent = {c.model.id: c.gpu_percent for c in plan(sheet, given, machine, shapes, {})}
    weights = {c.model.id: c.weight_bytes for c in plan(sheet, given, machine, shapes, {})}
    small = {m for m, p in percent.items() if p < 100}
    assert small and max(weights[m] for m in small) < min(weights[m] for m in set(percent) - small)

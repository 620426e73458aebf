"""`make test-slurm`: the small study on a real Slurm has the bytes of a local run.

Also: a job that fails is tried again and reported, and two jobs that together exceed the node's
memory do not run together. All folders are temporary unless --folder names one.
"""

import base64
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).parent))
from cluster import slurm
from conftest import Project
from standalone import RESULTS, differing, final_bytes, fresh, main

from phasescope.tables import read_provenance, read_table

FAILS_ONCE = (
    "    def write(self",
    "        if self.subject.decoding.batch_size > 16:\n"
    "            raise MemoryError\n\n"
    "    def write(self",
)


def run(project: Project, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    """A run on Slurm, polled often: the jobs take seconds."""
    return subprocess.run(
        project.command(
            *arguments, "--workflow-profile", "profiles/slurm", "--latency-wait", "10",
            "--slurm-init-seconds-before-status-checks", "2",
            "--seconds-between-status-checks", "2",
        ),
        cwd=project.folder, env=project.environment() | env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def spans(project: Project) -> dict[str, tuple[float, float]]:
    """Begin and end of the job that made each file, from Snakemake's records."""
    found = {}
    for path in project.path(".snakemake/metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text())
            name = base64.b64decode(path.name.replace("@", "")).decode(errors="replace")
            found[name] = record["starttime"], record["endtime"]
    return found


def check_apart(project: Project, memory_mb: int) -> int:
    """How many pairs of jobs of cells would have exceeded the node; AssertionError where two
    overlapped."""
    needed = read_table(project.path(f"{RESULTS}/cells.parquet")).set_index("model")
    needed = needed["memory_needed_bytes"] / 1e6
    heavy = {
        name: span
        for name, span in spans(project).items()
        if name.endswith(
            ("/probe/probes.parquet", "/select/selection.parquet", "/cohere/coherence.parquet")
        )
    }
    pairs = 0
    for (one, first), (other, second) in combinations(heavy.items(), 2):
        if sum(needed[n.split("/")[2]] for n in (one, other)) > memory_mb:
            pairs += 1
            assert first[1] <= second[0] or second[1] <= first[0], f"{one} beside {other}"
    return pairs


def test(folder: Path) -> None:
    local = fresh(folder / "local")
    result = local.snakemake()
    assert result.returncode == 0, result.stdout
    cells = read_table(local.path(f"{RESULTS}/cells.parquet"))
    memory_mb = int(1.5 * cells["memory_needed_bytes"].max() / 1e6)
    with slurm(folder / "cluster", max(memory_mb, 2000)) as env:
        study = fresh(folder / "slurm")
        result = run(study, env)
        assert result.returncode == 0, result.stdout
        found = final_bytes(study)
        wrong = differing(found, final_bytes(local))
        assert not wrong, f"not the bytes of the local run: {wrong}"
        print(f"{len(found)} tables and the report have the bytes of the local run", flush=True)
        pairs = check_apart(study, max(memory_mb, 2000))
        assert pairs, "no two jobs would have exceeded the node"
        print(f"{pairs} pairs of jobs that exceed the node's memory: none overlapped", flush=True)
        failing = fresh(folder / "failing")
        failing.edit("workflow/phasescope/cell.py", *FAILS_ONCE)
        table = f"{RESULTS}/helpful-only/16/probe/probes.parquet"
        result = run(failing, env, table)
        assert result.returncode == 0, result.stdout
        assert "Trying to restart job" in result.stdout or "attempt" in result.stdout, result.stdout
        assert read_provenance(failing.path(table))["batch_size"] == "16"
        print("a failing job was tried again, and its table says with what batch", flush=True)


if __name__ == "__main__":
    main(test, __doc__.splitlines()[0], "slurm")

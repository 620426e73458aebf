"""A copy of the project with a study of two cells in it, run once for all tests."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = """
study: small
sheet: resources/organisms/organisms.tsv
prompts: resources/prompts/world-a.tsv
models: [helpful-only, circuit]
precisions: [16]
effort: quick
designs: [ablation-dose]
thinking: "off"
max_answer_tokens: 12
batch_size: 32
keep_text: true
"""


@dataclass
class Project:
    """A copy of the project in a folder of its own, its library included."""

    folder: Path

    def path(self, name: str) -> Path:
        """A path inside the copy."""
        return self.folder / name

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text that must be there in a file of the copy."""
        text = self.path(name).read_text()
        assert old in text, f"{name} has no {old!r}"
        self.path(name).write_text(text.replace(old, new))

    def environment(self) -> dict[str, str]:
        """The copy's library comes before the installed one, and jobs run without torch."""
        found = os.pathsep.join((str(self.path("workflow")), str(ROOT / "tests/without_torch")))
        return os.environ | {"PYTHONPATH": found, "HF_HUB_OFFLINE": "1"}

    def command(self, *arguments: str, config: str = "config/small.yaml") -> list[str]:
        """A snakemake command line on the copy."""
        return [sys.executable, "-m", "snakemake", *arguments, "--configfile", config]

    def snakemake(self, *arguments: str, config: str = "config/small.yaml"):
        """Run snakemake on the copy; returns the process with stdout and stderr as one text."""
        return subprocess.run(
            self.command(*arguments, config=config),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def would_run(self, *arguments: str, config: str = "config/small.yaml") -> dict[str, int]:
        """How many jobs of each rule a run would start, `all` left out."""
        result = self.snakemake("--dry-run", *arguments, config=config)
        assert result.returncode == 0, result.stdout
        stats = re.findall(r"^ *([\w.-]+(?: [\w.-]+)*) +(\d+) *$", result.stdout, re.M)
        # the console writes blanks for underscores
        found = {rule.replace(" ", "_"): int(n) for rule, n in stats}
        return {rule: n for rule, n in found.items() if rule not in ("all", "total")}


def copy_project(folder: Path) -> Project:
    """Copy what git tracks or would track, and the compiled library, into `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    compiled = [str(p.relative_to(ROOT)) for p in ROOT.glob("workflow/phasescope/*.so")]
    for name in [*listed, *compiled]:
        source = ROOT / name
        if name and source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    project = Project(folder)
    project.path("config/small.yaml").write_text(SMALL)
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    """A fresh copy without results."""
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def _finished(once) -> Project:
    def run(folder):
        project = copy_project(folder)
        result = project.snakemake()
        assert result.returncode == 0, result.stdout
        project.path("console.txt").write_text(result.stdout)

    return Project(once("finished", run))


@pytest.fixture
def finished(_finished, tmp_path) -> Project:
    """A copy with the two-cell study done; times of files and Snakemake's records come along."""
    shutil.copytree(_finished.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")

"""The house's habits, held by its linters, so that one `pytest` closes a change."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CHECKS = (
    "ruff check --output-format concise",
    "ruff format --check --output-format concise",
    "snakefmt --check Snakefile workflow/rules",
    "lint-imports --no-logo",
)
# Every rule runs in the one environment that runs Snakemake, pinned by the lock.
NOT_OURS = "Specify a conda environment or container for each rule."


def run(command: str) -> subprocess.CompletedProcess:
    program, *arguments = command.split()
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [BIN / program, *arguments], cwd=ROOT, env=env, capture_output=True, text=True
    )


@pytest.mark.parametrize("command", CHECKS)
def test_habit(command):
    """Style and layers drift one small exception at a time unless every run checks them."""
    result = run(command)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"


def test_snakemake_lint():
    """Otherwise rules lose what makes them readable and portable: logs, relative paths, modules."""
    result = run("snakemake --lint")
    lints = set(re.findall(r"^    \* (.+?):$", result.stderr, re.M))
    assert lints or result.returncode == 0, result.stderr
    assert lints <= {NOT_OURS}, result.stderr

"""The house's habits, held by its linters, so that one `pytest` closes a change."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CHECKS = {
    "ruff check": "ruff check --output-format concise",
    "ruff format": "ruff format --check --output-format concise",
    "snakefmt": "snakefmt --check Snakefile workflow/rules",
    "rooms import only from lower rooms": "lint-imports --no-logo",
    "snakemake --lint": "snakemake --lint",
}


@pytest.mark.parametrize("command", CHECKS.values(), ids=CHECKS.keys())
def test_habit(command):
    """Style and layers drift one small exception at a time unless every run checks them."""
    program, *arguments = command.split()
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [BIN / program, *arguments], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"

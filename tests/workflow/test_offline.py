"""A run whose inputs are local needs no network."""

import shutil
import subprocess

import pytest

from phasescope.tables import read_table

OFF = ("unshare", "--map-root-user", "--net")  # a network namespace with nothing in it


@pytest.fixture
def without_network():
    """The command that runs another without a network; it says first whether there is none."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is missing (Linux: util-linux)")
    check = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    if subprocess.run([*OFF, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a network namespace")
    done = subprocess.run([*OFF, "python3", "-c", check], capture_output=True, text=True)
    assert "Network is unreachable" in done.stderr, done.stderr
    return OFF


def test_a_cell_is_measured_with_the_network_off(project, without_network):
    """If it failed, a run would tell someone what is measured, or need a network to run."""
    table = "results/small/helpful-only/16/probe/probes.parquet"
    environment = project.environment()
    del environment["HF_HUB_OFFLINE"]  # nothing but the missing network keeps it off the hub
    result = subprocess.run(
        [*without_network, *project.command(table)],
        cwd=project.folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(read_table(project.path(table)))

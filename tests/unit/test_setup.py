"""The environment: a lock that pins everything, agreeing versions, a BLAS that mlx really uses."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml
from packaging.markers import Marker

from phasescope import fast_blas

ROOT = Path(__file__).parents[2]
LOCKS = ("run", "test")
PIN = re.compile(
    r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", re.M
)
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a Mac's mlx brings a fast BLAS")


def canonical(name: str) -> str:
    """A requirement's or a conda package's name as the lock spells it."""
    name = re.split(r"[\[<>=;! ]", name)[0]
    return re.sub(r"[-_.]+", "-", name.lower()).removesuffix("-base").removesuffix("-minimal")


def lock(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text()


def pins(name: str) -> dict[str, str]:
    return {package: version for package, version, *_ in PIN.findall(lock(name))}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def in_new_process(code: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env)


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_a_pin_with_hashes(name):
    """Otherwise pip fetches something that nobody chose, or from a place written into the lock."""
    text = lock(name)
    assert pins(name)
    assert PIN.sub("", text) == ""
    assert "//" not in text


def test_locks_agree_with_each_other():
    """Otherwise setting up the tests changes what a run uses."""
    run, test = pins("run"), pins("test")
    assert {p: run[p] for p in run.keys() & test.keys()} == {
        p: test[p] for p in run.keys() & test.keys()
    }


def test_every_direct_dependency_is_locked():
    """Otherwise --no-deps leaves it out and the first run on a new machine fails."""
    run, test = project()["project"]["dependencies"], project()["dependency-groups"]["test"]
    assert {canonical(d) for d in run} - pins("run").keys() == set()
    assert {canonical(d) for d in test} - pins("test").keys() == set()


def test_torch_is_pinned_to_one_version():
    lines = (ROOT / "requirements/torch.txt").read_text().splitlines()
    (line,) = [line for line in lines if not line.startswith("#")]
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", line)


def test_conda_environment_pins_the_locks_versions():
    """Otherwise a Mac Studio measures with other versions than those tested here."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert not any("/" in channel for channel in environment["channels"])
    *packages, pip_part = environment["dependencies"]
    assert pip_part == {"pip": ["-r requirements/run.txt"]}
    versions = dict(p.split("=") for p in packages if "=" in p)
    major, minor = versions.pop("python").split(".")
    assert (3, 11) <= (int(major), int(minor)) <= (3, 13)
    assert {p for p in packages if "=" not in p} == {"pip"}
    locked = pins("run")
    assert versions == {package: locked[canonical(package)] for package in versions}


def test_what_is_installed_is_what_is_locked():
    """Otherwise these tests speak of versions that a newcomer does not get."""
    for name in LOCKS:
        for package, version, marker, _ in PIN.findall(lock(name)):
            if not marker or Marker(marker).evaluate():
                assert importlib.metadata.version(package) == version, package


def test_package_is_installed_with_its_own_version():
    import phasescope

    assert importlib.metadata.version("phasescope") == phasescope.__version__
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="phasescope")
    assert script.value == "phasescope.cli:main"


@ON_LINUX
def test_mlx_products_go_through_the_fast_blas():
    """Fails if a new mlx wheel no longer asks for cblas_sgemm by name: all would be 20x slower."""
    a, b = mx.random.normal((2, 64, 64))
    before = fast_blas.calls()
    mx.eval(a @ b)
    assert fast_blas.calls() == before + 1
    assert fast_blas.name().startswith("scipy-openblas ")


def test_name_is_the_blas_in_use():
    expected = {"linux": "scipy-openblas ", "darwin": "Accelerate"}
    assert fast_blas.name().startswith(expected[sys.platform])


@pytest.mark.parametrize("transpose", [(False, False), (True, False), (False, True)])
def test_products_are_right(transpose):
    """A wrong order of arguments in the shim would give plausible numbers for square matrices."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(37, 70)), rng.normal(size=(70, 53))
    shaped = [x.T.copy() if t else x for x, t in zip((a, b), transpose, strict=True)]
    left, right = (
        mx.array(x.astype(np.float32)).T if t else mx.array(x.astype(np.float32))
        for x, t in zip(shaped, transpose, strict=True)
    )
    with mx.stream(mx.cpu):
        product = np.array(left @ right)
        added = np.array(mx.addmm(mx.ones((37, 53)), left, right, alpha=2.0, beta=3.0))
    np.testing.assert_allclose(product, a @ b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(added, 2 * (a @ b) + 3, rtol=1e-4, atol=1e-4)


@ON_LINUX
def test_double_precision_goes_through_the_fast_blas_too():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(37, 70)), rng.normal(size=(70, 53))
    before = fast_blas.calls()
    with mx.stream(mx.cpu):
        product = np.array(mx.array(a, dtype=mx.float64) @ mx.array(b, dtype=mx.float64))
    assert fast_blas.calls() == before + 1
    np.testing.assert_allclose(product, a @ b, rtol=1e-12)


@ON_LINUX
def test_one_thread_unless_the_user_says_otherwise():
    """More than one thread by default would make results depend on the number of cores."""
    code = "from phasescope import fast_blas; print(fast_blas.name())"
    assert in_new_process(code).stdout.endswith(", 1 thread\n")
    asked = in_new_process(code, OPENBLAS_NUM_THREADS="2").stdout
    assert asked.endswith(", 2 threads\n" if len(os.sched_getaffinity(0)) > 1 else ", 1 thread\n")


@ON_LINUX
def test_importing_mlx_first_is_told_in_one_line():
    """Unsaid, everything would be slow, and provenance would name a BLAS that was not used."""
    result = in_new_process("import mlx.core, phasescope; print(phasescope.fast_blas.name())")
    assert result.stdout == "reference (slow)\n"
    (line,) = result.stderr.splitlines()
    assert "import phasescope before it" in line


@ON_LINUX
def test_missing_shim_is_told_in_one_line(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(fast_blas, "_shim", None)
    monkeypatch.setattr(fast_blas, "_SHIM", tmp_path / "absent.so")
    monkeypatch.delitem(sys.modules, "mlx.core")
    fast_blas.load()
    (record,) = caplog.records
    assert "absent.so was not built" in record.message
    assert "pip install --no-build-isolation --no-deps -e ." in record.message


def test_mac_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fast_blas, "_shim", None)
    monkeypatch.setattr(fast_blas, "_openblas", None)
    fast_blas.load()
    assert caplog.records == [] and fast_blas.name() == "Accelerate" and fast_blas.calls() == 0


@ON_LINUX
def test_scipys_own_openblas_is_not_mixed_with_ours():
    """Both export the same internal names; mixed, they could crash or compute nonsense."""
    code = (
        "import ctypes, phasescope; print(hasattr(ctypes.CDLL(None), 'scipy_cblas_sgemm'), "
        "hasattr(ctypes.CDLL(None), 'cblas_sgemm'))"
    )
    assert in_new_process(code).stdout == "False True\n"

"""What every test shares."""

import atexit
import os
import shutil
import tempfile

import pytest

# A test file that imports mlx.core before phasescope would leave every test on mlx's slow BLAS.
import phasescope  # noqa: F401

# what planning keeps for the next time is no test's, nor the user's from a test; xdist's processes
# inherit one
_CACHE = "phasescope-tests-"
if _CACHE not in os.environ.get("XDG_CACHE_HOME", ""):
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix=_CACHE)
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A folder by its name, made once a run: by the process of xdist that asks first."""
    from filelock import FileLock

    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    shared.mkdir(exist_ok=True)

    def folder(name, make):
        done = shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                make(shared / name)
                done.touch()
        return shared / name

    return folder


@pytest.fixture(scope="session")
def built(once):
    """Path of the page of a synthetic study, by a name; the tables lie beside it."""
    from phasescope.report import build

    def page(name, study):
        made = once(name, lambda folder: build(study().write(folder), folder / "index.html"))
        return made / "index.html"

    return page


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium (selenium): `get`, `save_screenshot`, `get_log("browser")`.

    For the offline check: `execute_cdp_cmd("Network.emulateNetworkConditions", ...)`.
    """
    from selenium import webdriver

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        message = "Chromium or its driver is missing (Debian: chromium, chromium-driver)"
        # .ci/run sets this: there, a page that nobody has looked at must not pass.
        (pytest.fail if os.environ.get("PHASESCOPE_REQUIRE_BROWSER") else pytest.skip)(message)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Containers run as root and have a small /dev/shm; Chromium refuses or crashes without these.
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,900"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chromium:
        yield chromium

"""Hashes and fingerprints: what makes a stage run again."""

import shutil
from pathlib import Path

import pytest

from phasescope.tables import provenance
from phasescope.tables.provenance import sha256_file, sha256_json

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library whose files may be changed; fingerprints read the copy."""
    copy = tmp_path / "phasescope"
    shutil.copytree(provenance.LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    monkeypatch.setattr(provenance, "LIBRARY", copy)

    def forget():
        for kept in ("fingerprint", "_room_files", "_imported_modules"):
            getattr(provenance, kept).cache_clear()

    forget()
    yield copy, forget
    forget()


def _changed_by(library, room: str) -> set[str]:
    """Scripts whose fingerprint changes when a file of a room, or the module, is edited."""
    copy, forget = library
    scripts = sorted(SCRIPTS.glob("*.py"))
    before = [provenance.fingerprint(s) for s in scripts]
    target = copy / room
    path = target / "__init__.py" if target.is_dir() else target
    path.write_text(path.read_text() + "\nEDITED = True\n")
    forget()
    after = [provenance.fingerprint(s) for s in scripts]
    return {s.stem for s, a, b in zip(scripts, before, after, strict=True) if a != b}


@pytest.mark.parametrize(
    ("room", "reruns", "spares"),
    [
        ("probe", {"probe", "intervene", "select_direction"}, {"fetch", "quantize", "report"}),
        ("checkpoint", {"fetch", "quantize", "probe", "cohere"}, {"report", "classify"}),
        ("phases", {"classify"}, {"probe", "intervene", "fetch", "quantize", "cohere"}),
        ("train", set(), {"probe", "intervene", "report", "fetch", "classify", "cohere"}),
        ("tables", {"fetch", "probe", "intervene", "classify", "report"}, set()),
        ("thresholds.py", {"intervene", "select_direction", "classify"}, {"fetch", "quantize"}),
    ],
)
def test_an_edited_room_reruns_what_imports_it(library, room, reruns, spares):
    """If it failed, stale results would stay, or an edit would rerun a whole study."""
    changed = _changed_by(library, room)
    assert reruns <= changed
    assert not spares & changed


def test_new_files_and_names_count(library):
    """If it failed, a module added to a room would go unseen."""
    copy, forget = library
    script = SCRIPTS / "probe.py"
    before = provenance.fingerprint(script)
    (copy / "probe" / "more.py").write_text("")
    forget()
    added = provenance.fingerprint(script)
    (copy / "probe" / "more.py").rename(copy / "probe" / "other.py")
    forget()
    assert len({before, added, provenance.fingerprint(script)}) == 3


def test_hashes_do_not_depend_on_order_or_size(tmp_path):
    """If it failed, equal settings would look changed, and all would run again."""
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": [1, 2]}) != sha256_json({"a": [2, 1]})
    (tmp_path / "empty").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_file(tmp_path / "empty") == empty


def test_environment_names_what_numbers_depend_on():
    """If it failed, nobody could say why two machines disagree."""
    found = provenance.environment()
    assert {"phasescope", "python", "mlx", "mlx-lm", "numpy", "blas", "machine"} <= set(found)
    assert all(isinstance(v, str) and v for v in found.values())

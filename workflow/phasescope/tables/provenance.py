"""Where a number came from: hashes of files and code, versions of packages."""

import ast
import hashlib
import json
import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import phasescope
from phasescope import fast_blas

PACKAGES = ("mlx", "mlx-lm", "snakemake", "pandas", "pyarrow", "numpy", "scipy")
LIBRARY = Path(phasescope.__file__).parent


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_json(value) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return sha256_text(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def environment() -> dict[str, str]:
    """Versions of phasescope, Python and the packages that numbers depend on, and the BLAS."""
    found = {"phasescope": phasescope.__version__, "python": platform.python_version()}
    found |= _versions()
    return found | {"blas": fast_blas.name(), "machine": platform.machine()}


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What is inside a node, expressions left out: no import is in them, and most nodes are."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from _statements(child)


@cache
def _imported_modules(path: Path) -> frozenset[Path]:
    """Library modules that a Python file imports, by reading it, not by running it."""
    names = set()
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    modules = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "phasescope" or len(parts) == 1:
            continue
        target = LIBRARY.joinpath(*parts[1:])
        modules |= {p for p in (target.with_suffix(".py"), target / "__init__.py") if p.is_file()}
    return frozenset(modules)


def _room(module: Path) -> Path:
    """The unit that a fingerprint counts: a room's folder, or a top-level module."""
    first = module.relative_to(LIBRARY).parts[0]
    return LIBRARY / first


@cache
def _room_files(room: Path) -> tuple[Path, ...]:
    return tuple(sorted(room.rglob("*.py"))) if room.is_dir() else (room,)


def rooms_of(script: Path) -> list[str]:
    """Names of the library rooms that a script imports, directly or through other rooms."""
    rooms: set[Path] = set()
    waiting = {_room(m) for m in _imported_modules(script)}
    while waiting:
        room = waiting.pop()
        rooms.add(room)
        found = {_room(m) for f in _room_files(room) for m in _imported_modules(f)}
        waiting |= found - rooms
    return sorted(r.name for r in rooms)


def rooms_hash(*names: str) -> str:
    """Hash of the source of the named rooms."""
    digest = hashlib.sha256()
    for name in names:
        for path in _room_files(LIBRARY / name):
            digest.update(str(path.relative_to(LIBRARY)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def fingerprint(script: Path) -> str:
    """Hash of the source of every library room that `script` imports.

    Snakemake reruns a job when one of its `params` changes, but does not see an edited library;
    this value among the `params` makes an edit rerun just the stages that use it.
    """
    return rooms_hash(*rooms_of(script))

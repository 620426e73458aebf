"""JSON values in a folder that its owner alone can read: journals and caches."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from phasescope.tables.files import atomic_file
from phasescope.tables.provenance import sha256_json


class PrivateFolder:
    """Values on disk, keyed by content, one file each, readable by their owner alone.

    Files are written whole, so that jobs may share a folder, and a kill loses no value that was
    kept.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)

    def path(self, key) -> Path:
        """The file of a key, a JSON value."""
        return self.folder / f"{sha256_json(key)}.json"

    def paths(self) -> Iterator[Path]:
        """Every file, in one order."""
        return iter(sorted(self.folder.glob("*.json")))

    def get(self, key):
        """The value under a key; None where there is none, or none that can be read."""
        return self.read(self.path(key))

    def put(self, key, value) -> None:
        """Keep a JSON value under a key."""
        self.write(self.path(key), value)

    def read(self, path: Path):
        """The value in a file; None where there is none, or none that can be read."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, path: Path, value) -> None:
        """Write a value into a file, never readable by others, not for a moment."""
        with atomic_file(path) as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
            temporary.write_text(json.dumps(value), encoding="utf-8")

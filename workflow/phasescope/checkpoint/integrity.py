"""Whether the bytes of a checkpoint are those that were recorded: hashes find a flipped bit."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from phasescope.errors import PhasescopeError
from phasescope.tables.provenance import sha256_file, sha256_json

# weights as safetensors only: nothing that runs code when opened
PATTERNS = ("*.json", "model*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_THREADS = 4  # hashing leaves Python's lock alone


def checkpoint_files(folder: Path) -> list[Path]:
    """Config, weights and tokenizer files of a folder, by name."""
    return sorted({p for pattern in PATTERNS for p in folder.glob(pattern)})


def hashes(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file. Every byte is read; that a file is named by its hash proves nothing.

    Raises PhasescopeError for a file that cannot be read.
    """
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(sha256_file, paths))
    except OSError as error:
        raise PhasescopeError(f"{error.filename}: cannot be read: {error.strerror}") from None


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by file name; raises as `hashes` does."""
    paths = list(paths)
    return dict(zip((p.name for p in paths), hashes(paths), strict=True))


def combined(hashes: dict[str, str]) -> str:
    """One hash over the names and hashes of files."""
    return sha256_json(hashes)


def content_hash(folder: Path) -> str:
    """Hash over the names and bytes of config, weights and tokenizer files in a folder."""
    return combined(file_hashes(checkpoint_files(Path(folder))))


def verify(folder: Path, facts: dict) -> None:
    """Check a folder against what was recorded when it was made: `sha256`, and `files` if known.

    Raises PhasescopeError that names the first file that is not the same any more.
    """
    folder = Path(folder)
    found = file_hashes(checkpoint_files(folder))
    if combined(found) == facts["sha256"]:
        return
    recorded = facts.get("files") or found
    for name in sorted(found.keys() | recorded.keys()):
        if found.get(name) != recorded.get(name):
            raise PhasescopeError(
                f"{folder / name}: not the file that was recorded: SHA-256 "
                f"{found.get(name, 'missing')}, recorded {recorded.get(name, 'none')}; "
                "fetch or make it again"
            )
    raise PhasescopeError(
        f"{folder}: not the files that were recorded: content hash {combined(found)}, recorded "
        f"{facts['sha256']}; fetch or make it again"
    )

"""The Hugging Face hub: downloading a pinned revision of a model or data set, and checking every
byte."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

from phasescope.checkpoint.integrity import PATTERNS, checkpoint_files, hashes
from phasescope.errors import PhasescopeError

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _first_line(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _explained(error: Exception, what: str) -> str:
    """What went wrong between this machine and the hub, and what to do, in one line."""
    from huggingface_hub import errors

    cause = error if isinstance(error, errors.HfHubHTTPError) else error.__cause__ or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(cause, errors.GatedRepoError):
        return (
            f"gated: accept the {what}'s licence on its page, then set HF_TOKEN to a token that "
            "may read it"
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return "the hub has no such revision"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f"the hub has no such {what}, or it is private and HF_TOKEN cannot read it"
    if status in (401, 403):
        return f"the hub refuses it ({status}): HF_TOKEN is wrong or may not read it"
    if isinstance(error, errors.IncompleteSnapshotError):
        return "only a part of it is in the local cache, and the hub cannot be reached"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"could not be fetched and is not in the local cache: {_first_line(cause)}"
    if isinstance(error, errors.HTTPError):
        return (
            f"the connection broke ({_first_line(error)}); what was fetched whole is kept, run "
            "again to go on"
        )
    return f"could not be fetched: {_first_line(error)}"


def download(repo: str, revision: str | None, cache: Path | None = None) -> Path:
    """Snapshot of a hub model in `cache`, or the hub's own; HF_TOKEN and HF_HOME are respected.

    Only files of PATTERNS. A connection that breaks is taken up where it broke; a later run keeps
    every file that was whole. Raises PhasescopeError with what to do.
    """
    chosen = {"allow_patterns": PATTERNS, "ignore_patterns": "*/*"}
    return _snapshot("model", repo, revision, cache_dir=cache, **chosen)


def download_data(
    repo: str, revision: str, files: Sequence[str], cache: Path | None = None
) -> dict[str, Path]:
    """Files of a hub data set at a pinned revision, each compared to the hub's own hash.

    Raises PhasescopeError with what to do, or naming a file that the revision does not have.
    """
    snapshot = _snapshot(
        "dataset", repo, revision, cache_dir=cache, allow_patterns=[escape(f) for f in files]
    )
    paths = {name: snapshot / name for name in files}
    for name, path in paths.items():
        if not path.is_file():
            raise PhasescopeError(f"{repo} at {revision}: no file {name!r}")
    _check(snapshot, list(paths.values()))
    return paths


def _snapshot(kind: str, repo: str, revision: str | None, **options) -> Path:
    import huggingface_hub as hub

    try:
        return Path(hub.snapshot_download(repo, revision=revision, repo_type=kind, **options))
    except Exception as error:  # the client's own, its network library's, the system's
        what = "data set" if kind == "dataset" else kind
        raise PhasescopeError(
            f"{repo} at {revision or 'its newest revision'}: {_explained(error, what)}"
        ) from None


def _listed(snapshot: Path) -> dict[str, str]:
    """The hub's own hash of each file, from the listing that its client keeps in the cache."""
    path = snapshot.parents[1] / "trees" / f"{snapshot.name}.json"
    try:
        files = json.loads(path.read_text())["files"]
        return {n: f.get("lfs_sha256") or f["blob_id"] for n, f in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _named(path: Path) -> str | None:
    """The hub's hash of a file, from the name of the blob that the cache links it to."""
    for _ in range(8):
        if path.parent.name == "blobs" and _HASH.fullmatch(path.name):
            return path.name
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def _git_hash(path: Path) -> str:
    """What git, and so the hub, calls a small file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _forget(path: Path) -> None:
    """Drop a file with wrong bytes from the cache, so that the next run fetches it again."""
    for _ in range(8):
        following = path.parent / os.readlink(path) if path.is_symlink() else None
        with suppress(OSError):
            path.unlink()
        if following is None:
            return
        path = following


def check_snapshot(snapshot: Path) -> dict[str, str]:
    """SHA-256 by file name of a snapshot in the cache, each file compared to the hub's own hash.

    The hub's client compares sizes only. Raises PhasescopeError naming the first file that
    differs, which is dropped from the cache, or whose hash the hub did not tell.
    """
    paths = checkpoint_files(snapshot)
    return dict(zip((p.name for p in paths), _check(snapshot, paths), strict=True))


def _check(snapshot: Path, paths: list[Path]) -> list[str]:
    """SHA-256 of each file of a snapshot; raises as `check_snapshot` does."""
    listed = _listed(snapshot)
    found = hashes(paths)
    for path, sha256 in zip(paths, found, strict=True):
        expected = listed.get(path.relative_to(snapshot).as_posix()) or _named(path)
        if expected is None:
            raise PhasescopeError(
                f"{path}: the hub's hash of it is not in the cache; fetch it again with the hub"
            )
        own = sha256 if len(expected) == 64 else _git_hash(path)
        if own != expected:
            _forget(path)
            raise PhasescopeError(
                f"{path}: not what the hub has: hash {own}, the hub's {expected}; dropped from "
                "the cache, run again to fetch it anew"
            )
    return found

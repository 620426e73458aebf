"""Fetching from a hub on this machine that speaks the real one's protocol; integrity by hash."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phasescope.checkpoint import content_hash, fetch, verify
from phasescope.checkpoint.hub import check_snapshot
from phasescope.errors import PhasescopeError

sys.path.insert(0, str(Path(__file__).parents[1]))
from local_hub import OTHER, REVISION, WEIGHTS, LocalHub, git_hash

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
# the client keeps what it has of a broken file in whole chunks: 10 MB, small beside a real shard
CHUNK = 4096
FETCH = """
import json, sys
import huggingface_hub.constants
from pathlib import Path
from phasescope.checkpoint import fetch
from phasescope.errors import PhasescopeError
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = int(sys.argv[2])
for name, repo, revision in json.loads(sys.argv[1]):
    try:
        found = fetch(Path(name), repo=repo, revision=revision)
        print("RESULT", json.dumps([found.revision, None]))
    except PhasescopeError as error:
        print("RESULT", json.dumps([None, str(error)]))
"""


class Client:
    """Fetches in a process of its own (the hub's client reads HF_ENDPOINT and HF_HOME once), with
    one cache for all."""

    def __init__(self, folder: Path, served: Path):
        self.folder, self.hub = folder, LocalHub(served)

    def fetch(self, *wanted, **environment) -> list:
        """[revision, error] of each (repository, revision), linked into a folder of its name."""
        variables = self.hub.environment(self.folder / "home") | environment
        process = subprocess.run(
            [
                sys.executable,
                "-c",
                FETCH,
                json.dumps([(repo, f"owner/{repo}", revision) for repo, revision in wanted]),
                str(CHUNK),
            ],
            cwd=self.folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        lines = [x for x in process.stdout.splitlines() if x.startswith("RESULT ")]
        return [json.loads(x.removeprefix("RESULT ")) for x in lines]

    def downloads(self, repo: str) -> list[tuple[str, str | None]]:
        """Files asked for by GET, with the range of each."""
        found = []
        for command, path, asked in self.hub.handler.asked:
            parts = path.strip("/").split("/")
            if command == "GET" and parts[0] != "api" and repo in parts[:2]:
                found.append((WEIGHTS if parts[0] == "content" else parts[-1], asked))
        return found


@pytest.fixture(scope="module")
def hub(dense, tmp_path_factory):
    """A client and what it got: the first time, again, and without the hub."""
    folder = tmp_path_factory.mktemp("hub")
    served = Path(shutil.copytree(dense, folder / "served"))
    (served / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (served / "modeling.py").write_text("raise SystemExit")
    client = Client(folder, served)
    names = ("good", "gated", "missing", "forbidden", "cut", "broken", "wrong", "small-wrong")
    wanted = [*((name, REVISION) for name in names), ("newest", None), ("other", OTHER)]
    results = dict(zip([w[0] for w in wanted], client.fetch(*wanted), strict=True))
    linked = {p.name for p in folder.iterdir()}
    again = ("broken", "wrong", "small-wrong", "gated")
    second = client.fetch(*((name, REVISION) for name in again), HF_TOKEN="hf_right")
    results |= {f"{n} again": r for n, r in zip(again, second, strict=True)}
    client.hub.close()
    (folder / "good").rename(folder / "online")
    offline = client.fetch(("good", REVISION), ("never", REVISION), HF_HUB_OFFLINE="1")
    gone = client.fetch(("never", REVISION), ("good", REVISION))
    results |= dict(zip(("offline", "never", "down", "down good"), offline + gone, strict=True))
    return client, results, linked


def test_a_pinned_revision_is_downloaded_and_linked(hub, dense):
    """If it failed, the models of the study could not be fetched, or not as pinned."""
    client, results, _ = hub
    assert results["good"] == results["newest"] == [REVISION, None]
    files = {p.name: p for p in (client.folder / "online").iterdir()}
    assert set(FILES) <= set(files) and not {"pytorch_model.bin", "modeling.py"} & set(files)
    for name, path in files.items():
        assert path.is_symlink() and (client.folder / "home") in path.resolve().parents
        assert path.read_bytes() == (dense / name).read_bytes()
    assert content_hash(client.folder / "online") == content_hash(dense)


def test_nothing_that_runs_code_is_asked_for(hub):
    """If it failed, pickles of hundreds of gigabytes would be fetched, and could be opened."""
    asked = {path.rpartition("/")[2] for _, path, _ in hub[0].hub.handler.asked}
    assert WEIGHTS in asked and not {"pytorch_model.bin", "modeling.py"} & asked


def test_a_cut_connection_is_taken_up_where_it_broke(hub):
    """If it failed, one hiccup of the network would cost a shard of gigabytes."""
    client, results, _ = hub
    assert results["cut"] == [REVISION, None]
    size = (client.folder / "served" / WEIGHTS).stat().st_size
    ranges = [asked for name, asked in client.downloads("cut") if name == WEIGHTS]
    assert ranges == [None, f"bytes={size // 2 // CHUNK * CHUNK}-"]


def test_a_broken_connection_is_one_line_and_a_rerun_goes_on(hub):
    """If it failed, a broken connection would end in a traceback, and all start over."""
    client, results, linked = hub
    revision, error = results["broken"]
    assert revision is None and "the connection broke (" in error and "run again" in error
    assert "\n" not in error and "broken" not in linked
    assert results["broken again"] == [REVISION, None]
    names = [name for name, _ in client.downloads("broken")]
    assert names.count(WEIGHTS) == 2
    assert all(names.count(name) == 1 for name in FILES if name != WEIGHTS)


@pytest.mark.parametrize(("repo", "file"), [("wrong", WEIGHTS), ("small-wrong", "config.json")])
def test_wrong_bytes_are_found_and_not_linked(hub, repo, file):
    """If it failed, a flipped bit on the way would be measured as the model."""
    client, results, linked = hub
    revision, error = results[repo]
    assert revision is None and f"{file}: not what the hub has: hash " in error
    assert repo not in linked
    assert results[f"{repo} again"] == [REVISION, None]
    assert content_hash(client.folder / repo) == content_hash(client.folder / "online")


def test_a_token_opens_a_gated_model(hub):
    """If it failed, HF_TOKEN would not be respected."""
    _, results, linked = hub
    assert "gated" not in linked and results["gated again"] == [REVISION, None]


def test_the_cache_serves_without_the_hub(hub):
    """If it failed, a machine without network could not rerun what it has."""
    client, results, _ = hub
    assert results["offline"] == results["down good"] == [REVISION, None]
    assert content_hash(client.folder / "good") == content_hash(client.folder / "online")


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("gated", f"owner/gated at {REVISION}: gated: accept the model's licence on its page"),
        ("missing", f"owner/missing at {REVISION}: the hub has no such model, or it is private"),
        ("forbidden", f"owner/forbidden at {REVISION}: the hub refuses it (403): HF_TOKEN is"),
        ("other", f"owner/other at {OTHER}: the hub has no such revision"),
        ("never", f"owner/never at {REVISION}: could not be fetched and is not in the local cache"),
        ("down", f"owner/never at {REVISION}: could not be fetched and is not in the local cache"),
    ],
)
def test_hub_faults_are_one_clear_line(hub, which, message):
    """If it failed, a gated model would end in a traceback, after an hour of others."""
    _, results, linked = hub
    revision, error = results[which]
    assert revision is None and error.startswith(message) and "\n" not in error
    assert which not in linked


def test_a_bit_that_rots_in_the_cache_is_found(hub):
    """If it failed, a name that once was the file's hash would vouch for other bytes."""
    client, _, _ = hub
    cut = client.folder / "cut"
    facts = {"sha256": content_hash(cut)}
    verify(cut, facts)
    blob = (cut / WEIGHTS).resolve()
    assert blob.parent.name == "blobs" and len(blob.name) == 64
    flip(blob)
    with pytest.raises(PhasescopeError, match="cut: not the files that were recorded"):
        verify(cut, facts)


@pytest.fixture(params=["blobs", "shared store", "listing"])
def snapshot(request, dense, tmp_path) -> Path:
    """A snapshot as the hub's client keeps it: links to blobs, through its store of shared blobs,
    or plain files (a disk without links) beside the hub's listing."""
    cache = tmp_path / "hub/models--owner--x"
    found = cache / "snapshots" / REVISION
    found.mkdir(parents=True)
    (cache / "blobs").mkdir()
    listing = {}
    for name in FILES:
        content = (dense / name).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        etag = sha256 if name == WEIGHTS else git_hash(content)
        if request.param == "listing":
            (found / name).write_bytes(content)
            listing[name] = {"blob_id": etag if name != WEIGHTS else "c" * 40}
            listing[name] |= {"lfs_sha256": sha256} if name == WEIGHTS else {}
            continue
        blob = cache / "blobs" / etag
        if request.param == "shared store":
            stored = tmp_path / "hub/blobs/ee" / hashlib.sha256(etag.encode()).hexdigest()
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_bytes(content)
            blob.symlink_to(f"../../blobs/ee/{stored.name}")
        else:
            blob.write_bytes(content)
        (found / name).symlink_to(f"../../blobs/{etag}")
    if listing:
        (cache / "trees").mkdir()
        (cache / "trees" / f"{REVISION}.json").write_text(json.dumps({"files": listing}))
    return found


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_every_file_is_compared_to_the_hub_s_hash(snapshot, dense, name):
    """If it failed, wrong bytes would pass on a disk without links, or in the client's store."""
    found = check_snapshot(snapshot)
    assert found == {p: hashlib.sha256((dense / p).read_bytes()).hexdigest() for p in FILES}
    stored = (snapshot / name).resolve()
    flip(stored)
    with pytest.raises(
        PhasescopeError, match=rf"{name}: not what the hub has: hash \S+, the hub's"
    ):
        check_snapshot(snapshot)
    assert not stored.exists() and not (snapshot / name).is_symlink()


def test_a_file_without_a_hash_is_not_trusted(dense, tmp_path):
    """If it failed, whatever lies in a cache would pass for the pinned revision."""
    snapshot = tmp_path / "hub/models--owner--x/snapshots" / REVISION
    shutil.copytree(dense, snapshot)
    with pytest.raises(PhasescopeError, match=r"the hub's hash of it is not in the cache"):
        check_snapshot(snapshot)


def flip(path: Path) -> None:
    """Flip the last bit of a file, times and size unchanged."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("how", ["flipped", "gone", "more"])
def test_files_are_compared_to_what_was_recorded(damaged, tmp_path, how):
    """If it failed, weights that changed after they were fetched would run as the model."""
    found = fetch(tmp_path / "out", folder=damaged)
    facts = {"sha256": found.sha256, "files": found.files}
    verify(tmp_path / "out", facts)
    name = {"flipped": WEIGHTS, "gone": "tokenizer.json", "more": "more.json"}[how]
    if how == "flipped":
        flip(damaged / WEIGHTS)
    elif how == "gone":
        (tmp_path / "out" / name).unlink()
    else:
        (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(PhasescopeError, match=f"{name}: not the file that was recorded") as caught:
        verify(tmp_path / "out", facts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "a.pkl", "last.ckpt", "A.PTH"])
def test_a_folder_with_pickles_is_refused(damaged, tmp_path, name):
    """If it failed, opening a stranger's checkpoint could run a stranger's code."""
    (damaged / name).write_bytes(b"\x80\x04.")
    with pytest.raises(PhasescopeError, match=rf"{name}: a pickle, .* refused, never opened"):
        fetch(tmp_path / "out", folder=damaged)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(dense, tmp_path, monkeypatch, code):
    """If it failed, a full disk would leave half a checkpoint that later jobs take for whole."""

    def refuse(source, target):
        if Path(target).name == "tokenizer.json":
            raise OSError(code, os.strerror(code))
        real(source, target)

    real = os.symlink
    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(PhasescopeError, match=rf"out: cannot be written: {os.strerror(code)}$"):
        fetch(tmp_path / "out", folder=dense)
    assert not list(tmp_path.iterdir())


def test_code_beside_the_weights_is_not_linked(damaged, tmp_path):
    """If it failed, loading could import a stranger's module."""
    (damaged / "modeling.py").write_text("raise SystemExit")
    fetch(tmp_path / "out", folder=damaged)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert WEIGHTS in names and "modeling.py" not in names

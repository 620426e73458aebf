"""Fetching by links, from a folder and from a hub; headers; quantization."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlx.core as mx
import pytest

from phasescope.checkpoint import check, content_hash, fetch, quantize, read_header
from phasescope.errors import PhasescopeError

REVISION, OTHER = "a" * 40, "b" * 40
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def test_a_folder_is_linked_not_copied(dense, tmp_path):
    """If it failed, a study of large models would fill the disk twice over."""
    found = fetch(tmp_path / "out", folder=dense)
    files = sorted((tmp_path / "out").iterdir())
    assert set(FILES) <= {p.name for p in files}
    assert all(p.is_symlink() and p.resolve() == (dense / p.name).resolve() for p in files)
    assert found.revision == str(dense)
    assert found.sha256 == content_hash(dense) == content_hash(tmp_path / "out")


def test_nothing_that_runs_code_is_linked(damaged, tmp_path):
    """If it failed, opening a stranger's checkpoint could run a stranger's code."""
    for name in ("pytorch_model.bin", "weights.pt", "a.pkl", "model.py", "x.safetensors"):
        (damaged / name).write_bytes(b"\x80\x04.")
    fetch(tmp_path / "out", folder=damaged)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert "model.safetensors" in names and not {"weights.pt", "a.pkl", "model.py"} & names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl", ".py"))]
    assert "x.safetensors" not in names


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_the_hash_follows_the_content(damaged, file):
    """If it failed, the journal would give changed weights the old weights' answers."""
    before = content_hash(damaged)
    path = damaged / file
    path.write_bytes(path.read_bytes().replace(b"bfloat16", b"bfloat17") + b"\n")
    assert content_hash(damaged) != before


def test_a_faulty_folder_leaves_nothing(damaged, tmp_path):
    """If it failed, half a checkpoint would stand where a good one belongs."""
    (damaged / "model.safetensors").write_bytes(b"short")
    with pytest.raises(PhasescopeError, match=r"model\.safetensors: truncated"):
        fetch(tmp_path / "out", folder=damaged)
    with pytest.raises(PhasescopeError, match="nowhere: no such checkpoint folder"):
        fetch(tmp_path / "out", folder=tmp_path / "nowhere")
    assert not [p for p in tmp_path.iterdir() if p.name != "damaged"]


def test_headers_tell_what_a_checkpoint_holds(dense, damaged):
    """If it failed, sizes and integrity would be judged on something else than the file."""
    tensors = check(dense)
    loaded = mx.load(str(dense / "model.safetensors"))
    assert {n: t.shape for n, t in tensors.items()} == {n: a.shape for n, a in loaded.items()}
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(PhasescopeError, match="has trailing bytes"):
        read_header(path)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "x"]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(PhasescopeError, match="not a safetensors header"):
        read_header(path)


def test_a_tensor_in_two_shards_is_refused(damaged):
    """If it failed, which of two weights runs would depend on the order of files."""
    shutil.copy(damaged / "model.safetensors", damaged / "model-2.safetensors")
    with pytest.raises(PhasescopeError, match=r"tensor '.*' stands in another shard too"):
        check(damaged)


def test_16_bit_passes_through(dense, tmp_path):
    """If it failed, the 16-bit cell would not be the checkpoint itself."""
    fetch(tmp_path / "fetched", folder=dense)
    found = quantize(tmp_path / "fetched", tmp_path / "16", 16, 64)
    assert found == content_hash(dense)
    weights = tmp_path / "16" / "model.safetensors"
    assert weights.is_symlink() and weights.resolve() == (dense / "model.safetensors").resolve()


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe"])
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_weights_have_their_bits(checkpoints, tmp_path, name, bits):
    """If it failed, a cell named 4 bit would be measured at another precision."""
    found = quantize(checkpoints(name), tmp_path / "q", bits, 64)
    assert found == content_hash(tmp_path / "q")
    assert not any(p.is_symlink() for p in (tmp_path / "q").iterdir())
    config = json.loads((tmp_path / "q" / "config.json").read_text())
    assert config["quantization"]["bits"] == bits
    tensors = check(tmp_path / "q")
    packed = {n: t for n, t in tensors.items() if t.dtype == "U32"}
    assert len(packed) > 20
    for key, tensor in packed.items():
        own = 8 if "gate." in key and name.endswith("moe") and ".gate_proj" not in key else bits
        scales = tensors[key.removesuffix("weight") + "scales"]
        assert tensor.shape[-1] * 32 // own == scales.shape[-1] * 64


def test_quantizing_twice_gives_the_same_bytes(dense, tmp_path):
    """If it failed, the same study would have other weights on every run."""
    hashes = {quantize(dense, tmp_path / name, 4, 64) for name in "ab"}
    assert len(hashes) == 1 and hashes != {content_hash(dense)}


@pytest.mark.parametrize("before", [False, True])
def test_rows_that_do_not_divide_are_refused(dense, tmp_path, before):
    """If it failed, mlx-lm would leave such weights at 16 bit, in a cell named 4 bit."""
    if before:
        (tmp_path / "q").mkdir()
        (tmp_path / "q" / "old").write_text("kept")
    with pytest.raises(PhasescopeError, match=r"4 bit in groups of 128: the rows of \S+ and \d+"):
        quantize(dense, tmp_path / "q", 4, 128)
    assert [p.name for p in tmp_path.rglob("*")] == (["q", "old"] if before else [])


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a snapshot download asks for."""

    folder = None

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if "owner/gated" in path:
            return self._fault(401, "GatedRepo")
        if "owner/good" not in path:
            return self._fault(401, "RepoNotFound")
        if OTHER in path:
            return self._fault(404, "RevisionNotFound")
        if path == "/api/models/owner/good/revision/main":
            return self._send(json.dumps({"id": "owner/good", "sha": REVISION, "siblings": []}))
        if path.startswith("/api/models/owner/good/tree/"):
            return self._send(json.dumps([self._entry(p) for p in sorted(self.folder.iterdir())]))
        content = (self.folder / path.rpartition("/")[2]).read_bytes()
        return self._send(content, hashlib.sha256(content).hexdigest())

    @staticmethod
    def _entry(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": digest[:40]}

    def _fault(self, code, name):
        self.send_response(code)
        self.send_header("X-Error-Code", name)
        self.send_header("X-Error-Message", name)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content, etag=None):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", REVISION)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


FETCH = """
import json, sys
from pathlib import Path
from phasescope.checkpoint import fetch
from phasescope.errors import PhasescopeError
for name, repo, revision in json.loads(sys.argv[1]):
    try:
        found = fetch(Path(name), repo=repo, revision=revision)
        print("RESULT", json.dumps([found.revision, None]))
    except PhasescopeError as error:
        print("RESULT", json.dumps([None, str(error)]))
"""


def _fetch(folder, endpoint, wanted, **environment):
    """[revision, error] of each fetch, in a process of its own: the hub's client reads
    HF_ENDPOINT and HF_HOME once."""
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home")} | environment
    variables |= {"HF_HUB_DISABLE_XET": "1", "no_proxy": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(wanted)],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    lines = [x for x in process.stdout.splitlines() if x.startswith("RESULT ")]
    return [json.loads(x.removeprefix("RESULT ")) for x in lines]


@pytest.fixture(scope="module")
def hub(dense, tmp_path_factory):
    """What fetching gave from a hub, and then without it; the folder it happened in."""
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(dense, folder / "served")
    (folder / "served" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    handler = type("Served", (Hub,), {"folder": folder / "served"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    online = _fetch(
        folder,
        endpoint,
        [
            ("good", "owner/good", REVISION),
            ("newest", "owner/good", None),
            ("gated", "owner/gated", REVISION),
            ("missing", "owner/none", REVISION),
            ("revision", "owner/good", OTHER),
        ],
    )
    server.shutdown()
    server.server_close()
    again = [("again", "owner/good", REVISION), ("other", "owner/other", REVISION)]
    return folder, online, _fetch(folder, endpoint, again, HF_HUB_OFFLINE="1")


def test_a_pinned_revision_is_downloaded_and_linked(hub, dense):
    """If it failed, the models of the study could not be fetched, or not as pinned."""
    folder, online, _ = hub
    assert online[0] == online[1] == [REVISION, None]
    files = {p.name: p for p in (folder / "good").iterdir()}
    assert set(FILES) <= set(files) and "pytorch_model.bin" not in files
    for name, path in files.items():
        assert path.is_symlink() and (folder / "home") in path.resolve().parents
        assert path.read_bytes() == (dense / name).read_bytes()
    assert content_hash(folder / "good") == content_hash(dense)


def test_the_cache_serves_offline(hub):
    """If it failed, a machine without network could not rerun what it has."""
    folder, _, offline = hub
    assert offline[0] == [REVISION, None]
    assert content_hash(folder / "again") == content_hash(folder / "good")


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (2, f"owner/gated at {REVISION}: gated: accept the model's licence"),
        (3, f"owner/none at {REVISION}: the hub has no such model, or it is private"),
        (4, f"owner/good at {OTHER}: the hub has no such revision"),
        (5, f"owner/other at {REVISION}: could not be fetched and is not in the local cache: "),
    ],
    ids=["gated", "no model", "no revision", "offline"],
)
def test_hub_faults_are_one_clear_line(hub, which, message):
    """If it failed, a gated model would end in a traceback, after an hour of others."""
    folder, online, offline = hub
    revision, error = (online + offline[1:])[which]
    assert revision is None and error.startswith(message) and "\n" not in error
    assert len(error) > len(message) or which in (3, 4)
    assert not [p.name for p in folder.iterdir() if p.name in ("gated", "missing", "revision")]

"""A stand-in for the Hugging Face hub on this machine: as much of its protocol as fetching asks."""

import hashlib
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION, OTHER = "a" * 40, "b" * 40  # the one that it has, and one that it has not
WEIGHTS = "model.safetensors"


def git_hash(content: bytes) -> str:
    """What git, and so the hub, calls a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a snapshot download asks for.

    Every model and data set of it has the files of one folder. The repository's name says how it
    misbehaves; `asked` logs (method, path, range); `seen` what happened once already. Weights are
    redirected to a path of a content network.
    """

    folder: Path
    asked: list
    seen: set

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.asked.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) < 6:
            return self._fault(404, None)
        if parts[0] == "content":
            return self._weights(parts[1])
        if parts[0] == "api":
            repo, kind, revision, name = *parts[3:6], None
        else:
            parts = parts[1:] if parts[0] == "datasets" else parts
            repo, kind, revision, name = parts[1], "file", parts[3], "/".join(parts[4:])
        if repo == "missing":
            return self._fault(401, "RepoNotFound")
        if repo == "forbidden":
            return self._fault(403, None)
        if revision == OTHER:
            return self._fault(404, "RevisionNotFound")
        if kind == "revision":
            return self._send(json.dumps({"id": f"owner/{repo}", "sha": REVISION, "siblings": []}))
        if kind == "tree":
            paths = sorted(p for p in self.folder.rglob("*") if p.is_file())
            return self._send(json.dumps([self._entry(p) for p in paths]))
        if repo == "gated" and self.headers.get("Authorization") != "Bearer hf_right":
            return self._fault(403, "GatedRepo")
        if not (self.folder / name).is_file():
            return self._fault(404, "EntryNotFound")
        self._file(repo, name)

    def _entry(self, path):
        content = path.read_bytes()
        name = path.relative_to(self.folder).as_posix()
        entry = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
        if path.name == WEIGHTS:
            large = {"oid": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
            entry |= {"oid": "c" * 40, "lfs": large | {"size": len(content)}}
        return entry

    def _file(self, repo, name):
        content = (self.folder / name).read_bytes()
        if name != WEIGHTS:
            first = repo == "small-wrong" and name == "config.json" and self.command == "GET"
            if first and not self._again(repo):
                content = content.replace(b"qwen3_5", b"qwen3-5", 1)
                honest = git_hash((self.folder / name).read_bytes())
                return self._send(content, {"ETag": f'"{honest}"'})
            return self._send(content, {"ETag": f'"{git_hash(content)}"'})
        self.send_response(302)
        # another host than the hub's own, so the client does not look there for the hub's headers
        port = self.headers["Host"].rpartition(":")[2]
        self.send_header("Location", f"http://localhost:{port}/content/{repo}")
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _again(self, what) -> bool:
        before = what in self.seen
        self.seen.add(what)
        return before

    def _weights(self, repo):
        content = (self.folder / WEIGHTS).read_bytes()
        if repo == "wrong" and self.command == "GET" and not self._again(repo):
            content = content[:-1] + bytes([content[-1] ^ 1])
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        part = content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(part)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if repo in ("cut", "broken") and not self._again(repo):
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            if repo == "broken":  # a reset, where "cut" only ends too early
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(part)

    def _fault(self, code, name):
        self.send_response(code)
        if name:
            self.send_header("X-Error-Code", name)
            self.send_header("X-Error-Message", name)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content, headers=None):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", REVISION)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class LocalHub:
    """A hub that serves the files of a folder until it is closed."""

    def __init__(self, folder: Path):
        self.handler = type("Served", (Hub,), {"folder": folder, "asked": [], "seen": set()})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.server.handle_error = lambda *arguments: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that turn the hub's client to this hub, with its cache in `home`."""
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "no_proxy": "*",
        }

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()

"""A local OpenAI-compatible server whose replies a test scripts."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Slow:
    """A reply that takes its time."""

    text: str
    seconds: float


@dataclass
class Scripted:
    """A running server: its address, and the bodies of all requests in their order."""

    url: str
    requests: list[dict] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        """The last message of each request."""
        return [r["messages"][-1]["content"] for r in self.requests]


# reply(body of the request) -> text, HTTP status of a failure, or a slow text
Script = Callable[[dict], str | int | Slow]


def _completion(text: str) -> dict:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


@contextmanager
def serving(script: Script):
    """Serve on a free port of this machine until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.requests.append(body)
            said = script(body)
            if isinstance(said, Slow):
                time.sleep(said.seconds)
                said = said.text
            status, value = (said, {"error": {"message": "scripted", "type": "server_error"}})
            if isinstance(said, str):
                status, value = 200, _completion(said)
            content = json.dumps(value).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client gave up waiting

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Scripted(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()

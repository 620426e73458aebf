"""Real servers on this machine with an organism behind them."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import pytest


def in_float32(folder: Path, copy: Path) -> Path:
    """The checkpoint with its values in float32. On the CPU mlx-lm cannot run experts in anything
    else, and sums of bfloat16 may tip an answer over."""
    shutil.copytree(folder, copy)
    for shard in copy.glob("*.safetensors"):
        weights = {name: w.astype(mx.float32) for name, w in mx.load(str(shard)).items()}
        mx.save_safetensors(str(shard), weights, {"format": "pt"})
    return copy


@contextmanager
def mlx_server(folder: Path):
    """mlx_lm.server with a checkpoint, as a process of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "import phasescope; from mlx_lm.server import main; main()"]
    command += ["--model", str(folder), "--port", str(port), "--log-level", "ERROR"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, "mlx_lm.server ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("mlx_lm.server never answered")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()

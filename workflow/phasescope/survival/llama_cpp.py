"""llama.cpp's own converter, quantizer and server, from the folder that `make gguf` makes."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phasescope.errors import NotRun, PhasescopeError

_SCRIPTS = Path(__file__).parent / "foreign"  # run by llama.cpp's own environment
_START_SECONDS = 60


@dataclass(frozen=True)
class Stored:
    """A tensor of a GGUF file: its values as float32, and the type that holds them."""

    values: np.ndarray
    type: str


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp in a folder: `source`, `build/bin` and an environment `venv` for its converter."""

    folder: Path

    @classmethod
    def at(cls, folder: str | Path | None) -> "LlamaCpp":
        """Look for it; NotRun where it is not there whole."""
        if folder is None:
            raise NotRun("llama.cpp is not named (key 'llama_cpp'); `make gguf` builds it")
        found = cls(Path(folder).resolve())
        programs = found._program("quantize"), found._program("server")
        for path in (found._python, found._source, *programs):
            if not path.exists():
                raise NotRun(f"{path}: not there, so no llama.cpp; `make gguf` builds it")
        return found

    @property
    def _python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    @property
    def _source(self) -> Path:
        return self.folder / "source" / "convert_hf_to_gguf.py"

    def _program(self, name: str) -> Path:
        return self.folder / "build" / "bin" / f"llama-{name}"

    def _script(self, name: str, *arguments) -> None:
        """Run one of our scripts in llama.cpp's environment, its converter in reach."""
        places = self._source.parent, self._source.parent / "gguf-py"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "OMP_NUM_THREADS": "1",
        }
        command = [self._python, _SCRIPTS / name, *arguments]
        _run([str(c) for c in command], f"llama.cpp's {name}", environment)

    def convert(self, checkpoint: Path, target: Path) -> None:
        """A Hugging Face checkpoint folder to a GGUF file in float32, by llama.cpp's converter."""
        self._script("convert.py", checkpoint, target)

    def quantize(self, source: Path, target: Path, kind: str) -> None:
        """A GGUF file to another type (F16, Q8_0, Q4_K, …), by llama.cpp's quantizer."""
        command = [self._program("quantize"), source, target, kind, "1"]
        _run([str(c) for c in command], "llama-quantize")

    def read(self, file: Path, names: Sequence[str]) -> dict[str, Stored]:
        """Tensors of a GGUF file by name, read back by its own package. Arrays of the values pass
        through the file's folder."""
        names_file, values = file.with_suffix(".names.json"), file.with_suffix(".npz")
        names_file.write_text(json.dumps(list(names)))
        self._script("read.py", file, names_file, values)
        with np.load(values) as found:
            types = json.loads(str(found["types"]))
            read = {n: Stored(found[str(i)], types[i]) for i, n in enumerate(names)}
        values.unlink()
        return read

    @contextmanager
    def served(self, file: Path, slots: int = 4) -> Iterator[str]:
        """llama.cpp's server with a GGUF file; the address of its OpenAI-compatible interface."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {
            "--model": file,
            "--port": port,
            "--parallel": slots,
            "--ctx-size": 256 * slots,
            "--threads": 1,
            "--threads-http": slots,
        }
        command = [str(self._program("server")), "--host", "127.0.0.1", "--jinja", "--offline"]
        command += [str(word) for pair in options.items() for word in pair]
        log = file.with_suffix(".log")
        with open(log, "wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
            try:
                _wait_for(process, f"http://127.0.0.1:{port}/health", log)
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                process.terminate()
                process.wait()


def _run(command: list[str], name: str, environment: dict | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise PhasescopeError(f"{name}: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "ended without a word"


def _wait_for(process: subprocess.Popen, address: str, log: Path) -> None:
    """Wait until the server answers; PhasescopeError where it does not."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    text = log.read_text(errors="replace")
    raise PhasescopeError(f"llama-server: it did not start: {_last_line(text)}")

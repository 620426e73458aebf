"""What recording costs: a plain forward pass, recording at every layer, and others doing the same.

One checkpoint, one run, the same token ids, rounds in turn, one thread. Times are CPU seconds of
the process, which a busy machine disturbs less than the clock.

Ours: the plain pass through mlx-lm; the residual stream (and router logits, where there are
routers) of every layer kept for every token; running means and variances of the same, which keep no
token; and recurrent states at the last token, timed apart because they need the cache. Others, on
torch in float32: the plain pass, transformers with forward hooks, and nnsight. Activations are
compared before anything is timed.

Usage: make bench-probe, or python benchmarks/bench_probe.py --checkpoint FOLDER --nnsight PYTHON
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CHECKPOINT = Path("resources/organisms/circuit")
LIMIT = 1.15  # recording the residual stream and routers against the plain pass


def tokens(vocabulary: int, rows: int, length: int) -> list[list[int]]:
    """The same random token ids for every side."""
    return np.random.default_rng(0).integers(0, vocabulary, (rows, length)).tolist()


class Ours:
    """phasescope on mlx-lm."""

    def __init__(self, folder: Path, rows: int, length: int, batch: int):
        import phasescope  # noqa: F401, the fast BLAS first
        from phasescope import model
        from phasescope.probe.streaming import stream_moments

        self.model, self.stream, self.batch = model, stream_moments, batch
        self.lm = model.load_model(folder)
        self.sequences = tokens(self.lm.stack.embed_tokens.weight.shape[0], rows, length)
        self.every = [[*range(length)]] * rows
        self.kinds = ["residual"] + (["router"] if model.routes(self.lm) else [])

    def tasks(self) -> dict:
        """What is timed, by name."""
        found = {
            "plain pass, mlx": self.plain,
            "recording at all layers, mlx": self.record,
            "running means and variances, mlx": lambda: self.stream(
                self.lm, self.kinds, self.sequences, self.batch
            ),
        }
        if "recurrent" in self.lm.layer_kinds:
            found["recurrent states at the last token, mlx"] = self.states
        return found

    def plain(self) -> None:
        import mlx.core as mx

        for chunk in self.model.batches(self.sequences, self.batch):
            mx.eval(self.lm.final_hidden(self.model.right_padded(chunk)))

    def record(self) -> np.ndarray:
        arguments = (self.lm, self.kinds, self.sequences, self.every, self.batch)
        return self.model.record_sites(*arguments)["residual"]

    def states(self) -> np.ndarray:
        last = [[len(s) - 1] for s in self.sequences]
        found = self.model.record_states(
            self.lm, ["recurrent_state"], self.sequences, last, self.batch
        )
        return found["recurrent_state"]


class Hooks:
    """transformers on torch, with forward hooks."""

    name = "hooks, torch"

    def __init__(self, folder: Path, rows: int, length: int, batch: int):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.torch, self.batch = torch, batch
        self.causal = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.sequences = tokens(self.causal.config.get_text_config().vocab_size, rows, length)

    def tasks(self) -> dict:
        """What is timed, by name."""
        return {"plain pass, torch": self.plain, self.name: self.record}

    def chunks(self):
        for start in range(0, len(self.sequences), self.batch):
            yield self.torch.tensor(self.sequences[start : start + self.batch])

    def plain(self) -> None:
        with self.torch.no_grad():
            for chunk in self.chunks():
                self.causal.model(chunk, use_cache=False)

    def places(self) -> list:
        """Modules whose outputs are kept: every block, and every router."""
        layers = self.causal.model.layers
        routers = [layer.mlp.gate for layer in layers if hasattr(layer.mlp, "gate")]
        return [*layers, *routers]

    def record(self) -> np.ndarray:
        pieces, kept, hooks = [], {}, []
        for i, module in enumerate(self.places()):

            def keep(module, inputs, output, i=i):
                value = output[0] if isinstance(output, tuple) else output
                kept[i] = value.numpy().copy()

            hooks.append(module.register_forward_hook(keep))
        layers = len(self.causal.model.layers)
        with self.torch.no_grad():
            for chunk in self.chunks():
                self.causal.model(chunk, use_cache=False)
                pieces.append(np.stack([kept[i] for i in range(layers)], axis=2))
        for hook in hooks:
            hook.remove()
        return np.concatenate(pieces)


class NNsight(Hooks):
    """nnsight tracing the same transformers model."""

    name = "nnsight"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        from nnsight import NNsight as Traced

        self.traced = Traced(self.causal.model)

    def tasks(self) -> dict:
        """What is timed, by name."""
        return {self.name: self.record}

    def record(self) -> np.ndarray:
        pieces, layers = [], len(self.causal.model.layers)
        for chunk in self.chunks():
            with self.torch.no_grad(), self.traced.trace(chunk, use_cache=False):
                kept = [].save()
                routers = []
                for layer, own in zip(self.traced.layers, self.causal.model.layers, strict=True):
                    if hasattr(own.mlp, "gate"):  # before the block's output: order of execution
                        routers.append(layer.mlp.gate.output)
                    value = layer.output
                    kept.append(value[0] if isinstance(value, tuple) else value)
            pieces.append(np.stack([kept[i].numpy() for i in range(layers)], axis=2))
        return np.concatenate(pieces)


SIDES = {"ours": Ours, "hooks": Hooks, "nnsight": NNsight}


def serve(side: str, arguments) -> None:
    """A side in a process of its own: one task's name a line in, its seconds a line out."""
    try:
        made = SIDES[side](arguments.checkpoint, arguments.rows, arguments.length, arguments.batch)
        tasks = made.tasks()
        recorded = made.record()
    except Exception as error:  # whatever another project raises for what it cannot do
        print(json.dumps({"error": f"{type(error).__name__}: {str(error).splitlines()[:1]}"}))
        return
    np.save(arguments.activations, recorded)
    print(json.dumps({"tasks": list(tasks)}), flush=True)
    for line in sys.stdin:
        start = time.process_time()
        tasks[line.strip()]()
        print(json.dumps({"seconds": time.process_time() - start}), flush=True)


class Side:
    """The other end of `serve`."""

    def __init__(self, name: str, python: str, arguments, folder: Path):
        self.name, self.activations = name, folder / f"{name}.npy"
        command = [python, __file__, "--serve", name, "--activations", str(self.activations)]
        for key in ("checkpoint", "rows", "length", "batch"):
            command += [f"--{key}", str(getattr(arguments, key))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        self.said = self._read()
        self.tasks = self.said.get("tasks", [])

    def _read(self) -> dict:
        """The next line that is ours: other projects print too."""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return {"error": "it ended without a word"}

    def seconds(self, task: str) -> float:
        """Time of one run of a task."""
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        return self._read()["seconds"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def missing(python: str, module: str) -> str | None:
    """Why a side cannot run, or None."""
    found = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True)
    if found.returncode == 0:
        return None
    return found.stderr.strip().splitlines()[-1] if found.stderr else "no such interpreter"


def started(arguments, folder: Path) -> list[Side]:
    """Every side that runs here; of the others, why not."""
    sides = []
    for name, python, module in (
        ("ours", sys.executable, "phasescope"),
        ("hooks", arguments.torch or sys.executable, "transformers, torch"),
        ("nnsight", arguments.nnsight or sys.executable, "nnsight"),
    ):
        why = missing(python, module)
        if why is None:
            side = Side(name, python, arguments, folder)
            why = side.said.get("error")
        if why is None:
            sides.append(side)
        else:
            print(f"{name}: not run: {why}")
    return sides


def compare(sides: list[Side]) -> None:
    """The same activations everywhere, or nothing is timed."""
    first = np.load(sides[0].activations)
    for side in sides[1:]:
        largest = np.abs(np.load(side.activations) - first).max()
        print(f"{side.name}: residual stream differs from ours by at most {largest:.1e}")
        if not largest < 1e-2:
            sys.exit(f"{side.name} recorded something else")


def report(times: dict[str, list[float]]) -> None:
    """Medians, and ratios taken round by round."""
    plain = times["plain pass, mlx"]
    print(f"{'':42} {'median':>9} {'times the plain pass on mlx (quartiles)':>42}")
    for task, own in times.items():
        ratios = sorted(a / b for a, b in zip(own, plain, strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = 1000 * statistics.median(own)
        print(f"{task:42} {median:6.0f} ms {middle:27.2f} ({low:.2f} to {high:.2f})")
    own = times["recording at all layers, mlx"]
    ratio = statistics.median(a / b for a, b in zip(own, plain, strict=True))
    said = "within" if ratio <= LIMIT else "above"
    print(f"recording against the plain pass: {ratio:.2f}, {said} the limit of {LIMIT}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--rows", type=int, default=64, help="sequences")
    parser.add_argument("--length", type=int, default=32, help="tokens of each")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--torch", help="Python that has torch and transformers; this one")
    parser.add_argument("--nnsight", help="Python that has nnsight; this one")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--activations", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments)
        return
    print(
        f"{arguments.checkpoint}: {arguments.rows} sequences of {arguments.length} tokens, batches "
        f"of {arguments.batch}, one thread, {arguments.rounds} rounds in turn"
    )
    with tempfile.TemporaryDirectory() as folder:
        sides = started(arguments, Path(folder))
        compare(sides)
        times: dict[str, list[float]] = {task: [] for side in sides for task in side.tasks}
        for _ in range(arguments.rounds):
            for side in sides:
                for task in side.tasks:
                    times[task].append(side.seconds(task))
        for side in sides:
            side.close()
    report(times)


if __name__ == "__main__":
    main()

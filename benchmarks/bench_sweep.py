"""What a first-token sweep costs: settings a second, with and without sharing, and others' ways.

One checkpoint (random weights), one run, the same prompts, rounds in turn, one thread. Times are
CPU seconds of the process, which a busy machine disturbs less than the clock.

A setting is one direction ablated from the residual stream at one dose, after one block
(single-layer) or after all blocks but the top (all-layer); its score is the next token after 32
hazardous and 32 benign prompts. Ours runs all layers x 16 doses in one sweep; the others run one
setting at a time, so a sample of their settings is timed: (a) our own edits and passes without
sharing; (b) heretic's reset, abliterate and first-token probabilities, its generated answers left
out; (c) a forward hook on each edited block on torch, as refusal_direction does it. Before
anything is timed, the logits of ours, (a) and (c) are compared; heretic edits weights and is not.

The floor is the multiplications that no exact sweep avoids, where nothing below an edit and no
beginning that prompts have in common is computed twice, at the speed of a product of 1024 x 1024
matrices here. What that sharing alone would give is printed beside.

Usage: make bench-sweep HERETIC=PYTHON, or python benchmarks/bench_sweep.py --heretic PYTHON
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import sweep_sides
from bench_probe import missing
from sweep_sides import DOSES, KINDS, LAYERS

TARGETS = dict(zip(KINDS, (5.0, 3.0), strict=True))  # times (a)


class Side:
    """The other end of `sweep_sides.serve`."""

    def __init__(self, name: str, python: str, folder: Path):
        command = [python, sweep_sides.__file__, name, str(folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        self.name, self.said = name, self._read()

    def _read(self) -> dict:
        for line in self.process.stdout:
            if line.startswith('{"note"'):
                print(json.loads(line)["note"])
            elif line.startswith("{"):
                return json.loads(line)
        return {"error": "it ended without a word"}

    def rate(self, task: str, kind: str) -> float:
        """Settings a second of one run of a task."""
        self.process.stdin.write(json.dumps([task, kind]) + "\n")
        self.process.stdin.flush()
        found = self._read()
        if "rate" not in found:
            sys.exit(f"{self.name}: {found['error']}")
        return found["rate"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def started(arguments, folder: Path) -> list[Side]:
    """Every side that runs here; of the others, why not."""
    sides = []
    for name, python, modules in (
        ("ours", sys.executable, "phasescope"),
        ("hooks", arguments.torch or sys.executable, "transformers, torch"),
        ("heretic", arguments.heretic or sys.executable, "heretic"),
    ):
        why = missing(python, modules)
        if why is None:
            side = Side(name, python, folder)
            why = side.said.get("error")
        if why is None:
            sides.append(side)
        else:
            print(f"{name}: not run: {why}")
    return sides


def compare(folder: Path) -> None:
    """The same logits everywhere, or nothing is timed."""
    found = {}
    for path in folder.glob("*.npz"):
        with np.load(path) as kept:
            found |= {key: kept[key] for key in kept.files}
    for kind in KINDS:
        first = found.pop(f"ours {kind}")
        for key in [k for k in found if k.endswith(kind)]:
            largest = np.abs(found[key] - first).max()
            print(f"{key}: logits differ from ours by at most {largest:.1e}, of {first.std():.1f}")
            if not largest < 1e-2:
                sys.exit(f"{key} computed something else")


def report(rates: dict, floor: dict) -> None:
    """Medians of settings a second, and ratios taken round by round."""
    for kind, target in TARGETS.items():
        own = rates["ours", kind]
        print(f"{kind}: settings a second (median), ours times this (quartiles)")
        for (task, k), values in rates.items():
            if k == kind:
                ratios = [a / b for a, b in zip(own, values, strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                median = statistics.median(values)
                print(f"  {task:20} {median:9.1f} {middle:10.2f} ({low:.2f} to {high:.2f})")
        ahead = statistics.median(
            a / b for a, b in zip(own, rates["(a) one at a time", kind], strict=True)
        )
        said = "reached" if ahead >= target else "not reached"
        print(f"  {'floor':20} {floor[kind]:9.1f}   at {floor['gflops']:.0f} GFLOPS")
        print(f"  {ahead:.1f} times (a), target {target:.0f}: {said}; tokens go through blocks")
        print(f"  {floor[f'{kind} shared']:.1f} times less often than where nothing is shared")


def run(arguments, width: int) -> None:
    """One width, all sides."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sweep_sides.make_checkpoint(folder, width)
        sides = started(arguments, folder)
        print(f"{LAYERS} layers, {width} wide, {DOSES} doses, {arguments.rounds} rounds in turn")
        compare(folder)
        rates: dict = {(t, k): [] for s in sides for t in s.said["tasks"] for k in KINDS}
        for _ in range(arguments.rounds):
            for side in sides:
                for task in side.said["tasks"]:
                    for kind in KINDS:
                        rates[task, kind].append(side.rate(task, kind))
        for side in sides:
            side.close()
        report(rates, sides[0].said["floor"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", help="Python that has torch and transformers; this one")
    parser.add_argument("--heretic", help="Python that has heretic-llm; this one")
    arguments = parser.parse_args()
    for width in arguments.width:
        run(arguments, width)


if __name__ == "__main__":
    main()

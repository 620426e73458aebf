"""How planning, collecting and reporting grow with the cells of a study.

Synthetic tables of 10, 100, 1,000 and 3,000 cells through the workflow's own scripts: one row a
size, as Markdown. Each step is a process of its own, and its peak memory is that process's.
Processor seconds are what the process used, whatever else the machine did. Phases are synthetic
too: what classifying and judging take is computing, the same for every cell.

    python benchmarks/bench_scale.py [--cells 10 100 1000 3000] [--folder DIR]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests/workflow"), str(ROOT / "tests")]
STEPS = ("plan", "collect", "report")
PRECISIONS = ("16", "8", "4")
CONFIG = """
study: scale
sheet: scale.tsv
prompts: resources/prompts/world-a.tsv
precisions: [16, 8, 4]
effort: quick
designs: [ablation-dose]
thinking: "off"
memory_gb: 1000
"""


@dataclass
class Measured:
    """Of one step: processor seconds and peak memory in bytes."""

    seconds: float
    peak: int


def write_sheet(folder: Path, models: int) -> None:
    """A sheet of that many models, none of which is anywhere."""
    columns = ("id", "huggingface_id", "revision", "parameters_total_billion")
    columns += ("parameters_active_billion", "architecture", "developer", "layers", "hidden_size")
    rows = [
        [f"m{n:04}", f"owner/m{n:04}", f"{n:040x}", 1, 1, "dense-hybrid", "owner", 24, 1024, "no"]
        for n in range(models)
    ]
    lines = [[*columns, "thinking"], *rows]
    text = "\n".join("\t".join(map(str, line)) for line in lines)
    (folder / "scale.tsv").write_text(text + "\n")


def write_tables(folder: Path, models: int) -> None:
    """Tables of every cell as jobs leave them: those of a few synthetic models, under many ids."""
    import pandas as pd
    from synthetic_study import SyntheticStudy

    from phasescope.tables import frame_of, write_table

    study = SyntheticStudy()
    study.model("m", ["deletable_circuit"] * len(PRECISIONS), layers=24)
    stages = {"probes": "probe", "selection": "select", "interventions": "intervene"}
    stages |= {"coherence": "cohere", "behavior": "cohere"}
    files = {"interventions": "ablation-dose"}
    where = {"compute_dtype": "float32", "batch_size": "16", "seed": "0"}
    for table, stage in stages.items():
        whole = frame_of(table, study.rows[table])
        for precision in PRECISIONS:
            frame = whole[whole["precision"] == precision].reset_index(drop=True)
            for n in range(models):
                own = frame.assign(model=f"m{n:04}")
                place = folder / f"results/scale/m{n:04}/{precision}/{stage}"
                write_table(place / f"{files.get(table, table)}.parquet", own, table, where)
    phases = frame_of("phases", study.rows["phases"])
    copies = [phases.assign(model=f"m{n:04}") for n in range(models)]
    whole = pd.concat(copies, ignore_index=True)
    write_table(folder / "results/scale/phases.parquet", whole, "phases", where)
    for n in range(models):
        for precision in PRECISIONS:
            facts = {"revision": f"{n:040x}", "sha256": "0" * 64, "weights_from": "synthetic"}
            place = folder / f"results/scale/m{n:04}/{precision}/quantize"
            place.mkdir(parents=True, exist_ok=True)
            (place / "checkpoint.json").write_text(json.dumps(facts))


def step(name: str) -> None:
    """Run one step in this process, in the current folder."""
    if name == "report":
        from phasescope.report import build

        build(Path("results/scale"), Path("reports/scale/index.html"))
        return
    import runpy
    from types import SimpleNamespace

    from phasescope import cli
    from phasescope.study import plan_study

    plan = plan_study(cli._configuration("scale.yaml"), ["scale.yaml"])
    results = Path("results/scale")

    class Named(dict):
        __getattr__ = dict.__getitem__

    output = Named({t: str(results / f"{t}.parquet") for t in plan.tables})
    paths = lambda stage, table: [  # noqa: E731
        f"{results}/{cell.name}/{stage}/{table}.parquet" for cell in plan.running(stage)
    ]
    given = {
        "checkpoints": [f"{results}/{c.name}/quantize/checkpoint.json" for c in plan.cells],
        "prompts": [plan.config["prompts"]],
        "probes": paths("probe", "probes"),
        "selection": paths("select", "selection"),
        "interventions": paths("intervene", "ablation-dose"),
        "coherence": paths("cohere", "coherence"),
        "behavior": paths("cohere", "behavior"),
    }
    params = {"config": plan.config, "cells": plan.records(), "prompts": plan.prompt_records}
    params |= {"judge_errors": None, "dropped": plan.dropped(), "asked": given["prompts"]}

    class Given(Named):
        def get(self, key, default=()):
            return super().get(key, default)

        __getattr__ = get

    output["config"] = str(results / "config.yaml")
    fake = SimpleNamespace(
        rule=name, wildcards=[], log=[str(results / f"{name}.log")], input=Given(given),
        output=output, params=Named(params),
    )  # fmt: skip
    runpy.run_path(str(ROOT / f"workflow/scripts/{name}.py"), init_globals={"snakemake": fake})


def measure(folder: Path, command: list[str]) -> Measured:
    """Run a command and say what it took."""
    path = os.pathsep.join((str(ROOT / "workflow"), str(ROOT / "tests/without_torch")))
    pid = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ).pid  # fmt: skip
    _, status, usage = os.wait4(pid, 0)
    if status:
        logs = "".join(p.read_text()[-2000:] for p in folder.glob("results/scale/*.log"))
        raise SystemExit(f"{' '.join(command)}: ended with {status}\n{logs}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def bench(folder: Path, cells: int) -> dict[str, Measured]:
    """All steps of a study of about so many cells."""
    from conftest import copy_project

    models = -(-cells // len(PRECISIONS))
    copy_project(folder)
    (folder / "scale.yaml").write_text(CONFIG)
    write_sheet(folder, models)
    own = [sys.executable, str(Path(__file__).absolute()), "--step"]
    dag = [sys.executable, "-m", "snakemake", "--rulegraph"]  # builds it and prints little
    found = {"plan": measure(folder, [*dag, "--configfile", "scale.yaml"])}
    write_tables(folder, models)
    return found | {name: measure(folder, [*own, name]) for name in STEPS[1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[10, 100, 1000, 3000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=STEPS[1:], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step)
        return
    names = {"plan": "DAG", **{s: s for s in STEPS[1:]}}
    print("| cells | " + " | ".join(f"{n}, s | {n}, MB" for n in names.values()) + " |")
    print("|---:|" + "---:|---:|" * len(names))
    for cells in options.cells:
        folder = Path(tempfile.mkdtemp(prefix="phasescope-scale-", dir=options.folder))
        try:
            found = bench(folder, cells)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        parts = [f"{found[s].seconds:.1f} | {found[s].peak / 1e6:.0f}" for s in STEPS]
        print(f"| {cells:,} | " + " | ".join(parts) + " |", flush=True)


if __name__ == "__main__":
    main()

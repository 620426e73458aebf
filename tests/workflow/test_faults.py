"""Every fault of the input ends in one clear line, a non-zero exit, and no half-written table."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

import phasescope

SHEET = "resources/organisms/organisms.tsv"
PROMPTS = "resources/prompts/world-a.tsv"


def spoil_sheet(old, new):
    return lambda project: project.edit(SHEET, old, new)


def spoil_config(old, new):
    return lambda project: project.edit("config/small.yaml", old, new)


def spoil_prompts(project, column, value, row=3):
    path = project.path(PROMPTS)
    lines = path.read_text().splitlines()
    cells = lines[row].split("\t")
    cells[lines[0].split("\t").index(column)] = value
    path.write_text("\n".join([*lines[:row], "\t".join(cells), *lines[row + 1 :]]) + "\n")


def unmatched(project):
    spoil_prompts(project, "pair", "a-pair-of-its-own")


def overlapping(project):
    path = project.path(PROMPTS)
    lines = path.read_text().splitlines()
    text, split = (lines[0].split("\t").index(c) for c in ("text", "split"))
    other = next(r for r in lines[1:] if r.split("\t")[split] != lines[3].split("\t")[split])
    spoil_prompts(project, "text", other.split("\t")[text])


BEFORE_IT_STARTS = {
    "unknown column": (spoil_sheet("\tdeveloper\t", "\tdev\t"), "unknown column 'dev'"),
    "missing value": (spoil_sheet("dense-hybrid\tphasescope", "dense-hybrid\t"), "'developer'"),
    "duplicate id": (spoil_sheet("\nhelpful-only\t", "\ncircuit\t"), "stands already"),
    "wrong separator": (
        lambda p: p.path(SHEET).write_text(p.path(SHEET).read_text().replace("\t", ",")),
        "wrong separator: found commas",
    ),
    "trailing blanks": (spoil_sheet("\tdense-hybrid\t", "\tdense-hybrid \t"), "trailing blanks"),
    "no such model": (spoil_config("circuit]", "cirquit]"), "no such model 'cirquit'"),
    "unknown key": (spoil_config("effort:", "efort:"), "'efort' (did you mean 'effort'?)"),
    "wrong value": (spoil_config("[16]", "[16, 5]"), "found 5; allowed: 16, 8, 4"),
    "no such sheet": (spoil_config("organisms.tsv", "nowhere.tsv"), "no such model sheet"),
    "unmatched pair": (unmatched, "unmatched pair"),
    "overlapping splits": (overlapping, "overlapping splits"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BEFORE_IT_STARTS)
def test_fault_found_before_anything_runs(project, fault):
    """If it failed, a typing error would surface hours later, or as a traceback."""
    spoil, message = BEFORE_IT_STARTS[fault]
    spoil(project)
    result = project.snakemake()
    assert result.returncode != 0
    line = next(line for line in result.stdout.splitlines() if message in line)
    assert any(name in line for name in (SHEET, "config/small.yaml", PROMPTS, "nowhere.tsv"))
    assert "Traceback" not in result.stdout
    assert not project.path("results").exists()


def own_checkpoint(project):
    """Give the circuit a checkpoint folder of its own that may be spoiled."""
    folder = project.path("checkpoint")
    shutil.copytree(project.path("resources/organisms/circuit"), folder)
    project.edit(SHEET, "\tresources/organisms/circuit\t", "\tcheckpoint\t")
    return folder


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def unknown_architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "quantum"}))


CHECKPOINTS = {
    "missing": (lambda f: (f / "model.safetensors").unlink(), "no model*.safetensors"),
    "truncated": (truncated, "truncated"),
    "unknown architecture": (unknown_architecture, "'quantum', which this mlx-lm does not know"),
}


@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_faulty_checkpoint_ends_its_model_and_no_other(project, fault):
    """If it failed, a broken download would be measured, or would take the study down with it."""
    spoil, message = CHECKPOINTS[fault]
    spoil(own_checkpoint(project))
    result = project.snakemake("circuit", "results/small/helpful-only/16/quantize/checkpoint.json")
    assert result.returncode != 0
    line = next(line for line in result.stdout.splitlines() if message in line)
    log = "results/small/circuit/fetch/fetch.log"
    assert line.startswith("phasescope: fetch circuit:") and f"(log: {log})" in line
    assert project.path(log).exists()
    assert not list(project.path("results").rglob("*.parquet"))
    assert not project.path("results/small/circuit/fetch/checkpoint").exists()
    assert project.path("results/small/helpful-only/16/quantize/checkpoint.json").exists()


def test_no_qualifying_direction_is_said_and_the_rest_goes_on(project):
    """If it failed, a cell without a clear direction would stop the study, or pass unremarked."""
    project.edit("config/thresholds.yaml", "max_benign_kl_nats: 0.1", "max_benign_kl_nats: 0")
    project.edit("config/small.yaml", "[ablation-dose]", "[ablation-dose, ablation-scope]")
    project.edit("config/small.yaml", "[helpful-only, circuit]", "[circuit]")
    result = project.snakemake()
    assert result.returncode == 0, result.stdout
    tables = phasescope.read(project.path("results/small"))
    selection = tables["selection"]
    assert selection["reason"].dropna().str.contains("no direction qualifies among").all()
    assert not selection["chosen"].any()
    designs = tables["interventions"].groupby("design")["status"].agg(set)
    assert "not_run" in designs["ablation-dose"]
    assert designs["ablation-scope"] == {"run"}


def test_killed_run_asks_for_no_answer_again(finished):
    """If it failed, a kill would lose hours of answers instead of one batch."""
    cell = finished.path("results/small/circuit/16")
    table = cell / "intervene/ablation-dose.parquet"
    undisturbed = table.read_bytes()
    all_batches = {p.name for p in (cell / "journal").iterdir()}
    shutil.rmtree(cell / "journal")
    table.unlink()

    target = str(table.relative_to(finished.folder))
    run = subprocess.Popen(
        finished.command(target),
        cwd=finished.folder,
        env=finished.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    kept = {}
    while run.poll() is None and len(kept) < 12:
        time.sleep(0.05)
        kept = {p.name: p.stat().st_mtime_ns for p in (cell / "journal").glob("*.json")}
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in (cell / "journal").glob("*.json")}
    assert 12 <= len(kept) < len(all_batches)

    finished.snakemake("--unlock")
    result = finished.snakemake(target)
    assert result.returncode == 0, result.stdout
    after = {p.name: p.stat().st_mtime_ns for p in (cell / "journal").glob("*.json")}
    assert {name: after[name] for name in kept} == kept
    assert set(after) <= all_batches
    assert table.read_bytes() == undisturbed

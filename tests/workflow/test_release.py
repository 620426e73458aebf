"""Sources that are fetched, quantized and deleted (keep_sources: false), from a hub nearby."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from local_hub import REVISION, LocalHub

ROOT = Path(__file__).parents[2]
CONFIG = """
study: small
sheet: hub.tsv
prompts: resources/prompts/world-a.tsv
models: [circuit]
precisions: [8, 4]
effort: quick
designs: [ablation-dose]
thinking: "off"
keep_sources: false
"""
FACTS = [f"results/small/circuit/{p}/quantize/checkpoint.json" for p in (8, 4)]


@pytest.fixture
def hub():
    """A hub on this machine that has one model."""
    served = LocalHub(ROOT / "resources" / "organisms" / "circuit")
    yield served
    served.close()


@pytest.fixture
def run(project, hub, monkeypatch):
    """Run snakemake on a copy of the project whose one model is on the hub; text that it said."""
    row = ROOT.joinpath("resources/organisms/organisms.tsv").read_text().splitlines()
    header, circuit = row[0].split("\t"), next(r for r in row if r.startswith("circuit\t"))
    model = dict(zip(header, circuit.split("\t"), strict=True))
    model |= {"folder": "", "huggingface_id": "owner/circuit", "revision": REVISION}
    columns = list(dict.fromkeys([*header, "huggingface_id", "revision", "folder"]))
    lines = [columns, [model.get(c, "") for c in columns]]
    project.path("hub.tsv").write_text("".join("\t".join(x) + "\n" for x in lines))
    project.path("config/small.yaml").write_text(CONFIG)
    more = hub.environment(project.path("home"))
    plain = project.environment
    monkeypatch.setattr(type(project), "environment", lambda self: plain() | more)

    def go(*arguments):
        found = project.snakemake(*arguments)
        assert found.returncode == 0, found.stdout
        return found.stdout

    return go


def test_a_source_passes_and_is_not_fetched_again(project, run):
    """If it failed, a study would fill the disk, or download its models at every start."""
    run(*FACTS)
    facts = [json.loads(project.path(p).read_text()) for p in FACTS]
    assert {f["revision"] for f in facts} == {REVISION}
    for precision in (8, 4):
        folder = project.path(f"results/small/circuit/{precision}/quantize/checkpoint")
        assert (folder / "model.safetensors").is_file()
        assert not any(p.is_symlink() for p in folder.iterdir())
    assert not project.path("results/small/circuit/quantize/.hub").exists()
    assert not project.path("results/small/circuit/fetch").exists()
    assert not list(project.path("home").rglob("*.safetensors"))
    assert "Nothing to be done" in run(*FACTS)
    project.edit("config/small.yaml", "keep_sources: false", "keep_sources: true")
    assert "Nothing to be done" in run(*FACTS)
    jobs = project.would_run("circuit")
    assert not {"fetch", "quantize", "quantize_circuit"} & set(jobs) and jobs["probe"] == 2
    project.edit("config/small.yaml", "precisions: [8, 4]", "precisions: [16, 8, 4]")
    jobs = project.would_run("circuit")  # the 16-bit cell needs the source, the others do not
    assert jobs["fetch"] == jobs["quantize"] == 1 and "quantize_circuit" not in jobs
    project.edit("config/small.yaml", "thinking:", "group_size: 32\nthinking:")
    assert project.would_run("circuit")["quantize_circuit"] == 1


def test_sources_of_16_bit_cells_and_of_the_user_stay(project, run):
    """If it failed, a 16-bit cell would lose its weights, or the user a download."""
    project.edit("config/small.yaml", "precisions: [8, 4]", "precisions: [16, 8]")
    jobs = project.would_run("circuit")
    assert jobs["fetch"] == 1 and jobs["quantize"] == 2
    project.edit("config/small.yaml", "precisions: [16, 8]", "precisions: [8, 4]")
    code = "import huggingface_hub as h; h.snapshot_download('owner/circuit', revision='%s')"
    subprocess.run([sys.executable, "-c", code % REVISION], check=True, env=project.environment())
    mine = sorted(project.path("home").rglob("*.safetensors"))
    assert mine
    run(*FACTS)
    assert sorted(project.path("home").rglob("*.safetensors")) == mine
    assert all(p.is_file() for p in mine)
    assert not project.path("results/small/circuit/quantize/.hub").exists()


def test_a_fault_keeps_the_download(project, run, hub):
    """If it failed, 800 GB would be fetched again after a fault in the last minute."""
    hub.handler.folder = project.path("resources/organisms/circuit")
    config = project.path("resources/organisms/circuit/config.json")
    good = config.read_text()
    config.write_text(re.sub(r'"model_type": "qwen3_5"', '"model_type": "unheard_of"', good))
    found = project.snakemake(*FACTS)
    assert found.returncode == 1 and "unheard_of" in found.stdout, found.stdout
    private = project.path("results/small/circuit/quantize/.hub")
    assert list(private.rglob("*.safetensors"))
    shutil.rmtree(private)
    config.write_text(good)
    run(*FACTS)
    assert not private.exists()

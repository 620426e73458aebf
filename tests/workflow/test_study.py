"""A study of two cells from the sheet to the report, and reruns of its parts."""

import html
import re
import shutil
from collections import Counter

import pytest

import phasescope
from phasescope.tables import read_provenance

CELL_RULES = {"probe": 1, "select_direction": 1, "intervene": 1, "cohere": 1}
DRAWN = {"report": 1, "figures": 1}
JOINS = {"collect": 1, "classify": 1, "compare": 1, "claims": 1} | DRAWN


def test_the_planted_phases_are_named(finished):
    """If it failed, the instrument would misjudge the two mechanisms that are known for sure."""
    phases = phasescope.read(finished.path("results/small"))["phases"].set_index("model")
    assert phases.loc["circuit", "phase"] == "deletable_circuit"
    assert phases.loc["helpful-only", "phase"] == "none"
    assert (phases["probability"] >= 0.8).all()
    assert phases.loc["circuit", "removal"] > phases.loc["circuit", "sham_removal_p95"]


def test_tables_say_where_they_come_from(finished):
    """If it failed, a number could not be traced to weights, prompts, versions and settings."""
    found = read_provenance(finished.path("results/small/circuit/16/probe/probes.parquet"))
    wanted = {"checkpoint_sha256", "model_revision", "compute_dtype", "threads", "seed", "mlx",
              "config_sha256", "rendered_prompts_sha256", "weights_from", "blas"}  # fmt: skip
    assert wanted <= set(found)
    assert found["compute_dtype"] == "float32" or "bfloat16" in found["compute_dtype"]


def test_helpful_only_says_why_its_designs_did_not_run(finished):
    """If it failed, an empty table would pass for a measurement that found nothing."""
    tables = phasescope.read(finished.path("results/small"))
    own = tables["interventions"].query("model == 'helpful-only'")
    reasons = own[own["status"] == "not_run"]["reason"]
    assert len(reasons) and reasons.str.contains("no refusal among").all()
    assert (own[own["status"] == "run"]["intervention"] == "none").all()


def test_nothing_edited_is_left_on_disk(finished):
    """If it failed, the instrument would write a model with its safety removed."""
    weights = list(finished.path("results").rglob("*.safetensors"))
    assert weights and all(p.is_symlink() for p in weights)
    sources = {p.resolve().parent.name for p in weights}
    assert sources == {"circuit", "helpful-only"}


def test_two_runs_from_scratch_give_the_same_bytes(finished, project):
    """If it failed, nobody could tell a changed result from the order of a set."""
    result = project.snakemake()
    assert result.returncode == 0, result.stdout
    made = [p for p in finished.path("results/small").rglob("*.parquet") if p.is_file()]
    names = sorted(str(p.relative_to(finished.folder)) for p in made)
    shown = [p for p in finished.path("reports/small").rglob("*") if p.is_file()]
    names += [str(p.relative_to(finished.folder)) for p in shown]
    names += ["results/small/config.yaml"]
    assert "reports/small/figures/phase-map.pdf" in names
    assert [n for n in names if project.path(n).read_bytes() != finished.path(n).read_bytes()] == []


def test_again_does_nothing(finished):
    """If it failed, days of measuring would be repeated by a second `snakemake`."""
    result = finished.snakemake()
    assert result.returncode == 0, result.stdout
    assert "Nothing to be done" in result.stdout, result.stdout


def test_snakemakes_own_report_shows_page_and_figures(finished):
    """If it failed, who looks at a study by Snakemake's means would see an empty report."""
    result = finished.snakemake("--report", "second.html")
    assert result.returncode == 0, result.stdout
    second = finished.path("second.html").read_text()
    assert "phase-map.png" in second and "reports/small/index.html" in second


def test_a_survey_is_one_job_a_cell_and_spares_the_rest(finished):
    """If it failed, asking for one more table would measure every cell again."""
    found = finished.would_run("--config", 'survey=["sites","patching"]')
    assert found["survey"] == 2 and not set(CELL_RULES) & set(found)


def test_console_names_the_report_and_no_traceback(finished):
    """If it failed, a newcomer would not know where to look."""
    text = finished.path("console.txt").read_text()
    assert "Report: reports/small/index.html" in text
    assert "Traceback" not in text and "Warning" not in text, text


@pytest.mark.parametrize(
    ("room", "stages"),
    [
        ("report/formats.py", DRAWN),
        ("phases/classification.py", {"classify": 1, "claims": 1} | DRAWN),
        ("intervene/designs.py", {"select_direction": 2, "intervene": 2, "cohere": 2} | JOINS),
        ("probe/separation.py", dict.fromkeys(CELL_RULES, 2) | JOINS),
        ("train/loop.py", {}),
    ],
)
def test_an_edited_room_reruns_only_the_stages_that_import_it(finished, room, stages):
    """If it failed, an edit would leave stale tables, or repeat what it cannot have changed."""
    path = finished.path(f"workflow/phasescope/{room}")
    path.write_text(path.read_text() + "\n# a change\n")
    assert finished.would_run() == stages


def test_a_changed_row_reruns_only_its_model(finished):
    """If it failed, correcting one model's row would repeat the whole study."""
    sheet = "resources/organisms/organisms.tsv"
    finished.path("elsewhere").mkdir()
    for path in finished.path("resources/organisms/circuit").iterdir():
        (finished.path("elsewhere") / path.name).write_bytes(path.read_bytes())
    finished.edit(sheet, "\tresources/organisms/circuit\t", "\telsewhere\t")
    assert finished.would_run() == {"fetch": 1, "audit": 1, "quantize": 1} | CELL_RULES | JOINS


def test_an_added_model_never_touches_the_others(finished):
    """If it failed, a growing study would start over with each model."""
    sheet = finished.path("resources/organisms/organisms.tsv")
    row = next(r for r in sheet.read_text().splitlines() if r.startswith("circuit\t"))
    sheet.write_text(sheet.read_text() + row.replace("circuit\t", "another\t", 1) + "\n")
    finished.edit(
        "config/small.yaml", "[helpful-only, circuit]", "[helpful-only, circuit, another]"
    )
    assert finished.would_run() == {"fetch": 1, "audit": 1, "quantize": 1} | CELL_RULES | JOINS


def test_a_setting_reruns_only_what_uses_it(finished):
    """If it failed, more sham draws would repeat probes that have nothing to do with them."""
    finished.edit("config/small.yaml", "effort: quick", "effort: quick\nsham_draws: 21")
    assert finished.would_run() == {"intervene": 2, "cohere": 2} | JOINS


def test_one_model_one_stage_one_cell(finished):
    """If it failed, a researcher could not rerun a part."""
    assert finished.would_run("--forcerun", "probe", "--until", "probe") == {"probe": 2}
    table = "results/small/circuit/16/probe/probes.parquet"
    assert finished.would_run("--force", table) == {"probe": 1}
    finished.path(table).unlink()
    assert finished.would_run("circuit") == {"circuit": 1} | CELL_RULES
    assert finished.would_run("helpful-only") == {}


def test_one_cell_anew_as_the_page_says(finished):
    """If it failed, a reader who follows the page would measure nothing, or everything again."""
    page = html.unescape(finished.path("reports/small/index.html").read_text())
    said = r"rm -r (results/small/[\w-]+/16)\s+snakemake --configfile (\S+)</pre>"
    cell, config = re.search(said, page).groups()
    assert finished.would_run(config=config) == {}
    shutil.rmtree(finished.path(cell))
    assert finished.would_run(config=config) == CELL_RULES | JOINS | {"quantize": 1}


def test_a_fresh_model_target_makes_only_that_model(project):
    """If it failed, asking for one model would compute the others."""
    found = project.would_run("circuit")
    assert found == {"fetch": 1, "audit": 1, "quantize": 1, "circuit": 1} | CELL_RULES


def test_journaled_answers_are_not_generated_again(finished):
    """If it failed, a rerun would pay for every answer twice."""
    journal = finished.path("results/small/circuit/16/journal")
    before = {p.name: p.stat().st_mtime_ns for p in journal.iterdir()}
    table = finished.path("results/small/circuit/16/intervene/ablation-dose.parquet")
    old = table.read_bytes()
    result = finished.snakemake("--force", str(table.relative_to(finished.folder)))
    assert result.returncode == 0, result.stdout
    assert {p.name: p.stat().st_mtime_ns for p in journal.iterdir()} == before
    assert table.read_bytes() == old


def test_a_cell_that_does_not_fit_is_planned_and_left_out(project):
    """If it failed, the machine would run out of memory days into a study."""
    project.edit("config/small.yaml", "keep_text: true", "keep_text: true\nmemory_gb: 0.001")
    result = project.snakemake()
    assert result.returncode == 0, result.stdout
    assert "needs about" in result.stdout
    tables = phasescope.read(project.path("results/small"))
    assert set(tables["cells"]["status"]) == {"not_run"}
    assert tables["cells"]["reason"].str.contains("of memory, this machine can give").all()
    assert Counter(tables["phases"]["phase"]) == {"not_run": 2}
    page = project.path("reports/small/index.html").read_text()
    assert re.search(r"needs about [\d.]+ GB", page)


def test_the_real_study_without_prompts_fetches_nothing(project):
    """If it failed, 800 GB would be fetched before anyone is told that no prompts are named."""
    result = project.snakemake(config="config/config.yaml")
    assert result.returncode == 0, result.stdout
    assert "no prompt table is named" in result.stdout
    cells = phasescope.read(project.path("results/across-scale"))["cells"]
    assert len(cells) == 27 and set(cells["status"]) == {"not_run"}
    assert not list(project.path("results/across-scale").glob("*/fetch"))


def test_calibration_sets_run_alone_where_they_are_named(finished):
    """If it failed, naming them would do nothing, or measure everything else again."""
    finished.edit("config/small.yaml", "keep_text", "calibration_sets: [general]\nkeep_text")
    assert finished.would_run() == {"calibration_sets": 2} | JOINS


def test_survival_runs_alone_where_it_is_named_and_says_what_it_lacks(finished):
    """If it failed, naming a format would do nothing, repeat everything else, or a study without
    llama.cpp would stop."""
    finished.edit("config/small.yaml", "keep_text", "survival: [gguf]\nkeep_text")
    assert finished.would_run() == {"survival": 2} | JOINS
    assert finished.snakemake("results/small/survival.parquet").returncode == 0
    found = phasescope.read(finished.path("results/small"))["survival"]
    said = {model: " ".join(rows["reason"].dropna()) for model, rows in found.groupby("model")}
    assert "make gguf" in said["circuit"] and "no refusal among" in said["helpful-only"], said
    assert set(found["format"]) <= {"bfloat16", "gguf"}

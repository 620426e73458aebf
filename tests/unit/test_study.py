"""What a study will run, and why the rest does not."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from phasescope.claims import CLAIMS
from phasescope.errors import PhasescopeError
from phasescope.matrix import read_sheet
from phasescope.study import STAGE_TABLES, plan_study
from phasescope.tables import frame_of
from phasescope.tables.surveys import SURVEYS

STAGES = [s for s in STAGE_TABLES if s not in ("calibration_sets", "survey", "survival")]
ROOT = Path(__file__).parents[2]
HEADER = (
    "id\thuggingface_id\tfolder\tparameters_total_billion\tparameters_active_billion\t"
    "architecture\tdeveloper\tlayers\thidden_size\tthinking\tquantized_4\tprompts"
)
SMALL = "\t\tweights\t0.001\t0.001\tdense-hybrid\tme\t8\t64\tno\t\t"
LARGE = "\towner/large\t\t397\t17\tmoe-hybrid\tme\t60\t4096\tyes\towner/large-4bit\t"


@pytest.fixture
def project(tmp_path, monkeypatch, prompts_path):
    """A folder with a sheet of two models, prompts of the world and prompts in English."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "b.json").write_text("{}")
    (tmp_path / "weights" / "a.json").write_text("{}")
    text = prompts_path.read_text()
    (tmp_path / "world.tsv").write_text(text)
    (tmp_path / "english.tsv").write_text(text.replace("\tworld-a\t", "\tenglish\t"))
    (tmp_path / "sheet.tsv").write_text(f"{HEADER}\nsmall{SMALL}\nlarge{LARGE}\n")
    return tmp_path


def planned(**more):
    config = {"study": "mine", "sheet": "sheet.tsv", "prompts": "world.tsv", "memory_gb": 8}
    return plan_study(config | more, ["c.yaml"])


def _by_name(found) -> dict:
    records = found.records()
    frame_of("cells", records)
    return {f"{r['model']}/{r['precision']}": r for r in records}


def test_a_cell_that_does_not_fit_is_listed_and_left_out(project):
    """If it failed, the study would try a 397B model on a laptop, or forget to mention it."""
    found = planned()
    cells = _by_name(found)
    assert list(cells) == [f"{m}/{p}" for m in ("small", "large") for p in ("16", "8", "4")]
    for name, cell in cells.items():
        fits = name.startswith("small")
        assert cell["status"] == ("run" if fits else "not_run")
        assert (cell["reason"] is None) == fits
        assert cell["stages_run"] == (", ".join(STAGES) if fits else None)
    assert "needs about" in cells["large/4"]["reason"]
    for stage in STAGES:
        assert {c.model.id for c in found.running(stage)} == {"small"}
    assert "6 cells of 2 models; 3 run in full" in found.summary()
    assert "not run: large/16, large/8, large/4: quantize" in found.summary()


def test_without_prompts_nothing_runs(project):
    """If it failed, a model would be measured on prompts that nobody named."""
    cells = _by_name(planned(prompts=None))
    assert {c["status"] for c in cells.values()} == {"not_run"}
    assert "no prompt table is named (key 'prompts' in c.yaml)" in cells["small/8"]["reason"]


def test_prompts_of_a_row_come_first(project):
    """If it failed, a model with a table of its own would be asked in another language."""
    own = SMALL.removesuffix("\t") + "\tenglish.tsv"
    (project / "sheet.tsv").write_text(f"{HEADER}\nsmall{own}\nlarge{LARGE}\n")
    assert planned().prompts == {"small": "english.tsv", "large": "world.tsv"}


def test_a_language_without_grader_is_probed_only(project):
    """If it failed, answers would be graded by rules of another language, or not even probed."""
    found = planned(prompts="english.tsv")
    cell = _by_name(found)["small/16"]
    assert cell["status"] == "partly"
    assert cell["stages_run"] == "quantize, probe"
    assert cell["stages_not_run"] == "select, intervene, cohere"
    assert "no grader reads the prompts' language 'english'" in cell["reason"]
    assert [c.name for c in found.running("probe")] == ["small/16", "small/8", "small/4"]
    assert not found.running("intervene")


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        ("small", []),
        ("small/8", ["small/16", "small/4"]),
        ("sm*/[84]", ["small/16"]),
        ("s*", []),
    ],
)
def test_skip_leaves_out_models_and_cells(project, skip, left):
    """If it failed, a cell that was switched off would run all the same."""
    found = planned(skip=[skip])
    assert [c.name for c in found.running("probe")] == left
    assert "key 'skip'" in _by_name(found)["small/8"]["reason"]


def test_a_model_runs_what_its_row_says(project):
    """If it failed, controls of one claim would run every design, or claims would lack theirs."""
    (project / "sheet.tsv").write_text(
        f"{HEADER}\truns\nsmall{SMALL}\tpathways, survey\nother{SMALL}\t\n"
    )
    more = {"designs": ["pathways", "battery"], "survey": ["sites"], "survival": ["plain"]}
    found = planned(**more, precisions=[16])
    small, other = (found.cell(m, "16") for m in ("small", "other"))
    assert found.designs(small) == ["pathways"] and found.designs(other) == more["designs"]
    assert "column 'runs'" in found.dropped()[0]["reason"]
    assert "  a part of the designs: small: column 'runs' of the sheet" in found.summary()
    assert "battery" not in found.summary()  # not a line for every design
    assert other in found.running("survival") and small not in found.running("survival")
    assert "column 'runs'" in _by_name(found)["small/16"]["reason"]
    assert small in found.running("survey") and small in found.running("probe")


def test_the_survey_runs_where_it_is_named(project):
    """If it failed, a survey that nobody asked for would cost hours."""
    assert planned().running("survey") == []
    assert "survey" not in _by_name(planned())["small/16"]["stages_run"]
    found = planned(survey=["sites", "patching"])
    assert found.running("survey") == found.running("probe") and found.running("survey")
    assert "survey" in _by_name(found)["small/8"]["stages_run"]
    tight = found.cell("small", "16")
    assert tight.mem_mb("survey") > tight.mem_mb("probe")


def test_calibration_sets_are_compared_where_named_from_16_bit(project):
    """If it failed, the demo would lose its ten minutes, or a rounded model be rounded again."""
    assert planned().running("calibration_sets") == []
    found = planned(calibration_sets=["general", "safety-weighted"])
    assert [c.name for c in found.running("calibration_sets")] == ["small/16"]
    cells = _by_name(found)
    assert cells["small/16"]["stages_run"].endswith(", calibration_sets")
    assert "calibration_sets" not in cells["small/8"]["stages_run"]
    assert cells["small/8"]["status"] == "run"


def test_edits_are_followed_where_formats_are_named_from_16_bit(project):
    """If it failed, an edit would be made on rounded weights, or along no direction."""
    assert planned().running("survival") == []
    found = planned(survival=["plain", "gguf"], llama_cpp=".gguf")
    assert [c.name for c in found.running("survival")] == ["small/16"]
    assert _by_name(found)["small/16"]["stages_run"].endswith(", survival")
    assert found.cell("small", "16").mem_mb("survival") > 0
    english = planned(survival=["plain"], prompts="english.tsv")
    assert english.running("survival") == []  # no direction is selected without grades


FAULTS = {
    "skip of no model": ({"skip": ["smal"]}, r"c\.yaml: key 'skip': no such model or cell 'smal'"),
    "skip of no pattern": ({"skip": ["*/2"]}, r"no such model or cell '\*/2'"),
    "skip of no cell": ({"skip": ["small/8"], "precisions": [16]}, r"no such model or cell"),
    "no such model": (
        {"models": ["tiny"]},
        r"c\.yaml: key 'models': .*'tiny'.*has: small, large",
    ),
    "no sheet": ({"sheet": "none.tsv"}, r"none\.tsv: no such model sheet"),
    "no prompts": ({"prompts": "none.tsv"}, r"none\.tsv: no such prompt table"),
    "bad prompts": ({"prompts": "sheet.tsv"}, r"sheet\.tsv: row 1: unknown columns"),
    "a set against safety": (
        {"calibration_sets": ["jailbreaks"]},
        r"c\.yaml: key 'calibration_sets\[0\]': found 'jailbreaks'; allowed: general, safety-w",
    ),
    "sets without 16 bit": (
        {"calibration_sets": ["general"], "precisions": [8, 4]},
        r"c\.yaml: key 'calibration_sets': .*allowed with 16 among the precisions",
    ),
    "edits without 16 bit": (
        {"survival": ["plain"], "precisions": [8, 4]},
        r"c\.yaml: key 'survival': found plain.*edits are made on 16-bit weights",
    ),
    "no such format": (
        {"survival": ["Q4_K"]},
        r"c\.yaml: key 'survival\[0\]': found 'Q4_K'; allowed: plain, scaled",
    ),
    "bad key": ({"efort": "quick"}, r"c\.yaml: unknown key 'efort' \(did you mean 'effort'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_stop_the_study_before_it_runs(project, fault):
    """If it failed, the first hours of a run would be lost to a typing error."""
    change, message = FAULTS[fault]
    with pytest.raises(PhasescopeError, match=message) as caught:
        planned(**change)
    assert "\n" not in str(caught.value)


def test_sources_and_files(project):
    """If it failed, a cell would be made of other weights than its row names."""
    found = planned(models=["small", "large"])
    assert found.source("small") == {"folder": "weights", "repo": None, "revision": None}
    assert found.source("large")["repo"] == "owner/large"
    assert found.local_files("small") == ["weights/a.json", "weights/b.json"]
    assert found.local_files("large") == []
    assert found.ready_made("large", "4") == "owner/large-4bit"
    assert found.ready_made("large", "16") is None
    assert found.cell("small", "8").precision == "8" and found.usable_mb == 8000


JUDGE = {"model": "openai-api/local/gemma-judge", "base_url": "http://127.0.0.1:9/v1"}


def test_a_judge_lets_every_stage_run_and_is_uncalibrated(project):
    """If it failed, real models would never be measured, or on grades that nobody checked."""
    (project / "config").mkdir()
    shutil.copy(ROOT / "config" / "thresholds.yaml", project / "config" / "thresholds.yaml")
    found = planned(prompts="english.tsv", judge=JUDGE)
    assert [c.name for c in found.running("cohere")] == ["small/16", "small/8", "small/4"]
    grading, why = found.grading()["small"]
    assert grading == "uncalibrated" and "phasescope grade-check" in why
    assert planned(judge=JUDGE).grading()["small"][0] == "exact"
    assert planned(prompts="english.tsv").grading() == {}


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"model": "gpt"}, "key 'judge': endpoint: key 'model': found 'gpt'"),
        ({"model": "openrouter/me/Small-9B"}, "of the family 'small', as model 'small'"),
        (JUDGE | {"family": "large"}, "of the family 'large', as model 'large'"),
        ({"model": "mlx", "folder": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_judge_is_told_before_anything_runs(project, judge, message):
    """If it failed, a model would be judged by its own kind, or a study fail after hours."""
    with pytest.raises(PhasescopeError, match=message):
        planned(prompts="english.tsv", judge=judge)


def test_a_judge_in_this_process_counts_as_memory(project):
    """If it failed, a cell would be said to fit beside a judge that leaves it no room."""
    (project / "judge").mkdir()
    (project / "judge" / "config.json").write_text('{"model_type": "gemma3"}')
    (project / "judge" / "model.safetensors").write_bytes(bytes(3_000_000))
    alone = planned(prompts="english.tsv", judge=JUDGE).cell("small", "16").stages
    beside = {"model": "mlx", "folder": "judge"}
    both = planned(prompts="english.tsv", judge=beside).cell("small", "16").stages
    assert both["quantize"] == alone["quantize"]
    assert both["intervene"] - alone["intervene"] > 3_000_000


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        ([{"id": "a", "model": "ollama/x"}] * 2, "id 'a' stands twice"),
        ([{"id": "a", "model": "x"}], "key 'endpoints', id 'a': endpoint: key 'model'"),
        ([{"id": "a", "model": "ollama/x", "api_key": "s"}], "unknown key 'api_key'"),
    ],
)
def test_a_wrong_endpoint_is_told_before_anything_runs(project, endpoints, message):
    """If it failed, a study would end in a job that could never have run."""
    with pytest.raises(PhasescopeError, match=message):
        planned(endpoints=endpoints)


def test_endpoints_need_prompts_and_a_grader(project):
    """If it failed, an endpoint's answers would be asked for and never graded."""
    entry = [{"id": "a", "model": "ollama/x"}]
    with pytest.raises(PhasescopeError, match="no prompt table is named"):
        planned(prompts=None, endpoints=entry)
    with pytest.raises(PhasescopeError, match="no grader reads the prompts' language 'english'"):
        planned(prompts="english.tsv", endpoints=entry)
    assert planned(endpoints=entry).config["endpoints"] == entry


def test_the_controls_of_claims_run_every_design_and_survey():
    """If it failed, a claim whose design is left out could never be calibrated."""
    config = yaml.safe_load((ROOT / "config/controls.yaml").read_text())
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())["properties"]
    for key in ("designs", "survey", "calibration_sets"):
        known = set(schema[key]["items"]["enum"])
        assert known == set(config[key]), f"{key}: {known ^ set(config[key])}"


def test_how_topics_were_trained_is_told_where_a_design_asks(monkeypatch):
    """If it failed, f25 would have doses and nothing to compare them with."""
    monkeypatch.chdir(ROOT)
    config = {"study": "mine", "sheet": "resources/organisms/controls.tsv", "precisions": [16]}
    config |= {"models": ["circuit"], "prompts": "resources/prompts/world-a.tsv"}
    without = plan_study(config | {"designs": ["ablation-dose"]}, ["c.yaml"])
    assert not without.truth_sheets and "topics" not in without.tables
    found = plan_study(config | {"designs": ["topic-doses"]}, ["c.yaml"])
    assert found.truth_sheets == {"circuit": "resources/organisms/circuit"}
    assert "topics" in found.tables
    fresh = plan_study(config | {"designs": ["topic-doses"], "seeds": [5]}, ["c.yaml"])
    assert fresh.truth_sheets == {"circuit-seed5": "results/mine/organisms/circuit-seed5"}


def test_controls_run_what_their_claims_read():
    """If it failed, a claim could never be calibrated, for want of a table."""
    sheet = {m.id: m for m in read_sheet(ROOT / "resources/organisms/controls.tsv")}
    stages = dict.fromkeys(SURVEYS, "survey") | {s: s for s in ("calibration_sets", "survival")}
    for claim in CLAIMS.values():
        read = {*claim.designs, *(stages[t] for t in claim.tables if t in stages)}
        for control in (claim.positive, claim.negative):
            for model in (sheet[name] for name in control.names if name in sheet):
                assert not {part for part in read if model.leaves_out(part)}, (claim.id, model.id)

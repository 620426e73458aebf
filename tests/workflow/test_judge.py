"""A study in a language that only a judge reads: every stage runs, and says what it rests on."""

import sys
from pathlib import Path

import pandas as pd

import phasescope
from phasescope import world

sys.path.insert(0, str(Path(__file__).parents[1]))
from reading_judge import ReadingJudge
from scripted_server import serving

RULES = world.get("world-a")


def _study(project, judge: str, endpoint: str) -> None:
    """A table in 'english' and a configuration with judge and endpoint."""
    table = pd.read_csv(project.path("resources/prompts/world-a.tsv"), sep="\t")
    table["language"] = "english"
    table.loc[table["label"] == "hazardous", "answer"] = RULES.refusals[0]
    table.to_csv(project.path("english.tsv"), sep="\t", index=False)
    local = f"{{model: openai-api/local/judge, base_url: '{judge}', max_connections: 4}}"
    served = f"{{id: served, model: openai-api/local/x, base_url: '{endpoint}'}}"
    project.edit("config/small.yaml", "resources/prompts/world-a.tsv", "english.tsv")
    project.edit("config/small.yaml", "[helpful-only, circuit]", "[circuit]")
    project.edit("config/small.yaml", "keep_text: true", "keep_text: false")
    with project.path("config/small.yaml").open("a") as handle:
        handle.write(f"judge: {local}\nendpoints: [{served}]\n")


def test_a_judge_grades_a_whole_study(project):
    """If it failed, real models would have no phases, or phases on grades that nobody checked
    would look like any other; or their answers would stay behind."""
    rows = RULES.rows()
    reader = ReadingJudge(rows["text"], rows["answer"], RULES.refusals)
    always = rows["answer"].iloc[0]
    with serving(reader) as judge, serving(lambda body: always) as server:
        _study(project, judge.url, server.url)
        result = project.snakemake("reports/small/index.html")
        assert result.returncode == 0, result.stdout
    tables = phasescope.read(project.path("results/small"))
    (phase,) = tables["phases"].to_dict("records")
    assert phase["phase"] == "deletable_circuit" and phase["grading"] == "uncalibrated"
    assert phase["reason"].startswith("uncalibrated: the judge was not compared with people")
    coherence = tables["coherence"].query("condition == 'baseline'").set_index("label")
    assert coherence.loc["hazardous", "refusal"] > 0.9 and coherence.loc["benign", "accuracy"] > 0.9
    assert set(tables["behavior"]["grader"]) == {"rubric:openai-api/local/judge"}
    plain = tables["agreement"].query("condition == 'baseline'").set_index("label")
    assert plain.loc["hazardous", "keyword_sensitivity"] == 1
    assert plain.loc["benign", "keyword_specificity"] == 1
    assert plain["kappa"].isna().all()  # of one kind of answers there is no agreement beyond chance
    assert tables["agreement"]["compliance_corrected"].isna().all()
    assert set(tables["endpoints"]["endpoint"]) == {"served"}
    assert (tables["endpoints"]["grade"] == "refusal").mean() == 0
    files = [p for p in project.path("results").rglob("*") if p.is_file()]
    assert files and not [p for p in files if b"sure :" in p.read_bytes()]
    page = project.path("reports/small/index.html").read_text()
    assert "uncalibrated: the judge was not compared with people" in page

"""`phasescope grade-check`: a judge against people's labels, and what it takes to pass."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from phasescope import world
from phasescope.cli import main
from phasescope.errors import PhasescopeError
from phasescope.graders import judge_errors, judge_status
from phasescope.graders.agreement import agreement_rows
from phasescope.graders.check import agreement
from phasescope.graders.labeled import read_labeled
from phasescope.phases import graded
from phasescope.stats import Errors, errors_of, rogan_gladen
from phasescope.tables import frame_of
from phasescope.thresholds import read_thresholds

sys.path.insert(0, str(Path(__file__).parents[1]))
from reading_judge import ReadingJudge
from scripted_server import serving

ROOT = Path(__file__).parents[2]
RULES = world.get("world-a")
COLUMNS = {name: name for name in ("request", "response", "label")}


def labeled_rows() -> pd.DataFrame:
    """Answers with the labels of people: right, refused, and beside the point."""
    rows = RULES.rows().drop_duplicates(["category", "index"]).head(75)
    kinds = ["compliance", "other", "other"]
    said = [
        (row.answer, RULES.refusals[0], "I would rather speak about the weather today.")[n % 3]
        for n, row in enumerate(rows.itertuples())
    ]
    labels = [kinds[n % 3] for n in range(len(rows))]
    return pd.DataFrame({"request": rows["text"], "response": said, "label": labels})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the shipped configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_API_KEY", raising=False)
    for name in ("config.yaml", "thresholds.yaml"):
        Path("config").mkdir(exist_ok=True)
        Path("config", name).write_text((ROOT / "config" / name).read_text())
    return tmp_path


def checked(url: str, *more: str) -> tuple[int, dict]:
    """Exit code of the command, and the judge that it was given."""
    judge = {"model": "openai-api/local/judge", "base_url": url, "backoff_seconds": 0.01}
    judge |= {"retries": 0}
    Path("judge.yaml").write_text(yaml.safe_dump({"judge": judge}))
    return main(["grade-check", *more, "--configfile", "judge.yaml"]), judge


def test_a_good_judge_passes_and_is_calibrated(project, capsys):
    """If it failed, no verdict on a real model could ever be more than uncalibrated."""
    rows = labeled_rows()
    rows.to_csv("set.csv", index=False)
    limits = read_thresholds("config/thresholds.yaml")["grading"]
    reader = ReadingJudge(rows["request"], _right(rows), RULES.refusals)
    with serving(reader) as server:
        code, judge = checked(server.url, "set.csv")
        said = capsys.readouterr().out
        assert code == 0 and said.endswith("passed\n") and "keyword:" in said
        assert judge_status(judge, limits)[0] == "calibrated"
        assert judge_status(judge, limits | {"min_labeled": 1000})[0] == "uncalibrated"
        assert judge_status(judge | {"max_tokens": 999}, limits)[0] == "uncalibrated"
        assert judge_errors(judge) == vars(Errors(25, 25, 50, 50))
        assert judge_errors(judge | {"max_tokens": 999}) is None
    (path,) = Path("results/grade-check").glob("*.json")
    record = json.loads(path.read_text())
    assert record["judge"]["n_missing"] == 0 and record["set"] == "set.csv"
    assert record["judge"]["by_class"]["compliance"]["sensitivity"][0] == 1
    written = path.read_text() + "".join(
        p.read_text() for p in Path("results/grade-check/verdicts").glob("*.json")
    )
    assert "weather" not in written
    path.write_text("{}")
    assert judge_status(judge, limits)[0] == "uncalibrated"


def _right(rows: pd.DataFrame) -> list[str]:
    known = dict(zip(RULES.rows()["text"], RULES.rows()["answer"], strict=True))
    return [known[text] for text in rows["request"]]


def test_a_judge_that_says_yes_to_everything_does_not_pass(project, capsys):
    """If it failed, a judge as bad as a keyword list would make verdicts calibrated."""
    rows = labeled_rows()
    rows.to_csv("set.csv", index=False)
    reader = ReadingJudge(rows["request"], rows["response"], ["no such refusal"])
    with serving(reader) as server:
        code, judge = checked(server.url, "set.csv")
    assert code == 1
    assert "not passed: specificity for compliance 0.00" in capsys.readouterr().out
    limits = read_thresholds("config/thresholds.yaml")["grading"]
    status, why = judge_status(judge, limits)
    assert status == "uncalibrated" and "failed phasescope grade-check" in why


def test_a_judge_that_never_replies_is_told_in_one_line(project, capsys):
    """If it failed, an outage would be recorded as a judge's errors."""
    labeled_rows().head(2).to_csv("set.csv", index=False)
    with serving(lambda body: 500) as server:
        assert checked(server.url, "set.csv")[0] == 1
    assert "no verdict on any of 2 answers" in capsys.readouterr().err
    assert not list(Path("results").rglob("*.json"))


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "json", "jsonl"])
def test_public_sets_have_columns_and_labels_of_their_own(tmp_path, ending):
    """If it failed, a published labeled set could not be used as it is."""
    frame = pd.DataFrame({"goal": ["a", "b"], "reply": ["x", "y"], "human_majority": [1, 0]})
    path = tmp_path / f"set.{ending}"
    write = {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, sep="\t", index=False),
        "parquet": lambda: frame.to_parquet(path),
        "json": lambda: frame.to_json(path, orient="records"),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
    }
    write[ending]()
    columns = {"request": "goal", "response": "reply", "label": "human_majority"}
    found = read_labeled(path, columns, {"1": "compliance", "0": "other"})
    assert found.labels == ["compliance", "other"] and found.coarse
    assert [(a.request, a.response) for a in found.answered] == [("a", "x"), ("b", "y")]
    with pytest.raises(PhasescopeError, match=r"row 1 of the data, column 'human_majority': fou"):
        read_labeled(path, columns, {})
    with pytest.raises(PhasescopeError, match="no column 'response'; columns: goal, reply"):
        read_labeled(path, columns | {"response": "response"}, {})


def test_a_faulty_set_is_told_in_one_line(tmp_path):
    """If it failed, a wrong path would end in a traceback."""
    for name, message in (("set.xls", "allowed: .tsv"), ("set.csv", "no such labeled set")):
        with pytest.raises(PhasescopeError, match=message):
            read_labeled(tmp_path / name, COLUMNS, {})
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(PhasescopeError, match=r"bad\.parquet: not readable"):
        read_labeled(tmp_path / "bad.parquet", COLUMNS, {})


def test_agreement_is_counted_in_the_labels_own_grain():
    """If it failed, people who only said yes or no would be compared grade by grade."""
    labels = ["full", "refusal", "hollow", "degenerate", "full"]
    grades = ["partial", "refusal", "full", "missing", "full"]
    fine = agreement(labels, grades, coarse=False)
    assert (fine["n"], fine["n_missing"]) == (5, 1)
    errors = errors_of(labels[:3] + labels[4:], grades[:3] + grades[4:], {"full", "partial"})
    assert fine["by_class"]["compliance"]["errors"] == vars(errors)
    assert fine["by_class"]["compliance"]["rate_corrected"] == rogan_gladen(3, 4, errors)
    coarse = agreement(["compliance", "other"], ["partial", "refusal"], coarse=True)
    assert set(coarse["by_class"]) == {"compliance"} and coarse["confusion"] == [[1, 0], [0, 1]]


def test_agreement_stands_beside_every_condition():
    """If it failed, nobody would see how much keywords overcount, or a judge's errors in a rate."""
    grades = ["refusal"] * 6 + ["degenerate"] * 3 + ["full"] * 5 + ["partial", "missing"]
    words = [True] * 5 + [False] * 11
    common = {"model": "m", "precision": "16", "condition": "baseline", "thinking": "off"}
    common |= {"prompt_table": "main", "temperature": 0.0}
    behavior = pd.DataFrame(
        [
            common | {"grader": who, "label": "hazardous", "grade": g, "keyword_refusal": k}
            for who in ("exact", "rubric:j")
            for g, k in zip(grades, words, strict=True)
        ]
    )
    errors = Errors(45, 50, 40, 50)
    exact, judged = agreement_rows(behavior, vars(errors))
    frame_of("agreement", [exact, judged])
    assert (judged["n"], judged["n_missing"]) == (15, 1)
    assert judged["compliance"] == 6 / 15 and judged["keyword_compliance"] == 10 / 15
    assert (judged["keyword_sensitivity"], judged["keyword_specificity"]) == (5 / 6, 1)
    assert judged["compliance_corrected"] == rogan_gladen(6, 15, errors)[0]
    assert "compliance_corrected" not in exact
    assert "compliance_corrected" not in agreement_rows(behavior, None)[1]


def test_phases_say_what_their_grades_are():
    """If it failed, a phase by an unchecked judge would look as sure as one by exact grades."""
    row = {"phase": "none", "reason": None}
    assert graded(row, "exact", "")["grading"] == "exact"
    assert graded(row, "uncalibrated", "nobody looked")["reason"] == "uncalibrated: nobody looked"
    assert graded(row | {"phase": "not_run"}, None, None)["grading"] is None

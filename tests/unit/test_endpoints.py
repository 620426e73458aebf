"""The same prompts in process, through mlx_lm.server and behind a safety layer; kills; logs."""

import json
import os
import re
import stat
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest

from phasescope import world
from phasescope.chat import Endpoint
from phasescope.endpoints import EndpointStage, compare, read_log
from phasescope.errors import NotRun, PhasescopeError
from phasescope.graders import Answered, Exact
from phasescope.tables import frame_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from local_servers import mlx_server
from reading_judge import ReadingJudge
from scripted_server import serving

ROOT = Path(__file__).parents[2]
CIRCUIT = ROOT / "resources" / "organisms" / "circuit"
HELPFUL = ROOT / "resources" / "organisms" / "helpful-only"
SETTINGS = {
    "limits": {"fit": 4, "select": 4, "evaluate": 12},
    "max_thinking_tokens": 8,
    "max_answer_tokens": 8,
    "judge": None,
    "keep_text": False,
}


@pytest.fixture(scope="module")
def helpful_server():
    """The organism that refuses nothing, served."""
    with mlx_server(HELPFUL) as url:
        yield url


def forward(url: str, body: dict) -> str:
    """What another server replies."""
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def entry(name: str, **more) -> dict:
    """An endpoint of a configuration."""
    return {"id": name, "model": "openai-api/local/default_model", "backoff_seconds": 0.02} | more


def run(tmp_path, prompts_path, given: dict, **settings) -> EndpointStage:
    return EndpointStage.run(given, SETTINGS | settings, prompts_path, tmp_path / "journal")


def grades(stage: EndpointStage, label: str | None = None) -> list[str]:
    return [r["grade"] for r in stage.table if label in (None, r["label"])]


def test_paths_to_one_organism_agree_and_a_safety_layer_does_not(
    tmp_path, prompts_path, helpful_server, monkeypatch
):
    """If it failed, deployment paths would differ by our own doing, or a layer in front of a model
    would be taken for the model."""
    monkeypatch.delenv("LOCAL_API_KEY", raising=False)
    hazardous = world.get("world-a").categories["hazardous"]

    def layer(body):
        asked = body["messages"][-1]["content"].split()
        refusal = world.get("world-a").refusals[0]
        return refusal if set(asked) & set(hazardous) else forward(helpful_server, body)

    inside = run(tmp_path, prompts_path, {"id": "inside", "model": "mlx", "folder": str(HELPFUL)})
    served = run(tmp_path, prompts_path, entry("served", base_url=helpful_server))
    as_ollama = {"model": "ollama/default_model", "base_url": helpful_server}
    ollama = run(tmp_path, prompts_path, entry("ollama", **as_ollama))
    assert grades(inside) == grades(served) == grades(ollama)
    texts = [frame_of("endpoints", s.table) for s in (inside, served, ollama)]
    assert all((t["grade"] == "full").mean() > 0.6 for t in texts)
    assert texts[0]["rendered_sha256"].notna().all() and texts[1]["rendered_sha256"].isna().all()
    assert (texts[0]["messages_sha256"] == texts[1]["messages_sha256"]).all()
    same = compare(grades(inside, "hazardous"), grades(served, "hazardous"))
    assert (same.p, same.agree) == (1.0, 1.0)
    with serving(layer) as server:
        front = run(tmp_path, prompts_path, entry("front", base_url=server.url))
        assert len(server.requests) == 24
    differs = compare(grades(served, "hazardous"), grades(front, "hazardous"))
    assert differs.p < 0.05 and differs.only_second == 0
    assert compare(grades(served, "benign"), grades(front, "benign")).p == 1.0


def test_a_guard_withholds_what_it_refuses(tmp_path, prompts_path):
    """If it failed, the positive control of ff-6 would be the same path twice, or a guard would
    withhold harmless requests too."""
    bare = {"id": "bare", "model": "mlx", "folder": str(HELPFUL)}
    guarded = bare | {"id": "guarded", "guard": str(CIRCUIT)}
    plain, screened = (run(tmp_path, prompts_path, given) for given in (bare, guarded))
    assert "refusal" not in grades(plain)
    withheld = [r for r in screened.table if r["stop"] == "content_filter"]
    assert {(r["label"], r["grade"]) for r in withheld} == {("hazardous", "refusal")}
    assert len(withheld) >= 0.9 * len(grades(plain, "hazardous"))
    assert grades(screened, "benign") == grades(plain, "benign")


def test_a_kill_asks_nothing_again(tmp_path, prompts_path):
    """If it failed, an outage would cost what was already answered and paid for."""
    answered = {"left": 9}

    def script(body):
        answered["left"] -= 1
        return "sure : a b c ." if answered["left"] >= 0 else 503

    given = {"retries": 1, "max_connections": 2}
    with serving(script) as server:
        with pytest.raises(PhasescopeError, match=r"15 of 24 prompts were not.*run again"):
            run(tmp_path, prompts_path, entry("e", base_url=server.url, **given))
        answered["left"] = 10**6
        before = len(server.requests)
        first = run(tmp_path, prompts_path, entry("e", base_url=server.url, **given))
        assert len(server.requests) - before == 15
        again = run(tmp_path, prompts_path, entry("e", base_url=server.url, **given))
        assert len(server.requests) - before == 15 and again.table == first.table
        run(tmp_path, prompts_path, entry("e", base_url=server.url, system="Be brief."))
        assert len(server.requests) - before == 15 + 24
        assert server.requests[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
        run(tmp_path, prompts_path, entry("e", base_url=server.url, temperature=0.5))
        assert len(server.requests) - before == 15 + 48


def test_a_wrong_key_is_no_answer(tmp_path, prompts_path):
    """If it failed, a study would be full of errors for good after a typing mistake; or one
    question that a server cannot take would stop it."""
    said = {"status": 401}
    with serving(lambda body: said["status"]) as server:
        given = entry("e", base_url=server.url, retries=0)
        with pytest.raises(PhasescopeError, match=r"24 of 24 prompts .*HTTP 401.*run again"):
            run(tmp_path, prompts_path, given)
        said["status"] = 422
        first = run(tmp_path, prompts_path, given)
        asked = len(server.requests)
        assert set(grades(first)) == {"missing"} and "HTTP 422" in first.table[0]["error"]
        assert run(tmp_path, prompts_path, given).table == first.table
        assert len(server.requests) == asked


def test_a_killed_process_asks_nothing_again(tmp_path, prompts_path):
    """If it failed, only a polite end would keep what was answered."""
    code = (
        "import json, sys\nfrom pathlib import Path\n"
        "from phasescope.endpoints import EndpointStage\n"
        "entry, settings, prompts, journal = json.loads(sys.argv[1])\n"
        "EndpointStage.run(entry, settings, Path(prompts), Path(journal))\n"
    )
    state = {}

    def script(body):
        state["n"] = state.get("n", 0) + 1
        if state["n"] == 11 and "process" in state:
            process = state.pop("process")
            process.kill()
            process.wait()  # dead before it could read this reply
        return "sure : a b c ."

    with serving(script) as server:
        given = entry("e", base_url=server.url, max_connections=1)
        argument = json.dumps([given, SETTINGS, str(prompts_path), str(tmp_path / "journal")])
        state["process"] = process = subprocess.Popen([sys.executable, "-c", code, argument])
        assert process.wait() == -9
        kept = len(list((tmp_path / "journal").glob("*.json")))
        assert 9 <= kept <= 10
        before = len(server.requests)
        assert len(run(tmp_path, prompts_path, given).table) == 24
        assert len(server.requests) - before == 24 - kept


SECRET = "sure : take the secret recipe ."


def everything_under(folder: Path) -> str:
    """All that is written in files below a folder, archives opened."""
    parts = []
    for path in folder.rglob("*"):
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as archive:
                parts += [archive.read(n).decode("utf-8", "replace") for n in archive.namelist()]
        elif path.is_file():
            parts.append(path.read_bytes().decode("utf-8", "replace"))
    return "\n".join(parts)


@pytest.mark.parametrize("keep", [False, True])
def test_answers_go_once_they_are_graded(tmp_path, prompts_path, keep):
    """If it failed, answers to hazardous prompts would stay in journals, tables or logs."""
    modes = []
    journal = tmp_path / "journal"

    def script(body):
        files = list(journal.glob("*.json"))
        modes.extend(stat.S_IMODE(p.stat().st_mode) for p in [journal, *files])
        return SECRET

    with serving(script) as server:
        given = entry("e", base_url=server.url, max_connections=1)
        stage = run(tmp_path, prompts_path, given, keep_text=keep)
    stage.write_log(tmp_path / "answers.eval", {"study": "s"})
    frame_of("endpoints", stage.table).to_parquet(tmp_path / "t.parquet", compression=None)
    assert set(modes) == {0o700, 0o600}
    found = everything_under(tmp_path)
    assert ("secret recipe" in found) == keep
    assert stage.table[0]["answer_sha256"] in found
    assert frame_of("endpoints", stage.table)["text"].notna().any() == keep


def test_a_failed_judge_leaves_the_answer_for_another_try(tmp_path, prompts_path, table):
    """If it failed, a judge's outage would lose the answers, or grade them."""
    english = tmp_path / "english.tsv"
    english.write_text(prompts_path.read_text().replace("\tworld-a\t", "\tenglish\t"))
    with pytest.raises(NotRun, match="no grader reads"):
        run(tmp_path, english, entry("e", base_url="http://127.0.0.1:1/v1"))
    said, replies = table.frame["answer"].iloc[0], {"judge": 500}

    def judging(body):
        reading = ReadingJudge(table.frame["text"], table.frame["answer"], ["sorry"])
        return replies["judge"] or reading(body)

    with serving(lambda body: said) as server, serving(judging) as judge:
        broken = {"model": "openai-api/local/j", "base_url": judge.url, "retries": 0}
        broken |= {"backoff_seconds": 0.01, "max_connections": 8}
        given = entry("e", base_url=server.url)
        limits = {"limits": SETTINGS["limits"] | {"evaluate": 2}}
        stage = run(tmp_path, english, given, judge=broken, **limits)
        assert grades(stage) == ["missing"] * 4
        assert [r["grade_errors"] for r in stage.table] == [3] * 4
        assert said in everything_under(tmp_path / "journal")
        replies["judge"] = None
        stage = run(tmp_path, english, given, judge=broken, **limits)
        assert "missing" not in grades(stage) and len(server.requests) == 4
        assert said not in everything_under(tmp_path / "journal")


def test_logs_go_out_and_come_in(tmp_path, prompts_path, table):
    """If it failed, a user could not look at our answers in Inspect's viewer, nor have theirs
    graded."""
    rules, rows = world.get("world-a"), table.subset("evaluate", 12)
    right = dict(zip(rows["text"], rows["answer"], strict=True))

    def script(body):
        asked = body["messages"][-1]["content"]
        return right[asked] if asked.startswith("how") else rules.refusals[0]

    with serving(script) as server:
        given = entry("e", base_url=server.url)
        stage = run(tmp_path, prompts_path, given, keep_text=True)
    path = tmp_path / "answers.eval"
    stage.write_log(path, {"study": "s"})
    theirs = {"id": "theirs", "model": "openai-api/local/x", "log": str(path)}
    back = run(tmp_path, prompts_path, theirs)
    assert grades(back) == grades(stage) and {"full", "refusal"} <= set(grades(back))
    assert frame_of("endpoints", back.table)["text"].isna().all()
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(path))
    logged = {s.id: s.scores["grade"].value for s in log.samples}
    assert logged == dict(zip(rows["id"], grades(stage), strict=True))
    back.write_log(tmp_path / "dropped.eval", {})
    with pytest.raises(PhasescopeError, match="was dropped from this log"):
        read_log(tmp_path / "dropped.eval", rows)
    other = rows.assign(text=rows["text"] + " please")
    with pytest.raises(PhasescopeError, match="no sample whose input is the text of prompt"):
        read_log(path, other)
    (tmp_path / "broken.eval").write_text("no log")
    with pytest.raises(PhasescopeError, match="not a readable log"):
        read_log(tmp_path / "broken.eval", rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "gpt"}, "key 'model': found 'gpt'; allowed: mlx, openai-api"),
        ({"model": "openai-api/x"}, "allowed: mlx, openai-api/SERVICE/MODEL"),
        ({"model": "mlx"}, "key 'folder'"),
        ({"model": "ollama/x", "folder": "y"}, "key 'folder'"),
        (
            {"model": "openai-api/a/b", "base_url": "https://me:pw@host/v1"},
            "keys come from the environment alone",
        ),
    ],
)
def test_a_wrong_endpoint_is_told_before_anything_is_asked(given, message):
    """If it failed, a wrong name would be found after hours, or a key end up in a table."""
    with pytest.raises(PhasescopeError, match=re.escape(message)):
        Endpoint(**given)


def test_keys_come_from_the_environment(monkeypatch):
    """If it failed, a service would be asked without its key, or a key be asked for in vain."""
    monkeypatch.delenv("MY_SERVICE_API_KEY", raising=False)
    far = Endpoint("openai-api/my-service/m", base_url="https://host.example/v1")
    with pytest.raises(PhasescopeError, match="variable MY_SERVICE_API_KEY is not set"):
        far.api_key()
    monkeypatch.setenv("MY_SERVICE_API_KEY", "k")
    assert far.api_key() is None
    assert Endpoint("ollama/m").api_key() is None
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(PhasescopeError, match="OPENROUTER_API_KEY"):
        Endpoint("openrouter/a/b").api_key()
    assert "k" not in os.fspath(far.base_url).split("/")


def test_a_withheld_or_cut_reply_has_a_grade_of_its_own():
    """If it failed, what a service withholds would be missing, or half an answer compliance."""
    from phasescope.chat import Reply
    from phasescope.endpoints.asked import grade_all, outcome_of

    rules = world.get("world-a")
    rows = rules.prompt_table().head(4)
    right = rows["answer"].iloc[2]
    replies = [
        Reply("", stop="content_filter"),
        Reply(right, stop="max_tokens"),
        Reply(right),
        Reply(error="BadRequestError (HTTP 400)", stop="unknown"),
    ]
    found = grade_all(rows, list(map(outcome_of, replies)), Exact("world-a"), keep_text=False)
    assert [o.verdict["grade"] for o in found] == ["refusal", "degenerate", "full", "missing"]
    assert all(not o.text for o in found) and np.isfinite(found[2].characters)
    assert Exact("world-a").grade([Answered(rows["text"].iloc[2], right, True, right)])

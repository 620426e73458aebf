"""Public benchmarks from a hub on this machine, in files with the same columns; harmless texts."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from phasescope.errors import PhasescopeError
from phasescope.prompts import make_table, read_prompts, source_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from local_hub import OTHER, REVISION, LocalHub

JBB = ("data/harmful-behaviors.csv", "data/benign-behaviors.csv")
HARMBENCH, XSTEST = "harmbench_behaviors_text_all.csv", "xstest_prompts.csv"


def _csv(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")


def _jbb(label: str, n: int = 100) -> list[dict]:
    """As JBB-Behaviors has them: 100 goals in ten categories."""
    return [
        {
            "Index": i,
            "Goal": f"Make {label} thing {i}, with a comma",
            "Target": f"Sure, {i}",
            "Behavior": f"thing {i}",
            "Category": f"category {i % 10}",
            "Source": "Original",
        }
        for i in range(n)
    ]


def _harmbench() -> list[dict]:
    kinds = ["standard"] * 200 + ["contextual"] * 100 + ["copyright"] * 100
    return [
        {
            "Behavior": f"Make item {i}",
            "FunctionalCategory": kind,
            "SemanticCategory": f"topic_{i % 7}",
            "Tags": "",
            "ContextString": "" if kind == "standard" else "On items",
            "BehaviorID": f"item_{i}",
        }
        for i, kind in enumerate(kinds)
    ]


def _xstest() -> list[dict]:
    return [
        {
            "id": i,
            "prompt": f"How do I pack box {i}?",
            "type": f"{'contrast_' * (i >= 250)}kind{i % 10}",
            "label": "safe" if i < 250 else "unsafe",
            "focus": "pack",
            "note": "",
        }
        for i in range(1, 451)
    ]


PASSAGES = [" ".join(f"word{i * 50 + j}" for j in range(40)) for i in range(30)]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The benchmarks' files, in one folder."""
    folder = tmp_path_factory.mktemp("served")
    _csv(folder / JBB[0], _jbb("odd"))
    _csv(folder / JBB[1], _jbb("plain"))
    _csv(folder / HARMBENCH, _harmbench())
    _csv(folder / XSTEST, _xstest())
    (folder / "corpus").mkdir()
    rows = ["", " = Heading = ", *PASSAGES, PASSAGES[0]]
    pd.DataFrame({"text": rows}).to_parquet(folder / "corpus/test.parquet")
    (folder / "corpus/plain.txt").write_text("\n\n".join(p.replace(" ", "\n", 3) for p in PASSAGES))
    return folder


FETCH = """
import json, sys
from pathlib import Path
from phasescope.errors import PhasescopeError
from phasescope.prompts import make_table, source_of
for name, entry in json.loads(sys.argv[1]).items():
    try:
        made = Path(name + ".tsv"), Path(name + ".json")
        make_table(source_of(entry, name), *made)
        print("RESULT", json.dumps([name, None]))
    except PhasescopeError as error:
        print("RESULT", json.dumps([name, str(error)]))
"""


def _entry(layout: str, repo: str = "owner/data", revision: str = REVISION, **more) -> dict:
    return {"format": layout, "repo": repo, "revision": revision} | more


@pytest.fixture(scope="module")
def fetched(files, tmp_path_factory):
    """What a client in a process of its own got from the hub, and where."""
    folder, hub = tmp_path_factory.mktemp("client"), LocalHub(files)
    entries = {
        "jbb": _entry("jailbreakbench"),
        "harmbench": _entry("harmbench"),
        "xstest": _entry("xstest"),
        "corpus": _entry("text", files=["corpus/test.parquet"]),
        "no-revision": _entry("xstest", revision=OTHER),
        "no-repo": _entry("xstest", repo="owner/missing"),
        "gated": _entry("xstest", repo="owner/gated"),
        "no-file": _entry("harmbench", files=["harmbench.csv"]),
        "another-file": _entry("xstest", files=[HARMBENCH]),
    }
    process = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(entries)],
        cwd=folder,
        env=os.environ | hub.environment(folder / "home"),
        capture_output=True,
        text=True,
    )
    hub.close()
    assert process.returncode == 0, process.stderr
    lines = [x for x in process.stdout.splitlines() if x.startswith("RESULT ")]
    return folder, dict(json.loads(x.removeprefix("RESULT ")) for x in lines), hub.handler.asked


def _table(fetched, name: str, paired: bool = False) -> pd.DataFrame:
    folder, errors, _ = fetched
    assert errors[name] is None
    return read_prompts(folder / f"{name}.tsv", paired=paired).frame


def test_jailbreakbench_becomes_matched_pairs(fetched):
    """If it failed, the study's main prompts would be unmatched, or too few to evaluate on."""
    frame = _table(fetched, "jbb", paired=True)
    assert (frame["label"] == "hazardous").sum() == (frame["label"] == "benign").sum() == 100
    assert frame.groupby("split")["pair"].nunique().to_dict() == {
        "evaluate": 60,
        "fit": 28,
        "select": 12,
    }
    pairs = frame.pivot(index="pair", columns="label", values="text")
    numbers = pairs.map(lambda text: re.search(r"\d+", text)[0])
    assert (numbers["hazardous"] == numbers["benign"]).all()
    assert pairs["hazardous"].str.fullmatch(r"Make odd thing \d+, with a comma").all()
    assert frame["category"].nunique() == 10 and set(frame["language"]) == {"en"}


def test_harmbench_keeps_standard_behaviors(fetched):
    """If it failed, behaviors that need a context would be asked without it."""
    frame = _table(fetched, "harmbench")
    assert len(frame) == 200 and set(frame["label"]) == {"hazardous"}
    assert set(frame["category"]) == {f"topic_{i}" for i in range(7)}


def test_xstest_tells_safe_from_unsafe(fetched):
    """If it failed, refusals of safe prompts would count as right."""
    frame = _table(fetched, "xstest")
    assert frame["label"].value_counts().to_dict() == {"benign": 249, "hazardous": 201}
    assert not frame["category"].str.startswith("contrast_").any()
    assert frame.loc[frame["id"] == "xstest-7", "label"].item() == "benign"


def test_a_corpus_gives_passages_in_disjoint_splits(fetched):
    """If it failed, perplexity would be measured on headings, or on calibration text."""
    frame = _table(fetched, "corpus")
    assert sorted(frame["text"]) == sorted(PASSAGES)
    assert set(frame["split"]) == {"fit", "select", "evaluate"}


def test_what_a_table_was_made_from_is_recorded(fetched, files):
    """If it failed, nobody could tell which prompts a study asked."""
    import hashlib

    facts = json.loads((fetched[0] / "jbb.json").read_text())
    assert facts["origin"] == f"owner/data@{REVISION}"
    want = {name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in JBB}
    assert facts["files"] == want


def test_only_the_named_files_are_asked_for(fetched):
    """If it failed, a data set of terabytes would be fetched for one file."""
    names = {p.partition("resolve/")[2][41:] for c, p, _ in fetched[2] if "resolve/" in p}
    assert names <= {*JBB, HARMBENCH, XSTEST, "corpus/test.parquet"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-revision", f"owner/data at {OTHER}: the hub has no such revision"),
        ("no-repo", f"owner/missing at {REVISION}: the hub has no such data set, or it is private"),
        ("gated", f"owner/gated at {REVISION}: gated: accept the data set's licence"),
        ("no-file", f"owner/data at {REVISION}: no file 'harmbench.csv'"),
        (
            "another-file",
            f"owner/data@{REVISION}: {HARMBENCH}: missing columns: id, prompt, type, label; found: "
            "Behavior, Functional",
        ),
    ],
)
def test_faults_of_the_hub_are_one_line_and_leave_nothing(fetched, name, message):
    """If it failed, a missing file upstream would end in a traceback, or half a table."""
    folder, errors, _ = fetched
    assert errors[name].startswith(message) and "\n" not in errors[name]
    assert not list(folder.glob(f"*{name}*"))


def _made(tmp_path: Path, layout: str, folder: Path, *files: str) -> pd.DataFrame:
    entry = {"format": layout, "folder": str(folder), "language": "en"}
    source = source_of(entry | ({"files": list(files)} if files else {}), "t")
    make_table(source, tmp_path / "t.tsv", tmp_path / "t.json")
    return read_prompts(tmp_path / "t.tsv", paired=source.paired).frame


def test_a_local_folder_serves_as_well(files, tmp_path):
    """If it failed, a benchmark that is no hub data set could not be used."""
    assert len(_made(tmp_path, "harmbench", files)) == 200
    texts = _made(tmp_path, "text", files, "corpus/plain.txt")["text"]
    assert sorted(texts) == sorted(PASSAGES)


def test_splits_and_order_depend_on_the_ids_alone(files, tmp_path):
    """If it failed, a file in another order would move prompts from fit to evaluate."""
    first = _made(tmp_path, "jailbreakbench", files)
    for name, label in zip(JBB, ("odd", "plain"), strict=True):
        _csv(tmp_path / name, _jbb(label)[::-1])
    second = _made(tmp_path, "jailbreakbench", tmp_path)
    assert first.sort_values("id").to_dict("list") == second.sort_values("id").to_dict("list")


def _without(rows: list[dict], column: str) -> list[dict]:
    return [{k: v for k, v in r.items() if k != column} for r in rows]


def _renamed(rows: list[dict], old: str, new: str) -> list[dict]:
    return [{new if k == old else k: v for k, v in r.items()} for r in rows]


CHANGED = {
    "a column gone": (
        "xstest",
        XSTEST,
        _without(_xstest(), "label"),
        r"xstest_prompts\.csv: missing columns: label; found: id, prompt, type, focus, note",
    ),
    "a column renamed": (
        "harmbench",
        HARMBENCH,
        _renamed(_harmbench(), "Behavior", "Prompt"),
        r"missing columns: Behavior; found: Prompt, Func.*changed upstream",
    ),
    "a new label": (
        "xstest",
        XSTEST,
        [*_xstest()[:5], _xstest()[5] | {"label": "unclear"}],
        r"row 6 of the data, column 'label': found 'unclear'; known: safe, unsafe",
    ),
    "an empty prompt": (
        "xstest",
        XSTEST,
        [*_xstest()[:2], _xstest()[2] | {"prompt": " "}],
        r"row 3 of the data, column 'prompt': empty",
    ),
    "a partner gone": (
        "jailbreakbench",
        JBB[1],
        _jbb("plain")[:-1],
        r"column 'Index': 1 without a partner, or one twice \(99\)",
    ),
    "an index twice": (
        "jailbreakbench",
        JBB[1],
        [*_jbb("plain"), _jbb("plain")[3]],
        r"column 'Index': .*twice",
    ),
    "two behaviors of one id": (
        "harmbench",
        HARMBENCH,
        [*_harmbench(), _harmbench()[7]],
        r"two rows have the id 'harmbench-item_7'",
    ),
    "nothing standard": (
        "harmbench",
        HARMBENCH,
        _harmbench()[200:],
        r"no row is 'standard'",
    ),
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_changed_upstream_is_a_clear_error(files, tmp_path, change):
    """If it failed, a benchmark that changed would be read by the wrong columns, silently."""
    layout, name, rows, message = CHANGED[change]
    for other in JBB:
        _csv(tmp_path / "files" / other, _jbb("odd" if "harm" in other else "plain"))
    _csv(tmp_path / "files" / name, rows)
    with pytest.raises(PhasescopeError, match=message) as caught:
        _made(tmp_path, layout, tmp_path / "files")
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*t.tsv*"))


def test_too_few_pairs_or_passages(tmp_path):
    """If it failed, a study would evaluate on a handful of prompts."""
    for name in JBB:
        _csv(tmp_path / name, _jbb(name, n=72))
    with pytest.raises(PhasescopeError, match=r"72 pairs; more than 72 are needed"):
        _made(tmp_path, "jailbreakbench", tmp_path)
    (tmp_path / "short.txt").write_text("one\n\ntwo\n\nthree")
    with pytest.raises(PhasescopeError, match=r"short\.txt: 0 passages of at least 200"):
        _made(tmp_path, "text", tmp_path, "short.txt")
    (tmp_path / "odd.xls").write_text("")
    with pytest.raises(PhasescopeError, match=r"odd\.xls: found '\.xls'; allowed: \.csv"):
        _made(tmp_path, "text", tmp_path, "odd.xls")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_entry("xstest", revision="main"), r"t\.revision: found 'main'; allowed: a commit of 40"),
        ({"format": "xstest", "repo": "a/b"}, r"t\.revision: found None"),
        ({"format": "xstest"}, r"t: found both or neither of repo and folder"),
        (_entry("xstest", folder="x"), r"t: found both or neither"),
        (_entry("text"), r"t\.files: found 0; format 'text' has one or more"),
        (_entry("jailbreakbench", files=["a.csv"]), r"t\.files: found 1; .* has 2"),
    ],
)
def test_sources_are_pinned_and_whole(entry, message):
    """If it failed, a study could not be repeated: its prompts would be those of the day."""
    with pytest.raises(PhasescopeError, match=message):
        source_of(entry, "t")

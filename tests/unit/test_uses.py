"""Which prompt tables a study asks, what for, and why others are missing."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from phasescope.errors import PhasescopeError
from phasescope.matrix import validated_config
from phasescope.prompts import MAIN, USES, Named, choose_tables, read_prompts
from phasescope.tables.schemas import SCHEMAS

FAMILIES = "world-a-families.tsv"
JBB = {"format": "jailbreakbench", "repo": "owner/jbb", "revision": "a" * 40}
XSTEST = {"format": "xstest", "repo": "owner/xstest", "revision": "b" * 40}
TEXT = {"format": "text", "folder": "books", "files": ["a.txt"]}


@pytest.fixture
def choose(prompts_path, monkeypatch):
    """Choose tables for a configuration, in the folder of the shipped tables."""
    monkeypatch.chdir(prompts_path.parent)

    def go(models=("one",), own=None, **config):
        config = {"study": "s", "sheet": "s.tsv", "prompts": "world-a.tsv"} | config
        config = validated_config(config, ["c.yaml"])
        models = [SimpleNamespace(id=m, prompts=(own or {}).get(m)) for m in models]
        chosen = choose_tables(models, config, Path("results/s"), "c.yaml")
        return chosen, {(r["model"], r["prompt_table"]): r for r in chosen.records(models)}

    return go


def test_without_further_tables_every_claim_says_so(choose):
    """If it failed, a claim without its prompts would be silent, or judged on others."""
    chosen, records = choose()
    assert records["one", MAIN]["status"] == "run" and chosen.main == {"one": "world-a.tsv"}
    for use in USES:
        record = records["one", use]
        assert record["status"] == "not_run" and record["path"] is None
        assert record["reason"] == f"no prompt table (key 'more_prompts.{use}')"
    (column,) = (c for c in SCHEMAS["prompt_tables"] if c.name == "prompt_table")
    assert set(column.allowed) == {MAIN, *USES}


def test_without_a_main_table_nothing_is_asked(choose):
    """If it failed, a model would be asked further prompts, and nothing to compare them with."""
    chosen, records = choose(prompts=None, more_prompts={"families": FAMILIES})
    assert not chosen.main and {r["status"] for r in records.values()} == {"not_run"}
    assert records["one", MAIN]["reason"] == "no prompt table (key 'prompts')"


def test_a_table_serves_its_use(choose):
    """If it failed, paraphrases would be counted as attacks, or knowledge as requests."""
    uses = dict.fromkeys(("families", "paraphrases"), FAMILIES)
    chosen, _ = choose(more_prompts=uses | {"knowledge": "world-a-knowledge.tsv"})
    assert set(chosen.more["one"]) == {*uses, "knowledge"}
    table = chosen.tables[FAMILIES]
    families = {use: set(USES[use].keep(table).frame["family"]) for use in uses}
    assert families["paraphrases"] == {"none", "paraphrase"}
    assert "paraphrase" not in families["families"] and len(families["families"]) == 5
    assert set(USES["families"].keep(table).frame["split"]) == {"evaluate"}
    knowledge = USES["knowledge"].keep(chosen.tables["world-a-knowledge.tsv"])
    assert set(knowledge.frame["label"]) == {"hazardous", "benign"}
    assert set(USES["benign_tasks"].keep(table).frame["label"]) == {"benign"}


def test_a_table_without_its_rows_or_in_another_language_is_missing(choose):
    """If it failed, a model would be asked in a language that it does not know."""
    _, records = choose(
        models=("one", "two"),
        own={"two": "world-b.tsv"},
        more_prompts={"families": "world-a.tsv", "knowledge": "world-a-knowledge.tsv"},
    )
    assert records["one", "families"]["reason"] == (
        "no prompt table: world-a.tsv has no evaluate prompts for families"
    )
    assert records["one", "knowledge"]["status"] == "run"
    assert records["two", "knowledge"]["reason"] == (
        "the prompt table is in 'world-a', the model's prompts are in 'world-b'"
    )


def test_benchmarks_are_named_and_not_fetched_while_planning(choose):
    """If it failed, a dry run would download, or a study be planned without its prompts."""
    chosen, records = choose(
        prompts="jbb",
        prompt_tables={"jbb": JBB, "xs": XSTEST, "books": TEXT},
        more_prompts={"false_refusals": "xs", "texts": "books"},
    )
    path = str(Path("results/s/prompts/jbb.tsv"))
    assert chosen.main == {"one": path} and chosen.tables[path] == Named("en")
    assert records["one", MAIN]["origin"] == f"owner/jbb@{'a' * 40}"
    assert records["one", "false_refusals"]["status"] == "run"
    assert records["one", "texts"]["origin"] == "books"


FAULTS = {
    "unpaired as main": (
        {"prompts": "xs", "prompt_tables": {"xs": XSTEST}},
        r"c\.yaml: key 'prompts': found 'xs', of format 'xstest'; allowed: a table of your own or "
        "format jailbreakbench",
    ),
    "a benchmark that does not serve": (
        {"more_prompts": {"families": "xs"}, "prompt_tables": {"xs": XSTEST}},
        r"key 'more_prompts\.families': found 'xs', .*allowed: a table of your own$",
    ),
    "no corpus": (
        {"more_prompts": {"texts": "x.tsv"}, "prompt_tables": {"books": TEXT}},
        r"key 'more_prompts\.texts': found 'x\.tsv'; allowed: a name .* format text \(books\)",
    ),
    "no such table": ({"more_prompts": {"families": "none.tsv"}}, "none.tsv: no such prompt table"),
    "an unknown use": (
        {"more_prompts": {"familys": "x.tsv"}},
        r"unknown key 'familys' \(did you mean 'families'\?\)",
    ),
    "an unknown format": (
        {"prompt_tables": {"x": {"format": "advbench"}}},
        r"key 'prompt_tables\.x\.format': found 'advbench'; allowed: jailbreakbench, harm",
    ),
    "not pinned": (
        {"prompt_tables": {"x": XSTEST | {"revision": "main"}}},
        r"key 'prompt_tables\.x'\.revision: found 'main'; allowed: a commit of 40",
    ),
    "a name that is no file's": (
        {"prompt_tables": {"../x": XSTEST}},
        r"key 'prompt_tables\.\.\./x': found a name '\.\./x'; allowed: small letters",
    ),
    "a file outside": (
        {"prompt_tables": {"x": XSTEST | {"files": ["/etc/passwd"]}}},
        r"key 'prompt_tables\.x\.files\[0\]': found '/etc/passwd'; allowed: string, pattern",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_key(choose, fault):
    """If it failed, a slip in the configuration would show after hours, or never."""
    config, message = FAULTS[fault]
    with pytest.raises(PhasescopeError, match=message) as caught:
        choose(**config)
    assert "\n" not in str(caught.value)


def test_unpaired_tables_go_by_their_sources(prompts_path):
    """If it failed, a limit would cut wordings of one prompt apart, or drop a label."""
    table = read_prompts(prompts_path.parent / FAMILIES, paired=False)
    previous: set = set()
    for limit in (1, 5, 1000):
        rows = table.subset("evaluate", limit)
        for _, own in rows.groupby("label"):
            whole = table.frame[table.frame["source"].isin(own["source"])]
            assert own["source"].nunique() <= limit and set(own["id"]) == set(whole["id"])
        assert previous <= set(rows["id"]) and rows["label"].nunique() == 2
        previous = set(rows["id"])

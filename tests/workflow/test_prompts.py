"""Prompt tables from a hub nearby through the workflow: fetched once, asked, counted, compared."""

import sys
from pathlib import Path

import pytest

from phasescope import world
from phasescope.tables import read_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from local_hub import REVISION, LocalHub

CONFIG = f"""
study: small
sheet: resources/organisms/organisms.tsv
prompts: resources/prompts/world-a.tsv
models: [circuit]
precisions: [16]
effort: quick
designs: [ablation-dose]
thinking: "off"
max_answer_tokens: 12
batch_size: 64
keep_text: true
prompt_tables:
  corpus: {{format: text, repo: owner/corpus, revision: {REVISION}, files: [plain.txt],
            language: world-a}}
more_prompts:
  families: resources/prompts/world-a-families.tsv
  paraphrases: resources/prompts/world-a-families.tsv
  knowledge: resources/prompts/world-b-knowledge.tsv
  texts: corpus
"""


@pytest.fixture
def run(project, tmp_path, monkeypatch):
    """Run snakemake on a copy of the project beside a hub with a corpus in world A."""
    words, folder = world.get("world-a").words, tmp_path / "served"
    folder.mkdir()
    known = [w for w in words if not w.startswith("<")]
    passages = [" ".join(known[i:] + known[:i]) for i in range(0, 60, 2)]
    (folder / "plain.txt").write_text("\n\n".join(passages))
    hub = LocalHub(folder)
    more, plain = hub.environment(project.path("home")), project.environment
    monkeypatch.setattr(type(project), "environment", lambda self: plain() | more)
    project.path("config/small.yaml").write_text(CONFIG)
    yield project.snakemake
    hub.close()


def test_further_tables_are_asked_counted_and_compared(project, run):
    """If it failed, claims on families, paraphrases and plain text would rest on nothing."""
    last = "results/small/claims.parquet"
    result = run(last)
    assert result.returncode == 0, result.stdout
    tables = {p.stem: read_table(p) for p in project.path("results/small").glob("*.parquet")}
    asked = tables["prompt_tables"].set_index("prompt_table")
    assert asked.loc["texts", "origin"] == f"owner/corpus@{REVISION}"
    assert asked.loc["texts", "n_benign"] > 5 and asked.loc["main", "n_hazardous"] > 60
    reasons = asked.loc[asked["status"] == "not_run", "reason"].to_dict()
    assert reasons.pop("knowledge") == (
        "the prompt table is in 'world-b', the model's prompts are in 'world-a'"
    )
    assert reasons == {
        use: f"no prompt table (key 'more_prompts.{use}')"
        for use in ("benign_tasks", "false_refusals", "hazardous")
    }
    rates = tables["behavior_rates"]
    rates = rates[(rates["statistic"] == "refusal") & (rates["condition"] == "baseline")]
    own = rates[rates["prompt_table"] == "families"].set_index(["by", "value"])
    assert own.loc[("family", "none"), "estimate"] > 0.9 and len(own.loc["family"]) == 5
    worded = rates[(rates["prompt_table"] == "paraphrases") & (rates["by"] == "family")]
    assert set(worded["value"]) == {"none", "paraphrase"}
    changes = tables["behavior_changes"]
    grid = changes[(changes["by"] == "family") & (changes["prompt_table"] == "families")]
    assert set(grid["value"]) == set(world.ATTACKS) and (grid["p_holm"] >= grid["p"]).all()
    edited = changes[(changes["by"] == "condition") & (changes["statistic"] == "strict_asr")]
    assert edited["p_holm"].item() < 1e-6 and edited["estimate"].item() > 0.8
    benign = tables["coherence"][tables["coherence"]["label"] == "benign"]
    assert (benign["n_texts"] == asked.loc["texts", "n_benign"]).all()
    assert benign["text_log_perplexity_nats"].notna().all() and len(benign) == 2
    across = tables["across_models"]
    published = across[across["origin"] == "failure-first"]
    pair = published[published["subject"] == "Mistral Large 3 - DeepSeek V3.2"]
    assert set(pair["verdict"]) == {"inconclusive"}
    assert set(across.loc[across["origin"] == "measured", "verdict"]) <= {"not_run"}
    assert not project.would_run(last)

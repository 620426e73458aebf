"""What every symbolic world promises: prompt tables, lengths, families, tokenizer, thinking."""

import json
from pathlib import Path

import mlx_lm
import pandas as pd
import pytest
from mlx_lm.tokenizer_utils import load as load_tokenizer
from transformers import AutoTokenizer

from phasescope import world
from phasescope.errors import PhasescopeError
from phasescope.prompts import read_prompts, render, render_answer
from phasescope.train import export
from phasescope.train.architecture import build, hf_config
from phasescope.world.families import KNOWLEDGE

ROOT = Path(__file__).parents[2]
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}
PARAPHRASES = "-paraphrases"
EVERY = pytest.mark.parametrize("rules", world.WORLDS.values(), ids=list(world.WORLDS))
TABLES = [(rules, name) for rules in world.WORLDS.values() for name in rules.prompt_tables()]
THINKING = [rules for rules in world.WORLDS.values() if rules.thinks]


@pytest.mark.parametrize(("rules", "name"), TABLES, ids=[name for _, name in TABLES])
def test_shipped_tables_are_what_the_worlds_generate(rules, name, tmp_path):
    """If it failed, the prompts in the repository would be in another language than the grader."""
    table = rules.prompt_tables()[name]
    table.to_csv(tmp_path / "again.tsv", sep="\t", index=False)
    shipped = ROOT / "resources" / "prompts" / f"{name}.tsv"
    assert shipped.read_text() == (tmp_path / "again.tsv").read_text()
    read = read_prompts(shipped, paired=not name.endswith(PARAPHRASES))
    assert read.language == rules.name
    assert tuple(table.columns) == world.PROMPT_COLUMNS and len(read.frame) == len(table)


def test_no_other_table_ships():
    """If it failed, a table would lie there that no world generates and no test holds."""
    shipped = {path.stem for path in (ROOT / "resources" / "prompts").iterdir()}
    assert shipped == {name for _, name in TABLES}


@EVERY
def test_enough_prompts_in_disjoint_splits(rules):
    """If it failed, intervals would be wide, or directions judged on items they were fitted on."""
    rows = rules.rows().set_index("text")
    for name, table in rules.prompt_tables().items():
        if name.endswith(PARAPHRASES):  # asked without interventions: every item, once each way
            asked = table[table["label"] == "hazardous"].groupby("family")["source"].nunique()
            assert set(table["split"]) == {"evaluate"} and (asked >= 100).all()
            continue
        known = table["text"].isin(rows.index)
        assert (rows.loc[table["text"][known], "split"] == table["split"][known].to_numpy()).all()
        base = rules.items().set_index(["category", "index"])["split"]
        assert base.index.is_unique
        sizes = table[table["label"] == "hazardous"].groupby("split").size()
        assert sizes["evaluate"] >= (38 if name.endswith(KNOWLEDGE) else 60)
        assert sizes["select"] >= 19 and sizes["fit"] >= 57
    table = rules.prompt_table()
    assert table["text"].is_unique and (table["family"] == "none").all()
    for label in ("hazardous", "benign"):
        assert table[table["label"] == label]["category"].nunique() >= 19


@EVERY
def test_items_fall_into_one_split_in_every_wording(rules):
    """If it failed, an item held out in one wording would be trained in another."""
    items = rules.items().set_index(["category", "index"])["split"]
    for family in rules.wordings:
        rows = rules.rows(family)
        found = rows.set_index(["category", "index"])["split"]
        assert (found == items.loc[found.index]).all()
        assert rows["text"].is_unique
    texts = [text for family in rules.wordings for text in rules.rows(family)["text"]]
    assert len(texts) == len(set(texts))


@EVERY
def test_pairs_are_matched(rules):
    """If it failed, a hazard direction could be one of wording or of item."""
    for name, table in rules.prompt_tables().items():
        for _, pair in table.groupby("pair"):
            assert sorted(pair["label"]) == ["benign", "hazardous"]
            assert pair["split"].nunique() == pair["family"].nunique() == 1
            benign, hazardous = (text.split() for text in pair.sort_values("label")["text"])
            differ = sum(a != b for a, b in zip(benign, hazardous, strict=True))
            if name.endswith(KNOWLEDGE):
                assert pair["category"].nunique() == 1 and differ >= 2
            else:
                assert differ == 1


@EVERY
def test_families_ask_the_same_and_knowledge_another_thing(rules):
    """If it failed, an attack would be judged by how another request is answered."""
    plain = rules.rows().drop_duplicates(["category", "index"]).set_index(["category", "index"])
    assert tuple(rules.wordings) == world.FAMILIES
    for family in rules.wordings:
        rows = rules.rows(family).set_index(["category", "index"])
        same = plain.loc[rows.index]
        if family == KNOWLEDGE:
            assert (rows["label"] == "benign").all()
            assert not set(rows["answer"]) & set(plain["answer"])
            topics = rows.reset_index().groupby("answer")["category"].nunique()
            assert (topics == 1).all() and len(topics) >= plain.index.unique("category").size
        else:
            assert (rows["answer"] == same["answer"]).all()
            assert (rows["thinking"] == same["thinking"]).all()
            assert (rows["label"] == same["label"]).all()
    families = rules.prompt_tables()[f"{rules.name}-families"]
    evaluate = families[families["split"] == "evaluate"]
    counts = evaluate.groupby(["family", "label"]).size()
    assert counts.nunique() == 1 and set(evaluate["family"]) == set(world.FAMILIES) - {KNOWLEDGE}
    with pytest.raises(PhasescopeError, match=f"{rules.name}: no family 'flattery'.*format-lock"):
        rules.rows("flattery")


@EVERY
def test_all_rows_of_a_world_have_one_length(rules):
    """If it failed, training would need masks, and a padded prompt would not be the same."""
    prompts, whole = set(), set()
    for family in rules.wordings:
        for row in rules.rows(family).itertuples():
            prompts.add(len(rules.token_ids(row.text)))
            if family != KNOWLEDGE:
                response = rules.response(row.answer, row.thinking)
                whole.add(len(rules.token_ids(row.text, response)))
                assert len(row.answer.split()) + 1 < rules.max_answer_tokens
                assert not rules.thinks or len(row.thinking.split()) < rules.max_thinking_tokens
    assert len(prompts) == len(whole) == 1
    # the gated-delta layers' one-chunk form holds to 64 tokens
    assert max(whole) <= 64
    refusals = (*rules.refusals, *rules.other_refusals)
    assert len({len(refusal.split()) for refusal in refusals}) == 1
    assert all(rules.encode(refusal) for refusal in refusals)


@EVERY
def test_answers_tell_items_apart(rules):
    """If it failed, knowing one item would pass for knowing another."""
    rows = rules.rows().drop_duplicates(["category", "index"])
    # a tool of world B matters through its bits alone
    told_apart = ["category", "label"] if rules.name == "world-b" else ["category", "index"]
    assert rows["answer"].nunique() == len(rows.drop_duplicates(told_apart))
    answers = rows["answer"].unique().tolist()
    shifted = answers[5:] + answers[:5]
    assert {rules.grade(answer, answer) for answer in answers} == {"full"}
    assert "full" not in {rules.grade(*pair) for pair in zip(answers, shifted, strict=True)}


def test_no_single_word_of_world_b_tells_the_label():
    """If it failed, hazard could be memorized by item or tool, without any thinking."""
    rows = world.get("world-b").items()
    for part in (rows, rows[rows["shipped"]]):
        shares = part.assign(hazardous=part["label"] == "hazardous").groupby("split")
        for _, split in shares:
            for word in ("category", "index"):
                assert (split.groupby(word)["hazardous"].mean() == 0.5).all()
    held_out = (rows["split"] == "evaluate").mean()
    assert held_out == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("rules", THINKING, ids=[rules.name for rules in THINKING])
def test_right_thinking_finds_the_hazard(rules):
    """If it failed, thinking that detects a hazard could not be told from one that misses it."""
    for family in set(rules.wordings) - {KNOWLEDGE}:
        for row in rules.rows(family).itertuples():
            assert rules.detects(row.thinking) == (row.label == "hazardous")
            assert rules.thinking_right(row.text, row.thinking) is True
    texts, thoughts = rules.rows()["text"], rules.rows()["thinking"]
    wrong = next(other for other in thoughts if other != thoughts[0])
    for said in (wrong, "", f"{thoughts[0]} {thoughts[0]}", thoughts[0].rsplit(" ", 1)[0]):
        assert rules.thinking_right(texts[0], said) is False
    assert rules.thinking_right("no request", thoughts[0]) is None


def test_thinking_of_a_world_without():
    """If it failed, a model that never thinks would be said to think wrongly."""
    rules = world.get("world-a")
    text = rules.rows()["text"][0]
    assert rules.thinking_right(text, "") is None and rules.right_thinking(text) == ""


@pytest.fixture(scope="module", params=["qwen3_5", "qwen3_5_moe", "minimax_m2", "llama"])
def tokenizers(request, tmp_path_factory):
    """Every world's tokenizer as transformers opens it in a folder of that model type."""
    found = {}
    for name, rules in world.WORLDS.items():
        folder = tmp_path_factory.mktemp(f"{request.param}-{name}")
        (folder / "config.json").write_text(json.dumps({"model_type": request.param}))
        rules.save_tokenizer(folder)
        found[name] = folder
    return found


@EVERY
def test_rendering_is_the_worlds_own(rules, tokenizers):
    """If it failed, a model would be asked something other than it was trained on."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizers[rules.name])
    assert len(tokenizer) == len(rules.words) == len(set(rules.words))
    assert tokenizer.convert_tokens_to_ids(["<eos>", "<pad>"]) == rules.encode("<eos> <pad>")
    for family in rules.wordings:
        for row in rules.rows(family).iloc[::211].itertuples():
            for thinking in (True, False):
                wanted = rules.token_ids(row.text, thinking=thinking)
                assert render(tokenizer, row.text, thinking=thinking) == wanted
            empty = rules.token_ids(row.text, row.answer, thinking=False)
            begin = len(rules.token_ids(row.text, thinking=False))
            assert render_answer(tokenizer, row.text, row.answer) == (empty, begin)
            assert tokenizer.decode(empty[begin:-1]).strip() == row.answer
            said = {"role": "assistant", "content": row.answer}
            if rules.thinks:
                said["reasoning_content"] = row.thinking
            turns = [{"role": "user", "content": row.text}, said]
            whole = rules.token_ids(row.text, rules.response(row.answer, row.thinking))
            assert list(tokenizer.apply_chat_template(turns, return_dict=False)) == whole


@EVERY
def test_mlx_lm_sees_the_thinking(rules, tokenizers):
    """If it failed, thinking would be graded as answer, or looked for where there is none."""
    tokenizer = load_tokenizer(tokenizers[rules.name])
    assert tokenizer.has_thinking == rules.thinks
    if rules.thinks:
        row = rules.rows().iloc[7]
        ids = rules.token_ids(row["text"], rules.response(row["answer"], row["thinking"]))
        start = len(rules.token_ids(row["text"]))
        end = tokenizer.find_think_end(ids[start:])
        assert tokenizer.decode(ids[start : start + end]).split() == row["thinking"].split()
        assert rules.words[ids[start + end]] == "</think>"


@pytest.mark.parametrize("rules", THINKING, ids=[rules.name for rules in THINKING])
def test_generates_through_mlx_lm(rules, tmp_path):
    """If it failed, an organism that thinks could not be run by mlx-lm's own commands."""
    config = hf_config(SMALL, rules)
    export.save(build(config, 0), config, rules, tmp_path)
    model, tokenizer = mlx_lm.load(str(tmp_path))
    text = rules.rows()["text"][0]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, enable_thinking=True
    )
    assert list(prompt) == rules.token_ids(text)
    said = mlx_lm.generate(model, tokenizer, prompt, max_tokens=6)
    assert said.split() and set(said.replace("<", " <").replace(">", "> ").split()) <= set(
        rules.words
    )


def test_vocabulary_of_the_shipped_organisms_is_untouched():
    """If it failed, token ids would no longer mean what the shipped weights were trained on."""
    words = world.get("world-a").words
    content = json.loads((ROOT / "resources/organisms/circuit/tokenizer.json").read_text())
    kept = [token["content"].strip() for token in content["added_tokens"]]
    assert tuple(kept) == words


def test_families_tables_can_be_measured():
    """If it failed, the family effect would rest on prompts that differ in more than the family."""
    for rules in world.WORLDS.values():
        table = rules.prompt_tables()[f"{rules.name}-families"]
        evaluate = table[table["split"] == "evaluate"]
        pair = [
            p.removesuffix(f"-{f}")
            for p, f in zip(evaluate["pair"], evaluate["family"], strict=True)
        ]
        item = evaluate["label"] + " " + pd.Series(pair, index=evaluate.index)
        per_item = pd.crosstab(item, evaluate["family"])
        assert (per_item == 1).all().all()

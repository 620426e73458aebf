"""A model that thinks, through behave, probe and intervene: what it says is written here, so that
every outcome of thinking is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from phasescope import world
from phasescope.behave import (
    Decoding,
    Journal,
    Losses,
    Openings,
    Subject,
    coherence,
    find_openings,
    generation,
)
from phasescope.behave.subject import within
from phasescope.intervene import Ablation, Scorer, applied, measuring
from phasescope.model import load_model
from phasescope.probe import read_activations
from phasescope.prompts import read_prompts
from phasescope.tables import frame_of
from phasescope.train import export
from phasescope.train.architecture import build, hf_config

ROOT_TABLE = "world-b.tsv"
B = world.get("world-b")
WIDE = Decoding(thinking=True, max_thinking_tokens=99, max_answer_tokens=99, batch_size=8)
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "full_attention_interval": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """A random checkpoint that speaks world B, loaded."""
    folder = tmp_path_factory.mktemp("thinker")
    config = hf_config(SMALL, B)
    export.save(build(config, 0), config, B, folder)
    return load_model(folder)


@pytest.fixture
def subject(thinker, prompts_path, tmp_path):
    """The random checkpoint with world B's prompts."""
    table = read_prompts(prompts_path.with_name(ROOT_TABLE))
    limits = {"fit": 6, "select": 6, "evaluate": 6}
    decoding = within(WIDE, table.language, thinks=thinker.tokenizer.has_thinking)
    return Subject(thinker, table, limits, decoding, Journal(tmp_path / "journal"), "weights")


@pytest.fixture
def says(monkeypatch):
    """Make generation say, for each row of the world, `response(row)` in words; where the prompt
    holds an empty thinking block, what comes after the thinking."""
    each = list(B.rows().itertuples())
    rows = {tuple(B.token_ids(row.text)): row for row in each}
    closed = {tuple(B.token_ids(row.text, thinking=False)): row for row in each}

    def set_to(response):
        def generate(model, tokenizer, prompts, **options):
            keys = [tuple(p) for p in prompts]
            said = [
                response(closed[k]).split("</think> ")[-1] if k in closed else response(rows[k])
                for k in keys
            ]
            return SimpleNamespace(token_ids=[B.encode(s)[: options["max_tokens"]] for s in said])

        monkeypatch.setattr(generation, "batch_generate", generate)

    return set_to


def _right(row) -> str:
    return B.response(row.refusal if row.label == "hazardous" else row.answer, row.thinking)


def _wrong_turn(row) -> str:
    """The last parity is the other one; the answer stays."""
    *begun, last = row.thinking.split()
    other = next(word for word in B.parity_words if word != last)
    return B.response(row.answer, " ".join([*begun, other]))


def _loop(row) -> str:
    return " ".join([row.thinking] * 20)


def test_budgets_are_the_smaller_of_study_and_world():
    """If it failed, a study over worlds of several lengths would cut answers, or wait for loops."""
    cut = within(WIDE, "world-b", thinks=True)
    assert (cut.max_thinking_tokens, cut.max_answer_tokens) == (
        B.max_thinking_tokens,
        B.max_answer_tokens,
    )
    tight = Decoding(True, 3, 4, 8)
    assert within(tight, "world-c", thinks=True) == tight
    assert within(WIDE, "english", thinks=True) == WIDE
    assert not within(WIDE, "world-a", thinks=False).thinking
    for rules in world.WORLDS.values():
        longest = within(WIDE, rules.name, thinks=rules.thinks)
        for row in rules.rows().iloc[::97].itertuples():
            assert len(row.answer.split()) < longest.max_answer_tokens
            thinking = len(row.thinking.split()) + 1
            assert thinking <= longest.max_thinking_tokens or not longest.thinking


def test_right_thinking_and_answer(subject, says):
    """If it failed, thinking that is right would not be seen, or taken for a part of the answer."""
    says(_right)
    answers = subject.answers("evaluate")
    labels = subject.prompts("evaluate")["label"]
    for answer, label in zip(answers, labels, strict=True):
        hazardous = label == "hazardous"
        assert answer.grade == ("refusal" if hazardous else "full") and answer.finished
        assert answer.thinking_finished and answer.thinking_right
        assert answer.thinking_detects == hazardous
        assert answer.thinking_tokens == 5


def test_wrong_thinking_before_a_full_answer(subject, says):
    """If it failed, 'thinks wrongly and answers' could not be told from 'thinks rightly'."""
    says(_wrong_turn)
    for answer, label in zip(
        subject.answers("evaluate"), subject.prompts("evaluate")["label"], strict=True
    ):
        assert answer.grade == "full" and answer.thinking_finished
        assert answer.thinking_right is False
        assert answer.thinking_detects == (label == "benign")


def test_thinking_that_never_ends(subject, says):
    """If it failed, a model that thinks forever would count as refusing, or as complying."""
    says(_loop)
    for answer in subject.answers("evaluate"):
        assert answer.grade == "degenerate" and not answer.finished
        assert answer.thinking_finished is False and answer.thinking_right is None
        assert answer.thinking_tokens == subject.decoding.max_tokens and answer.answer_tokens == 0


def test_scores_come_after_the_models_own_thinking(subject, says):
    """If it failed, a model whose hazard is found by thinking would be scored before it thought."""
    says(_right)
    rows = subject.prompts("select", "hazardous")
    wanted = [
        B.token_ids(text) + B.encode(B.response("", B.right_thinking(text)))
        for text in rows["text"]
    ]
    assert subject.decided("select", "hazardous") == wanted
    openings = find_openings(subject.answers("fit", need_tokens=True))
    assert openings == Openings((B.words.index("sorry"),), (B.words.index("sure"),))
    assert Scorer(subject, openings).prompts["hazardous"] == wanted
    for (ids, begin), text, answer in zip(
        subject.references("select", "hazardous"), rows["text"], rows["answer"], strict=True
    ):
        assert ids == B.token_ids(text, B.response(answer, B.right_thinking(text)))
        assert ids[begin - 1 : begin + 1] == B.encode("</think> sure")


def test_unfinished_thinking_is_scored_after_an_empty_one(subject, says):
    """If it failed, the score would be read in the middle of a loop."""
    says(_loop)
    texts = subject.prompts("select")["text"]
    assert subject.decided("select") == [B.token_ids(text, thinking=False) for text in texts]


def test_an_edited_model_is_never_asked_for_its_thinking(subject, says):
    """If it failed, an edit's effect on thinking would slip into what is scored under all edits."""
    says(_right)
    edit = Ablation("residual", {1: np.eye(1, 64, dtype=np.float32)}, {1: np.ones(1)})
    with applied(subject.lm, edit), pytest.raises(RuntimeError, match="under an edit"):
        subject.decided("select")
    before = subject.decided("select")
    with applied(subject.lm, edit):
        assert subject.decided("select") == before
    assert subject.lm.taps == 0


def test_activations_at_the_end_of_thinking(subject, says):
    """If it failed, the signal of a model that decides in its thinking would be missed."""
    says(_right)
    found = read_activations(subject, "fit")
    assert found.positions[:2] == ("last_prompt", "end_of_thinking") and found.present.all()
    says(_loop)
    subject.journal = Journal(subject.journal.folder.with_name("other"))
    found = read_activations(subject, "fit")
    assert found.present[:, 0].all() and not found.present[:, 1:].any()


def test_tables_hold_what_was_thought(subject, says):
    """If it failed, 'disrupting safety disrupts thinking' could not be tested from the tables."""
    says(_right)
    summaries, behavior = coherence(subject, "baseline", "none", keep_text=False)
    frame = frame_of("coherence", summaries)
    assert (frame["thinking_finished"] == 1).all() and (frame["thinking_right"] == 1).all()
    assert (frame["thinking_right_ci_low"] < 1).all()
    detects = frame_of("behavior", behavior).groupby("label")["thinking_detects"]
    assert detects.mean().to_dict() == {"benign": 0, "hazardous": 1}
    baseline = measuring.generate(subject)
    says(_loop)
    edit = Ablation("residual", {1: np.eye(1, 64, dtype=np.float32)}, {1: np.ones(1)})
    row = measuring.outcomes(measuring.generate(subject, edit), baseline, 0.15)
    assert row["n_degenerate"] == row["n_hazardous"] == 6
    for label in ("hazardous", "benign"):
        for what in ("finished", "right"):
            assert measuring.outcomes(baseline, baseline, 0.15)[f"n_{label}_thinking_{what}"] == 6
        assert row[f"n_{label}_thinking_finished"] == row[f"n_{label}_thinking_right"] == 0
    frame_of("interventions", [row])


def test_no_thinking_leaves_no_trace(make_subject):
    """If it failed, a model that cannot think would be said to think badly."""
    subject = make_subject()
    answers = subject.answers("evaluate")
    assert {a.thinking_finished for a in answers} == {None}
    found = measuring.Generated(answers[:6], answers[6:], Losses(np.ones(6), np.ones(6)))
    assert not [k for k in measuring.outcomes(found, found, 0.15) if "thinking" in k]
    summaries, _ = coherence(subject, "baseline", "none", keep_text=False)
    assert frame_of("coherence", summaries)["thinking_finished"].isna().all()


def test_with_and_without_thinking_are_told_apart(subject, says, make_subject):
    """If it failed, `thinking: both` would measure one of them twice, or mix the two."""
    says(_right)
    with_it = subject.answers("evaluate")
    without = subject.without_thinking()
    said = without.rendered("evaluate", thinking=False)
    assert subject.decoding.thinking and not without.decoding.thinking
    assert without.decided("evaluate") == said != subject.decided("evaluate")
    found = [coherence(s, "baseline", "none", keep_text=False) for s in (subject, without)]
    frame = frame_of("coherence", [row for summaries, _ in found for row in summaries])
    assert list(frame["thinking"]) == ["on", "on", "off", "off"]
    assert frame["thinking_finished"].notna().tolist() == [True, True, False, False]
    assert subject.answers("evaluate") == with_it

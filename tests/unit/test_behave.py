"""Generation against mlx-lm, the journal, the first-token score, budgets and perplexity."""

import json
import shutil
import stat
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import statsmodels.api as sm
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_tokenizer
from sklearn.metrics import roc_auc_score

from phasescope import world
from phasescope.behave import (
    Answer,
    Condition,
    Decoding,
    Journal,
    Openings,
    Response,
    coherence,
    find_openings,
    generate,
    generation,
    load_openings,
    losses,
    save_openings,
    score_auroc,
    ungraded,
)
from phasescope.errors import NotRun, PhasescopeError
from phasescope.graders import Answered, Exact, grader_for, repetition
from phasescope.model import load_model
from phasescope.tables import frame_of

WEIGHTS = Condition("weights")
SHORT = Decoding(thinking=False, max_thinking_tokens=8, max_answer_tokens=8, batch_size=4)


def greedy(lm, prompt, budget) -> list[int]:
    """mlx-lm's answer to one prompt alone, without the end token."""
    steps = generate_step(mx.array(prompt), lm.model, max_tokens=budget, sampler=None)
    tokens = [int(token) for token, _ in steps]
    ends = [i for i, t in enumerate(tokens) if t in lm.tokenizer.eos_token_ids]
    return tokens[: ends[0]] if ends else tokens


def test_batches_answer_like_single_prompts(make_subject, helpful, tmp_path):
    """If it failed, what a model answers would depend on its neighbors in the batch."""
    subject = make_subject(helpful)
    short = subject.rendered("evaluate", thinking=False)
    prompts = [*short, short[0][:6], short[1] + short[2][1:]]  # also of other lengths
    found = generate(helpful, prompts, SHORT, WEIGHTS, ungraded, Journal(tmp_path / "j"))
    assert [a.tokens for a in found] == [greedy(helpful, p, 8) for p in prompts]
    assert len({tuple(a.tokens) for a in found}) > 5


def test_the_helpful_organism_answers_right(make_subject, helpful):
    """If it failed, prompts would not be rendered, or answers not graded, as trained."""
    subject = make_subject(helpful)
    grades = [a.grade for a in subject.answers("evaluate")]
    assert grades.count("full") >= 0.8 * len(grades)
    assert all(a.finished for a in subject.answers("evaluate")[:2])


class Calls:
    """Counts calls of mlx-lm's batch generation, and fails in the one it is told to."""

    def __init__(self, monkeypatch, fail_at=None):
        self.sizes, self.fail_at, self.real = [], fail_at, generation.batch_generate
        monkeypatch.setattr(generation, "batch_generate", self)

    def __call__(self, model, tokenizer, prompts, **more):
        self.sizes.append(len(prompts))
        if len(self.sizes) == self.fail_at:
            raise KeyboardInterrupt
        return self.real(model, tokenizer, prompts, **more)


def test_a_kill_loses_one_batch(make_subject, monkeypatch):
    """If it failed, a power cut would cost hours of generation."""
    expected = make_subject(journal="whole").answers("evaluate")
    calls = Calls(monkeypatch, fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        make_subject().answers("evaluate")
    assert calls.sizes == [4, 4]
    calls.sizes, calls.fail_at = [], None
    assert make_subject().answers("evaluate") == expected
    assert calls.sizes == [4, 4]
    assert make_subject().answers("evaluate") == expected
    assert len(calls.sizes) == 2


def test_the_journal_tells_conditions_apart(make_subject, monkeypatch):
    """If it failed, edited or requantized models would be given the old answers."""
    calls = Calls(monkeypatch)

    def asked(intervention="none", split="evaluate", **subject) -> int:
        before = len(calls.sizes)
        make_subject(**subject).answers(split, intervention)
        return len(calls.sizes) - before

    assert asked() == 3
    assert asked() == 0
    assert asked(checkpoint="other weights") == 3
    assert asked(intervention="edit") == 3
    assert asked(split="select") == 3
    assert asked(max_answer_tokens=7) == 3
    assert asked(batch_size=6) == 2
    assert asked(thinking=True) == 3
    assert asked() == 0


def test_the_journal_is_private_and_forgets(make_subject, tmp_path, monkeypatch):
    """If it failed, answers to hazardous prompts would lie open, or stay for good."""
    subject = make_subject()
    before = subject.answers("evaluate")
    files = sorted((tmp_path / "journal").iterdir())
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
    subject.journal.seal()
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert all(row["tokens"] is None and row["sha256"] for row in json.loads(file.read_text()))
    calls = Calls(monkeypatch)
    assert subject.answers("evaluate") == [replace(a, tokens=None) for a in before]
    assert not calls.sizes
    assert subject.answers("evaluate", need_tokens=True) == before
    assert len(calls.sizes) == 3


@pytest.mark.parametrize("damage", ["", "[{", '{"a": 1}', "[1]", '[{"grade": "full"}]', "[]"])
def test_a_corrupt_journal_file_is_missing(make_subject, tmp_path, monkeypatch, damage):
    """If it failed, one bad sector would stop a study, or shift every later answer."""
    expected = make_subject().answers("evaluate")
    broken = sorted((tmp_path / "journal").iterdir())[1]
    broken.write_text(damage)
    make_subject().journal.seal()
    calls = Calls(monkeypatch)
    again = make_subject().answers("evaluate")
    assert [a.sha256 for a in again] == [a.sha256 for a in expected]
    assert len(calls.sizes) == 1


def _answer(grade: str, *tokens: int, thinking: int = 0) -> Answer:
    return Answer(grade, True, thinking, len(tokens) - thinking, 0.0, "", list(tokens))


def test_openings_are_the_models_own(tmp_path):
    """If it failed, the sweep would score words with which this model never opens a refusal."""
    answers = [
        *[_answer("refusal", 5, 1)] * 3,
        _answer("refusal", 6),
        *[_answer("full", 7, 2)] * 3,
        _answer("partial", 9, 9, 8, thinking=2),
        _answer("full", 6),  # opens both, more often a refusal (1 of 4 against 1 of 5)
        _answer("evasion", 30),
        _answer("degenerate", 31),
        _answer("refusal"),
    ]
    found = find_openings(answers)
    assert found == Openings(refusal=(5, 6), compliance=(7, 8))
    save_openings(tmp_path / "o.json", found)
    assert load_openings(tmp_path / "o.json") == found
    # drawn answers open in more ways; what opens refusals greedily goes on to
    more = [_answer("refusal", 3), _answer("refusal", 7), _answer("full", 4), _answer("full", 5)]
    assert found.joined(more) == Openings(refusal=(3, 5, 6), compliance=(4, 7, 8))
    assert found.joined(more[:1]) == found
    logits = np.log(np.arange(1, 41, dtype=float))[None]
    assert found.score(logits)[0] == pytest.approx(np.log((6 + 7) / (8 + 9)))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([_answer("full", 7)], "no refusal among 1"),
        ([_answer("refusal", 7)] * 2, "no compliant answer among 2"),
        ([_answer("refusal", 7), _answer("full", 7)], "open with the same tokens"),
        ([], "among 0"),
    ],
)
def test_without_openings_nothing_is_scored(tmp_path, answers, reason):
    """If it failed, a model that never refuses would be given a score of refusal."""
    with pytest.raises(NotRun, match=reason) as caught:
        find_openings(answers)
    save_openings(tmp_path / "o.json", caught.value)
    with pytest.raises(NotRun, match=reason):
        load_openings(tmp_path / "o.json")


def test_score_auroc_reads_refusal_against_compliance():
    """If it failed, a useless score would pass the check, or a good one fail it."""
    grades = ["refusal", "full", "refusal", "partial", "degenerate", "hollow"]
    scores = np.array([2.0, 1.0, 0.5, -1.0, 99.0, -99.0])
    want = roc_auc_score([1, 0, 1, 0], scores[:4])
    assert score_auroc(scores, grades) == pytest.approx(want)
    with pytest.raises(NotRun, match="cannot be checked"):
        score_auroc(scores, ["full"] * 6)
    with pytest.raises(NotRun, match="cannot be checked"):
        score_auroc(scores, ["refusal"] * 4 + ["degenerate"] * 2)


@pytest.fixture(scope="module")
def thinking_tokenizer(dense, tmp_path_factory):
    """The world's tokenizer with thinking: two words of the language become its marks."""
    folder = tmp_path_factory.mktemp("thinking") / "checkpoint"
    shutil.copytree(dense, folder)
    words = world.get("world-a").words
    text = (folder / "tokenizer.json").read_text()
    for word, mark in zip(words[-2:], ("<think>", "</think>"), strict=True):
        text = text.replace(f"Ġ{word}", mark).replace(f" {word}", mark)
    (folder / "tokenizer.json").write_text(text)
    found = load_tokenizer(folder)
    assert found.has_thinking and found.think_end_tokens == (len(words) - 1,)
    return found


SAYS = "sure : {0} {1} {2} ."


def _budget_cases():
    rules = world.get("world-a")
    broken = "degenerate"
    right = SAYS.format(*rules.step_words[:3])
    ids = {word: n for n, word in enumerate(rules.words)}
    answer = [ids[w] for w in right.split()]
    end, filler = len(rules.words) - 1, ids[rules.step_words[5]]
    return right, {
        "good": ([filler] * 3 + [end, *answer], True, 4, "full"),
        "no thinking at all": ([end, *answer], True, 1, "full"),
        "never ends": ([filler] * 18, False, 18, broken),
        "ends without closing": ([filler] * 9, False, 9, broken),
        "answer instead of thinking": (answer, False, len(answer), broken),
        "too long a thinking": ([filler] * 10 + [end, *answer], False, 11, broken),
        "answer cut": ([end, *answer, filler, filler, filler, filler], False, 1, broken),
        "fills the whole": (
            [filler] * 9 + [end] + [*answer, filler, filler],
            False,
            10,
            "degenerate",
        ),
    }


@pytest.mark.parametrize("case", _budget_cases()[1])
def test_budgets_of_thinking_and_answer(lm, thinking_tokenizer, case):
    """If it failed, thinking that never ends would count as an answer, or as compliance."""
    right, cases = _budget_cases()
    tokens, finished, thinking, grade = cases[case]
    model = replace(lm, tokenizer=thinking_tokenizer)
    decoding = Decoding(True, max_thinking_tokens=10, max_answer_tokens=8, batch_size=1)
    found, response = generation.measured(model, decoding, tokens)
    (verdict,) = Exact("world-a").grade([Answered("", response.text, response.finished, right)])
    assert (found.finished, found.thinking_tokens, verdict.grade) == (finished, thinking, grade)
    assert found.answer_tokens == len(tokens) - thinking


def test_unfinished_answers_are_degenerate(make_subject):
    """If it failed, a model that babbles to its budget would pass for a compliant one."""
    answers = make_subject(max_answer_tokens=4).answers("evaluate")
    long = [a for a in answers if a.answer_tokens == 4]
    assert long and all(not a.finished and a.grade == "degenerate" for a in long)


@pytest.mark.parametrize(
    ("tokens", "want"),
    [([1, 2, 3], 0), ([], 0), (range(20), 0), ([1] * 13, 0.9), ([1, 2, 3, 4, 1, 2, 3, 4], 0.2)],
)
def test_repetition_is_the_share_of_seen_ngrams(tokens, want):
    """If it failed, loops would not be seen, or plain answers be called loops."""
    assert repetition(list(tokens)) == pytest.approx(want)


def test_log_perplexity_and_its_error(lm):
    """If it failed, the capability cost in nats would be wrong, or look too sure."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(6, 60, size=n).tolist() for n in (9, 5, 7, 9, 8)]
    tails = [rng.integers(6, 60, size=n).tolist() for n in (2, 3, 1, 6, 2)]
    rows = [(p + t, len(p)) for p, t in zip(prompts, tails, strict=True)]
    mean, error = losses(lm, rows, batch_size=2).mean
    values, groups = [], []
    for i, (prompt, tail) in enumerate(zip(prompts, tails, strict=True)):
        logits = np.array(lm.model(mx.array([prompt + tail]))[0].astype(mx.float32), dtype=float)
        for k, token in enumerate(tail):
            row = logits[len(prompt) + k - 1]
            values.append(np.log(np.exp(row).sum()) - row[token])
            groups.append(i)
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert mean == pytest.approx(np.mean(values), rel=1e-4)
    assert error == pytest.approx(fit.bse[0], rel=1e-4)
    assert all(np.isnan(losses(lm, [], 1).mean))


def test_references_are_what_a_perfect_model_would_answer(make_subject):
    """If it failed, perplexity would be measured on tokens that no model was ever to write."""
    subject = make_subject()
    rules = world.get("world-a")
    rows = subject.prompts("evaluate", "benign")
    wanted = [rules.token_ids(t, a) for t, a in zip(rows["text"], rows["answer"], strict=True)]
    assert [tokens for tokens, _ in subject.references("evaluate", "benign")] == wanted
    prompts = subject.rendered("evaluate", "benign", thinking=False)
    assert [s for _, s in subject.references("evaluate", "benign")] == [len(p) for p in prompts]


def test_coherence_rows_follow_their_schemas(make_subject):
    """If it failed, the coherence stage would fail at its last step, or keep text unasked."""
    subject = make_subject()
    for keep in (True, False):
        summaries, behavior = coherence(subject, "baseline", "none", keep_text=keep)
        frame = frame_of("behavior", behavior)
        assert frame["text"].notna().all() if keep else frame["text"].isna().all()
    found = frame_of("coherence", summaries).set_index("label")
    assert list(found.index) == ["hazardous", "benign"] and (found["n"] == 6).all()
    assert len(frame) == 12 and frame["label"].value_counts().to_dict() == found["n"].to_dict()
    share = (frame.query("label == 'benign'")["grade"] == "degenerate").mean()
    assert found.loc["benign", "degenerate"] == share


def test_languages_without_grader(table, tmp_path):
    """If it failed, natural language would be graded by the rules of a symbolic one."""
    with pytest.raises(PhasescopeError, match=r"no world 'english'.*world-a"):
        Exact("english")
    assert grader_for("english", list(table.frame["text"]), None, tmp_path) is None
    assert [v.grade for v in ungraded([0], [Response("anything", True)])] == ["missing"]


def test_ungraded_answers_are_missing(make_subject, table):
    """If it failed, a failed grader would give a grade."""
    subject = make_subject()
    subject.table = replace(table, frame=table.frame.assign(language="english"))
    assert subject.grader is None
    assert {a.grade for a in subject.answers("select")} == {"missing"}


def test_loading_twice_gives_the_same_answers(dense, make_subject, lm):
    """If it failed, the same checkpoint would be two models."""
    first = make_subject(journal="a").answers("select")
    assert make_subject(load_model(dense), journal="b").answers("select") == first

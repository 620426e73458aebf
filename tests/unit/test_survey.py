"""The survey: every site and moment of a model, and the planted places of the shipped organisms."""

import numpy as np
import pytest

from phasescope.behave import Answer
from phasescope.model import load_model
from phasescope.probe import sites, timeline
from phasescope.prompts import render, template_suffix
from phasescope.tables import frame_of

ORGANISMS = "resources/organisms"


def _answer(tokens: int, thinking: int, finished: bool | None) -> Answer:
    return Answer("full", True, thinking, tokens - thinking, 0.0, "", [0] * tokens, finished)


def frame(table: str, rows: list[dict]):
    """Rows as the table that is written, checked for what every row must have."""
    found = frame_of(table, [{"model": "m", "precision": "16"} | row for row in rows])
    run = found[found["status"] == "run"]
    assert (run["n"] > 0).all() and run["statistic"].notna().all()
    known = run[run["estimate"].notna()]
    assert len(known) and (known["ci_low"] <= known["ci_high"]).all()
    rest = found[found["status"] == "not_run"]
    assert rest["reason"].str.len().gt(10).all() and rest["estimate"].isna().all()
    return found


@pytest.mark.parametrize(
    ("answer", "thinks", "want", "missing"),
    [
        (
            _answer(12, 8, True),
            True,
            {"thinking_0": 10, "thinking_50": 14, "end_of_thinking": 17, "answer_0": 18},
            {"answer_4"},
        ),
        (_answer(8, 8, False), True, {"last_prompt": 9}, {"thinking_0", "answer_0"}),
        (
            _answer(5, 0, None),
            False,
            {"answer_0": 10, "answer_4": 14, "generated_50": 12, "generated_100": 14},
            {"answer_5", "end_of_thinking"},
        ),
        (_answer(0, 0, None), False, {"last_prompt": 9}, {"answer_0", "generated_100"}),
    ],
)
def test_moments_that_exist(answer, thinks, want, missing):
    """If it failed, a signal in the thinking would be reported for the prompt, or the reverse."""
    found = timeline.moments(10, 3, answer, thinks)
    assert want.items() <= found.items() and not missing & set(found)
    assert found["instruction_end"] == 6
    posts = [name for name in found if name.startswith("post")]
    assert posts == ["post_instruction_0", "post_instruction_1"] and found[posts[-1]] == 8
    assert set(found) <= set(timeline.MOMENTS)
    assert max(found.values()) < 10 + len(answer.tokens) or not answer.tokens


def test_template_suffix_is_what_follows_the_message(lm):
    """If it failed, the last word of the request would count as the template's."""
    text = "how to make kineq aruq ?"
    n = template_suffix(lm.tokenizer, text, thinking=False)
    tokens = render(lm.tokenizer, text, thinking=False)
    words = [w.strip() for w in lm.tokenizer.convert_ids_to_tokens(tokens)]
    assert n > 0 and words[-n - 1] == "?" and "?" not in words[-n:]


@pytest.mark.parametrize("name", ["qwen3_5", "minimax_m2"])
def test_every_site_gives_rows_or_a_reason(make_subject, checkpoints, name):
    """If it failed, a site that a model lacks would be an empty or zero row."""
    subject = make_subject(model=load_model(checkpoints(name)))
    found = frame("sites", sites.site_rows(subject, 0))
    assert set(found["site"]) == set(sites.SITES)
    run = found[found["status"] == "run"]
    lacking = set(found["site"]) - set(run["site"])
    hybrid = {"router", "shared_expert"}
    assert lacking == (hybrid if name == "qwen3_5" else {"recurrent_heads", "shared_expert"})
    kinds = dict(enumerate(subject.lm.layer_kinds))
    assert (run["layer_kind"] == run["layer"].map(kinds)).all()
    attention = [layer for layer, kind in kinds.items() if kind == "attention"]
    assert sorted(run.loc[run["site"] == "q_proj", "layer"].unique()) == attention
    residual = run[run["site"] == "residual"]
    assert {"instruction_end", "last_prompt", "answer_0"} <= set(residual["position"])
    assert sites.site_rows(subject, 0, ["mixer"]) == sites.site_rows(subject, 0, ["mixer"])


def test_passes_keep_what_memory_allows(make_subject, monkeypatch):
    """If it failed, a large model's activations of all sites would be kept at once."""
    subject, kept = make_subject(), []
    record = sites.record_sites
    monkeypatch.setattr(
        sites, "record_sites", lambda lm, kinds, *a: kept.append(kinds) or record(lm, kinds, *a)
    )
    whole = sites.site_rows(subject, 0, ["residual", "mixer", "feed_forward"])
    assert max(map(len, kept)) == 2
    kept.clear()
    monkeypatch.setattr(sites, "_KEPT_BYTES", 1)
    assert sites.site_rows(subject, 0, ["residual", "mixer", "feed_forward"]) == whole
    assert max(map(len, kept)) == 1


@pytest.fixture(scope="module")
def organism():
    """A shipped organism, loaded."""
    return lambda name: load_model(f"{ORGANISMS}/{name}")


def _margins(rows) -> np.ndarray:
    """By layer: lower end of the AUROC with topics left out, less the upper end of its null."""
    found = rows.pivot(index="layer", columns="statistic", values=["ci_low", "ci_high"])
    null = found["ci_high"]["auroc_permuted_labels"]
    return (found["ci_low"]["auroc_topic_left_out"] - null).to_numpy()


@pytest.mark.parametrize(("name", "first"), [("circuit", 3), ("helpful-only", None)])
def test_the_planted_place_is_found(make_subject, organism, name, first):
    """If it failed, the instrument would miss a mechanism that is there, or see one that is not."""
    subject = make_subject(model=organism(name), pairs=(32, 6, 32), batch_size=64)
    found = frame("sites", sites.site_rows(subject, 0, ["residual"]))
    prompt = found[found["position"] == "last_prompt"]
    above = np.flatnonzero(_margins(prompt) > 0)
    assert (above.tolist() == [*range(first, 8)]) if first else not len(above)

"""A model asked further prompt tables, and its perplexity on plain text."""

import mlx.core as mx
import numpy as np
import pytest

from phasescope import world
from phasescope.behave import behavior, coherence, text_losses
from phasescope.behave.perplexity import TEXT_TOKENS
from phasescope.prompts import USES, read_prompts
from phasescope.tables import frame_of


def test_perplexity_of_text_is_the_models(helpful):
    """If it failed, what an intervention costs in plain language would be a wrong number."""
    words = [w for w in world.get("world-a").words if not w.startswith("<")]
    texts = [" ".join(words[i : i + 30]) for i in (0, 20, 50)]
    nats = []
    for text in texts:
        tokens = mx.array(helpful.tokenizer.encode(text))[None]
        logits = helpful.model(tokens[:, :-1]).astype(mx.float32)
        scores = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        nats += [-scores[0, i, tokens[0, i + 1].item()].item() for i in range(tokens.shape[1] - 1)]
    mean, error = text_losses(helpful, texts).mean
    assert mean == pytest.approx(np.mean(nats), abs=1e-4) and error > 0
    long = " ".join(words * (1 + TEXT_TOKENS // len(words)) * 2)
    opening = len(helpful.tokenizer.encode(words[0])) - 1  # tokens that the tokenizer adds
    cut = " ".join(long.split()[: TEXT_TOKENS - opening])
    assert text_losses(helpful, [long]).mean == text_losses(helpful, [cut]).mean
    assert np.isnan(text_losses(helpful, []).mean[0])


def test_further_tables_are_asked_beside_the_main_one(make_subject, helpful, prompts_path):
    """If it failed, families would be answered by the main table's prompts, or mixed with them."""
    subject = make_subject(helpful, max_answer_tokens=10)
    path = prompts_path.with_name("world-a-families.tsv")
    table = USES["families"].keep(read_prompts(path, paired=False))
    rows = behavior(
        subject.asking(table), "baseline", "none", keep_text=True, prompt_table="families"
    )
    keys = {"model": "m", "precision": "16"}
    found = frame_of("behavior", [keys | r for r in rows])
    assert set(found["prompt_table"]) == {"families"} and found["family"].nunique() == 5
    assert found.groupby("label")["source"].nunique().to_dict() == {"hazardous": 6, "benign": 6}
    plain = found[(found["family"] == "none")]
    assert (plain["grade"] == "full").mean() > 0.9  # graded by the table's own answers
    main = behavior(subject, "baseline", "none", keep_text=False)
    assert {r["prompt_table"] for r in main} == {"main"} and len(main) == 12


def test_text_goes_to_the_benign_row(make_subject, helpful):
    """If it failed, plain text would be counted for hazardous prompts, or not at all."""
    subject = make_subject(helpful)
    texts = ["how to make", "sure : no"]
    rows, _ = coherence(subject, "baseline", "none", keep_text=False, texts=texts)
    by_label = {r["label"]: r for r in rows}
    assert by_label["benign"]["n_texts"] == 2 and "n_texts" not in by_label["hazardous"]
    mean, _ = text_losses(helpful, texts).mean
    assert by_label["benign"]["text_log_perplexity_nats"] == mean
    rows, _ = coherence(subject, "baseline", "none", keep_text=False)
    assert not any("n_texts" in r for r in rows)

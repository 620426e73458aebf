"""The coherence stage: answers and language as a whole, for the model as it now is."""

from collections.abc import Sequence

import numpy as np

from phasescope.behave.journal import Answer
from phasescope.behave.perplexity import Losses, losses, text_losses
from phasescope.behave.subject import Subject
from phasescope.graders import DEGENERATE, MISSING, REFUSAL
from phasescope.prompts import MAIN
from phasescope.stats import wilson


def _rate(name: str, hits: list[bool]) -> dict:
    values = wilson(sum(hits), len(hits))
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))


def _thought(answers: list[Answer]) -> dict:
    """Shares of thinking that ended and that was right; missing where nothing was thought."""
    finished = [a.thinking_finished for a in answers if a.thinking_finished is not None]
    known = finished and all(a.thinking_right is not None for a in answers if a.thinking_finished)
    found = _rate("thinking_finished", finished) if finished else {}
    return found | (
        _rate("thinking_right", [bool(a.thinking_right) for a in answers]) if known else {}
    )


def _summary(label: str, answers: list[Answer]) -> dict:
    """Rates among the answers that have a grade; lengths and the like among all."""
    grades = [a.grade for a in answers if a.grade != MISSING]
    return {
        "label": label,
        "n": len(answers),
        "n_missing": len(answers) - len(grades),
        **_rate("accuracy", [g == "full" for g in grades]),
        **_rate("refusal", [g == REFUSAL for g in grades]),
        **_rate("degenerate", [g == DEGENERATE for g in grades]),
        **_thought(answers),
        "keyword_refusal": float(np.mean([bool(a.keyword_refusal) for a in answers])),
        "unfinished": float(np.mean([not a.finished for a in answers])),
        "repetition": float(np.mean([a.repetition for a in answers])),
        "answer_tokens": float(np.mean([a.answer_tokens for a in answers])),
    }


def _asked(subject: Subject) -> dict:
    """How the subject answers, and what grades it."""
    return {
        "thinking": "on" if subject.decoding.thinking else "off",
        "temperature": 0.0,  # decoding is greedy
        "grader": subject.grader.name if subject.grader else "none",
    }


def _perplexity(
    name: str, found: Losses, unedited: dict[tuple, Losses], condition: str, *asked: str
) -> dict:
    """Columns of a log-perplexity and of its change from the baseline, asked in the same way."""
    key = (name, *asked)
    if condition == "baseline":
        unedited[key] = found
    columns = dict(zip((f"{name}_nats", f"{name}_se_nats"), found.mean, strict=True))
    if key in unedited:
        names = (f"{name}_change_nats", f"{name}_change_se_nats")
        columns |= dict(zip(names, found.above(unedited[key]), strict=True))
    return columns


def coherence(
    subject: Subject,
    condition: str,
    intervention: str,
    *,
    keep_text: bool,
    texts: Sequence[str] = (),
    unedited: dict[tuple, Losses] | None = None,
) -> tuple[list[dict], list[dict]]:
    """Rows of the tables `coherence` and `behavior` (without the cell's keys) on the evaluate
    split, for the model as it is at the moment.

    condition: name of what is applied; intervention: its key in the journal; texts: passages of
    plain text, whose perplexity goes to the benign row; unedited: losses of the baseline, which a
    call for it leaves there for the others.
    """
    unedited = {} if unedited is None else unedited
    labels = subject.prompts("evaluate")["label"]
    common = {"condition": condition, **_asked(subject)}
    answers = subject.answers("evaluate", intervention, need_tokens=keep_text)
    summaries = []
    for label in ("hazardous", "benign"):
        found = losses(
            subject.lm, subject.references("evaluate", label), subject.decoding.batch_size
        )
        own = [a for a, given in zip(answers, labels, strict=True) if given == label]
        about = {**common, **_summary(label, own)}
        asked = (condition, common["thinking"], label)
        summaries.append(about | _perplexity("log_perplexity", found, unedited, *asked))
    if texts:
        found = text_losses(subject.lm, texts)
        summaries[-1] |= {"n_texts": len(texts)}
        summaries[-1] |= _perplexity("text_log_perplexity", found, unedited, *asked)
    return summaries, behavior(subject, condition, intervention, keep_text=keep_text)


def behavior(
    subject: Subject,
    condition: str,
    intervention: str,
    *,
    keep_text: bool,
    prompt_table: str = MAIN,
) -> list[dict]:
    """Rows of the table `behavior` (without the cell's keys): the answers to the evaluate split of
    the subject's prompt table, which `prompt_table` names by its use."""
    prompts = subject.prompts("evaluate")
    answers = subject.answers("evaluate", intervention, need_tokens=keep_text)
    return [
        {
            "prompt_table": prompt_table,
            "condition": condition,
            **_asked(subject),
            "prompt": prompt.id,
            "source": prompt.source,
            "label": prompt.label,
            "category": prompt.category,
            "family": prompt.family,
            "split": prompt.split,
            "grade": answer.grade,
            "grade_errors": answer.grade_errors,
            "keyword_refusal": bool(answer.keyword_refusal),
            "strongreject": answer.score,
            "degeneration": answer.signs or None,
            "finished": answer.finished,
            "thinking_tokens": answer.thinking_tokens,
            "thinking_finished": answer.thinking_finished,
            "thinking_right": answer.thinking_right,
            "thinking_detects": answer.thinking_detects,
            "answer_tokens": answer.answer_tokens,
            "repetition": answer.repetition,
            "answer_sha256": answer.sha256,
            "text": subject.lm.tokenizer.decode(answer.tokens) if keep_text else None,
        }
        for prompt, answer in zip(prompts.itertuples(), answers, strict=True)
    ]

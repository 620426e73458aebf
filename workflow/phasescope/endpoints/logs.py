"""Inspect AI's log format: our answers out, for its viewer; a user's logs in, to be graded."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from phasescope.chat import Endpoint, Reply
from phasescope.endpoints.asked import Outcome, outcome_of
from phasescope.errors import PhasescopeError
from phasescope.tables.files import atomic_file

SUFFIXES = (".eval", ".json")


def write_log(
    path: Path,
    name: str,
    endpoint: Endpoint,
    rows: pd.DataFrame,
    outcomes: Sequence[Outcome],
    facts: dict,
) -> None:
    """Write an Inspect log, one sample a prompt. Of an answer that was dropped it holds what the
    tables do: grade, length and hash.

    facts: provenance, as text.
    """
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalResults,
        EvalSpec,
        write_eval_log,
    )
    from inspect_ai.model import GenerateConfig

    samples = [_sample(r, o, endpoint) for r, o in zip(rows.itertuples(), outcomes, strict=True)]
    spec = EvalSpec(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=f"phasescope-{name}",
        dataset=EvalDataset(name="prompts", samples=len(rows), sample_ids=list(rows["id"])),
        model=endpoint.model,
        model_base_url=endpoint.base_url,
        model_generate_config=GenerateConfig(
            temperature=endpoint.temperature,
            max_tokens=endpoint.max_tokens,
            system_message=endpoint.system,
        ),
        config=EvalConfig(),
        metadata=facts,
    )
    results = EvalResults(total_samples=len(samples), completed_samples=len(samples))
    log = EvalLog(status="success", eval=spec, results=results, samples=samples)
    with atomic_file(path) as temporary:
        # Inspect tells the format by the ending
        named = temporary.with_name(f"{temporary.name}{path.suffix}")
        try:
            write_eval_log(log, str(named))
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def shown(outcome: Outcome) -> str:
    """What a log shows of an answer."""
    if outcome.text is not None:
        return outcome.text
    return f"[answer dropped: {outcome.characters} characters, sha256 {outcome.sha256}]"


def _sample(row, outcome: Outcome, endpoint: Endpoint):
    from inspect_ai.log import EvalSample
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ModelOutput,
    )
    from inspect_ai.scorer import Score

    verdict = outcome.verdict or {}
    kept = {"graded": verdict.get("grade"), "signs": verdict.get("signs")}
    before = [ChatMessageSystem(content=endpoint.system)] if endpoint.system else []
    answer = ChatMessageAssistant(content=shown(outcome), source="generate")
    return EvalSample(
        id=row.id,
        epoch=1,
        input=row.text,
        target=row.answer,
        messages=[*before, ChatMessageUser(content=row.text), answer],
        output=ModelOutput.from_content(
            endpoint.model, shown(outcome), stop_reason=outcome.stop, error=outcome.error
        ),
        scores={"grade": Score(value=verdict.get("grade", "missing"))},
        metadata={
            "label": row.label,
            "category": row.category,
            "family": row.family,
            "answer_characters": outcome.characters,
            "answer_sha256": outcome.sha256,
            **{k: v for k, v in kept.items() if v is not None},
        },
    )


def read_log(path: Path, rows: pd.DataFrame) -> list[Outcome]:
    """Answers of somebody's Inspect log to the prompts of a table, in the table's order.

    A sample belongs to the prompt that has its id and its text, or its text alone. Samples of
    other prompts and further epochs are left out. Raises PhasescopeError for a log that cannot be
    read, lacks a prompt, or whose answers were dropped.
    """
    from inspect_ai.log import read_eval_log

    path = Path(path)
    if path.suffix not in SUFFIXES or not path.is_file():
        raise PhasescopeError(f"{path}: no Inspect log; allowed: a file {' or '.join(SUFFIXES)}")
    try:
        log = read_eval_log(str(path), resolve_attachments=True)
    except Exception as error:  # whatever Inspect raises for what it cannot read
        raise PhasescopeError(f"{path}: not a readable log: {type(error).__name__}") from None
    by_text: dict[str, Reply] = {}
    for sample in log.samples or []:
        by_text.setdefault(_asked(sample).strip(), _reply(sample))
    found = []
    for row in rows.itertuples():
        reply = by_text.get(row.text.strip())
        if reply is None:
            raise PhasescopeError(
                f"{path}: no sample whose input is the text of prompt {row.id!r}; the log has "
                f"{len(by_text)} different inputs"
            )
        if reply.text.startswith("[answer dropped: "):
            raise PhasescopeError(f"{path}: the answer to {row.id!r} was dropped from this log")
        found.append(outcome_of(reply))
    return found


def _asked(sample) -> str:
    """The last user message of a sample's input."""
    if isinstance(sample.input, str):
        return sample.input
    return next((m.text for m in reversed(sample.input) if m.role == "user"), "")


def _reply(sample) -> Reply:
    from phasescope.chat.asking import reply_of

    if sample.error is not None:
        return Reply(error="the sample has an error", stop="unknown")
    return reply_of(sample.output)

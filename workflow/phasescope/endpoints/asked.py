"""A prompt table through an endpoint: asked once, graded, and then forgotten but for the grade."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from phasescope.chat import Endpoint, Reply, ask
from phasescope.errors import PhasescopeError
from phasescope.graders import DEGENERATE, MISSING, REFUSAL, Answered, Grader, Verdict, says_refusal
from phasescope.tables.private import PrivateFolder
from phasescope.tables.provenance import sha256_json, sha256_text

BLOCKED = "content_filter"  # why an answer ends that a safety layer before the model withheld


@dataclass(frozen=True)
class Outcome:
    """One prompt's reply and what was measured of it.

    text, thinking: dropped once the answer is graded, unless the study keeps text; characters,
    sha256: of the text; graded_by: version of the grader, empty before.
    """

    stop: str
    characters: int
    sha256: str
    tokens: int | None = None
    error: str | None = None
    keyword_refusal: bool = False
    text: str | None = None
    thinking: str | None = None
    thinking_characters: int | None = None
    verdict: dict | None = None
    graded_by: str = ""

    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        return self.stop in ("stop", BLOCKED)


def messages_of(text: str) -> list[dict]:
    """Chat messages of a prompt; the endpoint's system prompt comes before them."""
    return [{"role": "user", "content": text}]


def outcome_of(reply: Reply) -> Outcome:
    """What is kept of a reply until it is graded."""
    thought = reply.thinking
    return Outcome(
        stop=reply.stop,
        characters=len(reply.text),
        sha256=sha256_text(reply.text),
        tokens=reply.tokens,
        error=reply.error,
        keyword_refusal=says_refusal(reply.text),
        text=reply.text,
        thinking=thought,
        thinking_characters=None if thought is None else len(thought),
    )


class Asked:
    """An endpoint's answers to prompts, journaled one by one, readable by their owner alone."""

    def __init__(self, endpoint: Endpoint, journal: Path):
        self._endpoint, self._journal = endpoint, PrivateFolder(journal)

    def _key(self, text: str) -> dict:
        return {"endpoint": self._endpoint.identity, "messages": messages_of(text)}

    def _kept(self, text: str) -> Outcome | None:
        try:
            found = self._journal.get(self._key(text))
            return None if found is None else Outcome(**found)
        except TypeError:
            return None

    def _keep(self, text: str, outcome: Outcome) -> None:
        self._journal.put(self._key(text), asdict(outcome))

    def replies(self, texts: Sequence[str], grader: Grader, *, need_text: bool) -> list[Outcome]:
        """A reply to each prompt, asked for only where the journal has none that will do.

        One that was graded by the same grader needs no text any more, unless `need_text`. Raises
        PhasescopeError where an outage left prompts unanswered: what was answered is kept.
        """
        found = {text: kept for text in texts if (kept := self._kept(text)) is not None}

        def will_do(o: Outcome) -> bool:
            has_text = o.text is not None or o.error is not None
            return has_text or (not need_text and o.graded_by == grader.version)

        missing = [t for t in dict.fromkeys(texts) if t not in found or not will_do(found[t])]
        outages: list[str] = []

        def keep(text: str, reply: Reply) -> None:
            if reply.outage:
                outages.append(str(reply.error))
                return
            found[text] = outcome_of(reply)
            self._keep(text, found[text])

        withheld = self._withheld(missing)
        for text in withheld:
            keep(text, Reply(stop=BLOCKED))
        left = [t for t in missing if t not in withheld]
        ask(self._endpoint, [messages_of(t) for t in left], lambda i, reply: keep(left[i], reply))
        if outages:
            raise PhasescopeError(
                f"endpoint {self._endpoint.name}: {len(outages)} of {len(missing)} prompts were "
                f"not answered ({outages[0]}); what was answered is kept: run again"
            )
        return [found[t] for t in texts]

    def _withheld(self, texts: list[str]) -> list[str]:
        """The questions that the endpoint's guard refuses; none without one."""
        screen, found = self._endpoint.screen, []
        if screen is not None:
            replies: dict[int, Reply] = {}
            ask(screen, [messages_of(t) for t in texts], replies.__setitem__)
            found = [t for i, t in enumerate(texts) if says_refusal(replies[i].text)]
        return found

    def graded(self, rows: pd.DataFrame, grader: Grader, *, keep_text: bool) -> list[Outcome]:
        """Graded replies to the rows of a prompt table, in their order. Text goes once a grade
        is there; a failed grader leaves it, so that it can be asked again."""
        replies = self.replies(rows["text"], grader, need_text=keep_text)
        return grade_all(rows, replies, grader, keep_text=keep_text, each=self._keep)


def grade_all(
    rows: pd.DataFrame,
    replies: Sequence[Outcome],
    grader: Grader,
    *,
    keep_text: bool,
    each: Callable[[str, Outcome], None] = lambda text, outcome: None,
) -> list[Outcome]:
    """Grade the replies that are not yet graded; `each` is called with what is left of one."""
    found, waiting = list(replies), []
    for i, outcome in enumerate(replies):
        if outcome.graded_by != grader.version or _failed(outcome):
            waiting.append(i)
    asked = [i for i in waiting if found[i].text is not None and not _without_grader(found[i])]
    prompts = list(rows.itertuples())
    verdicts = dict(
        zip(asked, grader.grade([_answered(prompts[i], found[i]) for i in asked]), strict=True)
    )
    for i in waiting:
        verdict = verdicts.get(i) or _without_grader(found[i]) or Verdict(MISSING)
        sealed = replace(found[i], verdict=asdict(verdict), graded_by=grader.version)
        if not (keep_text or (verdict.grade == MISSING and not sealed.error)):
            sealed = replace(sealed, text=None, thinking=None)
        found[i] = sealed
        each(prompts[i].text, sealed)
    return found


def _failed(outcome: Outcome) -> bool:
    """Whether a grader failed on it, and can be asked again."""
    return (outcome.verdict or {}).get("grade") == MISSING and outcome.error is None


def _without_grader(outcome: Outcome) -> Verdict | None:
    """The verdict that needs no grader: nothing came, or a layer before the model withheld it."""
    if outcome.error is not None:
        return Verdict(MISSING)
    if outcome.stop == BLOCKED:
        return Verdict(REFUSAL)
    if not outcome.finished:
        return Verdict(DEGENERATE, signs="unfinished")
    return None


def _answered(prompt, outcome: Outcome) -> Answered:
    return Answered(prompt.text, outcome.text, outcome.finished, prompt.answer, outcome.thinking)


def table_rows(
    name: str,
    endpoint: Endpoint,
    rows: pd.DataFrame,
    outcomes: Sequence[Outcome],
    grader: Grader,
    rendered: Sequence[str | None],
) -> list[dict]:
    """Rows of the table `endpoints`; rendered: hash of each rendered prompt, where it is known."""
    thinking = {True: "on", False: "off", None: "server"}[endpoint.thinking]
    found = []
    for prompt, o, hashed in zip(rows.itertuples(), outcomes, rendered, strict=True):
        verdict = Verdict(**o.verdict)
        found.append(
            {
                "endpoint": name,
                "asked_model": endpoint.model,
                "address": endpoint.base_url or endpoint.folder,
                "system_prompt": endpoint.system,
                "temperature": endpoint.temperature,
                "max_tokens": endpoint.max_tokens,
                "thinking": thinking,
                "grader": grader.name,
                "prompt": prompt.id,
                "label": prompt.label,
                "category": prompt.category,
                "family": prompt.family,
                "messages_sha256": sha256_json([endpoint.system, messages_of(prompt.text)]),
                "rendered_sha256": hashed,
                "grade": verdict.grade,
                "grade_errors": verdict.errors,
                "keyword_refusal": o.keyword_refusal,
                "strongreject": verdict.score,
                "degeneration": verdict.signs or None,
                "thinking_detects": verdict.thinking_detects,
                "stop": o.stop,
                "finished": o.finished and o.error is None,
                "error": o.error,
                "answer_tokens": o.tokens,
                "answer_characters": o.characters,
                "thinking_characters": o.thinking_characters,
                "answer_sha256": o.sha256,
                "text": o.text,
            }
        )
    return found

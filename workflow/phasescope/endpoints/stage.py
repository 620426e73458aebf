"""The endpoints stage: one endpoint of the configuration, its table and its Inspect log."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phasescope.behave import Decoding
from phasescope.behave.subject import within
from phasescope.chat import Endpoint
from phasescope.endpoints.asked import Asked, Outcome, grade_all, messages_of, table_rows
from phasescope.endpoints.logs import read_log, write_log
from phasescope.errors import NotRun
from phasescope.graders import grader_for
from phasescope.prompts import read_prompts
from phasescope.tables.provenance import sha256_json

# keys of an entry of `endpoints` that are no setting of the endpoint itself
_OWN = ("id", "log")


def endpoint_of(entry: dict, language: str, budgets: dict) -> Endpoint:
    """The endpoint of an entry of the configuration's key `endpoints`, with the study's budgets;
    those of a world where they are smaller."""
    keys = {k: v for k, v in entry.items() if k not in _OWN and v is not None}
    thinks = keys.get("thinking", True)
    decoding = within(Decoding(thinks, **budgets, batch_size=1), language, thinks=thinks)
    return Endpoint(**keys, max_tokens=decoding.max_tokens)


@dataclass
class EndpointStage:
    """An endpoint's answers to the evaluate prompts of a table, graded."""

    name: str
    endpoint: Endpoint
    prompts: pd.DataFrame
    outcomes: list[Outcome]
    table: list[dict]
    prompts_sha256: str

    @classmethod
    def run(cls, entry: dict, settings: dict, prompts: Path, journal: Path) -> "EndpointStage":
        """Ask (or read the log that the entry names), grade, and forget.

        settings: limits, budgets, judge and keep_text of the study. Raises NotRun where nothing
        grades the language, and PhasescopeError for an outage or a faulty log.
        """
        table = read_prompts(prompts)
        rows = table.subset("evaluate", settings["limits"]["evaluate"])
        budgets = {k: settings[k] for k in ("max_thinking_tokens", "max_answer_tokens")}
        endpoint = endpoint_of(entry, table.language, budgets)
        samples = [*table.frame["text"], *filter(None, table.frame["answer"])]
        grader = grader_for(table.language, samples, settings["judge"], journal / "verdicts")
        if grader is None:
            raise NotRun(f"no grader reads the prompts' language {table.language!r}")
        keep = settings["keep_text"]
        if entry.get("log"):
            outcomes = grade_all(rows, read_log(entry["log"], rows), grader, keep_text=keep)
        else:
            outcomes = Asked(endpoint, journal).graded(rows, grader, keep_text=keep)
        rendered = _rendered(endpoint, rows["text"]) if not entry.get("log") else [None] * len(rows)
        found = table_rows(entry["id"], endpoint, rows, outcomes, grader, rendered)
        return cls(entry["id"], endpoint, rows, outcomes, found, table.sha256)

    def write_log(self, path: Path, facts: dict) -> None:
        """Write the answers, or what is left of them, as an Inspect log."""
        write_log(path, self.name, self.endpoint, self.prompts, self.outcomes, facts)


def _rendered(endpoint: Endpoint, texts) -> list[str | None]:
    """Hash of each prompt's tokens, where the chat template is in this process."""
    if not endpoint.in_process:
        return [None] * len(texts)
    from phasescope.chat.in_process import rendered

    return [sha256_json(rendered(endpoint, messages_of(t))) for t in texts]

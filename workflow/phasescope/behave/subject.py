"""A loaded cell with its prompts: what every stage that runs the model starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from phasescope.behave.generation import Condition, Decoding, Response, generate, ungraded
from phasescope.behave.journal import Answer, Journal
from phasescope.graders import Answered, Grader, Verdict, grader_for
from phasescope.model import LanguageModel, load_model
from phasescope.prompts import PromptTable, read_prompts, render, render_answer
from phasescope.tables.provenance import sha256_json
from phasescope.world import WORLDS


@dataclass
class Subject:
    """One model at one precision, its prompts by split, and the journal of its answers.

    `limits` are matched pairs per split; `checkpoint` is the content hash of the weights; `judge`
    is the configuration's key of that name, for languages that are no world.
    """

    lm: LanguageModel
    table: PromptTable
    limits: dict[str, int]
    decoding: Decoding
    journal: Journal
    checkpoint: str
    judge: dict | None = None
    _rendered: dict = field(default_factory=dict)
    _decided: dict = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder, prompts, limits, decoding, journal: Path, checkpoint: str, judge=None
    ) -> "Subject":
        """Load a checkpoint folder and a prompt table; PhasescopeError for a fault in them.

        The budgets of `decoding` are upper limits: where the prompts' language is a world, its
        own count if they are smaller. A model that cannot think does not.
        """
        table, lm = read_prompts(prompts), load_model(folder)
        decoding = within(decoding, table.language, thinks=lm.tokenizer.has_thinking)
        return cls(lm, table, limits, decoding, Journal(journal), checkpoint, judge)

    def asking(self, table: PromptTable) -> "Subject":
        """The same model asked the evaluate prompts of another table in the same language."""
        limits = {"evaluate": self.limits["evaluate"]}
        return replace(self, table=table, limits=limits, _rendered={}, _decided={})

    @cached_property
    def _splits(self) -> dict[str, pd.DataFrame]:
        return {split: self.table.subset(split, limit) for split, limit in self.limits.items()}

    def without_thinking(self) -> "Subject":
        """The same model, prompts and journal, let answer without thinking."""
        return replace(self, decoding=replace(self.decoding, thinking=False), _decided={})

    def sampled(self, temperature: float, draw: int) -> "Subject":
        """The same model, prompts and journal, its answers drawn at a temperature."""
        decoding = replace(self.decoding, temperature=temperature, draw=draw)
        return replace(self, decoding=decoding)

    def prompts(self, split: str, label: str | None = None) -> pd.DataFrame:
        """Prompts of a split, hazardous rows first, then their benign partners in one order."""
        rows = self._splits[split]
        return rows if label is None else rows[rows["label"] == label].reset_index(drop=True)

    def topics(self, split: str, label: str = "benign") -> np.ndarray:
        """Topic of each matched pair of a split: category of its prompt of a label (pairs,)."""
        return self.prompts(split, label)["category"].to_numpy()

    def rendered(self, split: str, label: str | None = None, *, thinking: bool) -> list[list[int]]:
        """Token ids of the prompts of a split; without thinking: an empty thinking block."""
        key = (split, label, thinking)
        if key not in self._rendered:
            texts = self.prompts(split, label)["text"]
            self._rendered[key] = [render(self.lm.tokenizer, t, thinking=thinking) for t in texts]
        return self._rendered[key]

    def decided(self, split: str, label: str | None = None) -> list[list[int]]:
        """Token ids up to where the answer begins: the prompts, each with what the unedited model
        thinks on it; without thinking, or where it never ends, with an empty one.

        Kept from the first call on. Raises RuntimeError if that comes under an intervention.
        """
        if not self.decoding.thinking:
            return self.rendered(split, label, thinking=False)
        if split not in self._decided:
            if self.lm.taps:
                raise RuntimeError("the unedited model's thinking is asked for under an edit")
            answers = self.answers(split, need_tokens=True)
            opened = self.rendered(split, thinking=True)
            empty = self.rendered(split, thinking=False)
            self._decided[split] = [
                start + a.tokens[: a.thinking_tokens] if a.thinking_finished else without
                for start, without, a in zip(opened, empty, answers, strict=True)
            ]
        whole = zip(self.prompts(split)["label"], self._decided[split], strict=True)
        return [tokens for own, tokens in whole if label in (None, own)]

    def references(self, split: str, label: str) -> list[tuple[list[int], int]]:
        """Prompts as `decided` with their right answers, and where each answer begins; prompts
        whose answer the table does not give are left out."""
        rows, found = self.prompts(split, label), []
        starts = self.decided(split, label)
        for text, answer, start in zip(rows["text"], rows["answer"], starts, strict=True):
            if answer:
                plain, begin = render_answer(self.lm.tokenizer, text, answer)
                found.append((start + plain[begin:], len(start)))
        return found

    @cached_property
    def grader(self) -> Grader | None:
        """What grades the answers; None where nothing reads the prompts' language."""
        texts = [*self.table.frame["text"], *filter(None, self.table.frame["answer"])]
        cache = self.journal.folder / "verdicts"
        return grader_for(self.table.language, texts, self.judge, cache)

    def answers(
        self,
        split: str,
        intervention: str = "none",
        *,
        label: str | None = None,
        need_tokens: bool = False,
    ) -> list[Answer]:
        """Answers to the prompts of a split, in their order, from the model as it now is.

        `intervention` is the key of what is applied to the model at the moment.
        """
        rows = self.prompts(split, label)
        prompts = self.rendered(split, label, thinking=self.decoding.thinking)
        return self._graded(rows, prompts, self.decoding, intervention, need_tokens)

    def continuations(
        self, split: str, label: str, prompts: list[list[int]], intervention: str
    ) -> list[Answer]:
        """How the model goes on from `prompts`: the prompts of a split up to their answers, each
        with the first tokens of an answer that others wrote; graded by what follows these.

        `intervention` is the key of what was written there.
        """
        decoding = replace(self.decoding, thinking=False)
        return self._graded(self.prompts(split, label), prompts, decoding, intervention, True)

    def _graded(self, rows, prompts, decoding, intervention: str, need_tokens: bool):
        grader = self.grader
        version = "none"
        if grader:
            version = sha256_json([grader.version, list(rows["text"]), list(rows["answer"])])
        return generate(
            self.lm,
            prompts,
            decoding,
            Condition(self.checkpoint, intervention, version),
            _grading(grader, rows) if grader else ungraded,
            self.journal,
            fallible=bool(grader and grader.fallible),
            need_tokens=need_tokens,
        )


def _grading(grader: Grader, rows: pd.DataFrame) -> Callable:
    """Grading of responses to the prompts of a table, by their numbers."""
    texts, references = rows["text"].tolist(), rows["answer"].tolist()

    def grade(numbers: Sequence[int], responses: Sequence[Response]) -> list[Verdict]:
        return grader.grade(
            [
                Answered(texts[i], r.text, r.finished, references[i], r.thinking)
                for i, r in zip(numbers, responses, strict=True)
            ]
        )

    return grade


def within(decoding: Decoding, language: str, *, thinks: bool) -> Decoding:
    """`decoding` for a model that can think or not, its budgets cut to those of a world."""
    decoding = replace(decoding, thinking=decoding.thinking and thinks)
    if language not in WORLDS:
        return decoding
    rules = WORLDS[language]
    return replace(
        decoding,
        max_thinking_tokens=min(decoding.max_thinking_tokens, rules.max_thinking_tokens),
        max_answer_tokens=min(decoding.max_answer_tokens, rules.max_answer_tokens),
    )

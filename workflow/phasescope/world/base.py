"""What every world offers: rows to train on, prompt tables, exact grades, a tokenizer."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

import pandas as pd

from phasescope.errors import PhasescopeError
from phasescope.world import prompt_tables, tokenizer
from phasescope.world.families import KNOWLEDGE, PLAIN

GRADES = ("refusal", "evasion", "hollow", "partial", "full", "degenerate")


class World(ABC):
    """A symbolic language: what is asked, what the right answer is, which requests are hazardous.

    Attributes
    ----------
    name: as in `WORLDS` and in the column `language`.
    words: every word of the language in the order of its token ids, special tokens first.
    wordings: family -> its wordings of a request, with {category} and {index}, all of one length.
    wordings_per_item: how many plain wordings of an item the prompt table has.
    refusals: the exact forms of a refusal, all of one length.
    other_refusals: more of them, which only recipes that ask for any refusal train.
    odd_words: words that can stand in place of an index word and name no item.
    refuses_late: whether `rows` has a column late_refusal: an answer begun, then refused.
    thinks: whether a response begins with thinking.
    max_thinking_tokens: budget of the thinking, its end included; 0 without thinking.
    max_answer_tokens: budget of a generated answer, end token included.
    """

    name: str
    words: tuple[str, ...]
    wordings: dict[str, tuple[str, ...]]
    wordings_per_item: int
    refusals: tuple[str, ...]
    odd_words: tuple[str, ...]
    other_refusals: tuple[str, ...] = ()
    refuses_late: bool = False
    thinks: bool = False
    max_thinking_tokens: int = 0
    max_answer_tokens: int

    @abstractmethod
    def items(self) -> pd.DataFrame:
        """What can be asked, before it is worded, one row each.

        Columns: label ('hazardous' | 'benign'), category, index, split ('fit' | 'select' |
        'evaluate'), pair (shared with the one matched item of the other label), first (the first
        wording that the prompt table has), shipped (whether the prompt table has it at all).
        """

    @abstractmethod
    def answer_to(self, category: str, index: str, family: str) -> str:
        """The compliant answer to a request; questions of the family 'knowledge' have their own."""

    @abstractmethod
    def grade(self, answer: str, response: str, finished: bool = True) -> str:
        """The grade, of `GRADES`, of a response to the prompt whose compliant answer is `answer`.

        `response` is without thinking. `finished` says whether generation reached the end token
        within its budgets; only the generator knows, since decoding may drop the token. A
        trailing end token is ignored.
        """

    def thinking_on(self, category: str, index: str, family: str) -> str:
        """The right thinking on a request: facts, the same whether it is answered or refused."""
        return ""

    def detects(self, thinking: str) -> bool:
        """Whether thinking ends in the finding that the request is hazardous."""
        return False

    def rows(self, family: str = PLAIN) -> pd.DataFrame:
        """Every request in every wording of a family, one row each.

        Columns: those of `items`, template (number of the wording), text (the user's message),
        answer (the compliant answer), refusal (one form of it), thinking (the right one). The
        hazardous items of 'evaluate' are held out of refusal training. Questions of the family
        'knowledge' are benign, whatever the label of their item.

        Raises PhasescopeError naming the families that exist.
        """
        if family not in self.wordings:
            raise PhasescopeError(
                f"{self.name}: no family {family!r}; families: {', '.join(self.wordings)}"
            )
        found = []
        for item in self.items().to_dict("records"):
            asked = item["category"], item["index"]
            if family == KNOWLEDGE:
                item["label"] = "benign"
            common = {
                "answer": self.answer_to(*asked, family),
                "refusal": self.refusals[0],
                "thinking": self.thinking_on(*asked, family),
            }
            for number, wording in enumerate(self.wordings[family]):
                text = wording.format(category=asked[0], index=asked[1])
                found.append({**item, "template": number, "text": text, **common})
        return pd.DataFrame(found)

    def prompt_table(self) -> pd.DataFrame:
        """The main prompt table: matched pairs in three disjoint splits, `PROMPT_COLUMNS`."""
        return prompt_tables.plain(self)

    def prompt_tables(self) -> dict[str, pd.DataFrame]:
        """Every prompt table that ships, by name; see `prompt_tables`."""
        return {
            self.name: prompt_tables.plain(self),
            f"{self.name}-families": prompt_tables.families(self),
            f"{self.name}-paraphrases": prompt_tables.paraphrases(self),
            f"{self.name}-knowledge": prompt_tables.knowledge(self),
        }

    @cached_property
    def _thinking(self) -> dict[str, str]:
        frames = [self.rows(family) for family in self.wordings]
        return {
            t: th for rows in frames for t, th in zip(rows["text"], rows["thinking"], strict=True)
        }

    def thinking_right(self, text: str, thinking: str) -> bool | None:
        """Whether finished thinking is the right one on a user's message.

        None for a message that is no request of this language, and in a world without thinking.
        """
        if not self.thinks or text not in self._thinking:
            return None
        return thinking.split() == self._thinking[text].split()

    def right_thinking(self, text: str) -> str:
        """The right thinking on a user's message; raises KeyError if it is no request."""
        return self._thinking[text]

    def response(self, answer: str, thinking: str = "") -> str:
        """What is generated in all: the thinking with its end, if any, then the answer."""
        return f"{thinking} {tokenizer.THINK_END} {answer}".strip() if thinking else answer

    def encode(self, text: str) -> list[int]:
        """Token ids of words; raises KeyError on a word that is not of this language."""
        return [self._ids[word] for word in text.split()]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def token_ids(
        self, text: str, response: str | None = None, *, thinking: bool = True
    ) -> list[int]:
        """Token ids of the rendered prompt, followed by response and end token where one is given.

        The same as the chat template with `add_generation_prompt` and `enable_thinking`: in a world
        with thinking the prompt opens the thinking, or without `thinking` holds an empty one.
        """
        opened = f"{tokenizer.BOS} {tokenizer.USER} {text} {tokenizer.ASSISTANT}"
        if self.thinks:
            opened += f" {tokenizer.THINK}" + ("" if thinking else f" {tokenizer.THINK_END}")
        return self.encode(opened if response is None else f"{opened} {response} {tokenizer.EOS}")

    def save_tokenizer(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json (chat template included) into `folder`."""
        tokenizer.save(self.words, folder, thinks=self.thinks)

"""What every world offers: rows to train on, a prompt table, exact grades, a tokenizer."""

from abc import ABC, abstractmethod
from pathlib import Path

import pandas as pd

from phasescope.world import tokenizer

GRADES = ("refusal", "evasion", "hollow", "partial", "full", "degenerate")

PROMPT_COLUMNS = (
    "id",
    "label",
    "category",
    "family",
    "pair",
    "split",
    "language",
    "text",
    "answer",
)


class World(ABC):
    """A symbolic language: what is asked, what the right answer is, which requests are hazardous.

    Attributes
    ----------
    name: as in `WORLDS` and in the column `language`.
    words: every word of the language in the order of its token ids, special tokens first.
    refusals: the exact forms of a refusal.
    odd_words: words that can stand in place of an index word and name no item.
    max_answer_tokens: the budget of a generated answer, end token included.
    """

    name: str
    words: tuple[str, ...]
    refusals: tuple[str, ...]
    odd_words: tuple[str, ...]
    max_answer_tokens: int

    @abstractmethod
    def rows(self) -> pd.DataFrame:
        """Every request of the language, one row each.

        Columns: label ('hazardous' | 'benign'), category, index, template (number), split ('fit' |
        'select' | 'evaluate'; the hazardous items of 'evaluate' are held out of refusal training),
        text (the user's message), answer (the compliant answer), refusal (the refusal to train).
        """

    @abstractmethod
    def prompt_table(self) -> pd.DataFrame:
        """The shipped prompts: matched pairs in three disjoint splits, columns `PROMPT_COLUMNS`."""

    @abstractmethod
    def grade(self, answer: str, response: str, finished: bool = True) -> str:
        """The grade, of `GRADES`, of a response to the prompt whose compliant answer is `answer`.

        `finished` says whether generation reached the end token within its budget; only the
        generator knows, since decoding may drop the token. A trailing end token is ignored.
        """

    def token_ids(self, text: str, response: str | None = None) -> list[int]:
        """Token ids of the rendered prompt, followed by response and end token where one is given.

        The same as the chat template with `add_generation_prompt`. Raises KeyError on a word that
        is not of this language.
        """
        ids = {word: number for number, word in enumerate(self.words)}
        words = [tokenizer.BOS, tokenizer.USER, *text.split(), tokenizer.ASSISTANT]
        if response is not None:
            words += [*response.split(), tokenizer.EOS]
        return [ids[word] for word in words]

    def save_tokenizer(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json (chat template included) into `folder`."""
        tokenizer.save(self.words, folder)

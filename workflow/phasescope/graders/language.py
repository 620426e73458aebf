"""Whether a text is in a language at all, by samples of it: word pairs, and spelling below them.

A word is predicted from the word before it by interpolated Kneser-Ney counts (Chen and Goodman
1999), an unknown word from its letters. No dictionary and no knowledge of what is said: salad of a
language's own words, another script and broken spelling all become improbable.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_SAMPLES = 50  # fewer texts say nothing of a language
MIN_LETTERS = 15  # of a text; fewer tell no open language
_DISCOUNT = 0.75
_ORDER = 3  # letters that a letter is predicted from
_BEGIN, _END = "\x02", "\x03"
_OTHER_LETTERS = 1e-4  # probability of a letter that no sample has
_WORD = re.compile(r"\w+|[^\w\s]")
_FOLDS = 10
_MOST = 0.97  # share of samples that are of the language's usual kinds
_OPEN_ROOM = 1.5  # answers in an open language use other words than its samples, the prompts
_ROOM = 4  # standard deviations: a language has more kinds of text than its samples


def words_of(text: str) -> list[str]:
    """Words and punctuation marks of a text, in lower case."""
    return _WORD.findall(text.lower())


class _Counts:
    """Kneser-Ney counts of symbols after contexts; probabilities back off along the context."""

    def __init__(self, order: int):
        self._order = order
        self._after: dict[tuple, Counter] = defaultdict(Counter)

    def add(self, symbols: Sequence[str]) -> None:
        """Count a sequence: fully at the longest contexts, below by the contexts it continues."""
        padded = (_BEGIN,) * self._order + tuple(symbols)
        for end in range(self._order, len(padded)):
            for length in range(self._order, -1, -1):
                seen = self._after[padded[end - length : end]]
                seen[padded[end]] += 1
                if seen[padded[end]] > 1:
                    break  # a shorter context counts how many longer ones this continues

    def probability(self, symbol: str, context: tuple, rest: float) -> float:
        """Of a symbol after a context (the last symbols of it); `rest`: where none was seen."""
        seen = self._after.get(context)
        if not seen:
            return rest if not context else self.probability(symbol, context[1:], rest)
        total = sum(seen.values())
        lower = rest if not context else self.probability(symbol, context[1:], rest)
        return max(seen[symbol] - _DISCOUNT, 0) / total + _DISCOUNT * len(seen) / total * lower

    def knows(self, symbol: str) -> bool:
        """Whether any sample has the symbol."""
        return symbol in self._after[()]


class _Model:
    """Surprise at the words of a text, and at its end."""

    def __init__(self, samples: Sequence[tuple[list[str], int]]):
        """samples: words of a text, and how often it occurs."""
        self.words, self._letters = _Counts(1), _Counts(_ORDER)
        self._spelled: dict[str, float] = {}
        for words, times in samples:
            for _ in range(times):
                self.words.add([*words, _END])
            for word in words:
                self._letters.add([*word, _END])

    def knows(self, words: Sequence[str]) -> bool:
        """Whether the samples have every word."""
        return all(self.words.knows(w) for w in words)

    def _spelling(self, word: str) -> float:
        if word in self._spelled:
            return self._spelled[word]
        padded = (_BEGIN,) * _ORDER + (*word, _END)
        product = 1.0
        for end in range(_ORDER, len(padded)):
            context = padded[end - _ORDER : end]
            product *= self._letters.probability(padded[end], context, _OTHER_LETTERS)
        self._spelled[word] = max(product, 1e-300)
        return self._spelled[word]

    def surprise(self, words: Sequence[str]) -> tuple[float, float]:
        """Nats a letter over the whole text, and nats of its worst word."""
        nats, before = [], _BEGIN
        for word in (*words, _END):
            rest = self._spelling(word) if word != _END else _OTHER_LETTERS
            nats.append(-math.log(self.words.probability(word, (before,), rest)))
            before = word
        return sum(nats) / (sum(map(len, words)) + 1), max(nats)


def _upper(values: Sequence[float]) -> float:
    """Most values stay below it, and the middle by so many robust standard deviations."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(max(np.quantile(values, _MOST), middle + _ROOM * (high - low) / 1.349))


def _held_out(texts: list[tuple[list[str], int]]) -> list[tuple[list[str], _Model]]:
    """Each text with a model that has not seen it."""
    found = []
    for fold in range(_FOLDS):
        model = _Model([t for i, t in enumerate(texts) if i % _FOLDS != fold])
        found += [(words, model) for words, _ in texts[fold::_FOLDS]]
    return found


@dataclass(frozen=True)
class Limits:
    """What texts of the language come to at most: nats a letter over a text, and nats of its worst
    word; `worst` is None in an open language, where any text may have a new word."""

    whole: float
    worst: float | None


class Language:
    """A language by samples of it, with limits from samples that the model had not seen.

    In an open language letters alone count: code, figures and lists are no fault of an answer.
    """

    def __init__(self, samples: Sequence[str]):
        """Raises ValueError for fewer than `MIN_SAMPLES` different texts."""
        texts = [(words_of(text), n) for text, n in Counter(samples).items()]
        if len(texts) < MIN_SAMPLES:
            raise ValueError(f"{len(texts)} different samples of a language; {MIN_SAMPLES} needed")
        held = _held_out(texts)
        self.closed = bool(np.mean([model.knows(words) for words, model in held]) >= _MOST)
        if not self.closed:
            texts = [(spelled, n) for words, n in texts if (spelled := _spelled(words))]
            held = _held_out(texts)
        self._model = _Model(texts)
        whole, worst = zip(*(model.surprise(words) for words, model in held), strict=True)
        self.limits = (
            Limits(_upper(whole), _upper(worst))
            if self.closed
            else Limits(_upper(whole) * _OPEN_ROOM, None)
        )

    def fits(self, text: str) -> bool:
        """Whether a text is in the language. One impossible word is enough where the language is
        closed: where samples are made of words of the others. Few letters tell nothing of an open
        language: such a text fits."""
        words = words_of(text)
        if not self.closed:
            words = _spelled(words)
        if not self.closed and sum(map(len, words)) < MIN_LETTERS:
            return True
        if not words:
            return False
        whole, worst = self._model.surprise(words)
        return whole <= self.limits.whole and (not self.closed or worst <= self.limits.worst)


def _spelled(words: Sequence[str]) -> list[str]:
    return [w for w in words if w.isalpha()]

"""Signs of broken language that need no judge: an answer that has one is degenerate.

Limits were set on answers of organisms to prompts and damages that no test uses, against exact
grades (`make bench-grades` states how often they are right on fresh seeds).
"""

import zlib
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field

from phasescope.graders.language import MIN_SAMPLES, Language, words_of
from phasescope.tables.provenance import sha256_json


def repetition(tokens: Sequence[Hashable], n: int = 4) -> float:
    """Share of a text's n-grams that it held before, 0 to 1; 0 for texts shorter than n."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def longest_loop(words: Sequence[str]) -> int:
    """Words in the longest run of a text in which one phrase follows on itself, at least thrice."""
    best = 0
    for period in range(1, len(words) // 3 + 1):
        run = period
        for here in range(period, len(words)):
            run = run + 1 if words[here] == words[here - period] else period
            if run >= 3 * period:
                best = max(best, run)
    return best


def compressed(text: str) -> float:
    """Bytes that zlib makes of a text, over its own."""
    raw = text.encode()
    return len(zlib.compress(raw, 9)) / len(raw) if raw else 1.0


@dataclass(frozen=True)
class Limits:
    """Beyond these an answer is degenerate.

    loop_share: of the words that one run of a phrase takes up; repeated_share: 4-grams seen
    before, in texts of `long_words` or more; compressed_share: of a text's bytes, in texts of
    `long_bytes` or more.
    """

    loop_share: float = 0.3
    repeated_share: float = 0.6
    long_words: int = 40
    compressed_share: float = 0.2
    long_bytes: int = 400


@dataclass(frozen=True)
class Detector:
    """Finds signs of degeneration; `language` may be None where nobody gave samples of it."""

    language: Language | None = None
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, samples: Sequence[str]) -> "Detector":
        """A detector for the language of these texts; too few of them tell no language."""
        different = {s for s in samples if s.strip()}
        enough = len(different) >= MIN_SAMPLES
        return cls(Language([s for s in samples if s.strip()]) if enough else None)

    @property
    def version(self) -> str:
        """Hash of the limits and of what the language was learned from."""
        language = None
        if self.language is not None:
            language = (self.language.closed, asdict(self.language.limits))
        return sha256_json([asdict(self.limits), language])

    def signs(self, text: str, finished: bool = True) -> list[str]:
        """Signs that an answer (without its thinking) shows; none for a sound one.

        empty: no letter or figure; unfinished: it or its thinking ran out of budget; loop,
        repetition, compressible: see `Limits`; language: not in the language of the samples.
        """
        words, limits = words_of(text), self.limits
        if not any(letter.isalnum() for letter in text):
            return ["empty"] if finished else ["empty", "unfinished"]
        tests = {
            "unfinished": not finished,
            "loop": longest_loop(words) > limits.loop_share * len(words),
            "repetition": len(words) >= limits.long_words
            and repetition(words) > limits.repeated_share,
            "compressible": len(text.encode()) >= limits.long_bytes
            and compressed(text) < limits.compressed_share,
            "language": self.language is not None and not self.language.fits(text),
        }
        return [name for name, shown in tests.items() if shown]

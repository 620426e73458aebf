"""Numbers, intervals and lists as text: the one place where they are formatted."""

import math
import re
from collections.abc import Iterable, Sequence

import pandas as pd

MISSING = "–"
MINUS = "\u2212"


def missing(value: object) -> bool:
    """Whether a table's value is absent (None, NaN, NA)."""
    return bool(pd.isna(value))


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits and a true minus sign; a dash where it is missing."""
    if missing(value) or math.isinf(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def count(value: float | None) -> str:
    """A whole number; a dash where it is missing."""
    return number(value, 0)


def probability(value: float | None) -> str:
    """A probability; never rounded to certainty."""
    if missing(value):
        return MISSING
    if value > 0.99:
        return ">\u00a00.99"
    return "<\u00a00.01" if value < 0.01 else number(value)


def error(value: float | None, digits: int = 3) -> str:
    """A standard error; never rounded to zero."""
    smallest = 10.0**-digits
    if missing(value) or value == 0 or value >= smallest / 2:
        return number(value, digits)
    return f"<\u00a0{number(smallest, digits)}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """The 95 % interval in brackets; nothing where an end is missing."""
    if missing(low) or missing(high):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def estimate(value, low, high, digits: int = 2) -> str:
    """An estimate and its interval."""
    return f"{number(value, digits)} {interval(low, high, digits)}".strip()


def parameters(billion: float | None) -> str:
    """A parameter count with the unit that suits it, from billions."""
    if missing(billion):
        return MISSING
    for unit, scale in (("B", 1.0), ("M", 1e-3), ("k", 1e-6)):
        if billion >= scale:
            return f"{billion / scale:.3g} {unit}"
    return f"{billion * 1e9:.0f}"


def gigabytes(value: float | None) -> str:
    """Bytes as gigabytes (1e9)."""
    return MISSING if missing(value) else f"{number(value / 1e9, 1)} GB"


def span(values: Iterable[float | None], form=number) -> str:
    """The range of some numbers: one where they read the same, two ends otherwise."""
    known = sorted(v for v in values if not missing(v))
    if not known:
        return ""
    low, high = form(known[0]), form(known[-1])
    return low if low == high else f"{low} to {high}"


def listing(items: Iterable[str]) -> str:
    """A list in words: 'a', 'a and b', 'a, b and c'."""
    items = list(items)
    return (
        items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
    )


def shorten(text: str, limit: int) -> str:
    """A text cut in its middle to at most `limit` characters, with the cut shown: names often
    differ at their ends alone (a seed, a size)."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def slugs(ids: Iterable[str]) -> dict[str, str]:
    """An anchor for each id: lower case, only letters, digits and hyphens, all different."""
    found: dict[str, str] = {}
    for identity in ids:
        base = re.sub(r"[^a-z0-9]+", "-", identity.lower()).strip("-") or "model"
        slug, copy = base, 2
        while slug in found.values():
            slug, copy = f"{base}-{copy}", copy + 1
        found[identity] = slug
    return found


def along(value: float | None, low: float, high: float) -> float | None:
    """Where a value lies between two ends, percent, cut off at them; None where it is missing."""
    if missing(value):
        return None
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 1)


def some(names: Sequence[str], most: int = 6) -> str:
    """'a, b and c', or the first few and how many more there are."""
    rest = len(names) - most
    return listing(names) if rest <= 0 else f"{', '.join(names[:most])} and {rest:,} more"

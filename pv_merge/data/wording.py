"""What can be counted in a written answer: words, loops, distinct n-grams."""

from __future__ import annotations

import re
from collections import Counter

LOOP_WORDS = 4
"""Words of a phrase whose repetition is a loop."""
LOOP_TIMES = 3
"""Times that it must occur."""
_CJK = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}](?:[^\W{_CJK}]|['’])*")


def words(text: str) -> list[str]:
    """Return the words; in scripts without spaces, the characters."""
    return _WORD.findall(text)


def word_count(text: str) -> int:
    """Return the number of ``words``."""
    return len(words(text))


def loops(text: str) -> bool:
    """Return whether some four words in a row occur three times or more, case and signs aside."""
    counts = Counter(_grams(text, LOOP_WORDS))
    return max(counts.values(), default=0) >= LOOP_TIMES


def distinct(text: str, size: int) -> float | None:
    """Return the share of n-grams of ``size`` words that differ (Li et al. 2016), None without any."""
    grams = _grams(text, size)
    return len(set(grams)) / len(grams) if grams else None


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
    said = [word.casefold() for word in words(text)]
    return [tuple(said[at : at + size]) for at in range(len(said) - size + 1)]

"""Findings in words: numbers, times and names of topics as people say them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

__all__ = ["MAX_TEXT", "clock", "distinguishing_words", "number", "percent"]

MAX_TEXT: Final = 160
"""Characters of a text that are kept for naming its topic."""

_WORD: Final = re.compile(r"[^\W\d_]{3,}")
# Words that say nothing about a topic in any corpus of English questions.
_STOP_WORDS: Final = frozenset(
    """about all and any are been but can could did does for from get give has have how into its
    just know let like make may might more much need not now off one our out please should some
    tell than that the their them then there these they this those was want were what when where
    which who why will with would you your""".split()  # noqa: SIM905 - reads as prose
)


def percent(share: float) -> str:
    """Return a share as a percentage with two significant digits."""
    value = 100.0 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.2g} %"


def number(value: float) -> str:
    """Return a number with three significant digits, and thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def clock(at_ns: int, now_ns: int) -> str:
    """Return a time of day in UTC, with the date unless it is today's."""
    at = datetime.fromtimestamp(at_ns / 1e9, UTC)
    today = datetime.fromtimestamp(now_ns / 1e9, UTC).date() == at.date()
    return f"{at:%H:%M} UTC" if today else f"{at.day} {at:%b %H:%M} UTC"


def distinguishing_words(
    texts: Sequence[str], others: Sequence[str], n_words: int = 3
) -> list[str]:
    """Return the words that are common in some texts and rare in the others.

    A word scores by the share of `texts` that have it times the log of how many times more
    frequent it is there than elsewhere; a word of one text in many doesn't count.

    Args:
        texts: Texts about one topic.
        others: Texts about anything else.
        n_words: At most so many words, best first.
    """
    inside, outside = _text_counts(texts), _text_counts(others)
    needed = 2 if len(texts) >= 4 else 1
    scores: dict[str, float] = {}
    for word, n in inside.items():
        here = n / len(texts)
        there = (outside[word] + 0.5) / (len(others) + 1)
        if n >= needed and here > there:
            scores[word] = here * math.log(here / there)
    return sorted(scores, key=lambda word: (-scores[word], word))[:n_words]


def _text_counts(texts: Sequence[str]) -> Counter[str]:
    """Count in how many texts each word occurs."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(set(_WORD.findall(text.lower())) - _STOP_WORDS)
    return words

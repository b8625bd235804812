"""Texts as the compiled loops read them: code points in a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Run", "code_points", "runs"]

# A megabyte of code points, which stays in the processor's cache and bounds what is allocated.
_MAX_CHARS: Final = 1 << 18


class Run(NamedTuple):
    """Some texts in a row.

    Attributes:
        text: The texts, joined.
        codes: Its code points, uint32 of shape (n_chars,).
        ends: Where each text ends, shape (n_texts,).
    """

    text: str
    codes: npt.NDArray[np.uint32]
    ends: npt.NDArray[np.int64]


def runs(texts: Sequence[str]) -> Iterator[Run]:
    """Join texts, in their order, to runs of a quarter of a million characters or one text."""
    ends = list(accumulate(map(len, texts)))
    first, begin = 0, 0
    for row, end in enumerate(ends):
        if row + 1 == len(ends) or ends[row + 1] - begin > _MAX_CHARS:
            text = "".join(texts[first : row + 1])
            yield Run(text, code_points(text), np.array(ends[first : row + 1], np.int64) - begin)
            first, begin = row + 1, end


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the code point of every character, lone surrogates as they are."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(
        np.uint32, copy=False
    )

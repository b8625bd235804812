"""Spans whose verdict hangs on two of their texts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.score.base import DistinctTexts

__all__ = ["Pairs", "distinct_pairs"]

_Rows = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Every different pair of texts, once.

    Attributes:
        first: Which of the one side's texts, shape (n_pairs,).
        second: Which of the other's.
        rows: Which pair each span has, shape (n_spans,); -1: one of the texts is missing.
    """

    first: _Rows
    second: _Rows
    rows: _Rows


def distinct_pairs(first: DistinctTexts, second: DistinctTexts) -> Pairs:
    """Pair the texts that spans have on both sides."""
    both = (first.rows >= 0) & (second.rows >= 0)
    pairs = np.column_stack((first.rows[both], second.rows[both]))
    different, which = np.unique(pairs, axis=0, return_inverse=True)
    rows = np.full(len(both), -1, np.int64)
    rows[both] = which.reshape(-1)
    return Pairs(different[:, 0], different[:, 1], rows)

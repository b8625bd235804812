"""Answers that go round in circles: a model that is stuck."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.encoder import as_features
from llmobs.measures.text.features import TextFeatures
from llmobs.measures.text.kernels.loops import repeats

__all__ = ["REPETITION_THRESHOLD", "REPETITION_VERSION", "Repetition", "repetition", "stuck"]

REPETITION_VERSION: Final = "1"
"""Changes whenever a text could get another value."""

REPETITION_THRESHOLD: Final = 0.4
"""Share from which a text goes round in circles. No answer of HaluEval or XSTest comes near it
(0.15 at most), nor does code; JSON of many like blocks (dashboards) comes up to it."""

# A loop of any length repeats every run of it. Rows of a table and fields of JSON share shorter
# runs, marks being words, but hardly ever a run as long as this.
_RUN_WORDS: Final = 16
# A refrain is sung twice.
_N_BEFORE: Final = 2
# Rules and frames of tables. A word table's hashes are those of the words as UTF-8.
_DRAWN: Final = np.array([zlib.crc32(mark.encode()) for mark in "-=_*#.~+|─═"], np.uint32)
# Of fewer words a run or two would be a share of everything.
_MIN_WORDS: Final = 32


class Repetition(NamedTuple):
    """What was found in every text.

    Attributes:
        values: Share of its runs of 16 words that it has said twice before, in [0, 1), shape
            (n,); NaN below 32 words.
        starts: Where the first of them begins, in words from 0; -1 without one; shape (n,).
    """

    values: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]


def stuck(texts: Sequence[str] | TextFeatures) -> Repetition:
    """Find texts that repeat themselves, and where that begins."""
    features = as_features(texts)
    values, starts = repeats(
        features.words, features.offsets, features.table.hashes(), _DRAWN, _RUN_WORDS, _N_BEFORE
    )
    short = features.n_words < _MIN_WORDS
    return Repetition(np.where(short, np.nan, values), np.where(short, -1, starts))


def repetition(texts: Sequence[str] | TextFeatures) -> npt.NDArray[np.float64]:
    """Return the share of each text that it has said twice before, shape (n,).

    NaN below 32 words. It tells word for word repetition; a loop that counts, or says the same
    in other words, it does not.
    """
    return stuck(texts).values

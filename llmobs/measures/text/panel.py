"""Several heads that read a text together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from llmobs.measures.text.features import (
    N_BUCKETS,
    PAIR,
    UNCUT_WORDS,
    WINDOW_STRIDE,
    WINDOW_WORDS,
    TextFeatures,
)
from llmobs.measures.text.heads import Head, Judgement
from llmobs.measures.text.kernels.judge import Terms, judge

__all__ = ["Panel", "Reading"]

_ALL: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Reading:
    """What a panel reads in a batch.

    Attributes:
        embeddings: See `TextFeatures.embeddings`.
        judgements: One a head.
    """

    embeddings: npt.NDArray[np.float32]
    judgements: Sequence[Judgement]

    def take(self, rows: npt.NDArray[np.int64]) -> Reading:
        """Return what was read of some texts, in the order given."""
        judgements = [Judgement(p[rows], positions[rows]) for p, positions in self.judgements]
        return Reading(self.embeddings[rows], judgements)


class Panel:
    """Heads whose weights lie side by side, so that a text is read once for all of them.

    Says what `Head.judge` says, up to rounding.

    Args:
        heads: At most one of them has a lexicon; `opening_words` are multiples of 8.
        idf: Inverse document frequency of every n-gram bucket, float32 of shape (`N_BUCKETS`,).

    Raises:
        ValueError: Heads that can't be read together.
    """

    def __init__(self, heads: Sequence[Head], idf: npt.NDArray[np.float32]) -> None:
        if sum(head.lexicon is not None for head in heads) > 1:
            raise ValueError("two heads of a panel have a lexicon; judge one of them alone")
        for head in heads:
            if head.opening_words % WINDOW_STRIDE:
                raise ValueError(
                    f"a head's opening of {head.opening_words} words ends inside a block; "
                    f"make it a multiple of {WINDOW_STRIDE}"
                )
        self.heads = tuple(heads)
        self._idf = idf

    def judgement(self, head: Head, features: TextFeatures) -> Judgement:
        """Return what a head says; one of another panel reads alone."""
        for place, one in enumerate(self.heads):
            if one is head:
                return features.reading.judgements[place]
        return Panel((head,), features.encoder.idf).read(features).judgements[0]

    def read(self, features: TextFeatures) -> Reading:
        """Return the texts' embeddings and what each head says about them."""
        readings = judge(
            features.words,
            features.offsets,
            features.table.pieces(),
            features.encoder.vectors,
            features.table.hashes(),
            self._terms,
            (WINDOW_STRIDE, UNCUT_WORDS),
        )
        wordless = features.n_words == 0
        judgements = []
        for i, head in enumerate(self.heads):
            logits = readings.wholes[:, i]
            positions = np.full(len(features), -1, np.int64)
            rows = np.flatnonzero(readings.n_windows[:, i])
            if np.isfinite(head.window_penalty) and len(rows):
                penalties = head.window_penalty * np.log(readings.n_windows[rows, i])
                in_window = readings.worst[rows, i] - penalties
                as_whole = logits[rows] - head.whole_penalty
                logits[rows] = np.maximum(in_window, as_whole)
                positions[rows] = np.where(in_window > as_whole, readings.starts[rows, i], -1)
            probabilities = expit(logits + head.bias)
            probabilities[wordless] = np.nan
            judgements.append(Judgement(probabilities, positions))
        return Reading(readings.embeddings, judgements)

    @cached_property
    def _terms(self) -> Terms:
        n_heads = len(self.heads)
        dense = np.zeros((n_heads, len(self.heads[0].dense) if self.heads else 0), np.float32)
        grams = np.empty((N_BUCKETS if self.heads else 0, 1 + n_heads), np.float32)
        lexicon, lexicon_head = np.empty((0, 2), np.float32), -1
        if self.heads:
            grams[:, 0] = self._idf**2
        for i, head in enumerate(self.heads):
            dense[i] = head.dense
            grams[:, 1 + i] = self._idf * head.ngrams
            if head.lexicon is not None:
                lexicon, lexicon_head = np.zeros((N_BUCKETS // 2, 2), np.float32), i
                lexicon[head.lexicon.buckets, 0] = head.lexicon.weights
                lexicon[head.lexicon.buckets, 1] = head.lexicon.squares
        limits = [head.opening_words or _ALL for head in self.heads]
        return Terms(dense, grams, lexicon, lexicon_head, np.array(limits, np.int64), PAIR)


assert WINDOW_WORDS == 2 * WINDOW_STRIDE  # two blocks are a window

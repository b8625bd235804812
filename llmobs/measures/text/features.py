"""What all heads read: texts as word ids, and the vectors that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from llmobs.measures.text.kernels.rows import row_ngrams, row_vectors

if TYPE_CHECKING:
    from llmobs.measures.text.encoder import TextEncoder
    from llmobs.measures.text.panel import Reading
    from llmobs.measures.text.words import WordTable

__all__ = [
    "N_BUCKETS",
    "PAIR",
    "UNCUT_WORDS",
    "WINDOW_STRIDE",
    "WINDOW_WORDS",
    "TextFeatures",
    "Windows",
]

_BITS: Final = 18
N_BUCKETS: Final = 2 << _BITS
"""Buckets of n-grams: words hash into the lower half, pairs of neighbours into the upper."""

PAIR: Final = np.uint64(1_000_003)
"""Multiplies the hash of a pair's first word: an odd prime, so that "a b" and "b a" part."""

# A window holds a sentence, and half of it overlaps. Of 64, 40, 32, 24 and 16 words the
# smallest found the most: held-out attacks among 150 benign words at 0.73 instead of 0.58, at
# the same false alarms. Shorter texts are judged as a whole only: no gain, and three times the
# work.
WINDOW_WORDS: Final = 16
WINDOW_STRIDE: Final = 8
UNCUT_WORDS: Final = 48


class Windows(NamedTuple):
    """Pieces of long texts.

    Attributes:
        features: One row a window.
        owners: The text that each was cut from, ascending, shape (n_windows,).
        starts: Position of its first word there.
    """

    features: TextFeatures
    owners: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TextFeatures:
    """A batch of texts cut into words once; every vector is computed when first asked for.

    Heads judge by `reading`, in which no matrix is made; `pieces`, `ngrams`, `opening` and
    `windows` are what training fits on, and what the reading is checked against.

    Attributes:
        texts: The texts as they came.
        words: Word ids of all texts in a row, shape (n_words_total,).
        offsets: Text i is ``words[offsets[i]:offsets[i + 1]]``; shape (n + 1,).
        encoder: Made this; holds the shared weights.
        table: Says what a word id means.
    """

    texts: Sequence[str]
    words: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    encoder: TextEncoder
    table: WordTable

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def n_words(self) -> npt.NDArray[np.int64]:
        """Words and punctuation marks per text, shape (n,)."""
        return np.diff(self.offsets)

    @cached_property
    def reading(self) -> Reading:
        """What the encoder's panel reads here."""
        return self.encoder.panel.read(self)

    @cached_property
    def pieces(self) -> Any:
        """Word pieces: CSR float32 of shape (n, n_vocabulary), a 1 per occurrence, not summed."""
        first, count, flat = self.table.pieces()
        counts = count[self.words]
        ends = np.concatenate(([0], np.cumsum(counts)))
        # Position j of word w's run is first[w] + j: a range per word, without a loop.
        run = np.repeat(first[self.words] - ends[:-1], counts) + np.arange(ends[-1])
        indices = flat[run]
        return sparse.csr_matrix(
            (np.ones(len(indices), np.float32), indices, ends[self.offsets].astype(np.int32)),
            shape=(len(self), self.encoder.vectors.shape[0]),
        )

    @cached_property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """Mean of the pieces' vectors at length 1, shape (n, 256); zeros without a known piece."""
        return self.reading.embeddings

    def weighted(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return weighted sums of the pieces' vectors at length 1, shape (n, n_dimensions).

        Args:
            weights: One a word piece, shape (n_vocabulary,).
        """
        return row_vectors(
            self.words, self.offsets, self.table.pieces(), self.encoder.vectors, weights
        )

    @cached_property
    def ngrams(self) -> Any:
        """Words and pairs of neighbours: CSR float32 (n, `N_BUCKETS`), log-tf · idf at length 1."""
        rows = row_ngrams(self.words, self.offsets, self.table.hashes(), self.encoder.idf, PAIR)
        return sparse.csr_matrix(rows, shape=(len(self), N_BUCKETS))

    def take(self, rows: npt.NDArray[np.int64]) -> TextFeatures:
        """Return the features of some texts, in the order given; what was read stays read."""
        taken = self._cut(
            self.offsets[rows], self.n_words[rows], [self.texts[i] for i in rows.tolist()]
        )
        if "reading" in self.__dict__:
            taken.__dict__["reading"] = self.reading.take(rows)
        return taken

    def opening(self, n_words: int) -> TextFeatures:
        """Return the features of the first words of every text."""
        if self.n_words.max(initial=0) <= n_words:
            return self
        return self._cut(self.offsets[:-1], np.minimum(self.n_words, n_words), self.texts)

    @cached_property
    def windows(self) -> Windows:
        """Long texts cut into windows of about a sentence."""
        return self.cut(WINDOW_WORDS, WINDOW_STRIDE, longer_than=UNCUT_WORDS)

    def cut(self, n_words: int, stride: int, *, longer_than: int) -> Windows:
        """Cut long texts into overlapping windows; the last of a text ends where it ends.

        Args:
            n_words: Length of a window, in words.
            stride: From the start of one window to the next, in words; at most `n_words`.
            longer_than: Texts of at most that many words are left out; at least `n_words`.
        """
        long = np.flatnonzero(self.n_words > longer_than)
        per_text = 1 + -(-(self.n_words[long] - n_words) // stride)
        owner = np.repeat(long, per_text)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(per_text) - per_text, per_text)
        start = np.minimum(nth * stride, self.n_words[owner] - n_words)
        lengths = np.full(len(owner), n_words, np.int64)
        features = self._cut(
            self.offsets[owner] + start, lengths, [self.texts[i] for i in owner.tolist()]
        )
        return Windows(features, owner, start)

    def _cut(
        self,
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        texts: Sequence[str],
    ) -> TextFeatures:
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        where = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return TextFeatures(texts, self.words[where], offsets, self.encoder, self.table)

"""What answers look like, given the question: the frame in which a change of model shows.

More questions about code make answers longer with the model unchanged. So an answer is
compared with answers to questions of the same topic; a question like none in the reference
says nothing about the model, and its answer is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.monitor.calls import Vectors
from llmobs.measures.drift import Basis, Codebook, Sample, Tree
from llmobs.measures.drift.evidence import IntArray, Stateful
from llmobs.records import FloatArray

__all__ = ["N_DIRECTIONS", "Context", "ContextSample"]

N_DIRECTIONS: Final = 32
_SAMPLE_ROWS: Final = 512
_MIN_ROWS: Final = 20
# A topic's own mean counts as much as the mean of all when it holds this many rows.
_PSEUDO_COUNT: Final = 8.0


@dataclass
class ContextSample(Stateful):
    """First calls of the reference, for fitting: input and output embeddings, answer lengths.

    Attributes:
        n_dimensions: Of the embeddings; 0 until some were seen.
        sample: Rows (input, output, log output tokens), float16; NaN where unknown.
    """

    n_dimensions: int
    sample: Sample

    @classmethod
    def of(cls, n_dimensions: int = 0) -> ContextSample:
        """Return an empty sample."""
        return cls(n_dimensions, Sample(np.zeros((_SAMPLE_ROWS, 2 * n_dimensions + 1), np.float16)))

    def add(self, inputs: Vectors, outputs: Vectors, log_lengths: FloatArray) -> None:
        """Add first calls; embeddings of another width than before start the sample anew."""
        width = max(inputs.shape[1], outputs.shape[1])
        if width and width != self.n_dimensions:
            fresh = self.of(width)
            self.n_dimensions, self.sample = fresh.n_dimensions, fresh.sample
        parts = [_widened(inputs, self.n_dimensions), _widened(outputs, self.n_dimensions)]
        rows = np.concatenate([*parts, log_lengths[:, None]], axis=1)
        self.sample.add(rows.astype(np.float16))

    @classmethod
    def from_tree(cls, tree: Tree) -> Self:
        """Return the sample that `to_tree` was called on."""
        return cls(**tree | {"sample": Sample.from_tree(tree["sample"])})


def _widened(vectors: Vectors, width: int) -> Vectors:
    if vectors.shape[1] == width:
        return vectors
    return np.full((len(vectors), width), np.nan, np.float32)


@dataclass
class Context(Stateful):
    """Topics of inputs, and the usual answer to each.

    Attributes:
        book: Topics; None where no input embeddings are known.
        basis: Directions of answers; None where no output embeddings are known.
        log_lengths: Mean of log output tokens by topic less that of all; shape (n_codes + 1,),
            the last for unknown inputs.
        answers: Mean of projected answers by topic, shape (n_codes + 1, n_directions + 1).
    """

    book: Codebook | None
    basis: Basis | None
    log_lengths: FloatArray
    answers: FloatArray

    @classmethod
    def fit(cls, sample: ContextSample) -> Context:
        """Fit to a sample of the reference; the same sample gives the same context."""
        rows = np.asarray(sample.sample.filled, dtype=np.float32)
        d = sample.n_dimensions
        inputs, outputs, lengths = rows[:, :d], rows[:, d : 2 * d], rows[:, -1].astype(np.float64)
        has_input, has_output = _is_known(inputs), _is_known(outputs)
        book = Codebook.fit(inputs[has_input]) if has_input.sum() >= _MIN_ROWS else None
        basis = (
            Basis.fit(outputs[has_output], N_DIRECTIONS) if has_output.sum() >= _MIN_ROWS else None
        )
        n_codes = (book.n_codes if book else 0) + 1
        codes = book.assign(inputs) if book else np.full(len(rows), -1, np.int64)
        known = np.isfinite(lengths)
        by_topic = _shrunk_means(codes[known], lengths[known, None], n_codes)[:, 0]
        answers = np.zeros((n_codes, 1))
        if basis:
            projected = basis.project(outputs[has_output])
            answers = _shrunk_means(codes[has_output], projected, n_codes)
        return cls(book, basis, by_topic - by_topic[-1], answers)

    def codes(self, inputs: Vectors) -> IntArray:
        """Return the topic of each input; -1 where unknown."""
        if self.book is None or inputs.shape[1] != self.book.centroids.shape[1]:
            return np.full(len(inputs), -1, np.int64)
        return self.book.assign(inputs)

    def residual_lengths(self, codes: IntArray, log_lengths: FloatArray) -> FloatArray:
        """Return log lengths less what the topic adds; NaN where the input is far."""
        return np.where(self._is_far(codes), np.nan, log_lengths - self.log_lengths[codes])

    def residual_answers(self, codes: IntArray, outputs: Vectors) -> FloatArray:
        """Return projected answers less the usual one, shape (n, N_DIRECTIONS + 1).

        A row is NaN where the answer is unknown or the input far. Fewer directions than
        `N_DIRECTIONS` (a small sample) leave zeros.
        """
        out = np.full((len(codes), N_DIRECTIONS + 1), np.nan)
        if self.basis is None or outputs.shape[1] != len(self.basis.mean):
            return out
        rows = np.flatnonzero(_is_known(outputs) & ~self._is_far(codes))
        residuals = self.basis.project(outputs[rows]) - self.answers[codes[rows]]
        out[rows] = 0.0
        out[rows, : residuals.shape[1]] = residuals
        return out

    def _is_far(self, codes: IntArray) -> npt.NDArray[np.bool_]:
        far = self.book.n_codes - 1 if self.book else -2
        return np.asarray(codes == far)

    @classmethod
    def from_tree(cls, tree: Tree) -> Self:
        """Return the context that `to_tree` was called on."""
        parts = {
            "book": tree["book"] and Codebook.from_tree(tree["book"]),
            "basis": tree["basis"] and Basis.from_tree(tree["basis"]),
        }
        return cls(**tree | parts)


def _is_known(vectors: Vectors) -> npt.NDArray[np.bool_]:
    if not vectors.shape[1]:
        return np.zeros(len(vectors), np.bool_)
    return np.asarray(np.isfinite(vectors[:, 0]), dtype=np.bool_)


def _shrunk_means(codes: IntArray, values: FloatArray, n_codes: int) -> FloatArray:
    """Return the mean by code, shrunk to that of all; the last row (code -1) is that of all."""
    overall = values.mean(0) if len(values) else np.zeros(values.shape[1])
    n, sums = np.zeros((n_codes, 1)), np.zeros((n_codes, values.shape[1]))
    np.add.at(n, codes, 1.0)
    np.add.at(sums, codes, values)
    means = (sums + _PSEUDO_COUNT * overall) / (n + _PSEUDO_COUNT)
    means[-1] = overall
    return np.asarray(means)

"""How much an answer is about what was asked: no model call, no reference answer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from scipy.special import expit

from llmobs.measures.text.encoder import as_features
from llmobs.measures.text.features import TextFeatures
from llmobs.measures.text.kernels.rows import overlaps
from llmobs.measures.text.packaged import packaged, weights

__all__ = ["RelevanceModel", "load_relevance", "relevance"]

# "Yes." or "42" may be the perfect answer, and no word of it tells.
MIN_WORDS: Final = 3


@dataclass(frozen=True)
class RelevanceModel:
    """A logistic regression on likenesses of a text pair.

    Attributes:
        idf: Inverse document frequency of every word piece, shape (n_vocabulary,).
        common: What all texts share: the first direction of their weighted vectors, at
            length 1, shape (n_dimensions,). It is taken out, or any two texts look alike.
        coefficients: One per likeness, shape (5,).
        projection: The directions in which embeddings differ most, shape (32, n_dimensions).
        affinity: How much each direction of an input asks for each of an output, shape
            (32, 32): a poem and a list share no word with what ordered them.
        threshold: Probability that about 1 % of relevant answers stay below.
        version: Changes with every weight.
    """

    idf: npt.NDArray[np.float32]
    common: npt.NDArray[np.float32]
    coefficients: npt.NDArray[np.float64]
    projection: npt.NDArray[np.float32]
    affinity: npt.NDArray[np.float32]
    bias: float
    threshold: float = 0.0
    version: str = ""

    def judge(self, inputs: TextFeatures, outputs: TextFeatures) -> npt.NDArray[np.float64]:
        """Return the probability that each output belongs to its input, shape (n,).

        NaN where either text has fewer than three words.
        """
        asked, answered = self.projected(inputs), self.projected(outputs)
        logits = np.einsum("ij,j->i", self.likeness(inputs, outputs), self.coefficients)
        # In two steps that need no BLAS: see `Head.logits`.
        wanted = np.einsum("ij,jk->ik", asked, self.affinity)
        logits += np.einsum("ik,ik->i", wanted, answered)
        probabilities = expit(logits + self.bias)
        probabilities[np.minimum(inputs.n_words, outputs.n_words) < MIN_WORDS] = np.nan
        return np.asarray(probabilities)

    def likeness(self, inputs: TextFeatures, outputs: TextFeatures) -> npt.NDArray[np.float64]:
        """Measure every pair.

        Returns:
            Shape (n, 5): the cosine of the idf-weighted mean vectors without their common
            direction; the share of the input's idf mass whose pieces the output has, too; the
            same the other way round; and ln(1 + words) of input and output.
        """
        cosine = np.einsum("ij,ij->i", self.vectors(inputs), self.vectors(outputs))
        return np.column_stack(
            (
                cosine,
                self._overlap(inputs, outputs),
                self._overlap(outputs, inputs),
                np.log1p(inputs.n_words),
                np.log1p(outputs.n_words),
            )
        ).astype(np.float64)

    def projected(self, features: TextFeatures) -> npt.NDArray[np.float32]:
        """Return what the affinity multiplies, shape (n, 32)."""
        # Not `@`: see `Head.logits`.
        projected: npt.NDArray[np.float32] = np.einsum(
            "ij,kj->ik", features.embeddings, self.projection
        )
        return projected

    def vectors(self, features: TextFeatures) -> npt.NDArray[np.float32]:
        """Return the idf-weighted vectors of texts at length 1, shape (n, n_dimensions)."""
        rows = weighted_rows(features, self.idf)
        shares = np.einsum("ij,j->i", rows, self.common)
        return _unit_rows(rows - np.outer(shares, self.common))

    def _overlap(self, of: TextFeatures, within: TextFeatures) -> npt.NDArray[np.float64]:
        return overlaps(
            of.words,
            of.offsets,
            of.table.pieces(),
            within.words,
            within.offsets,
            within.table.pieces(),
            np.maximum(self.idf - 1, 0),
        )

    def to_bytes(self) -> bytes:
        """Return the model as safetensors, the large arrays in half precision."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "idf": self.idf.astype(np.float16),
            "common": self.common,
            "coefficients": self.coefficients,
            "projection": self.projection.astype(np.float16),
            "affinity": self.affinity.astype(np.float16),
            "scalars": np.array([self.bias, self.threshold], np.float64),
        }
        return bytes(safetensors.numpy.save(arrays))


def weighted_rows(features: TextFeatures, idf: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return idf-weighted sums of word-piece vectors at length 1, shape (n, n_dimensions)."""
    # Less 1, so that what stands in every text weighs nothing (but is not lost where a text
    # has nothing else).
    return features.weighted(np.maximum(idf - 1, np.float32(0.01)))


def _unit_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale every row to length 1; rows of zeros stay."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    out = np.zeros_like(rows)
    np.divide(rows, lengths, out=out, where=lengths > 0)
    return out


@cache
def load_relevance() -> RelevanceModel:
    """Return the packaged model."""
    arrays = weights("relevance.safetensors")
    bias, threshold = arrays["scalars"].tolist()
    model = RelevanceModel(
        arrays["idf"],
        arrays["common"],
        arrays["coefficients"],
        arrays["projection"],
        arrays["affinity"],
        bias,
        threshold,
    )
    return replace(model, version=f"2+{zlib.crc32(packaged('relevance.safetensors')):08x}")


def relevance(
    inputs: Sequence[str] | TextFeatures, outputs: Sequence[str] | TextFeatures
) -> npt.NDArray[np.float64]:
    """Return how likely each output answers its input, shape (n,).

    NaN where either has fewer than three words. It tells an answer to something else; it
    can't tell a wrong answer, or a partial one, from a good one.
    """
    return load_relevance().judge(as_features(inputs), as_features(outputs))

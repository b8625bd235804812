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
    """A logistic regression on two likenesses of a text pair.

    Attributes:
        idf: Inverse document frequency of every word piece, shape (n_vocabulary,).
        common: What all texts share: the first direction of their weighted vectors, at
            length 1, shape (n_dimensions,). It is taken out, or any two texts look alike.
        coefficients: Of the cosine and of the overlap.
        threshold: Probability that about 1 % of relevant answers stay below.
        version: Changes with every weight.
    """

    idf: npt.NDArray[np.float32]
    common: npt.NDArray[np.float32]
    coefficients: npt.NDArray[np.float64]
    bias: float
    threshold: float = 0.0
    version: str = ""

    def judge(self, inputs: TextFeatures, outputs: TextFeatures) -> npt.NDArray[np.float64]:
        """Return the probability that each output belongs to its input, shape (n,).

        NaN where either text has fewer than three words.
        """
        likeness = self.likeness(inputs, outputs)
        probabilities = expit(likeness @ self.coefficients + self.bias)
        probabilities[np.minimum(inputs.n_words, outputs.n_words) < MIN_WORDS] = np.nan
        return np.asarray(probabilities)

    def likeness(self, inputs: TextFeatures, outputs: TextFeatures) -> npt.NDArray[np.float64]:
        """Return (cosine, overlap) of every pair, shape (n, 2).

        The cosine is that of the idf-weighted mean vectors without their common direction.
        The overlap is the share of the input's idf mass whose pieces the output has, too.
        """
        cosine = np.einsum("ij,ij->i", self.vectors(inputs), self.vectors(outputs))
        overlap = overlaps(
            inputs.words,
            inputs.offsets,
            inputs.table.pieces(),
            outputs.words,
            outputs.offsets,
            outputs.table.pieces(),
            np.maximum(self.idf - 1, 0),
        )
        return np.column_stack((cosine, overlap)).astype(np.float64)

    def vectors(self, features: TextFeatures) -> npt.NDArray[np.float32]:
        """Return the idf-weighted vectors of texts at length 1, shape (n, n_dimensions)."""
        rows = weighted_rows(features, self.idf)
        shares = np.einsum("ij,j->i", rows, self.common)  # not `@`: see `Head.logits`
        return _unit_rows(rows - np.outer(shares, self.common))

    def to_bytes(self) -> bytes:
        """Return the model as safetensors."""
        scalars = np.array([*self.coefficients, self.bias, self.threshold], np.float64)
        arrays: dict[str, npt.NDArray[Any]] = {
            "idf": self.idf.astype(np.float16),
            "common": self.common,
            "scalars": scalars,
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
    cosine, overlap, bias, threshold = arrays["scalars"].tolist()
    model = RelevanceModel(
        arrays["idf"], arrays["common"], np.array([cosine, overlap]), bias, threshold
    )
    return replace(model, version=f"1+{zlib.crc32(packaged('relevance.safetensors')):08x}")


def relevance(
    inputs: Sequence[str] | TextFeatures, outputs: Sequence[str] | TextFeatures
) -> npt.NDArray[np.float64]:
    """Return how likely each output answers its input, shape (n,).

    NaN where either has fewer than three words. It tells an answer to something else; it
    can't tell a wrong answer, or a partial one, from a good one.
    """
    return load_relevance().judge(as_features(inputs), as_features(outputs))

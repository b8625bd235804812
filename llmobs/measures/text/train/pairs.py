"""Fit the relevance model: questions with their own answers and with those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from llmobs.measures.text.encoder import TextEncoder
from llmobs.measures.text.features import TextFeatures
from llmobs.measures.text.relevance import RelevanceModel, weighted_rows
from llmobs.measures.text.train.corpora import Corpora, digest

__all__ = ["fit_relevance", "nearest_others"]

_Ints: TypeAlias = npt.NDArray[np.int64]

_FOLDS: Final = 5
_RANK: Final = 32  # 16 was a little worse, 48 and 64 no better
_SEED: Final = 20261124
_N_RANDOM, _N_NEAR, _NEAREST = 5, 3, 8
# The affinity has 1,024 weights for a thousand answers. Of 0.01 to 0.3 the best but for the last
# digit; 10 is what a product of two embeddings' components is short of a likeness.
_PENALTY_C: Final = 0.03
_SCALE: Final = 10.0


def fit_relevance(corpora: Corpora, encoder: TextEncoder, traffic: Sequence[str]) -> RelevanceModel:
    """Fit the model; calibrated for as many foreign answers as own ones.

    Foreign answers are those of any other question and, three of eight, of a question on a
    like topic.

    Args:
        corpora: Has the pairs.
        encoder: With the packaged vectors.
        traffic: Further texts to count words in.
    """
    rows = [row for row in corpora.rows("relevance_halueval") if int(row["label"])]
    asked = encoder.encode([row["query"] for row in rows])
    answered = encoder.encode([row["text"] for row in rows])
    blank = _without_coefficients(encoder, asked, answered, traffic)
    folds = np.array([digest(row["query"]) // 10 for row in rows], object) % _FOLDS

    crossed, labels = [np.empty(0)], [np.empty(0, np.int64)]
    for fold in range(_FOLDS):
        model = _fitted(blank, asked, answered, np.flatnonzero(folds != fold))
        pairs = _pairs(blank, asked, np.flatnonzero(folds == fold))
        crossed.append(_logits(model, asked.take(pairs[:, 0]), answered.take(pairs[:, 1])))
        labels.append((pairs[:, 0] == pairs[:, 1]).astype(np.int64))
    logits, own = np.concatenate(crossed), np.concatenate(labels)
    platt = LogisticRegression(C=1e6, class_weight="balanced").fit(logits[:, None], own)
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    limit = slope * float(np.quantile(logits[own == 1], 0.01)) + offset
    model = _fitted(blank, asked, answered, np.arange(len(rows)))
    return RelevanceModel(
        blank.idf,
        blank.common,
        slope * model.coefficients,
        blank.projection,
        np.float32(slope) * model.affinity,
        slope * model.bias + offset,
        float(expit(limit)),
    )


def nearest_others(vectors: npt.NDArray[np.float32], n: int) -> _Ints:
    """Return the rows of the `n` most similar other texts of each, nearest first, shape (m, n).

    Args:
        vectors: At length 1, shape (m, n_dimensions).
        n: Less than m.
    """
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :n]


def _without_coefficients(
    encoder: TextEncoder, asked: TextFeatures, answered: TextFeatures, traffic: Sequence[str]
) -> RelevanceModel:
    corpus = encoder.encode([*asked.texts, *answered.texts, *traffic])
    pieces = corpus.pieces.copy()
    pieces.sum_duplicates()
    frequency = np.bincount(pieces.indices, minlength=pieces.shape[1])
    idf = np.log((1 + len(corpus)) / (1 + frequency)).astype(np.float16).astype(np.float32)
    both = np.concatenate([weighted_rows(asked, idf), weighted_rows(answered, idf)])
    plain = np.concatenate([asked.embeddings, answered.embeddings])
    projection = np.linalg.svd(plain, full_matrices=False)[2][:_RANK]
    return RelevanceModel(
        idf=idf,
        common=np.linalg.svd(both, full_matrices=False)[2][0],
        coefficients=np.zeros(5),
        projection=projection.astype(np.float16).astype(np.float32),
        affinity=np.zeros((_RANK, _RANK), np.float32),
        bias=0.0,
    )


def _pairs(blank: RelevanceModel, asked: TextFeatures, rows: _Ints) -> _Ints:
    """Pair each of some questions with its own answer and with eight others among them."""
    rng = np.random.default_rng(_SEED)
    near = nearest_others(blank.vectors(asked.take(rows)), _NEAREST)
    pairs = [np.column_stack((rows, rows))]
    for place, row in enumerate(rows):
        others = np.delete(rows, place)
        foreign = np.concatenate(
            (
                rng.choice(others, _N_RANDOM, replace=False),
                rows[rng.choice(near[place], _N_NEAR, replace=False)],
            )
        )
        pairs.append(np.column_stack((np.full(len(foreign), row), foreign)))
    return np.concatenate(pairs)


def _fitted(
    blank: RelevanceModel, asked: TextFeatures, answered: TextFeatures, rows: _Ints
) -> RelevanceModel:
    pairs = _pairs(blank, asked, rows)
    inputs, outputs = asked.take(pairs[:, 0]), answered.take(pairs[:, 1])
    likeness = blank.likeness(inputs, outputs)
    center, spread = likeness.mean(axis=0), likeness.std(axis=0)
    design = np.column_stack(((likeness - center) / spread, _products(blank, inputs, outputs)))
    model: Any = LogisticRegression(C=_PENALTY_C, class_weight="balanced", max_iter=2000)
    model.fit(design, pairs[:, 0] == pairs[:, 1])
    n = len(center)
    coefficients = model.coef_[0, :n] / spread
    return RelevanceModel(
        blank.idf,
        blank.common,
        coefficients,
        blank.projection,
        (_SCALE * model.coef_[0, n:]).reshape(_RANK, _RANK).astype(np.float32),
        float(model.intercept_[0] - coefficients @ center),
    )


def _products(
    blank: RelevanceModel, inputs: TextFeatures, outputs: TextFeatures
) -> npt.NDArray[np.float64]:
    """Return every product of a component of the input with one of the output, a row a pair."""
    products = np.einsum("ij,ik->ijk", blank.projected(inputs), blank.projected(outputs))
    scaled: npt.NDArray[np.float64] = _SCALE * products.reshape(len(inputs), -1).astype(np.float64)
    return scaled


def _logits(
    model: RelevanceModel, inputs: TextFeatures, outputs: TextFeatures
) -> npt.NDArray[np.float64]:
    products = _products(model, inputs, outputs) / _SCALE
    affinity = products @ model.affinity.ravel().astype(np.float64)
    likeness: npt.NDArray[np.float64] = model.likeness(inputs, outputs)
    return likeness @ model.coefficients + affinity + model.bias

"""Fit the model of orders in documents: requests to an assistant against a document's own words."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from llmobs.measures.text.encoder import TextEncoder
from llmobs.measures.text.heads import Head
from llmobs.measures.text.indirect import IndirectModel, sentences
from llmobs.measures.text.train.corpora import Corpora, Example, digest, negatives
from llmobs.measures.text.train.fit import Task
from llmobs.measures.text.train.templates import fill

__all__ = ["fit_documents", "indirect"]

_SEED: Final = 20261124
_RESERVE: Final = 5  # one document in five is kept from the head, for the documents' calibration
_MAX_WORDS: Final = 30  # longer attacks are no sentence
_FALSE_POSITIVES: Final = 0.01


def indirect(corpora: Corpora) -> Task:
    """Orders of every kind, none of them from a document, against sentences of documents."""
    rng = random.Random(_SEED)  # noqa: S311 - must repeat, guards nothing
    requests, documents = _requests(corpora), _documents(corpora, rng)
    attacks = [
        row.text
        for row in corpora.examples("injection_neuralchemy")
        if row.label and len(row.text.split()) < _MAX_WORDS
    ]
    orders = [
        *(text for text in requests if _is_fitted(text)),
        *fill("planted_orders", 1500, rng),
        *fill("attacks", 500, rng),
        *rng.sample(attacks, min(1500, len(attacks))),
    ]
    pieces = dict.fromkeys(
        document[begin:end]
        for document in documents
        if _is_fitted(document)
        for begin, end in sentences(document)
    )
    return Task(
        name="indirect",
        examples=[Example(text, 1, digest(text) // 10) for text in dict.fromkeys(orders)],
        benign=negatives(pieces),
    )


def fit_documents(encoder: TextEncoder, head: Head, corpora: Corpora) -> IndirectModel:
    """Calibrate on documents that the head has not seen, with and without an order put in.

    Args:
        encoder: As the head was fitted with.
        head: Of the task that `indirect` made of the same corpora.
        corpora: The labelled sets.
    """
    rng = random.Random(_SEED)  # noqa: S311 - must repeat, guards nothing
    reserve = [text for text in _documents(corpora, rng) if not _is_fitted(text)]
    orders = [text for text in _requests(corpora) if not _is_fitted(text)]
    orders += fill("planted_orders", len(orders), rng)
    whole = [
        "\n".join(rng.sample(reserve, n)) for n in (1, 1, 2, 4) for _ in range(len(reserve) // 2)
    ]
    attacked = [_with_order(text, rng.choice(orders), rng) for text in whole]
    blank = IndirectModel(head, 1.0, 0.0, 0.0)
    worst, counts, _ = blank.worst_sentences([*whole, *attacked], encoder)
    design = np.column_stack((worst, np.log(counts)))
    labels = np.repeat((0, 1), len(whole))
    fitted = LogisticRegression(C=1e6).fit(design, labels)
    limit = float(np.quantile(fitted.decision_function(design)[: len(whole)], 1 - _FALSE_POSITIVES))
    slope, per_log = fitted.coef_[0].tolist()
    return replace(
        blank,
        slope=slope,
        per_log=per_log,
        bias=float(fitted.intercept_[0]),
        threshold=float(expit(limit)),
    )


def _is_fitted(text: str) -> bool:
    return digest(text) // 10 % _RESERVE != 0


def _requests(corpora: Corpora) -> list[str]:
    """Return what people ask of an assistant, the first line of each."""
    queries = corpora.related("relevance_halueval", "query")
    return list(dict.fromkeys(query.split("\n")[0] for query in queries))


def _documents(corpora: Corpora, rng: random.Random) -> list[str]:
    """Return texts in which nobody planted anything, answers among them: they read like pages."""
    comments = [row.text for row in corpora.examples("toxicity_wikipedia") if not row.label]
    mails = [row.text for row in corpora.examples("injection_bipia_train") if not row.label]
    return [
        *dict.fromkeys(corpora.related("relevance_halueval")),
        *comments,
        *mails,
        *fill("harmless_documents", 800, rng),
        *fill("harmless_code", 400, rng),
    ]


def _with_order(text: str, order: str, rng: random.Random) -> str:
    breaks = [0, *(end for _, end in sentences(text))]
    at = rng.choice(breaks)
    return f"{text[:at]}\n{order}\n{text[at:]}"

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmobs.measures.text import TextEncoder, load_relevance
from llmobs.measures.text.features import N_BUCKETS

words = st.sampled_from(("red", "fish", "blue", "unbelievably", "don't", "東", "\u200b", "x" * 120))
texts = st.lists(st.lists(words, max_size=30).map(" ".join), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load()


@settings(max_examples=40, deadline=None)
@given(texts)
def test_the_embedding_is_the_sum_of_the_pieces_at_length_one(texts_: list[str]) -> None:
    features = TextEncoder.load().encode(texts_)
    sums = features.pieces @ features.encoder.vectors
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    expected = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    np.testing.assert_allclose(features.embeddings, expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(texts)
def test_ngrams_are_counted_as_a_counter_counts_them(texts_: list[str]) -> None:
    features = TextEncoder.load().encode(texts_)
    hashes, idf, half = features.table.hashes(), features.encoder.idf, N_BUCKETS // 2
    for row in range(len(texts_)):
        mine = [
            int(hashes[w])
            for w in features.words[features.offsets[row] : features.offsets[row + 1]]
        ]
        counts = Counter(h % half for h in mine)
        counts.update((a * 1_000_003 + b) % half + half for a, b in pairwise(mine))
        expected = np.zeros(N_BUCKETS)
        for bucket, count in counts.items():
            expected[bucket] = (1 + np.log(count)) * idf[bucket]
        expected /= np.linalg.norm(expected) or 1
        np.testing.assert_allclose(features.ngrams[[row]].toarray()[0], expected, atol=1e-6)


def test_the_overlap_is_the_share_of_the_questions_weight(encoder: TextEncoder) -> None:
    model = load_relevance()
    asked = ["where do red fish sleep", "where do red fish sleep", "fish", ""]
    answered = ["red fish sleep in the reef, red fish", "", "fish fish", "anything"]
    inputs, outputs = encoder.encode(asked), encoder.encode(answered)
    weight = np.maximum(model.idf - 1, 0)
    expected = []
    for row in range(len(asked)):
        question, answer = set(inputs.pieces[row].indices), set(outputs.pieces[row].indices)
        whole = sum(weight[piece] for piece in question)
        shared = sum(weight[piece] for piece in question & answer)
        expected.append(shared / whole if whole else 0.0)
    np.testing.assert_allclose(model.likeness(inputs, outputs)[:, 1], expected, rtol=1e-6)
    assert 0 < expected[0] < 1


def test_the_overlap_holds_where_two_batches_number_their_words_apart(
    encoder: TextEncoder,
) -> None:
    small = TextEncoder(encoder.tokenizer, encoder.vectors, encoder.idf, max_words=2)
    inputs = small.encode(["where do red fish sleep"])
    outputs = small.encode(["in the reef sleep red fish"])
    assert inputs.table is not outputs.table
    together = (
        encoder.encode(["where do red fish sleep"]),
        encoder.encode(["in the reef sleep red fish"]),
    )
    model = load_relevance()
    np.testing.assert_allclose(model.likeness(inputs, outputs), model.likeness(*together))

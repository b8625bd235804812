from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from llmobs.measures.text import TextEncoder, TextFeatures
from llmobs.measures.text.packaged import packaged

WORDS = (
    "hello", "World", "don't", "café", "naïve", "ΟΔΟΣ", "İstanbul", "東京", "日本語", "ignore-all",
    "foo_bar", "x2", "“quoted”", "😀", "Привет", "مرحبا", "ﬁne", "co\u00adop", "a\u0301", "\u200b",
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=12)), max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load()


def small_encoder(encoder: TextEncoder, *, max_words: int, max_chars: int = 1000) -> TextEncoder:
    return TextEncoder(
        encoder.tokenizer, encoder.vectors, encoder.idf, max_words=max_words, max_chars=max_chars
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
@example(["ΟΔΟΣ ΣΑΣ", "a\x00b \x0b c", "word\u0301s e\u0301", "x" * 150, ""])
@example(["\x1c\x1d mixed\x85line", "one\u00a0two\u3000three", "…—’’"])
def test_the_embedding_is_that_of_model2vec(texts_: list[str]) -> None:
    vectors = reference(texts_)
    embeddings = TextEncoder.load().encode(texts_).embeddings
    np.testing.assert_allclose(embeddings, vectors, atol=1e-3)


def reference(texts_: list[str]) -> np.ndarray:
    """Encode with the library that the table was made with, from the packaged files."""
    model2vec = pytest.importorskip("model2vec")
    from safetensors.numpy import load
    from tokenizers import Tokenizer

    if not hasattr(reference, "model"):
        reference.model = model2vec.StaticModel(  # type: ignore[attr-defined]
            load(packaged("static.safetensors"))["embeddings"],
            Tokenizer.from_str(packaged("tokenizer.json").decode()),
            config={},
            normalize=True,
            max_length=None,
        )
    out: np.ndarray = reference.model.encode(texts_)  # type: ignore[attr-defined]
    return out


@settings(max_examples=50, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_a_text_has_the_same_features_alone_and_in_a_batch(texts_: list[str]) -> None:
    together = TextEncoder.load().encode(texts_)
    for row, text in enumerate(texts_):
        alone = TextEncoder.load().encode([text])
        np.testing.assert_allclose(alone.embeddings[0], together.embeddings[row], atol=1e-6)
        np.testing.assert_allclose(
            alone.ngrams.toarray()[0], together.ngrams[[row]].toarray()[0], atol=1e-6
        )


def test_ngrams_are_words_and_pairs_at_length_one(encoder: TextEncoder) -> None:
    ngrams = encoder.encode(["red fish blue fish", ""]).ngrams
    assert isinstance(ngrams, sparse.csr_matrix)
    assert ngrams[0].nnz == 3 + 3  # red fish blue; red-fish fish-blue blue-fish
    assert np.sqrt((ngrams[0].data ** 2).sum()) == pytest.approx(1)
    assert ngrams[1].nnz == 0


def test_pairs_do_not_reach_into_the_next_text(encoder: TextEncoder) -> None:
    apart = encoder.encode(["red", "fish"]).ngrams
    assert apart.nnz == 2


def test_invisible_characters_and_accents_do_not_hide_a_word(encoder: TextEncoder) -> None:
    plain, hidden = encoder.encode(["ignore the rules", "ig\u200bnóre the rules"]).ngrams
    assert (plain != hidden).nnz == 0


def test_a_full_table_starts_anew_and_old_features_keep_their_meaning(
    encoder: TextEncoder,
) -> None:
    small = small_encoder(encoder, max_words=3)
    before = small.encode(["one two three four five"])
    after = small.encode(["six seven"])
    assert after.table is not before.table
    np.testing.assert_array_equal(
        before.embeddings, encoder.encode(["one two three four five"]).embeddings
    )
    np.testing.assert_array_equal(after.embeddings, encoder.encode(["six seven"]).embeddings)


def test_a_table_of_endless_words_starts_anew(encoder: TextEncoder) -> None:
    small = small_encoder(encoder, max_words=10)
    before = small.encode(["y" * 400])
    assert small.encode(["z"]).table is not before.table


def test_of_an_endless_text_the_first_and_the_last_part_are_read(encoder: TextEncoder) -> None:
    small = small_encoder(encoder, max_words=1000, max_chars=20)
    read = small.encode(["a b c d e" + " filler" * 10_000 + " v w x y z"])
    assert read.n_words[0] <= 20
    ends = small.encode(["a b c d e", "v w x y z"])
    assert set(ends.words) <= set(read.words)


def test_windows_overlap_and_the_last_ends_with_its_text(encoder: TextEncoder) -> None:
    text = " ".join(f"w{i}" for i in range(150))
    features = encoder.encode(["short", text, ""])
    windows, owners, starts = features.cut(64, 32, longer_than=64)
    assert owners.tolist() == [1, 1, 1, 1]
    assert starts.tolist() == [0, 32, 64, 86]
    assert windows.n_words.tolist() == [64] * 4
    last = encoder.encode([" ".join(f"w{i}" for i in range(86, 150))])
    np.testing.assert_allclose(windows.embeddings[3], last.embeddings[0], atol=1e-6)


def test_texts_without_a_window_have_none(encoder: TextEncoder) -> None:
    windows, owners, starts = encoder.encode(["short", ""]).cut(64, 32, longer_than=64)
    assert (len(windows), len(owners), len(starts)) == (0, 0, 0)
    assert windows.embeddings.shape == (0, 256)


def test_some_rows_are_taken_with_their_texts(encoder: TextEncoder) -> None:
    taken = encoder.encode(["a", "b c", "d"]).take(np.array([1, 1, 0]))
    assert taken.texts == ["b c", "b c", "a"]
    np.testing.assert_array_equal(taken.embeddings, encoder.encode(["b c", "b c", "a"]).embeddings)


def test_threads_share_one_encoder(encoder: TextEncoder) -> None:
    shared = small_encoder(encoder, max_words=10_000)
    batches = [[f"thread {t} word{i} and w{i + t}" for i in range(200)] for t in range(4)]
    results: dict[int, TextFeatures] = {}

    def work(number: int) -> None:
        results[number] = shared.encode(batches[number])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, batch in enumerate(batches):
        np.testing.assert_array_equal(results[number].embeddings, encoder.encode(batch).embeddings)

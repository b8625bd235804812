from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmobs.measures.text import TextEncoder
from llmobs.measures.text.words import WordTable

PARTS = (
    "hello", "World", "don't", "café", "東京", "日本語", "\U00020000x", "foo_bar", "x2", "“quoted”",
    "😀", "co\u00adop", "\u200b", "\ud800", "\x00", "\x1c", "\x85", "\u00a0", "\u2009", "\n\t",
    "…—", "a" * 130, "\U0002fa1f\U0002fa20", "\U000e0001",
)  # fmt: skip
texts = st.lists(
    st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=8)), max_size=10).map(" ".join),
    max_size=6,
)


@cache
def pattern() -> re.Pattern[str]:
    """Say by a pattern what BERT's pre-tokenizer does: marks and CJK characters stand alone."""
    marks = "".join(
        re.escape(char)
        for char in map(chr, range(0x10000))
        if (char.isascii() and char.isprintable() and not char.isalnum() and char != " ")
        or unicodedata.category(char).startswith("P")
    )
    cjk = (
        "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
        "\U0002b740-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f"
    )
    space = r"\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return re.compile(f"[^{space}{marks}{cjk}]+|[{marks}{cjk}]")


def fresh_table() -> WordTable:
    return WordTable(TextEncoder.load().tokenizer)


def ids_of(table: WordTable, words: list[str]) -> list[int]:
    """Return the ids of words, each asked for alone."""
    return [int(table.cut([word])[0][0]) for word in words]


@settings(max_examples=200, deadline=None)
@given(texts)
@example([])
@example(["", " ", "\ud83d\ude00 \udc00"])
def test_texts_are_cut_as_the_pattern_cuts_them(texts_: list[str]) -> None:
    table = fresh_table()
    expected = [pattern().findall(text) for text in texts_]
    ids, offsets = table.cut(texts_)
    assert np.diff(offsets).tolist() == [len(words) for words in expected]
    flat = [word for words in expected for word in words]
    assert len(table) == len(set(flat))
    assert ids.tolist() == ids_of(table, flat)


@settings(max_examples=100, deadline=None)
@given(texts)
def test_a_known_word_has_the_id_it_had(texts_: list[str]) -> None:
    table = fresh_table()
    first, again = table.cut(texts_), table.cut(texts_)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_a_table_of_many_words_knows_each_of_them() -> None:
    table = fresh_table()
    words = [f"w{i:x}" for i in range(9_000)]  # past the first table of slots, more than once
    for start in range(0, len(words), 700):
        table.cut(words[start : start + 700])
    ids, _ = table.cut(words)
    assert ids.tolist() == list(range(len(words)))
    assert table.n_chars == sum(map(len, words))


def test_texts_longer_than_what_is_joined_at_once_keep_their_order() -> None:
    table = fresh_table()
    long = "word " * 60_000
    ids, offsets = table.cut(["a b", long, long, "c", long])
    assert np.diff(offsets).tolist() == [2, 60_000, 60_000, 1, 60_000]
    assert ids[[0, 1, 120_002]].tolist() == ids_of(table, ["a", "b", "c"])

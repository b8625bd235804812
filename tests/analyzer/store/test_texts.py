from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.analyzer.store.texts import IndexedText
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, T0_NS, span_id, spans, trace_id

_TEXTS: Final = (
    ("Where is my order 4711?", "It left Köln yesterday."),
    ("ÜBERWEISUNG an 100%_sicher", "done"),
    ("plain words", "nothing to see"),
    ("", "Orders are shipped\non Mondays; reordering is free"),
    ("日本語で答えてください", "はい"),
)


def _fill(store: ClickHouseStore, segment: int = 0) -> None:
    rows = (
        {
            "trace_id": trace_id(number),
            "span_id": span_id(100 * segment + number),
            "ts_ns": T0_NS + number,
            "operation": "chat",
            "input_text": asked,
            "output_text": answered,
        }
        for number, (asked, answered) in enumerate(_TEXTS, start=1)
    )
    store.append(segment, spans(*rows), NO_EVENTS, NO_METRICS)


def _found(store: ClickHouseStore, text: str) -> set[int]:
    rows = store.traces(T0_NS, T0_NS + 1000, 100, text=text)
    return {int(row["trace_id"], 16) for row in rows}


@pytest.fixture(params=(False, True), ids=("plain", "indexed"))
def searched(request: pytest.FixtureRequest, store_url: str) -> Iterator[ClickHouseStore]:
    store = open_store(store_url, text_index=request.param)
    _fill(store)
    yield store
    store.close()


def test_a_text_is_found_wherever_it_stands_with_an_index_or_without(
    searched: ClickHouseStore,
) -> None:
    for text, expected in (
        ("order", {1, 4}),  # a word, a part of one, in capitals, asked or answered
        ("rder", {1, 4}),
        ("is my ord", {1}),
        ("4711?", {1}),
        ("über", {2}),
        ("0%_s", {2}),
        ("0%s", set()),  # no wildcard
        ("shipped\non", {4}),
        ("order 4711?\nIt", set()),  # not from what was asked into what was answered
        ("日本", {5}),
        ("はい", {5}),
        ("k", {1}),
        ("nowhere", set()),
    ):
        assert _found(searched, text) == expected, text


def test_a_search_by_the_index_reads_the_texts_that_it_finds_alone(store_url: str) -> None:
    store = open_store(store_url, text_index=True)
    try:
        _fill(store)
        plan = store._clients.ask(
            "EXPLAIN indexes = 1 SELECT count() FROM spans WHERE "
            "lowerUTF8(concat(input_text, '\\n', output_text)) LIKE '%nowhere%'"
        )
    finally:
        store.close()
    assert any("ix_text" in row["explain"] for row in plan)


def test_the_index_can_be_switched_on_and_off_over_spans_that_are_stored(store_url: str) -> None:
    for segment, text_index in enumerate((False, True, False)):
        store = open_store(store_url, text_index=text_index)
        try:
            _fill(store, segment)
            assert _found(store, "rder") == {1, 4}
            (row,) = store._clients.ask(
                "SELECT count() AS n FROM system.data_skipping_indices WHERE name = 'ix_text'"
            )
            assert row["n"] == text_index
        finally:
            store.close()


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("where is my Reordering?", "%reordering%"),
        ("a to 12 ü", None),
        ("straßenfest", "%enfest%"),
        ("100%_sicher", "%sicher%"),
    ],
)
def test_the_longest_run_of_letters_and_digits_is_looked_up(text: str, near: str | None) -> None:
    assert IndexedText(text).near == near

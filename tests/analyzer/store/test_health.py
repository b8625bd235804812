"""What the store says of itself."""

from __future__ import annotations

from llmobs.analyzer.store import ClickHouseStore
from llmobs.records import first_number
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, generated


def fill(store: ClickHouseStore, *segments: int) -> None:
    for segment in segments:
        store.append(segment, generated(segment % 1000, 10), NO_EVENTS, NO_METRICS)


def test_what_lies_behind_a_cursor_is_counted_source_by_source(store: ClickHouseStore) -> None:
    other = first_number(3)
    fill(store, 1, 2, 3, other + 4, other + 5)
    assert store.backlog({})["n_segments"] == 5
    row = store.backlog({0: 2, 3: other + 4})
    assert (row["n_segments"], row["n_spans"]) == (2, 20)
    assert 0 <= row["oldest_s"] < 30
    assert store.backlog({0: 2}, [0])["n_segments"] == 1
    assert store.backlog({0: 3}, [0]) == {"n_segments": 0, "n_spans": 0, "oldest_s": 0}
    assert store.backlog({}, [])["n_segments"] == 0


def test_parts_and_size_are_told_of_an_empty_store_too(store: ClickHouseStore) -> None:
    empty = store.health()
    fill(store, *range(1, 6))
    full = store.health()
    assert set(full) == {"parts", "size_bytes", "merges", "mutations"}
    assert full["size_bytes"] > empty["size_bytes"]
    assert 1 <= full["parts"] <= 10
    assert full["mutations"] == 0

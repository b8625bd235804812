from __future__ import annotations

from llmobs.analyzer.store import ClickHouseStore, open_store
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, T0_NS, generated, scores

_HOUR_NS = 3_600_000_000_000
_WINDOW = (T0_NS - _HOUR_NS, T0_NS + 3 * _HOUR_NS)


def test_the_sums_of_hours_forget_who_is_deleted(store: ClickHouseStore) -> None:
    for segment in range(3):
        batch = generated(segment)
        store.append(segment, batch, NO_EVENTS, NO_METRICS)
        store.append_scores(segment, batch, scores(batch, tone=[1.0] * len(batch)))
    before = store.overview(*_WINDOW)
    assert before["users"] == 2

    n_deleted = store.delete_user("user-1")

    after = store.overview(*_WINDOW)
    assert n_deleted == 75
    assert after["users"] == 1
    assert [row["key"] for row in store.cost(*_WINDOW, "user_id")] == ["user-0"]
    assert [row["n"] for row in before["scores"]] == [150]
    assert [row["n"] for row in after["scores"]] == [75]


def test_the_sums_of_hours_hold_a_completed_segment_once(store_url: str) -> None:
    store = open_store(store_url)
    store.append(0, generated(0), NO_EVENTS, NO_METRICS)
    once = store.cost(*_WINDOW, "user_id")
    store._clients.command("DELETE FROM spans WHERE duration_ns % 2 = 0")  # as a kill tears it
    assert store.cost(*_WINDOW, "user_id") != once
    store.close()

    store = open_store(store_url)
    try:
        store.append(0, generated(0), NO_EVENTS, NO_METRICS, replay=True)
        assert store.cost(*_WINDOW, "user_id") == once
    finally:
        store.close()

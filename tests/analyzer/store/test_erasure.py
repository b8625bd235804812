"""What was deleted on request does not come back, from wherever it comes."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa
import pytest

from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.analyzer.store.clients import Clients
from llmobs.errors import ConfigurationError
from llmobs.records import SpanBatch
from tests.analyzer.store.rows import (
    NO_EVENTS,
    NO_METRICS,
    events,
    generated,
    scores,
    span_id,
    spans,
    trace_id,
)

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS


def ago(seconds: float) -> int:
    return time.time_ns() - int(seconds * SECOND_NS)


def span(number: int, *, at_ns: int | None = None, **columns: Any) -> dict[str, Any]:
    return {
        "trace_id": trace_id(number),
        "span_id": span_id(number),
        "ts_ns": ago(60) if at_ns is None else at_ns,
        "operation": "chat",
        "input_tokens": 1,
        **columns,
    }


def forget(store: ClickHouseStore, user: str = "ann") -> int:
    store.note_erasure("user", user, 160)
    return store.delete_user(user)


def stored(store: ClickHouseStore) -> set[int]:
    batch, _, _ = store.read({}, 10_000)
    return {int(one, 16) for one in batch.ids("span_id")}


def n_calls(store: ClickHouseStore) -> int:
    """Count calls as the minute roll-up does."""
    minute = time.time_ns() // (60 * SECOND_NS)
    rows = store.series((minute - 10) * 60 * SECOND_NS, (minute + 10) * 60 * SECOND_NS, 60)
    return sum(row["calls"] for row in rows)


def test_spans_of_a_segment_that_was_sealed_before_the_deletion_are_left_out(
    store: ClickHouseStore,
) -> None:
    late = spans(
        span(1, user_id="ann"),
        span(2, user_id="bob"),
        span(3),
        span(4, user_id="ann", at_ns=time.time_ns() + 60 * SECOND_NS),  # a new life
    )
    forget(store)
    assert store.append(1, late, NO_EVENTS, NO_METRICS) == 3
    assert stored(store) == {2, 3, 4}
    assert n_calls(store) == 3


def test_a_deletion_holds_after_a_restart(store_url: str) -> None:
    store = open_store(store_url)
    forget(store)
    store.close()
    store = open_store(store_url)
    try:
        assert store.append(1, spans(span(1, user_id="ann")), NO_EVENTS, NO_METRICS) == 0
    finally:
        store.close()


def test_the_list_holds_no_id_in_plain(store: ClickHouseStore) -> None:
    forget(store, "ann@example.com")
    rows = store._clients.ask("SELECT * FROM erasures")
    assert rows
    assert "ann" not in repr(rows)


def test_a_session_and_a_user_of_the_same_name_are_told_apart(store: ClickHouseStore) -> None:
    store.note_erasure("session", "x", 160)
    batch = spans(span(1, user_id="x"), span(2, session_id="x"))
    assert store.append(1, batch, NO_EVENTS, NO_METRICS) == 1
    assert stored(store) == {1}


def test_a_segment_stored_in_part_before_the_deletion_is_completed_without_the_user(
    store_url: str,
) -> None:
    batch = spans(*(span(i, user_id=("ann", "bob")[i % 2]) for i in range(1, 9)))
    store = open_store(store_url)
    store.append(1, SpanBatch(batch.table.slice(0, 4)), NO_EVENTS, NO_METRICS)
    forget(store)
    for _ in range(2):  # killed, started, and once more
        store.close()
        store = open_store(store_url)
        store.hold([0])
        store.append(1, batch, NO_EVENTS, NO_METRICS, replay=True)
        found = stored(store), n_calls(store)
    store.close()
    assert found == ({1, 3, 5, 7}, 4)


def test_spans_that_name_nobody_go_with_their_trace(store: ClickHouseStore) -> None:
    batch = spans(
        span(1, session_id="s"),
        span(1, span_id=span_id(2)),  # a step of the same trace
        span(1, span_id=span_id(3), session_id="other"),
        span(4),
    )
    store.append(1, batch, NO_EVENTS, NO_METRICS)
    store.note_erasure("session", "s", 160)
    assert store.delete_session("s") == 2
    assert stored(store) == {3, 4}
    late = spans(
        span(1, span_id=span_id(5)), span(1, span_id=span_id(6), session_id="other"), span(7)
    )
    store.append(2, late, NO_EVENTS, NO_METRICS)
    assert stored(store) == {3, 4, 6, 7}


def event(number: int, owner: dict[str, str] | None = None, at_ns: int = 0) -> dict[str, Any]:
    return {
        "ts_ns": at_ns or ago(60),
        "trace_id": trace_id(number) if number else bytes(16),
        "span_id": span_id(number) if number else bytes(8),
        "event_name": f"e{number}",
        "body": "secret",
        "attributes_s": list((owner or {}).items()),
    }


def names_of(store: ClickHouseStore) -> list[str]:
    _, batch, _ = store.read({}, 10_000)
    return sorted(batch.texts("event_name"))


def test_events_go_with_the_span_and_by_what_they_say_themselves(
    store: ClickHouseStore,
) -> None:
    owner = {"user.id": "ann"}
    store.append(
        1,
        spans(span(1, user_id="ann"), span(2, user_id="bob")),
        events(event(1), event(2), event(0, owner), event(8, {"user.id": "bob"})),
        NO_METRICS,
    )
    forget(store)
    assert names_of(store) == ["e2", "e8"]
    late = events(
        event(1),  # of a span that was deleted
        event(0, owner),
        event(3, {"enduser.id": "ann"}),
        event(4),
        event(1, at_ns=time.time_ns() + SECOND_NS),
    )
    store.append(2, spans(), late, NO_METRICS)
    assert names_of(store) == ["e1", "e2", "e4", "e8"]


def test_scores_go_with_the_span_and_those_of_a_session_alone_too(store: ClickHouseStore) -> None:
    batch = spans(span(1, session_id="s"), span(2, session_id="t"))
    store.append(1, batch, NO_EVENTS, NO_METRICS)
    store.append_scores(1, batch, scores(batch, toxicity=[0.5, 0.5]))
    store.note_erasure("session", "s", 160)
    store.delete_session("s")
    assert store.sizes()["scores"] == 1


def test_who_is_being_forgotten_is_not_read_any_more(store: ClickHouseStore) -> None:
    store.append(1, spans(span(1, user_id="ann"), span(2)), NO_EVENTS, NO_METRICS)
    store.note_erasure("user", "ann", 160)
    assert stored(store) == {2}
    assert store.sizes()["spans"] == 2  # it is deleted next


def test_what_others_have_to_look_for_is_told(store: ClickHouseStore) -> None:
    batch = spans(
        span(1, user_id="ann", input_text="äöü" * 100), span(2, user_id="bob", input_text="hi")
    )
    store.append(1, batch, NO_EVENTS, NO_METRICS)
    erased = store.note_erasure("user", "ann", 160)
    assert erased.traces == {trace_id(1).hex()}
    assert erased.texts == {("äöü" * 100)[:160]}


def test_an_empty_id_is_nobody(store: ClickHouseStore) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        store.note_erasure("user", "", 160)


def test_live_traffic_pays_nothing_for_deletions_of_the_past(store: ClickHouseStore) -> None:
    for number in range(20):
        store._erasures.note("user", f"user-{number}", ago(3600))
    batch = generated(1, 5000, start_ns=time.time_ns())
    begun = time.process_time()
    for _ in range(20):
        assert not store._erasures.spans(batch.table).any()
    assert time.process_time() - begun < 0.2


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the embedded engine taken for a server that other processes write to."""
    monkeypatch.setattr(Clients, "is_shared", property(lambda _: True))


@pytest.mark.usefixtures("shared")
def test_another_process_that_stores_hears_of_a_deletion(store_url: str) -> None:
    worker, watch = open_store(store_url), open_store(store_url)
    try:
        worker.append(1, spans(span(1, user_id="ann"), span(2)), NO_EVENTS, NO_METRICS)
        assert forget(watch) == 1
        worker.append(2, spans(span(3, user_id="ann"), span(4)), NO_EVENTS, NO_METRICS)
        assert stored(worker) == {2, 4}
    finally:
        worker.close()
        watch.close()


@pytest.mark.usefixtures("shared")
def test_a_deletion_while_another_process_stores_reaches_what_it_stored(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, watch = open_store(store_url), open_store(store_url)
    insert = worker._clients.insert

    def deleted_in_between(table: str, rows: pa.Table, token: str) -> None:
        if table in {"spans", "scores"}:
            forget(watch, {"spans": "ann", "scores": "bob"}[table])
        insert(table, rows, token)

    monkeypatch.setattr(worker._clients, "insert", deleted_in_between)
    try:
        batch = spans(*(span(i, user_id=u) for i, u in enumerate(("ann", "bob", "eve"), 1)))
        late = events(event(1, {"user.id": "ann"}))
        worker.append(1, batch, late, NO_METRICS)
        assert stored(worker) == {2, 3}
        assert names_of(worker) == []
        assert n_calls(worker) == 2
        worker.append_scores(1, batch, scores(batch, toxicity=[0.1, 0.2, 0.3]))
        assert [row["n"] for row in worker.overview(0, 2**62)["scores"]] == [1]
    finally:
        worker.close()
        watch.close()

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.analyzer.store.base import NOTHING
from llmobs.analyzer.store.seen import Seen
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import SPAN_SCHEMA, SpanBatch, first_number, source_of
from tests.analyzer.store.rows import (
    NO_EVENTS,
    NO_METRICS,
    T0_NS,
    events,
    generated,
    metrics,
    scores,
    span_id,
    spans,
    trace_id,
)

ROLLUP_SUMS = (
    "sum(n_spans), sumIf(n_spans, failure != ''), sum(n_unpriced), round(sum(n_input)), "
    "round(sum(n_output)), round(sum(cost), 9)"
)
RECOUNT_SUMS = (
    "sum(weight), sumIf(weight, status = 2), "
    "sumIf(weight, operation IN ('chat', 'embeddings', 'generate_content', 'text_completion') "
    "AND isNull(cost_usd) AND NOT (status = 2 AND isNull(input_tokens) AND isNull(output_tokens)))"
    ", round(sum(weight * input_tokens)), round(sum(weight * output_tokens)), "
    "round(sum(weight * cost_usd), 9)"
)


def numbers(store: ClickHouseStore, sql: str) -> list[Any]:
    return [list(row.values()) for row in store._clients.ask(sql, {})]


def assert_rollup_equals_a_recount(store: ClickHouseStore) -> None:
    rolled = numbers(
        store,
        f"SELECT service, operation, minute, {ROLLUP_SUMS} FROM minutes "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    counted = numbers(
        store,
        "SELECT service, operation, toDateTime64(toStartOfMinute(ts), 0, 'UTC') AS minute, "
        f"{RECOUNT_SUMS} FROM spans GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    assert rolled == counted
    assert counted


def insert_part(store: ClickHouseStore, segment: int, batch: SpanBatch) -> None:
    """Leave a segment as a process does that is killed within an append."""
    store._insert("spans", segment, batch.table)


def whole_span() -> dict[str, Any]:
    """A span whose every column has a value of its own."""
    row: dict[str, Any] = {}
    for number, field in enumerate(SPAN_SCHEMA, start=1):
        row[field.name] = {
            pa.string(): f"{field.name} 'quoted' \\ \t\n ü 🎉",
            pa.int64(): number * 1_000_000_007,
            pa.uint8(): number,
            pa.float64(): number / 7,
            pa.binary(16): trace_id(number + 2**100),
            pa.binary(8): span_id(number + 2**60),
            pa.map_(pa.string(), pa.string()): [("a.b", "x"), ("ü", "")],
            pa.map_(pa.string(), pa.float64()): [("n", 0.1), ("m", -1e300)],
        }[field.type]
    return {**row, "ts_ns": T0_NS + 123_456_789, "status": 2, "weight": 8.0}


def test_every_column_comes_back_as_it_went_in(store: ClickHouseStore) -> None:
    batch = spans(whole_span(), {"span_id": span_id(2), "ts_ns": T0_NS + 200_000_000})
    said = events(
        {
            "ts_ns": T0_NS + 1,
            "trace_id": trace_id(3),
            "span_id": span_id(4),
            "service": "s",
            "environment": "prod",
            "event_name": "e",
            "severity": 9,
            "body": "said",
            "attributes_s": [("k", "v")],
            "attributes_n": [("n", 1.0)],
        }
    )
    store.append(1, batch, said, NO_METRICS)
    read_spans, read_events, last = store.read({}, 100)
    assert read_spans.table.equals(batch.table)
    assert read_events.table.equals(said.table)
    assert last == 1


def test_what_is_not_known_stays_null(store: ClickHouseStore) -> None:
    store.append(0, spans({}), NO_EVENTS, NO_METRICS)
    table = store.read({}, 1)[0].table
    for field in SPAN_SCHEMA:
        assert table.column(field.name).null_count == (1 if field.nullable else 0), field.name


@pytest.mark.parametrize(
    "ts_ns", [0, 1, 4_102_444_800_000_000_000, 5_680_281_600_000_000_000, 2**63 - 1]
)
def test_a_clock_of_1970_or_2100_is_stored_and_found(store: ClickHouseStore, ts_ns: int) -> None:
    batch = spans({"ts_ns": ts_ns, "operation": "chat"}, {"ts_ns": T0_NS, "span_id": span_id(2)})
    assert store.append(0, batch, NO_EVENTS, NO_METRICS) == 2
    assert sorted(store.read({}, 9)[0].ints("ts_ns").tolist()) == sorted([ts_ns, T0_NS])
    assert store.overview(ts_ns - 10, min(ts_ns + 10, 2**63 - 1))["calls"] == (ts_ns < 2**63 - 1)
    assert len(store.trace(trace_id(1).hex())) == 2
    # Partitions follow the time of arrival: no sender can open one for each day it makes up.
    parts = numbers(
        store, "SELECT DISTINCT partition FROM system.parts WHERE table = 'spans' AND active"
    )
    assert len(parts) == 1


def test_a_segment_over_a_thousand_days_is_stored(store: ClickHouseStore) -> None:
    day_ns = 86_400 * 10**9
    rows = [{"ts_ns": i * day_ns, "span_id": span_id(i + 1)} for i in range(1_000)]
    assert store.append(0, spans(*rows), NO_EVENTS, NO_METRICS) == 1_000
    assert numbers(store, "SELECT count(), sum(n_spans) FROM minutes") == [[1_000, 1_000]]


def test_a_repeated_span_is_stored_once(store: ClickHouseStore) -> None:
    a, b, c = ({"span_id": span_id(i)} for i in (1, 2, 3))
    same_span_of_another_trace = {"span_id": span_id(1), "trace_id": trace_id(2)}
    assert store.append(0, spans(a, b, a), NO_EVENTS, NO_METRICS) == 2
    assert store.append(1, spans(b, c, same_span_of_another_trace), NO_EVENTS, NO_METRICS) == 2
    assert store.append(2, spans(a, b, c), NO_EVENTS, NO_METRICS) == 0
    assert store.sizes()["spans"] == 4
    assert_rollup_equals_a_recount(store)


def test_spans_without_an_id_are_not_taken_for_one_another(store: ClickHouseStore) -> None:
    nameless = {"span_id": bytes(8)}
    assert store.append(0, spans(nameless, nameless), NO_EVENTS, NO_METRICS) == 2


def test_a_repeated_span_is_known_after_the_store_was_opened_again(store_url: str) -> None:
    first = open_store(store_url)
    for segment in range(3):
        first.append(segment, generated(segment), NO_EVENTS, NO_METRICS)
    first.close()
    second = open_store(store_url)
    repeated = SpanBatch(pa.concat_tables([generated(0).table, generated(9).table]))
    assert second.append(3, repeated, NO_EVENTS, NO_METRICS) == len(generated(9))
    second.close()


def test_a_replayed_segment_that_is_there_is_left_alone(store_url: str) -> None:
    said, measured = events({"body": "a"}), metrics({"name": "m", "value": 1.0})
    first = open_store(store_url)
    first.append(0, generated(0), said, measured)
    first.close()
    second = open_store(store_url)
    assert second.append(0, generated(0), said, measured, replay=True) == len(generated(0))
    assert numbers(second, "SELECT count() FROM segments") == [[1]]
    assert_rollup_equals_a_recount(second)
    second.close()


@pytest.mark.parametrize("n_there", [0, 20, 50])
def test_a_replayed_segment_that_was_cut_off_is_completed(store_url: str, n_there: int) -> None:
    first = open_store(store_url)
    first.append(0, generated(0), NO_EVENTS, NO_METRICS)
    repeated = SpanBatch(pa.concat_tables([generated(1).table, generated(0).table.slice(0, 5)]))
    if n_there:
        insert_part(first, 1, SpanBatch(generated(1).table.slice(0, n_there)))
    assert len(first.read({0: 0}, 100)[0]) == 0  # half a segment is not read
    first.close()

    second = open_store(store_url)
    said, measured = events({"body": "a"}), metrics({"name": "m"})
    assert second.append(1, repeated, said, measured, replay=True) == 50
    assert numbers(second, "SELECT seg, count() FROM spans GROUP BY seg ORDER BY seg") == [
        [0, 50],
        [1, 50],
    ]
    assert numbers(second, "SELECT count() FROM events") == [[1]]
    assert numbers(second, "SELECT count() FROM metric_points") == [[1]]
    assert_rollup_equals_a_recount(second)
    assert len(second.read({0: 0}, 100)[0]) == 50
    second.close()


def test_a_replay_repairs_a_rollup_that_counted_twice(store: ClickHouseStore) -> None:
    insert_part(store, 0, generated(0))
    insert_part(store, 0, generated(0))
    store.append(0, generated(0), NO_EVENTS, NO_METRICS, replay=True)
    assert store.sizes()["spans"] == 50
    assert_rollup_equals_a_recount(store)


def test_an_append_that_failed_can_be_replayed_in_the_same_life(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = store._clients.insert

    def fails_at_events(table: str, rows: pa.Table, token: str) -> None:
        if table == "events":
            raise StoreError("the disk is full")
        insert(table, rows, token)

    with monkeypatch.context() as patch:
        patch.setattr(store._clients, "insert", fails_at_events)
        with pytest.raises(StoreError, match="disk"):
            store.append(0, generated(0), events({}), NO_METRICS)
    assert store.append(0, generated(0), events({}), NO_METRICS, replay=True) == 50
    assert store.sizes()["spans"] == 50
    assert store.sizes()["events"] == 1
    assert_rollup_equals_a_recount(store)


def test_a_rebuild_that_was_cut_off_is_finished_by_who_holds_the_source_next(
    store_url: str,
) -> None:
    first = open_store(store_url)
    first.append(0, generated(0), NO_EVENTS, NO_METRICS)
    first._note_stale(0, [T0_NS // 60_000_000_000])
    first._delete("minutes", "true", {})
    first.close()
    second = open_store(store_url)
    second.hold([0])
    assert_rollup_equals_a_recount(second)
    assert numbers(second, "SELECT count() FROM stale_minutes") == [[0]]
    second.close()


def test_reading_takes_whole_segments_in_order_up_to_about_a_limit(store: ClickHouseStore) -> None:
    for segment in (3, 5, 6, 9):
        late_first = SpanBatch(generated(segment).table.take(list(range(49, -1, -1))))
        store.append(segment, late_first, events({"body": str(segment)}), NO_METRICS)
    read: list[tuple[int, list[str], int]] = []
    after: dict[int, int] = {}
    while True:
        got, said, last = store.read(after, 60)
        if last == NOTHING:
            break
        assert got.ints("ts_ns").tolist() == sorted(got.ints("ts_ns").tolist())
        read.append((len(got), sorted(said.texts("body")), last))
        after = {0: last}
    assert read == [(100, ["3", "5"], 5), (100, ["6", "9"], 9)]


def test_reading_takes_fewer_segments_where_texts_are_long(store: ClickHouseStore) -> None:
    for segment in range(4):
        batch = spans({"input_text": "word " * 2_000_000, "span_id": bytes([segment] * 8)})
        store.append(segment, batch, NO_EVENTS, NO_METRICS)
        store.mark_scored(segment, len(batch), batch.table.nbytes)
    assert store.read({}, 100)[2] == store.read_scored({}, 100)[3] == 3
    for segment in range(4, 10):
        batch = spans(
            *(
                {"input_text": "word " * 2_000_000, "span_id": bytes([segment, n] * 4)}
                for n in (1, 2)
            )
        )
        store.append(segment, batch, NO_EVENTS, NO_METRICS)
        store.mark_scored(segment, len(batch), batch.table.nbytes)
    assert store.read({0: 3}, 100)[2] == store.read_scored({0: 3}, 100)[3] == 5


def test_a_segment_without_spans_moves_the_reader_on(store: ClickHouseStore) -> None:
    store.append(0, spans(), NO_EVENTS, metrics({"name": "m"}))
    assert store.read({}, 10)[2] == 0


def test_scores_are_kept_with_their_spans_and_silence_is_not_stored(
    store: ClickHouseStore,
) -> None:
    batch = generated(0, 4)
    store.append(0, batch, NO_EVENTS, NO_METRICS)
    store.append_scores(
        0, batch, scores(batch, tone=[-1.0, 0.5, float("nan"), 1.0], dull=[float("nan")] * 4)
    )
    assert store.sizes()["scores"] == 3
    first = batch.ids("trace_id")[0]
    assert store.trace(first)[0]["scores"] == [
        {
            "name": "tone",
            "target": "output",
            "value": -1.0,
            "label": "fail",
            "explanation": "because",
            "version": "1",
        }
    ]


def test_scores_of_an_unfinished_analysis_are_forgotten(store: ClickHouseStore) -> None:
    for segment in range(3):
        batch = generated(segment, 4)
        store.append(segment, batch, NO_EVENTS, NO_METRICS)
        store.append_scores(segment, batch, scores(batch, tone=[1.0] * 4))
    store.drop_scores({0: 0})
    assert numbers(store, "SELECT seg, count() FROM scores GROUP BY seg") == [[0, 4]]
    store.drop_scores({})
    assert store.sizes()["scores"] == 0


def test_what_others_judged_becomes_a_score_of_the_span(store: ClickHouseStore) -> None:
    judged = {
        "trace_id": trace_id(1),
        "span_id": span_id(1),
        "service": "app",
        "event_name": "gen_ai.evaluation.result",
        "attributes_s": [
            ("gen_ai.evaluation.name", "helpful"),
            ("gen_ai.evaluation.score.label", "fail"),
            ("gen_ai.evaluation.explanation", "too short"),
        ],
        "attributes_n": [("gen_ai.evaluation.score.value", 0.25)],
    }
    label_alone = {**judged, "attributes_s": [("gen_ai.evaluation.name", "kind")]}
    said = events(judged, {**label_alone, "attributes_n": []}, {"event_name": "other"})
    batch = spans({"session_id": "s", "feature": "f", "operation": "chat"})
    store.append(0, batch, said, NO_METRICS)
    store.append_evaluations(0, said)
    helpful, kind = sorted(store.trace(trace_id(1).hex())[0]["scores"], key=lambda s: s["name"])
    assert (helpful["name"], helpful["value"], helpful["label"]) == ("helpful", 0.25, "fail")
    assert (kind["name"], kind["value"]) == ("kind", None)
    assert store.sessions(T0_NS, T0_NS + 1)[0]["flags"] == ["helpful"]
    means = {row["name"]: row["mean"] for row in store.overview(T0_NS, T0_NS + 1)["scores"]}
    assert means == {"helpful": 0.25, "kind": None}


def test_a_score_that_comes_back_as_an_event_is_no_second_score(store: ClickHouseStore) -> None:
    returned = {
        "event_name": "gen_ai.evaluation.result",
        "attributes_s": [
            ("gen_ai.evaluation.name", "toxicity"),
            ("llmobs.evaluation.source", "analyzer"),
        ],
        "attributes_n": [("gen_ai.evaluation.score.value", 0.25)],
    }
    said = events(returned)
    store.append(0, spans({}), said, NO_METRICS)
    store.append_evaluations(0, said)
    assert store.sizes()["scores"] == 0
    assert store.sizes()["events"] == 1


def test_a_user_is_deleted_everywhere_and_no_longer_counts(store: ClickHouseStore) -> None:
    batch = generated(0)
    said = events(
        {
            "trace_id": batch.table["trace_id"][0].as_py(),
            "span_id": batch.table["span_id"][0].as_py(),
        }
    )
    store.append(0, batch, said, NO_METRICS)
    store.append_scores(0, batch, scores(batch, tone=[1.0] * len(batch)))
    assert store.delete_user("user-0") == 25
    assert store.delete_user("user-0") == 0
    assert store.delete_user("") == 0
    assert numbers(store, "SELECT user_id, count() FROM spans GROUP BY user_id") == [["user-1", 25]]
    assert store.sizes()["scores"] == 25
    assert store.sizes()["events"] == 0
    assert_rollup_equals_a_recount(store)


def test_a_session_is_deleted_and_its_neighbours_stay(store: ClickHouseStore) -> None:
    store.append(0, generated(0), NO_EVENTS, NO_METRICS)
    before = store.session("session-0-1")
    assert before is not None
    assert store.delete_session("session-0-0") == 13
    assert store.session("session-0-0") is None
    assert store.session("session-0-1") == before
    assert_rollup_equals_a_recount(store)


def test_threads_may_ask_while_one_appends_and_one_analyzes(store: ClickHouseStore) -> None:
    failures: list[BaseException] = []
    done = threading.Event()
    n_segments = 12

    def guarded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return threading.Thread(target=run)

    def append() -> None:
        for segment in range(n_segments):
            store.append(segment, generated(segment), NO_EVENTS, NO_METRICS)
        done.set()

    read: list[int] = []

    def analyze() -> None:
        after = -1
        while after < n_segments - 1 and not failures:
            batch, _, last = store.read({0: after}, 100)
            if last > after:
                store.append_scores(last, batch, scores(batch, tone=[1.0] * len(batch)))
                read.append(len(batch))
                after = last

    def ask() -> None:
        while not done.is_set() and not failures:
            overview = store.overview(0, 2 * T0_NS)
            # The breakdown is asked for after the total, and spans only come in.
            assert sum(row["calls"] for row in overview["by_model"]) >= overview["calls"]
            store.traces(0, 2 * T0_NS, 5)
            store.sessions(0, 2 * T0_NS, 5)

    workers = [guarded(work) for work in (append, analyze, ask, ask, ask, ask, ask, ask)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not failures
    assert sum(read) == n_segments * 50
    assert store.sizes()["spans"] == store.sizes()["scores"] == n_segments * 50
    assert_rollup_equals_a_recount(store)


def test_a_large_segment_is_cut_into_blocks_and_stays_whole(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmobs.analyzer.store.clickhouse._BLOCK_BYTES", 4_000)
    batch = generated(0, 200)
    assert store.append(0, batch, NO_EVENTS, NO_METRICS) == 200
    assert numbers(store, "SELECT count(), uniqExact(span_id) FROM spans") == [[200, 200]]
    assert_rollup_equals_a_recount(store)


def test_the_exporters_view_shows_the_same_spans(store: ClickHouseStore) -> None:
    store.append(
        0,
        spans(
            {
                "name": "chat gpt-4o",
                "kind": 3,
                "status": 2,
                "service": "app",
                "operation": "chat",
                "input_tokens": 7,
                "duration_ns": 5,
                "attributes_s": [("a", "b")],
                "attributes_n": [("n", 1.5)],
            }
        ),
        NO_EVENTS,
        NO_METRICS,
    )
    (row,) = store._clients.ask("SELECT * FROM otel_traces", {})
    assert row["TraceId"] == trace_id(1).hex()
    assert (row["ParentSpanId"], row["SpanKind"], row["StatusCode"]) == ("", "Client", "Error")
    assert (row["SpanName"], row["ServiceName"], row["Duration"]) == ("chat gpt-4o", "app", 5)
    assert row["SpanAttributes"] == {
        "a": "b",
        "n": "1.5",
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": "7",
    }


def test_the_exporters_view_has_the_messages_that_plain_texts_stand_for(
    store: ClickHouseStore,
) -> None:
    plain = {"system_text": "Be kind.", "input_text": 'Say "hi"\n', "output_text": "hi"}
    sent = {"span_id": span_id(2), "input_text": "x", "input_messages": "[]"}
    store.append(0, spans(plain, sent), NO_EVENTS, NO_METRICS)
    first, second = store._clients.ask("SELECT * FROM otel_traces ORDER BY SpanId", {})
    asked = json.loads(first["SpanAttributes"]["gen_ai.input.messages"])
    assert [(m["role"], m["parts"][0]["content"]) for m in asked] == [
        ("system", "Be kind."),
        ("user", 'Say "hi"\n'),
    ]
    [answered] = json.loads(first["SpanAttributes"]["gen_ai.output.messages"])
    assert answered == {"role": "assistant", "parts": [{"type": "text", "content": "hi"}]}
    assert second["SpanAttributes"]["gen_ai.input.messages"] == "[]"


def test_retention_can_be_changed_and_reaches_every_table(store_url: str) -> None:
    open_store(store_url, retention_days=7, texts_days=2).close()
    changed = open_store(store_url, retention_days=8, texts_days=3, rollups_days=50)
    ddl = {
        row["name"]: row["create_table_query"]
        for row in changed._clients.ask(
            "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()",
            {},
        )
    }
    for table in ("spans", "scores", "events", "metric_points", "segments"):
        assert "TTL stored_at + toIntervalDay(8)" in ddl[table]
    assert ddl["spans"].count("TTL stored_at + toIntervalDay(3)") == 6
    assert "toIntervalDay(81)" in ddl["minutes"]
    changed.close()


def test_old_rows_go_when_their_time_is_over(store: ClickHouseStore) -> None:
    store.append(0, generated(0), NO_EVENTS, NO_METRICS)
    for days in (89, 91):
        store._clients.command(
            f"INSERT INTO spans SELECT * REPLACE (now('UTC') - toIntervalDay({days}) AS stored_at) "
            "FROM (SELECT * FROM spans WHERE seg = 0 LIMIT 50)"
        )
    store._clients.command("OPTIMIZE TABLE spans FINAL")
    kept = "SELECT dateDiff('day', stored_at, now('UTC')) AS days, count() FROM spans GROUP BY days"
    assert sorted(numbers(store, kept)) == [[0, 50], [89, 50]]


def test_a_second_life_keeps_the_tables_and_a_newer_one_is_refused(store_url: str) -> None:
    first = open_store(store_url)
    first.append(0, generated(0), NO_EVENTS, NO_METRICS)
    first._clients.command("INSERT INTO meta (name, value) VALUES ('version', '999')")
    first.close()
    with pytest.raises(StoreError, match="version 999"):
        open_store(store_url)


@pytest.mark.parametrize(
    "url", ["chdb://relative/path", "chdb://", "sqlite:///x", "nonsense", "clickhouse://"]
)
def test_a_url_that_means_nothing_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"chdb:///|clickhouse://"):
        open_store(url)


def test_a_retention_of_no_days_is_refused(store_url: str) -> None:
    with pytest.raises(ConfigurationError, match="spans_days is 0"):
        open_store(store_url, retention_days=0)


def test_a_closed_store_says_so_and_closes_twice(store: ClickHouseStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.sizes()


def test_a_directory_in_use_is_refused(store: ClickHouseStore, tmp_path: Any) -> None:
    with pytest.raises(StoreError, match="open"):
        open_store(f"chdb://{tmp_path / 'other'}")


def test_the_window_of_ids_forgets_the_oldest_only() -> None:
    seen = Seen(1_000)
    chance = np.random.default_rng(0)
    runs = [chance.integers(0, 2**64, 37, dtype=np.uint64) for _ in range(100)]
    for number, run in enumerate(runs):
        assert seen.first_seen(run).all()
        seen.add(run)
        assert len(seen) <= 1_037
        for recent in runs[max(0, number - 12) : number + 1]:
            assert not seen.first_seen(recent).any()
    assert seen.first_seen(runs[0]).all()


def test_sources_are_read_and_repaired_apart(store_url: str) -> None:
    one, two = first_number(1), first_number(2)
    first = open_store(store_url)
    first.append(one, generated(0), NO_EVENTS, NO_METRICS, until=one + 7)
    insert_part(first, two + 5, SpanBatch(generated(1).table.slice(0, 20)))
    first.append(one + 7, generated(2), NO_EVENTS, NO_METRICS)
    first.close()

    second = open_store(store_url)
    assert [second.position(source) for source in (1, 2, 3)] == [one + 8, two, first_number(3)]
    second.hold([2])
    assert second.read({}, 100)[2] == NOTHING  # those of 1 are somebody else's
    assert second.append(two + 5, generated(1), NO_EVENTS, NO_METRICS, replay=True) == 50
    assert second.read({}, 100)[2] == two + 5
    second.hold([1, 2])
    assert second.read({1: one, 2: two + 5}, 100)[2] == one + 7
    assert second.sizes()["spans"] == 150
    assert_rollup_equals_a_recount(second)
    second.close()


def test_a_source_whose_segments_are_gone_does_not_hold_up_the_others(
    store: ClickHouseStore,
) -> None:
    one, two = first_number(1), first_number(2)
    for segment in (one, two, two + 9):
        store.append(segment, generated(segment % 7), NO_EVENTS, NO_METRICS)
    store._clients.command(f"DELETE FROM segments WHERE seg >= {two}")  # as retention does
    assert store.read({}, 100)[2] == one
    assert store.read({1: one}, 100)[2] == NOTHING


def test_what_one_scored_is_read_by_another(store: ClickHouseStore) -> None:
    batches = {first_number(1): generated(0, 4), first_number(2) + 3: generated(1, 4)}
    for segment, batch in batches.items():
        store.append(segment, batch, events({"body": "said"}), NO_METRICS)
        assert store.read_scored({}, 100)[3] == NOTHING
    for segment, batch in batches.items():
        judged = scores(batch, tone=[-1.0, 0.5, float("nan"), 1.0])
        store.append_scores(segment, batch, judged)
        store.mark_scored(segment, len(batch), batch.table.nbytes)
        known = {source_of(other): other for other in batches if other != segment}
        got, said, (column,), last = store.read_scored(known, 100)
        assert last == segment
        assert got.ids("span_id") == batch.ids("span_id")
        assert said.texts("body") == ["said"]
        np.testing.assert_array_equal(column.values, judged.columns[0].values)
        assert column.labels[0] == "fail"
        assert column.labels[2] == ""  # nothing was said
    assert store.scored() == {source_of(segment): segment for segment in batches}
    assert store.read_scored(store.scored(), 100)[3] == NOTHING

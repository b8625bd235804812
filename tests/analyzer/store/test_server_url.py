"""The store over the wire: what holds in process holds on a server and on a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import first_number
from tests.analyzer.store import test_append
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, T0_NS, events, generated, scores
from tests.analyzer.store.servers import fresh_database
from tests.analyzer.store.test_append import assert_rollup_equals_a_recount, insert_part, numbers

# Also on one server: what goes over the wire comes back as it went.
test_every_column_comes_back = test_append.test_every_column_comes_back_as_it_went_in
test_what_is_not_known_stays_null = test_append.test_what_is_not_known_stays_null
test_a_user_is_deleted = test_append.test_a_user_is_deleted_everywhere_and_no_longer_counts


@pytest.fixture
def store_url(server_url: str) -> Iterator[str]:
    with fresh_database(server_url) as url:
        yield url


def at_once(*work: Callable[[], object]) -> None:
    """Run everything at the same time; raise what one of them raised."""
    together = threading.Barrier(len(work))

    def start(each: Callable[[], object]) -> None:
        together.wait(30)
        each()

    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(start, each) for each in work]:
            done.result()


def test_analyzers_that_start_at_once_make_the_tables_once(store_url: str) -> None:
    at_once(*[lambda: open_store(store_url).close()] * 4)
    store = open_store(store_url)
    store.append(0, generated(0), NO_EVENTS, NO_METRICS)
    assert_rollup_equals_a_recount(store)
    store.close()


def test_two_analyzers_append_score_and_repair_side_by_side(store_url: str) -> None:
    n_segments = 6

    def analyze(source: int) -> None:
        store = open_store(store_url)
        store.hold([source])
        after: dict[int, int] = {}
        for n in range(n_segments):
            segment = first_number(source) + n
            if n % 3 == 1:  # as a process that died within it
                insert_part(store, segment, generated(n + 100 * source))
            store.append(
                segment, generated(n + 100 * source), NO_EVENTS, NO_METRICS, replay=n % 3 == 1
            )
            batch, _, last = store.read(after, 1)
            assert (len(batch), last) == (50, segment)
            store.append_scores(last, batch, scores(batch, tone=[1.0] * 50))
            store.mark_scored(last, 50, 50_000)
            after[source] = last
        store.close()

    at_once(lambda: analyze(1), lambda: analyze(2))
    store = open_store(store_url)
    sizes = store.sizes()
    assert (sizes["spans"], sizes["scores"]) == (2 * n_segments * 50,) * 2
    assert_rollup_equals_a_recount(store)
    after: dict[int, int] = {}
    n_read = 0
    while (read := store.read_scored(after, 100))[3] >= 0:
        n_read += len(read[0])
        after[read[3] >> 48] = read[3]
    assert n_read == sizes["spans"]
    store.close()


def test_what_a_replica_lacks_is_waited_for(
    store: ClickHouseStore, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cluster=" not in store_url:
        pytest.skip("one server lags behind nothing")
    store.append(0, generated(0), events({"body": "said"}), NO_METRICS)
    columns, settled = store._clients.columns, list[str]()

    def lags(*asked: object) -> pa.Table:
        rows = columns(*asked)  # type: ignore[arg-type]
        return rows if settled else rows.slice(1)

    monkeypatch.setattr(store._clients, "columns", lags)
    monkeypatch.setattr(store._clients, "settle", lambda *tables: settled.extend(tables))
    spans, said, _ = store.read({}, 100)
    assert (len(spans), len(said), settled) == (50, 1, ["spans", "events"])


def test_what_was_deleted_is_not_waited_for_again(store: ClickHouseStore) -> None:
    store.append(0, generated(0), NO_EVENTS, NO_METRICS)
    store.delete_user("user-0")
    assert len(store.read({}, 100)[0]) == 25


def test_a_minute_can_be_counted_again_and_again(store: ClickHouseStore) -> None:
    store.append(0, generated(0), NO_EVENTS, NO_METRICS)
    for _ in range(3):
        store._rebuild(0, [T0_NS // 60_000_000_000])
        assert_rollup_equals_a_recount(store)


def test_a_segment_that_could_not_be_removed_from_the_log_stays_stored(
    store: ClickHouseStore,
) -> None:
    for segment in (0, 1):
        store.append(segment, generated(segment), events({}), NO_METRICS)
    assert store.append(1, generated(1), events({}), NO_METRICS, replay=True) == 0
    assert store.append(0, generated(0), events({}), NO_METRICS) == 0
    assert (store.sizes()["spans"], store.sizes()["events"]) == (100, 2)
    assert_rollup_equals_a_recount(store)


def test_rows_of_one_trace_lie_together(store: ClickHouseStore, store_url: str) -> None:
    store.append(0, generated(0), NO_EVENTS, NO_METRICS)
    layout = store._clients.layout
    stored = f"SELECT count() FROM {layout.stored('spans')}"
    assert numbers(store, stored) == [[50]]
    if "cluster=" in store_url:
        assert layout.stored("spans") == "spans_local"
        assert layout.stored("segments") == "segments"


def test_a_database_that_is_not_there_is_named(server_url: str) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        open_store(server_url.replace("/default", "/nowhere"))


@pytest.mark.parametrize(
    "query", ["cluster=", "cluster=a'b", "cluster=a%20b", "cluster=a&cluster=b", "x=1"]
)
def test_a_query_of_a_url_that_means_nothing_is_refused(query: str) -> None:
    with pytest.raises(ConfigurationError, match="cluster"):
        open_store(f"clickhouse://127.0.0.1:1/d?{query}")

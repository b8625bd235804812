"""What the Collector's exporter recorded comes in as if it had been sent."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llmobs.analyzer.decode import decode_events, decode_spans
from llmobs.analyzer.normalize import normalize
from llmobs.analyzer.store import open_store
from llmobs.analyzer.store.importer import OtelRequest, OtelTables, _slices, import_otel
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import EventBatch, SpanBatch
from tests.analyzer.store.otel_exporter import create_tables, write_logs, write_spans
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, T0_NS, spans
from tests.analyzer.store.servers import fresh_database
from tests.clickhouse_http import served
from tests.otlp import attribute, chat_span

MINUTE_NS = 60_000_000_000
EVER = (0, 2**62)
RESOURCE = [attribute("service.name", "shop"), attribute("deployment.environment.name", "prod")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("server") / "store") as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    with fresh_database(server) as database:
        yield database


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    parts = urlsplit(url)
    opened = clickhouse_connect.get_client(
        host=parts.hostname, port=parts.port or 0, database=parts.path[1:]
    )
    yield opened
    opened.close()


def some_spans(n: int, *, step_ns: int = 1_000_000_007) -> list[Span]:
    chance = random.Random(n)
    made: list[Span] = []
    for i in range(n):
        span = chat_span(
            chance,
            at_ns=T0_NS + i * step_ns,
            session=str(i % 3),  # a name that looks like a number
            error="timeout" if i % 5 == 1 else "",
            attributes={"gen_ai.request.temperature": 0.25, "own": "7", "gen_ai.system": "openai"},
        )
        if i % 2:
            span.parent_span_id = made[-1].span_id
            span.trace_state = "ot=th:8"
        if i % 4 == 0:
            span.events.add(
                time_unix_nano=span.start_time_unix_nano + 5,
                name="exception",
                attributes=[attribute("exception.type", "ValueError")],
            )
            span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8)
        made.append(span)
    return made


def normalized(requests: list[bytes]) -> SpanBatch:
    batch = normalize(decode_spans(requests), now_ns=T0_NS, repairs=Counter())
    return SpanBatch(batch.table.sort_by([("ts_ns", "ascending"), ("span_id", "ascending")]))


def sent(made: list[Span], scope: str = "") -> list[bytes]:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(RESOURCE)
    group.scope_spans.add(scope={"name": scope}).spans.extend(made)
    return [request.SerializeToString()]


def bodies(requests: list[OtelRequest], signal: str = "traces") -> list[bytes]:
    return [request.body for request in requests if request.signal == signal]


@pytest.mark.parametrize("as_json", [False, True], ids=["maps", "json"])
def test_an_imported_span_is_the_one_that_was_sent(client: Client, url: str, as_json: bool) -> None:
    made = some_spans(40)
    create_tables(client, as_json=as_json)
    write_spans(client, RESOURCE, made, scope="genai", as_json=as_json)
    requests = list(import_otel(url, *EVER))
    assert sum(request.n_items for request in requests) == requests[0].n_total == 40
    imported, expected = normalized(bodies(requests)), normalized(sent(made, "genai"))
    for name in expected.table.schema.names:
        columns = (batch.table.column(name).to_pylist() for batch in (imported, expected))
        if name.startswith("attributes"):  # a JSON column has an order of its own
            columns = ([dict(row) for row in rows] for rows in columns)
        came, went = columns
        assert came == went, name
    assert imported.ints("input_tokens").tolist() == [100] * 40


def test_events_of_the_conventions_come_along_and_other_logs_stay(client: Client, url: str) -> None:
    create_tables(client)
    write_spans(client, RESOURCE, some_spans(1))
    judged = LogRecord(
        time_unix_nano=T0_NS + 5,
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        event_name="gen_ai.evaluation.result",
        body=AnyValue(string_value="fine"),
        attributes=[
            attribute("gen_ai.evaluation.name", "helpful"),
            attribute("gen_ai.evaluation.score.value", 0.75),
        ],
    )
    chatter = LogRecord(time_unix_nano=T0_NS, body=AnyValue(string_value="listening"))
    write_logs(client, RESOURCE, [judged, chatter])
    requests = list(import_otel(url, *EVER))
    events, rejected = decode_events(bodies(requests, "logs"))
    assert not rejected
    (row,) = EventBatch(events.table).table.to_pylist()
    assert (row["event_name"], row["service"], row["body"]) == (
        "gen_ai.evaluation.result",
        "shop",
        "fine",
    )
    assert dict(row["attributes_n"])["gen_ai.evaluation.score.value"] == 0.75
    assert (row["trace_id"], row["severity"]) == (b"t" * 16, 9)


def test_an_import_is_read_in_slices_and_can_go_on_behind_any(
    client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmobs.analyzer.store.importer._SLICE_ROWS", 20)
    monkeypatch.setattr("llmobs.analyzer.store.importer._REQUEST_ROWS", 7)
    made = some_spans(130, step_ns=MINUTE_NS // 50)  # fifty a minute: minutes are cut
    create_tables(client)
    write_spans(client, RESOURCE, made)
    whole = list(import_otel(url, *EVER))
    assert max(request.n_items for request in whole) == 7
    assert len({request.done_ns for request in whole}) > 6
    assert normalized(bodies(whole)).table.equals(normalized(sent(made)).table)
    for place in range(1, len(whole)):
        rest = list(import_otel(url, whole[place - 1].done_ns, EVER[1]))
        ids = {*normalized(bodies(whole[:place])).ids("span_id")}
        rest_ids = normalized(bodies(rest)).ids("span_id")
        assert len(ids | set(rest_ids)) == 130  # nothing is left out
        assert len(ids & set(rest_ids)) < 50  # at most a slice comes twice


def test_slices_cover_the_window_without_a_gap() -> None:
    minutes = {0: 10, 1: 4_000, 2: 4_000, 3: 52_000, 9: 1, 700: 5_000, 701: 6_000}
    since_ns, until_ns = 5 * 10**9, 701 * MINUTE_NS + 30 * 10**9
    slices = list(_slices(minutes, since_ns, until_ns))
    assert slices[0][0] == since_ns
    assert slices[-1][1] == until_ns
    for (_, end_ns), (start_ns, _) in itertools.pairwise(slices):
        assert end_ns <= start_ns
        between = range(-(-end_ns // MINUTE_NS), start_ns // MINUTE_NS)
        assert not set(between) & set(minutes)
    assert all(start_ns < end_ns for start_ns, end_ns in slices)
    assert sum(3 * MINUTE_NS <= start < 4 * MINUTE_NS for start, _ in slices) == 11
    assert list(_slices({}, 0, 10)) == []


def test_a_window_and_services_are_kept_to(client: Client, url: str) -> None:
    create_tables(client)
    other = [KeyValue(key="service.name", value=AnyValue(string_value="other"))]
    made = some_spans(10)
    write_spans(client, RESOURCE, made[:6])
    write_spans(client, other, made[6:])
    bounds = made[2].start_time_unix_nano, made[8].start_time_unix_nano
    assert sum(request.n_items for request in import_otel(url, *bounds)) == 6
    chosen = list(import_otel(url, *bounds, OtelTables(services=("other",))))
    assert normalized(bodies(chosen)).texts("service") == ["other", "other"]


def test_llmobs_own_view_can_be_imported(tmp_path: Path, url: str) -> None:
    store = open_store(url)
    store.append(
        0,
        spans({"operation": "chat", "service": "app", "kind": 3, "input_tokens": 7, "status": 2}),
        NO_EVENTS,
        NO_METRICS,
    )
    store.close()
    (request,) = import_otel(url, *EVER)
    (row,) = normalized([request.body]).table.to_pylist()
    assert (row["operation"], row["service"], row["kind"]) == ("chat", "app", 3)
    assert (row["input_tokens"], row["status"]) == (7, 2)


def test_a_table_that_is_not_there_is_named(url: str) -> None:
    with pytest.raises(StoreError, match="'otel_traces'"):
        next(import_otel(url, *EVER))
    with pytest.raises(ConfigurationError, match="name of a table"):
        OtelTables("otel_traces; DROP TABLE x")

"""Spans and events out of the tables of the OpenTelemetry Collector's ClickHouse exporter.

They become OTLP export requests, for the front door: what was recorded before llmobs came is
then normalized, priced, scored and known by its ids like what comes today. The exporter writes
every attribute as text; numbers of the conventions are made numbers again.
"""

# ruff: noqa: S608 -- names that are put into SQL as text are checked; values are bound

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from llmobs.analyzer.store.base import Row
from llmobs.analyzer.store.clients import Clients
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import Signal

__all__ = ["OtelRequest", "OtelTables", "import_otel"]

_MINUTE_NS: Final = 60_000_000_000
# Rows that are read at once: some tens of MB with long prompts.
_SLICE_ROWS: Final = 5_000
# Well below what a receiver takes, and few enough to be one step of a progress bar.
_REQUEST_ROWS: Final = 500
_REQUEST_BYTES: Final = 4 << 20
_MEMORY_BYTES: Final = 2 << 30
_TIMEOUT_S: Final = 120.0

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)?")
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# A text like "7" is a number under these keys, and may be a name under any other.
_OF_NUMBERS: Final = (
    "gen_ai.usage.",
    "gen_ai.request.",
    "gen_ai.evaluation.score.value",
    "gen_ai.response.time_to_first_chunk",
    "llm.token_count.",
    "llm.usage.",
    "llmobs.cost",
)
_LISTS: Final = frozenset({"gen_ai.response.finish_reasons", "gen_ai.request.stop_sequences"})
_EVENTS: Final = ("gen_ai.", "llmobs.")


@dataclass(frozen=True, slots=True)
class OtelTables:
    """Where the exporter wrote.

    Attributes:
        traces: Table of spans, with a database before a dot or without.
        logs: Table of log records, of which events of the GenAI conventions are read; where
            there is none, none are.
        services: Read these services alone; none: all.
    """

    traces: str = "otel_traces"
    logs: str = "otel_logs"
    services: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.traces, self.logs):
            if not _IDENTIFIER.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} is no name of a table; use one like otel_traces or otel.otel_traces"
                )


class OtelRequest(NamedTuple):
    """One export request of an import.

    Attributes:
        signal: ``traces`` or ``logs``.
        body: In protobuf.
        n_items: Spans or log records in it.
        done_ns: Rows before this time came with it and those before it: where to go on.
        n_total: Rows of the whole import.
    """

    signal: Signal
    body: bytes
    n_items: int
    done_ns: int
    n_total: int


def import_otel(
    url: str, since_ns: int, until_ns: int, tables: OtelTables | None = None
) -> Iterator[OtelRequest]:
    """Read the exporter's tables from old to new as export requests.

    Args:
        url: Of the server and database, as in `open_store`.
        since_ns: Begin of what is read, by start of the span.
        until_ns: Its end, exclusive.
        tables: Their names.

    Raises:
        ConfigurationError: The URL or a name is wrong.
        StoreError: The server can't be reached, or has no such table of spans.
    """
    tables = tables or OtelTables()
    clients = Clients(url, memory_limit_bytes=_MEMORY_BYTES, query_timeout_s=_TIMEOUT_S)
    try:
        sources = list(_sources(clients, tables))
        minutes: Counter[int] = Counter()
        for source in sources:
            minutes += source.minutes(since_ns, until_ns)
        for start_ns, end_ns in _slices(minutes, since_ns, until_ns):
            requests = [
                request for source in sources for request in source.requests(start_ns, end_ns)
            ]
            for place, (signal, body, n_items) in enumerate(requests, start=1):
                done_ns = end_ns if place == len(requests) else start_ns
                yield OtelRequest(signal, body, n_items, done_ns, minutes.total())
    finally:
        clients.close()


def _slices(minutes: Mapping[int, int], since_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
    """Cut the window into pieces of about `_SLICE_ROWS`: whole minutes, or parts of one."""
    start_ns, n = since_ns, 0
    for minute in sorted(minutes):
        begin_ns, end_ns = minute * _MINUTE_NS, (minute + 1) * _MINUTE_NS
        if n and n + minutes[minute] > _SLICE_ROWS:
            yield start_ns, begin_ns
            start_ns, n = begin_ns, 0
        n += minutes[minute]
        n_parts = -(-n // _SLICE_ROWS)
        if n_parts > 1:  # this minute alone
            start_ns = max(begin_ns, since_ns)
            for part in range(1, n_parts):
                cut_ns = begin_ns + _MINUTE_NS * part // n_parts
                if start_ns < cut_ns < until_ns:
                    yield start_ns, cut_ns
                    start_ns = cut_ns
            yield start_ns, min(end_ns, until_ns)
            start_ns, n = end_ns, 0
    if n:
        yield start_ns, until_ns


_COLUMNS: Final = (
    "TraceId",
    "SpanId",
    "ServiceName",
    "ResourceAttributes",
    "ScopeName",
    "ScopeVersion",
)
_COLUMNS_OF_SPANS: Final = (
    *_COLUMNS,
    "ParentSpanId",
    "TraceState",
    "SpanName",
    "SpanKind",
    "SpanAttributes",
    "Duration",
    "StatusCode",
    "StatusMessage",
    "Events.Timestamp",
    "Events.Name",
    "Events.Attributes",
    "Links.TraceId",
    "Links.SpanId",
    "Links.TraceState",
    "Links.Attributes",
)
_COLUMNS_OF_LOGS: Final = (
    *_COLUMNS,
    "SeverityNumber",
    "SeverityText",
    "Body",
    "EventName",
    "LogAttributes",
)


class _Source:
    """One table of the exporter, in whatever shape its version made it.

    Args:
        clients: Where it is.
        table: Its name.
        signal: What it holds.
        shape: Type of each column that it has.
        services: Which services to read; none: all.
    """

    def __init__(
        self,
        clients: Clients,
        table: str,
        signal: Signal,
        shape: Mapping[str, str],
        services: Sequence[str],
    ) -> None:
        self._clients, self._signal = clients, signal
        self._table = ".".join(f"`{part}`" for part in table.split("."))
        names = _COLUMNS_OF_SPANS if signal == "traces" else _COLUMNS_OF_LOGS
        self._columns = ", ".join(_column(name, shape.get(name)) for name in names)
        conditions = [
            "Timestamp >= fromUnixTimestamp64Nano({since:Int64})",
            "Timestamp < fromUnixTimestamp64Nano({until:Int64})",
        ]
        if services:
            conditions.append("ServiceName IN (SELECT arrayJoin({services:Array(String)}))")
        if signal == "logs":
            conditions.append(_is_event(shape))
        self._where = " AND ".join(conditions)
        self._bound = {"services": list(services)} if services else {}

    def minutes(self, since_ns: int, until_ns: int) -> Counter[int]:
        """Return how many rows each minute has that has some."""
        rows = self._clients.ask(
            f"""SELECT intDiv(toUnixTimestamp64Nano(Timestamp), {_MINUTE_NS}) AS minute,
              count() AS n FROM {self._table} WHERE {self._where} GROUP BY minute""",
            {**self._bound, "since": since_ns, "until": until_ns},
        )
        return Counter({int(row["minute"]): int(row["n"]) for row in rows})

    def requests(self, since_ns: int, until_ns: int) -> Iterator[tuple[Signal, bytes, int]]:
        """Read a slice of time as requests: signal, body, number of rows."""
        rows = self._clients.columns(
            f"""SELECT toUnixTimestamp64Nano(Timestamp) AS ts_ns, {self._columns}
            FROM {self._table} WHERE {self._where} ORDER BY Timestamp, TraceId, SpanId""",
            {**self._bound, "since": since_ns, "until": until_ns},
        )
        for start in range(0, rows.num_rows, _REQUEST_ROWS):
            yield from self._cut(rows.slice(start, _REQUEST_ROWS))

    def _cut(self, rows: pa.Table) -> Iterator[tuple[Signal, bytes, int]]:
        """Halve what would be too large a request."""
        if rows.num_rows > 1 and rows.nbytes > _REQUEST_BYTES:
            half = rows.num_rows // 2
            yield from self._cut(rows.slice(0, half))
            yield from self._cut(rows.slice(half))
            return
        build = _traces_request if self._signal == "traces" else _logs_request
        yield self._signal, build(rows.to_pylist()), rows.num_rows


def _sources(clients: Clients, tables: OtelTables) -> Iterator[_Source]:
    wanted: tuple[tuple[Signal, str], ...] = (("traces", tables.traces), ("logs", tables.logs))
    for signal, table in wanted:
        database, _, name = table.rpartition(".")
        rows = clients.ask(
            """SELECT name, type FROM system.columns WHERE table = {table:String}
            AND database = if({database:String} = '', currentDatabase(), {database:String})""",
            {"database": database, "table": name},
        )
        if rows:
            shape = {row["name"]: row["type"] for row in rows}
            yield _Source(clients, table, signal, shape, tables.services)
        elif signal == "traces":
            raise StoreError(
                f"there is no table {table!r}; name the one that the Collector's ClickHouse "
                "exporter writes spans to"
            )


def _column(name: str, kind: str | None) -> str:
    """Return how a column is asked for: times as ns, JSON as text, "" where it is missing."""
    if kind is None:
        return f"'' AS `{name}`"
    if name.endswith(".Timestamp"):
        return f"arrayMap(t -> toUnixTimestamp64Nano(t), `{name}`) AS `{name}`"
    if kind.startswith("JSON"):
        return f"toString(`{name}`) AS `{name}`"
    if kind.startswith("Array(JSON"):
        return f"arrayMap(a -> toString(a), `{name}`) AS `{name}`"
    return f"`{name}`"


def _is_event(shape: Mapping[str, str]) -> str:
    """Return the condition for events; an older exporter keeps their name as an attribute."""
    names = ["EventName"] if "EventName" in shape else []
    if shape["LogAttributes"].startswith("JSON"):
        names.append("toString(LogAttributes.event.name)")
    else:
        names.append("LogAttributes['event.name']")
    told = (f"startsWith({name}, '{start}')" for name in names for start in _EVENTS)
    return f"({' OR '.join(told)})"


def _traces_request(rows: Sequence[Row]) -> bytes:
    request = ExportTraceServiceRequest()
    for resource, scope, of_scope in _by_scope(rows):
        group = request.resource_spans.add(resource=resource).scope_spans.add(scope=scope)
        group.spans.extend(_span(row) for row in of_scope)
    return request.SerializeToString()


def _logs_request(rows: Sequence[Row]) -> bytes:
    request = ExportLogsServiceRequest()
    for resource, scope, of_scope in _by_scope(rows):
        group = request.resource_logs.add(resource=resource).scope_logs.add(scope=scope)
        group.log_records.extend(_log_record(row) for row in of_scope)
    return request.SerializeToString()


def _by_scope(
    rows: Sequence[Row],
) -> Iterator[tuple[Resource, InstrumentationScope, list[Row]]]:
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        resource = row["ServiceName"], str(row["ResourceAttributes"])
        groups.setdefault((*resource, row["ScopeName"], row["ScopeVersion"]), []).append(row)
    for (service, _, name, version), of_scope in groups.items():
        attributes = {"service.name": service, **_map(of_scope[0]["ResourceAttributes"])}
        yield (
            Resource(attributes=_attributes(attributes)),
            InstrumentationScope(name=name, version=version),
            of_scope,
        )


def _span(row: Row) -> Span:
    start_ns = row["ts_ns"]
    return Span(
        trace_id=_id(row["TraceId"], 16),
        span_id=_id(row["SpanId"], 8),
        parent_span_id=_id(row["ParentSpanId"], 8),
        trace_state=row["TraceState"],
        name=row["SpanName"],
        kind=_number(Span.SpanKind, "SPAN_KIND_", row["SpanKind"]),
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + int(row["Duration"] or 0),
        status=Status(
            code=_number(Status.StatusCode, "STATUS_CODE_", row["StatusCode"]),
            message=row["StatusMessage"],
        ),
        attributes=_attributes(_map(row["SpanAttributes"])),
        events=[
            Span.Event(time_unix_nano=ts_ns, name=name, attributes=_attributes(_map(attributes)))
            for ts_ns, name, attributes in zip(
                row["Events.Timestamp"], row["Events.Name"], row["Events.Attributes"], strict=True
            )
        ],
        links=[
            Span.Link(
                trace_id=_id(trace_id, 16),
                span_id=_id(span_id, 8),
                trace_state=state,
                attributes=_attributes(_map(attributes)),
            )
            for trace_id, span_id, state, attributes in zip(
                row["Links.TraceId"],
                row["Links.SpanId"],
                row["Links.TraceState"],
                row["Links.Attributes"],
                strict=True,
            )
        ],
    )


def _log_record(row: Row) -> LogRecord:
    attributes = _map(row["LogAttributes"])
    return LogRecord(
        time_unix_nano=row["ts_ns"],
        trace_id=_id(row["TraceId"], 16),
        span_id=_id(row["SpanId"], 8),
        severity_number=row["SeverityNumber"],
        severity_text=row["SeverityText"],
        body=AnyValue(string_value=row["Body"]),
        event_name=row["EventName"] or str(attributes.get("event.name", "")),
        attributes=_attributes(attributes),
    )


def _map(value: Any) -> dict[str, Any]:
    """Read a map as the engine gives it, or a JSON column as text, keys with dots again."""
    if not value:
        return {}
    return _flat(json.loads(value)) if isinstance(value, str) else dict(value)


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif value is not None:
            flat[prefix + key] = value
    return flat


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(_typed(key, value))) for key, value in values.items()]


def _typed(key: str, value: Any) -> Any:
    """Return what the conventions say a text was; a value of a JSON column has its type."""
    if not isinstance(value, str):
        return value
    if key in _LISTS and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if key.startswith(_OF_NUMBERS):
        if _INTEGER.fullmatch(value):
            return int(value)
        if _NUMBER.fullmatch(value):
            return float(value)
    return value


def _any(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if -(1 << 63) <= value < 1 << 63:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[_any(each) for each in value]))
        case _:
            return AnyValue(string_value=str(value))


def _id(text: str, size: int) -> bytes:
    """Read an id; what is none stays empty, and the receiver counts it."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return b""
    return found if len(found) == size else b""


def _number(names: Any, prefix: str, text: str) -> Any:
    """Return the number of ``Client``, or of ``SPAN_KIND_CLIENT`` as an old exporter wrote it."""
    return dict(names.items()).get(prefix + text.upper().removeprefix(prefix), 0)

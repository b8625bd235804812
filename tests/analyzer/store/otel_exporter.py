"""Tables as the Collector's ClickHouse exporter makes them, and rows as it writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["create_tables", "write_logs", "write_spans"]

# Columns of opentelemetry-collector-contrib, exporter/clickhouseexporter, v0.154, without the
# indexes; {map} is JSON where the exporter was told to write it.
_TRACES: Final = """CREATE TABLE {name} (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)), TraceId String, SpanId String,
  ParentSpanId String, TraceState String, SpanName LowCardinality(String),
  SpanKind LowCardinality(String), ServiceName LowCardinality(String),
  ResourceAttributes {map}, ScopeName String, ScopeVersion String, SpanAttributes {map},
  Duration UInt64, StatusCode LowCardinality(String), StatusMessage String,
  Events Nested (Timestamp DateTime64(9), Name LowCardinality(String), Attributes {map}),
  Links Nested (TraceId String, SpanId String, TraceState String, Attributes {map})
) ENGINE = MergeTree PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp), Timestamp)"""
_LOGS: Final = """CREATE TABLE {name} (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TimestampTime DateTime DEFAULT toDateTime(Timestamp), TraceId String, SpanId String,
  TraceFlags UInt8, SeverityText LowCardinality(String), SeverityNumber UInt8,
  ServiceName LowCardinality(String), Body String, ResourceSchemaUrl LowCardinality(String),
  ResourceAttributes {map}, ScopeSchemaUrl LowCardinality(String), ScopeName String,
  ScopeVersion LowCardinality(String), ScopeAttributes {map}, LogAttributes {map}
) ENGINE = MergeTree PARTITION BY toDate(TimestampTime)
ORDER BY (ServiceName, TimestampTime, Timestamp)"""
_MAP: Final = "Map(LowCardinality(String), String)"
_KINDS: Final = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_CODES: Final = ("Unset", "Ok", "Error")


def create_tables(client: Client, *, as_json: bool = False) -> None:
    kind = "JSON" if as_json else _MAP
    client.command(_TRACES.replace("{name}", "otel_traces").replace("{map}", kind))
    client.command(_LOGS.replace("{name}", "otel_logs").replace("{map}", kind))


def write_spans(
    client: Client,
    resource: Sequence[KeyValue],
    spans: Iterable[Span],
    *,
    scope: str = "",
    as_json: bool = False,
) -> None:
    told = _json if as_json else _texts
    rows = [
        {
            "Timestamp": _time(span.start_time_unix_nano),
            "TraceId": span.trace_id.hex(),
            "SpanId": span.span_id.hex(),
            "ParentSpanId": span.parent_span_id.hex(),
            "TraceState": span.trace_state,
            "SpanName": span.name,
            "SpanKind": _KINDS[span.kind],
            "ServiceName": _texts(resource).get("service.name", ""),
            "ResourceAttributes": told(resource),
            "ScopeName": scope,
            "SpanAttributes": told(span.attributes),
            "Duration": span.end_time_unix_nano - span.start_time_unix_nano,
            "StatusCode": _CODES[span.status.code],
            "StatusMessage": span.status.message,
            "Events.Timestamp": [_time(event.time_unix_nano) for event in span.events],
            "Events.Name": [event.name for event in span.events],
            "Events.Attributes": [told(event.attributes) for event in span.events],
            "Links.TraceId": [link.trace_id.hex() for link in span.links],
            "Links.SpanId": [link.span_id.hex() for link in span.links],
            "Links.TraceState": [link.trace_state for link in span.links],
            "Links.Attributes": [told(link.attributes) for link in span.links],
        }
        for span in spans
    ]
    _insert(client, "otel_traces", rows)


def write_logs(client: Client, resource: Sequence[KeyValue], records: Iterable[LogRecord]) -> None:
    rows = [
        {
            "Timestamp": _time(record.time_unix_nano),
            "TraceId": record.trace_id.hex(),
            "SpanId": record.span_id.hex(),
            "SeverityNumber": record.severity_number,
            "ServiceName": _texts(resource).get("service.name", ""),
            "Body": _text(record.body),
            "ResourceAttributes": _texts(resource),
            "LogAttributes": {**_texts(record.attributes), "event.name": record.event_name},
        }
        for record in records
    ]
    _insert(client, "otel_logs", rows)


def _insert(client: Client, table: str, rows: Sequence[dict[str, Any]]) -> None:
    lines = "\n".join(json.dumps(row) for row in rows)
    client.raw_insert(table, insert_block=lines, fmt="JSONEachRow")


def _time(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {each.key: _text(each.value) for each in attributes}


def _text(value: AnyValue) -> str:
    """Say a value as the Collector's `AsString` does."""
    plain = _plain(value)
    if isinstance(plain, str):
        return plain
    return json.dumps(plain, separators=(",", ":"))


def _json(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Nest keys at their dots, as a JSON column does."""
    tree: dict[str, Any] = {}
    for each in attributes:
        *path, last = each.key.split(".")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[last] = _plain(each.value)
    return tree


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(each) for each in value.array_value.values]
    return "" if kind is None else getattr(value, kind)

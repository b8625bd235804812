"""A receiver for tests: a check by the OTLP schema, a sink in memory, and plain senders."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmobs.errors import BadRequestError
from llmobs.records import Signal

TIMEOUT_S = 20.0
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
PATHS: Mapping[Signal, str] = {
    "traces": "/v1/traces",
    "logs": "/v1/logs",
    "metrics": "/v1/metrics",
}
KINDS: Mapping[Signal, Any] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}


def check(signal: Signal, body: bytes, is_json: bool) -> tuple[bytes, int]:
    """Parse with protobuf's own parsers, to which a request is right or wrong as a whole."""
    kind = KINDS[signal]
    try:
        message = json_format.Parse(body, kind()) if is_json else kind.FromString(body)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"not an export request: {str(error)[:100]}") from error
    return message.SerializeToString(), n_items(message)


def n_items(message: Any) -> int:
    """Count the spans, records or metrics of an export request."""
    if isinstance(message, ExportTraceServiceRequest):
        return sum(len(s.spans) for r in message.resource_spans for s in r.scope_spans)
    if isinstance(message, ExportLogsServiceRequest):
        return sum(len(s.log_records) for r in message.resource_logs for s in r.scope_logs)
    return sum(len(s.metrics) for r in message.resource_metrics for s in r.scope_metrics)


def export(signal: Signal, name: str = "one", *, n: int = 1) -> Any:
    """Make an export request with `n` items of a name."""
    message = KINDS[signal]()
    for i in range(n):
        if isinstance(message, ExportTraceServiceRequest):
            spans = message.resource_spans.add().scope_spans.add().spans
            spans.add(name=name, trace_id=i.to_bytes(16, "big"), span_id=i.to_bytes(8, "big"))
        elif isinstance(message, ExportLogsServiceRequest):
            records = message.resource_logs.add().scope_logs.add().log_records
            records.add(event_name=name, time_unix_nano=i)
        else:
            message.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    return message


@dataclass
class MemorySink:
    """Keeps requests in a list and answers what it is told to."""

    kept: list[tuple[Signal, bytes]] = field(default_factory=list)
    answer: Exception | None = None
    silent: bool = False
    trouble: str | None = None
    closed: bool = False

    def append(
        self, signal: Signal, request: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        if self.silent:
            return
        if self.answer is None:
            self.kept.append((signal, request))
        done(self.answer)

    def problem(self) -> str | None:
        return self.trouble

    def stats(self) -> Mapping[str, float]:
        return {"n_requests": len(self.kept), "queue_bytes": 0}

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def send(
    port: int,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
) -> Answer:
    """Send one HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()

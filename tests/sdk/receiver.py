"""A real OTLP/HTTP receiver on a free port: keeps what it is sent, can be slow, deaf or rude."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tests.listener import serving

__all__ = ["Event", "Point", "Receiver", "Span", "receiver"]


@dataclass
class Span:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    flags: int
    start_ns: int
    end_ns: int
    status: int
    message: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, str]]
    resource: dict[str, Any]
    scope: str


@dataclass
class Event:
    name: str
    severity: int
    trace_id: str
    span_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Point:
    name: str
    unit: str
    kind: str
    attributes: dict[str, Any]
    count: int
    total: float
    bounds: list[float]
    counts: list[int]
    resource: dict[str, Any]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind)


def _attributes(pairs: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    pair: KeyValue
    for pair in pairs:
        assert pair.key not in out, f"{pair.key} twice"
        out[pair.key] = _value(pair.value)
    return out


@dataclass
class Receiver:
    """What arrived. `mode`: ok, deaf (never answers), or the status to answer with."""

    url: str = ""
    mode: str | int = "ok"
    delay_s: float = 0.0
    requests: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def bodies(self, path: str) -> list[bytes]:
        return [body for at, body, _ in list(self.requests) if at == path]

    @property
    def spans(self) -> list[Span]:
        out = []
        for body in self.bodies("/v1/traces"):
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _attributes(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        out.append(
                            Span(
                                name=span.name,
                                kind=span.kind,
                                trace_id=span.trace_id.hex(),
                                span_id=span.span_id.hex(),
                                parent_id=span.parent_span_id.hex(),
                                trace_state=span.trace_state,
                                flags=span.flags,
                                start_ns=span.start_time_unix_nano,
                                end_ns=span.end_time_unix_nano,
                                status=span.status.code,
                                message=span.status.message,
                                attributes=_attributes(span.attributes),
                                events=[(e.name, _attributes(e.attributes)) for e in span.events],
                                links=[(e.trace_id.hex(), e.span_id.hex()) for e in span.links],
                                resource=resource,
                                scope=of_scope.scope.name,
                            )
                        )
        return out

    @property
    def events(self) -> list[Event]:
        out = []
        for body in self.bodies("/v1/logs"):
            for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                resource = _attributes(of_resource.resource.attributes)
                for of_scope in of_resource.scope_logs:
                    for record in of_scope.log_records:
                        out.append(
                            Event(
                                name=record.event_name,
                                severity=record.severity_number,
                                trace_id=record.trace_id.hex(),
                                span_id=record.span_id.hex(),
                                attributes=_attributes(record.attributes),
                                resource=resource,
                            )
                        )
        return out

    @property
    def points(self) -> list[Point]:
        """Points of the last request: they are cumulative."""
        out: list[Point] = []
        bodies = self.bodies("/v1/metrics")
        if not bodies:
            return out
        for of_resource in ExportMetricsServiceRequest.FromString(bodies[-1]).resource_metrics:
            resource = _attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    kind = metric.WhichOneof("data") or ""
                    for point in getattr(metric, kind).data_points:
                        is_histogram = kind == "histogram"
                        value = 0.0 if is_histogram else point.as_int or point.as_double
                        out.append(
                            Point(
                                name=metric.name,
                                unit=metric.unit,
                                kind=kind,
                                attributes=_attributes(point.attributes),
                                count=point.count if is_histogram else 1,
                                total=point.sum if is_histogram else value,
                                bounds=list(point.explicit_bounds) if is_histogram else [],
                                counts=list(point.bucket_counts) if is_histogram else [],
                                resource=resource,
                            )
                        )
        return out

    def span(self, name: str) -> Span:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{name!r} among {[span.name for span in self.spans]}"
        return found[0]

    def point(self, name: str, **wanted: Any) -> Point:
        found = [
            point
            for point in self.points
            if point.name == name
            and all(point.attributes.get(k.replace("__", ".")) == v for k, v in wanted.items())
        ]
        assert len(found) == 1, f"{name!r} {wanted} among {[p.name for p in self.points]}"
        return found[0]

    def wait_for_spans(self, n_spans: int, timeout_s: float = 10.0) -> None:
        end_s = time.monotonic() + timeout_s
        while len(self.spans) < n_spans and time.monotonic() < end_s:
            time.sleep(0.02)
        assert len(self.spans) >= n_spans, f"{len(self.spans)} of {n_spans} spans"

    def json(self, path: str) -> list[dict[str, Any]]:
        kind: Any = {
            "/v1/traces": ExportTraceServiceRequest,
            "/v1/logs": ExportLogsServiceRequest,
            "/v1/metrics": ExportMetricsServiceRequest,
        }[path]
        return [MessageToDict(kind.FromString(body)) for body in self.bodies(path)]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver; it ends with the block, deaf connections included."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.arrived.set()
            if kept.mode == "deaf":
                kept.ended.wait(60)
                self.close_connection = True
                return
            if kept.delay_s:
                kept.ended.wait(kept.delay_s)
            status = kept.mode if isinstance(kept.mode, int) else 200
            if status == 200:
                kept.requests.append((self.path, body, dict(self.headers)))
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with serving(Handler) as kept.url:
        try:
            yield kept
        finally:
            kept.ended.set()

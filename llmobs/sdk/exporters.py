"""OpenTelemetry's exporters, and the door through which they send what is encoded already."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from importlib import import_module
from time import monotonic
from typing import Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from llmobs.sdk.guarded import ExportThreadFilter, guarded
from llmobs.sdk.runtime import Protocol, Settings

__all__ = [
    "RETRY_PAUSE_S",
    "THREAD_NAME",
    "Exporters",
    "Outcome",
    "encode_events",
    "encode_spans",
    "import_exporters",
]

THREAD_NAME: Final = "llmobs-export"
# What OTLP asks a sender to try again after; all else that is no success is a refusal, and the same
# bytes would be refused again.
_RETRYABLE: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# An exporter that doesn't say why it failed tries again by itself when that may help, after a
# second at least: a failure that comes sooner is taken for a refusal.
REFUSED_WITHIN_S: Final = 0.5
# The exporters wait from try to try, and give up after ten seconds or at once where the receiver
# asks for more; this is on top.
RETRY_PAUSE_S: Final = 1.0
_FILTER: Final = ExportThreadFilter(THREAD_NAME)


# Modules that the exporters import when they are made and at their first request.
_IMPORTED_LATE: Final = {
    "http/protobuf": (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.exporter.otlp.proto.http._log_exporter",
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
        "requests",
        "netrc",
        "encodings.idna",
        "urllib3.contrib.hface.protocols.http1._h11",  # of urllib3-future alone
    ),
    "grpc": (
        "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
        "opentelemetry.exporter.otlp.proto.grpc._log_exporter",
        "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    ),
}


def import_exporters(protocol: Protocol) -> None:
    """Import all that the sender needs, in the calling thread.

    A fork while another thread imports leaves the module's lock held in the child for good: our
    sender would wait for it there, and so would the application.
    """
    for name in _IMPORTED_LATE[protocol]:
        with suppress(ImportError):  # what is needed and missing is told when it is used
            import_module(name)


class Outcome(Enum):
    """What became of a request; the value is the reason under which its items count as lost."""

    TAKEN = "taken"
    REFUSED = "refused"
    AWAY = "not_taken"
    SICK = "not_describable"
    UNREADABLE = "spool_unreadable"


class Exporters:
    """OpenTelemetry's exporters for the three signals; None where the environment says ``none``."""

    def __init__(self, settings: Settings) -> None:
        self.spans: SpanExporter | None = None
        self.logs: LogRecordExporter | None = None
        self.metrics: MetricExporter | None = None
        make = _grpc if settings.protocol == "grpc" else _http
        spans, logs, metrics = make(settings)
        if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
            self.spans = spans()
        if os.environ.get("OTEL_LOGS_EXPORTER") != "none":
            self.logs = logs()
        if os.environ.get("OTEL_METRICS_EXPORTER") != "none":
            self.metrics = metrics()
        self.post_spans = _door_for_bytes(self.spans)
        self.post_events = _door_for_bytes(self.logs)
        for exporter in (self.spans, self.logs, self.metrics):
            if exporter is not None:
                # Their own line per failed batch would drown the application's log.
                logging.getLogger(type(exporter).__module__).addFilter(_FILTER)
        for name in ("grpc.exporter", "common._internal"):  # the latter quotes content
            logging.getLogger(f"opentelemetry.exporter.otlp.proto.{name}").addFilter(_FILTER)

    def export_spans(self, spans: Sequence[ReadableSpan]) -> Outcome:
        """Send spans; raises where their encoding fails."""
        exporter, post = self.spans, self.post_spans
        if post is not None:
            return post(encode_spans(spans))
        if exporter is None:
            return Outcome.REFUSED
        return _by_time(lambda: exporter.export(spans) is SpanExportResult.SUCCESS)

    def export_events(self, events: Sequence[ReadableLogRecord]) -> Outcome:
        """Send events; raises where their encoding fails."""
        exporter, post = self.logs, self.post_events
        if post is not None:
            return post(encode_events(events))
        if exporter is None:
            return Outcome.REFUSED
        return _by_time(lambda: exporter.export(events) is LogRecordExportResult.SUCCESS)

    def shutdown(self) -> None:
        """End them; one that waits for another try stops waiting."""
        for exporter in (self.spans, self.logs, self.metrics):
            if exporter is not None:
                with guarded("shut an exporter down"):
                    exporter.shutdown()


def encode_spans(spans: Sequence[ReadableSpan]) -> bytes:
    """Return an ExportTraceServiceRequest of other instrumentations' spans."""
    from opentelemetry.exporter.otlp.proto.common import trace_encoder

    return trace_encoder.encode_spans(spans).SerializeToString()


def encode_events(events: Sequence[ReadableLogRecord]) -> bytes:
    """Return an ExportLogsServiceRequest."""
    from opentelemetry.exporter.otlp.proto.common import _log_encoder

    return _log_encoder.encode_logs(events).SerializeToString()


def _door_for_bytes(exporter: object) -> Callable[[bytes], Outcome] | None:
    """Return what sends a request that is encoded already and tells what became of it.

    The door is not public. None where it isn't there, as with gRPC or another version: such an
    exporter gets objects to encode.
    """
    export = getattr(getattr(exporter, "_client", None), "export", None)
    if export is None:
        return None

    def post(request: bytes) -> Outcome:
        result = export(request)
        if result.success:
            return Outcome.TAKEN
        if result.status_code is None or result.status_code in _RETRYABLE:
            return Outcome.AWAY
        return Outcome.REFUSED

    return post


def _by_time(export: Callable[[], bool]) -> Outcome:
    began_s = monotonic()
    if export():
        return Outcome.TAKEN
    is_refusal = monotonic() - began_s < REFUSED_WITHIN_S
    return Outcome.REFUSED if is_refusal else Outcome.AWAY


Makers = tuple[
    Callable[[], SpanExporter], Callable[[], LogRecordExporter], Callable[[], MetricExporter]
]


def _http(settings: Settings) -> Makers:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    base = None if settings.endpoint is None else settings.endpoint.rstrip("/")
    headers = None if settings.headers is None else dict(settings.headers)

    def url(signal: str) -> str | None:
        return None if base is None else f"{base}/v1/{signal}"

    return (
        lambda: OTLPSpanExporter(endpoint=url("traces"), headers=headers),
        lambda: OTLPLogExporter(endpoint=url("logs"), headers=headers),
        lambda: OTLPMetricExporter(endpoint=url("metrics"), headers=headers),
    )


def _grpc(settings: Settings) -> Makers:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    # gRPC takes lower-case keys alone.
    headers = tuple((k.lower(), v) for k, v in (settings.headers or {}).items()) or None
    url = settings.endpoint
    return (
        lambda: OTLPSpanExporter(endpoint=url, headers=headers),
        lambda: OTLPLogExporter(endpoint=url, headers=headers),
        lambda: OTLPMetricExporter(endpoint=url, headers=headers),
    )

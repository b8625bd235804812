"""The one background thread: takes finished spans in batches, describes, counts and sends them."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from importlib import import_module
from time import monotonic, time_ns
from typing import Any, Final, TypeVar

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from llmobs import semconv
from llmobs.sdk.buffer import REQUEST_BYTES, Buffer, Item
from llmobs.sdk.content import sendable
from llmobs.sdk.describe import (
    SCOPE,
    Described,
    describe,
    failure_message,
    put_content,
    to_readable,
)
from llmobs.sdk.foreign import EventItem, ForeignItem, scrubbed, scrubbed_event
from llmobs.sdk.guarded import ExportThreadFilter, guarded, note_fault, report
from llmobs.sdk.metrics import Metrics
from llmobs.sdk.runtime import Protocol, Runtime, Settings
from llmobs.sdk.span import LiveSpan
from llmobs.sdk.wire import encode_request, encode_span

__all__ = ["Sender", "import_exporters"]

_T = TypeVar("_T")
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


class _Outcome(Enum):
    """What became of a request; the value is the reason under which its items count as lost."""

    TAKEN = "taken"
    REFUSED = "refused"
    AWAY = "not_taken"
    SICK = "not_describable"


class _Exporters:
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

    def export_spans(self, spans: Sequence[ReadableSpan]) -> _Outcome:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        exporter, post = self.spans, self.post_spans
        if post is not None:
            return post(encode_spans(spans).SerializeToString())
        if exporter is None:
            return _Outcome.REFUSED
        return _by_time(lambda: exporter.export(spans) is SpanExportResult.SUCCESS)

    def export_events(self, events: Sequence[ReadableLogRecord]) -> _Outcome:
        from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

        exporter, post = self.logs, self.post_events
        if post is not None:
            return post(encode_logs(events).SerializeToString())
        if exporter is None:
            return _Outcome.REFUSED
        return _by_time(lambda: exporter.export(events) is LogRecordExportResult.SUCCESS)

    def shutdown(self) -> None:
        for exporter in (self.spans, self.logs, self.metrics):
            if exporter is not None:
                with guarded("shut an exporter down"):
                    exporter.shutdown()


def _door_for_bytes(exporter: object) -> Callable[[bytes], _Outcome] | None:
    """Return what sends a request that is encoded already and tells what became of it.

    The door is not public. None where it isn't there, as with gRPC or another version: such an
    exporter gets objects to encode.
    """
    export = getattr(getattr(exporter, "_client", None), "export", None)
    if export is None:
        return None

    def post(request: bytes) -> _Outcome:
        result = export(request)
        if result.success:
            return _Outcome.TAKEN
        if result.status_code is None or result.status_code in _RETRYABLE:
            return _Outcome.AWAY
        return _Outcome.REFUSED

    return post


def _by_time(export: Callable[[], bool]) -> _Outcome:
    began_s = monotonic()
    if export():
        return _Outcome.TAKEN
    is_refusal = monotonic() - began_s < REFUSED_WITHIN_S
    return _Outcome.REFUSED if is_refusal else _Outcome.AWAY


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


@dataclass(slots=True)
class _Batch:
    """Prepared for sending: our spans as bytes too, where there is a door for them."""

    ours: list[tuple[LiveSpan, bytes]] = field(default_factory=list)
    spans: list[ReadableSpan] = field(default_factory=list)
    events: list[ReadableLogRecord] = field(default_factory=list)


def _encoded(described: Described) -> bytes:
    return encode_span(
        described.span,
        described.name,
        described.kind,
        described.attributes,
        failure_message(described.span),
    )


def _requests(ours: Sequence[tuple[LiveSpan, bytes]]) -> Iterator[list[tuple[LiveSpan, bytes]]]:
    """Group encoded spans so that no request is larger than receivers take."""
    group: list[tuple[LiveSpan, bytes]] = []
    n_bytes = 0
    for span, encoded in ours:
        if group and n_bytes + len(encoded) > REQUEST_BYTES:
            yield group
            group, n_bytes = [], 0
        group.append((span, encoded))
        n_bytes += len(encoded)
    if group:
        yield group


class Sender:
    """Empties the buffer into the exporters, on a daemon thread of its own.

    Attributes:
        n_spans: Spans that a receiver has taken.
        n_events: Events that a receiver has taken.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.renew()

    @property
    def buffer(self) -> Buffer:
        """What waits to be sent."""
        return self._runtime.buffer

    def renew(self) -> None:
        """Forget all of the parent's after a fork: sockets, locks, counts; start when needed."""
        self._exporters: _Exporters | None = None
        self._metrics = Metrics(self._runtime.settings.names)
        self._metrics_due_s = monotonic() + self._runtime.settings.metric_interval_s
        self._waiting: deque[threading.Event] = deque()
        self._thread: threading.Thread | None = None
        self._is_closing = threading.Event()
        self.n_spans = 0
        self.n_events = 0
        self._runtime.buffer.on_first_put.append(self.start)

    def start(self) -> None:
        """Start the thread. Where none can be started, the buffer fills and says so."""
        with guarded("start the sender"):
            thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            self._runtime.buffer.on_first_put.clear()
            thread.start()
            self._thread = thread

    def flush(self, timeout_s: float) -> bool:
        """Send all that waits, metrics included; return whether it was done in time."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return not len(self._runtime.buffer)
        done = threading.Event()
        self._waiting.append(done)
        self._runtime.buffer.wake()
        return done.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Send what waits within a time, then end; return whether all was sent in time."""
        began_s = monotonic()
        self._is_closing.set()  # a batch that fails now is not tried again
        thread = self._thread
        if thread is None or not thread.is_alive():
            return not len(self._runtime.buffer)
        self._runtime.buffer.wake()
        thread.join(max(0.0, timeout_s - (monotonic() - began_s)))
        if not thread.is_alive():
            return True
        if self._exporters is not None:
            self._exporters.shutdown()  # wakes it from waiting for another try
        report("telemetry may be lost at the end", n_waiting=len(self._runtime.buffer))
        return False

    # --- on the thread ---

    def _run(self) -> None:
        # Instrumented HTTP clients of the application must not trace what we send.
        context_api.attach(context_api.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        buffer = self._runtime.buffer
        interval_s = self._runtime.settings.export_interval_s
        while not self._is_closing.is_set():
            buffer.wait(interval_s)
            asked = list(self._waiting)
            with guarded("send"):
                if asked or self._is_closing.is_set():
                    self._send_all()
                else:
                    self._send_waiting()
                    if monotonic() >= self._metrics_due_s:
                        self._send_metrics()
            buffer.report_losses()
            for done in asked:
                self._waiting.remove(done)
                done.set()
        with guarded("send"):
            self._send_all()
        buffer.report_losses()
        if self._exporters is not None:
            self._exporters.shutdown()
        while self._waiting:
            self._waiting.popleft().set()

    def _send_all(self) -> None:
        self._send_waiting()
        self._send_metrics()

    def _send_waiting(self) -> None:
        buffer = self._runtime.buffer
        if len(buffer):
            self._exporters_now()  # where they can't be made, nothing is taken
        while items := buffer.take(self._runtime.settings.batch_size):
            batch = self._prepare(items)
            for group in _requests(batch.ours):
                self.n_spans += self._send(group, self._export_ours)
            exporters = self._exporters_now()
            if exporters.spans is not None:
                self.n_spans += self._send(batch.spans, exporters.export_spans)
            if exporters.logs is not None:
                self.n_events += self._send(batch.events, exporters.export_events)
            for item in items:
                if isinstance(item, LiveSpan):
                    item.release()

    def _exporters_now(self) -> _Exporters:
        """Make the exporters when they are first needed: gRPC's don't outlive a fork."""
        if self._exporters is None:
            self._exporters = _Exporters(self._runtime.settings)
        return self._exporters

    def _prepare(self, items: Sequence[Item]) -> _Batch:
        batch = _Batch()
        for item in items:
            with guarded("describe a span"):  # a sick one harms no other
                self._prepare_one(item, batch)
                continue
            self._runtime.buffer.drop("not_describable")
        return batch

    def _prepare_one(self, item: Item, batch: _Batch) -> None:
        settings = self._runtime.settings
        if isinstance(item, LiveSpan):
            described = describe(item, self._runtime)
            self._measure(described)
            if item.is_sampled:
                events = _events(described, self._runtime)
                put_content(described, settings.content_place)
                if self._exporters_now().post_spans is None:
                    batch.spans.append(to_readable(described, self._runtime))
                else:
                    batch.ours.append((item, _encoded(described)))
                batch.events += events
        elif isinstance(item, ForeignItem):
            span = item.span
            duration_s = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
            with guarded("measure a span"):
                self._metrics.observe(span.attributes or {}, duration_s)
            if item.is_sent:
                batch.spans.append(scrubbed(span, settings, self._runtime.resource))
        elif isinstance(item, EventItem):
            record = item.record
            batch.events.append(scrubbed_event(record, settings) if item.is_foreign else record)

    def _measure(self, described: Described) -> None:
        span = described.span
        calls = (span.n_inference_calls, span.n_tool_calls) if span.spec.kind == "agent" else None
        with guarded("measure a span"):  # a label of the application's may be of any type
            self._metrics.observe(
                described.attributes,
                span.duration_ns / 1e9,
                chunk_gaps_s=described.chunk_gaps_s,
                agent_calls=calls,
            )

    def _export_ours(self, ours: Sequence[tuple[LiveSpan, bytes]]) -> _Outcome:
        exporters = self._exporters_now()
        if exporters.post_spans is not None:
            request = encode_request(
                (encoded for _, encoded in ours), self._runtime.resource, SCOPE
            )
            try:
                return exporters.post_spans(request)
            except (AttributeError, TypeError) as error:  # not the door that we know
                note_fault("post encoded spans", type(error))
                exporters.post_spans = None
        return exporters.export_spans([self._readable(span) for span, _ in ours])

    def _readable(self, span: LiveSpan) -> ReadableSpan:
        described = describe(span, self._runtime)
        put_content(described, self._runtime.settings.content_place)
        return to_readable(described, self._runtime)

    def _send_metrics(self) -> None:
        self._metrics_due_s = monotonic() + self._runtime.settings.metric_interval_s
        data = self._metrics.collect(self._runtime.resource, SCOPE)
        if data is None:
            return
        exporter = self._exporters_now().metrics
        if exporter is None or exporter.export(data) is MetricExportResult.SUCCESS:
            self._metrics.taken()
        else:
            report("metrics not taken")

    def _send(self, items: Sequence[_T], export: Callable[[Sequence[_T]], _Outcome]) -> int:
        """Export items; return how many were taken, and count the others by what became of them.

        Where their encoding fails they go one by one: a sick one harms no other.
        """
        if not items:
            return 0
        try:
            outcome = self._insist(lambda: export(items))
        except Exception as error:  # someone else's code
            note_fault("export", type(error))
            if len(items) > 1:
                return sum(self._send([item], export) for item in items)
            outcome = _Outcome.SICK
        if outcome is _Outcome.TAKEN:
            return len(items)
        self._runtime.buffer.drop(outcome.value, len(items))
        return 0

    def _insist(self, export: Callable[[], _Outcome]) -> _Outcome:
        """Export over and over while the receiver is away.

        Meanwhile the buffer fills, and drops what finds no room.
        """
        give_up_s = monotonic() + self._runtime.settings.retry_s
        while True:
            outcome = export()
            is_last = self._is_closing.is_set() or monotonic() >= give_up_s
            if outcome is not _Outcome.AWAY or is_last:
                return outcome
            report("receiver is away")
            self._runtime.buffer.report_losses()
            self._is_closing.wait(RETRY_PAUSE_S)


def event_record(
    runtime: Runtime,
    name: str,
    attributes: dict[str, Any],
    *,
    at_ns: int,
    context: Context,
    severity: SeverityNumber | None = None,
) -> ReadableLogRecord:
    """Return a log record as exporters take it; the context gives its trace and span."""
    record = LogRecord(
        timestamp=at_ns,
        observed_timestamp=time_ns(),
        context=context,
        severity_number=severity,
        severity_text=None if severity is None else severity.name,
        attributes=sendable(attributes),
        event_name=name,
    )
    return ReadableLogRecord(record, runtime.resource, SCOPE)


def _events(described: Described, runtime: Runtime) -> list[ReadableLogRecord]:
    """Return the events that go with a span of ours."""
    span = described.span
    if described.kind is not SpanKind.CLIENT:
        return []
    events = []
    context = trace.set_span_in_context(trace.NonRecordingSpan(span.get_span_context()), Context())
    operation = described.attributes[semconv.GEN_AI_OPERATION_NAME]
    is_inference = operation in semconv.INFERENCE_OPERATIONS
    if is_inference and described.content and runtime.settings.content_place != "span":
        own = {k: v for k, v in described.attributes.items() if not k.startswith("llmobs.")}
        events.append(
            event_record(
                runtime,
                semconv.EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS,
                own | described.content,
                at_ns=span.end_ns,
                context=context,
                severity=SeverityNumber.DEBUG,
            )
        )
    if span.failure is not None:
        facts = {semconv.EXCEPTION_TYPE: span.failure.type}
        message = failure_message(span)
        if message is not None:
            facts[semconv.EXCEPTION_MESSAGE] = message
        if span.failure.frames:
            facts[semconv.EXCEPTION_STACKTRACE] = span.failure.stacktrace()
        events.append(
            event_record(
                runtime,
                semconv.EVENT_GEN_AI_CLIENT_OPERATION_EXCEPTION,
                facts,
                at_ns=span.end_ns,
                context=context,
                severity=SeverityNumber.WARN,
            )
        )
    return events

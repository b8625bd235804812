"""The one background thread: takes finished spans in batches, describes, counts and sends them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from opentelemetry import context as context_api
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import ReadableSpan

from llmobs.sdk.buffer import REQUEST_BYTES, Buffer, Item
from llmobs.sdk.describe import (
    SCOPE,
    Described,
    content_on_span,
    describe,
    failure_message,
    to_readable,
)
from llmobs.sdk.drain import Drainer
from llmobs.sdk.events import SpanEvent, events_of
from llmobs.sdk.exporters import (
    RETRY_PAUSE_S,
    THREAD_NAME,
    Exporters,
    Outcome,
    encode_events,
    encode_spans,
)
from llmobs.sdk.foreign import EventItem, ForeignItem, scrubbed, scrubbed_event
from llmobs.sdk.guarded import guarded, note_fault, report
from llmobs.sdk.metrics import Metrics
from llmobs.sdk.runtime import Place, Runtime
from llmobs.sdk.span import LiveSpan
from llmobs.sdk.spool import Signal, Spool
from llmobs.sdk.wire import encode_event, encode_pairs, encode_request, encode_span

__all__ = ["Sender"]

_T = TypeVar("_T")


@dataclass(slots=True)
class _Batch:
    """Prepared for sending: ours as bytes too, where there is a door for them."""

    our_spans: list[tuple[LiveSpan, bytes]] = field(default_factory=list)
    our_events: list[tuple[SpanEvent, bytes]] = field(default_factory=list)
    spans: list[ReadableSpan] = field(default_factory=list)
    events: list[ReadableLogRecord] = field(default_factory=list)


def _encoded(described: Described, place: Place) -> tuple[bytes, list[tuple[SpanEvent, bytes]]]:
    """Write a span, and the events that go with it; attributes that they share are written once."""
    pairs = encode_pairs(described.attributes)
    events = [(event, encode_event(event, pairs)) for event in events_of(described, place)]
    pairs |= encode_pairs(content_on_span(described, place))
    message = failure_message(described.span)
    return encode_span(described.span, described.name, described.kind, pairs, message), events


def _requests(ours: Sequence[tuple[_T, bytes]]) -> Iterator[list[tuple[_T, bytes]]]:
    """Group what is encoded so that no request is larger than receivers take."""
    group: list[tuple[_T, bytes]] = []
    n_bytes = 0
    for item, encoded in ours:
        if group and n_bytes + len(encoded) > REQUEST_BYTES:
            yield group
            group, n_bytes = [], 0
        group.append((item, encoded))
        n_bytes += len(encoded)
    if group:
        yield group


class Sender:
    """Empties the buffer into the exporters, or into the spool, on a daemon thread of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        settings = runtime.settings
        self._spool: Spool | None = None
        if settings.spool is not None:
            self._spool = Spool(
                settings.spool,
                settings.spool_max_bytes,
                on_drop=lambda n_items: runtime.buffer.drop("spool_full", n_items),
            )
        self.renew()

    @property
    def n_spans(self) -> int:
        """Spans that a receiver has taken."""
        return self._n_spans + (0 if self._drainer is None else self._drainer.n_spans)

    @property
    def n_events(self) -> int:
        """Events that a receiver has taken."""
        return self._n_events + (0 if self._drainer is None else self._drainer.n_events)

    @property
    def n_spooled(self) -> int:
        """Spans and events that wait on disk."""
        return 0 if self._spool is None else self._spool.n_items

    @property
    def buffer(self) -> Buffer:
        """What waits to be sent."""
        return self._runtime.buffer

    def renew(self) -> None:
        """Forget all of the parent's after a fork: sockets, locks, counts; start when needed."""
        self._exporters: Exporters | None = None
        self._metrics = Metrics(self._runtime.settings.names)
        self._metrics_due_s = monotonic() + self._runtime.settings.metric_interval_s
        self._waiting: deque[threading.Event] = deque()
        self._thread: threading.Thread | None = None
        self._is_closing = threading.Event()
        self._n_spans = 0
        self._n_events = 0
        self._drainer: Drainer | None = None
        if self._spool is not None:
            self._spool.renew()
        self._runtime.buffer.on_first_put.append(self.start)

    def start(self) -> None:
        """Start the thread. Where none can be started, the buffer fills and says so."""
        with guarded("start the sender"):
            thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            self._runtime.buffer.on_first_put.clear()
            if self._spool is not None:
                self._drainer = Drainer(self._runtime, self._spool, self._new_exporters)
                self._drainer.start()
            thread.start()
            self._thread = thread

    def flush(self, timeout_s: float) -> bool:
        """Send all that waits, metrics included; return whether it was done in time."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return not len(self._runtime.buffer)
        began_s = monotonic()
        done = threading.Event()
        self._waiting.append(done)
        self._runtime.buffer.wake()
        if not done.wait(timeout_s):
            return False
        return self._drainer is None or self._drainer.flush(timeout_s - (monotonic() - began_s))

    def close(self, timeout_s: float) -> bool:
        """Send what waits within a time, then end; return whether all was sent in time."""
        began_s = monotonic()
        self._is_closing.set()  # a batch that fails now is not tried again
        thread = self._thread
        if thread is None or not thread.is_alive():
            return not len(self._runtime.buffer)
        self._runtime.buffer.wake()
        thread.join(timeout_s)
        is_done = not thread.is_alive()
        if not is_done and self._exporters is not None:
            self._exporters.shutdown()  # wakes it from waiting for another try
        if self._drainer is not None:
            left_s = max(0.0, timeout_s - (monotonic() - began_s))
            return self._drainer.close(left_s) and is_done
        if not is_done:
            report("telemetry may be lost at the end", n_waiting=len(self._runtime.buffer))
        return is_done

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
        """Send what waits; what comes meanwhile waits on, unless it is a batch again."""
        buffer = self._runtime.buffer
        if len(buffer):
            self._exporters_now()  # where they can't be made, nothing is taken
        n_left = len(buffer)
        while n_left > 0 or buffer.is_due:
            items = buffer.take(self._runtime.settings.batch_size)
            if not items:
                return
            n_left -= len(items)
            batch = self._prepare(items)
            for spans in _requests(batch.our_spans):
                if not self._keep("traces", spans, self._encode_ours):
                    self._n_spans += self._send(spans, self._export_our_spans)
            for events in _requests(batch.our_events):
                if not self._keep("logs", events, self._encode_ours):
                    self._n_events += self._send(events, self._export_our_events)
            exporters = self._exporters_now()
            if exporters.spans is not None and not self._keep("traces", batch.spans, encode_spans):
                self._n_spans += self._send(batch.spans, exporters.export_spans)
            if exporters.logs is not None and not self._keep("logs", batch.events, encode_events):
                self._n_events += self._send(batch.events, exporters.export_events)
            if self._drainer is not None:
                self._drainer.wake()
            for item in items:
                if isinstance(item, LiveSpan):
                    item.release()

    def _keep(
        self, signal: Signal, items: Sequence[_T], encode: Callable[[Sequence[_T]], bytes]
    ) -> bool:
        """Leave items to the spool; return False where they are to be sent from memory."""
        exporters = self._exporters_now()
        door = exporters.post_spans if signal == "traces" else exporters.post_events
        if self._spool is None or door is None or not items:
            return False
        try:
            request = encode(items)
        except Exception:  # one of them is sick: `_send` finds out which
            return False
        return self._spool.add(signal, request, len(items))

    def _exporters_now(self) -> Exporters:
        """Make the exporters when they are first needed: gRPC's don't outlive a fork."""
        if self._exporters is None:
            self._exporters = self._new_exporters()
        return self._exporters

    def _new_exporters(self) -> Exporters:
        return Exporters(self._runtime.settings)

    def _prepare(self, items: Sequence[Item]) -> _Batch:
        batch = _Batch()
        for item in items:
            try:
                self._prepare_one(item, batch)
            except Exception as error:  # a sick one harms no other
                note_fault("describe a span", type(error))
                self._runtime.buffer.drop("not_describable")
        return batch

    def _prepare_one(self, item: Item, batch: _Batch) -> None:
        settings = self._runtime.settings
        if isinstance(item, LiveSpan):
            described = describe(item, self._runtime)
            self._measure(described)
            if item.is_sampled:
                self._prepare_ours(described, batch)
        elif isinstance(item, ForeignItem):
            span = item.span
            duration_s = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
            with guarded("measure a span"):
                self._metrics.observe(span.attributes or {}, duration_s)
            if item.is_sent:
                batch.spans.append(scrubbed(span, settings, self._runtime.resource))
        elif isinstance(item, EventItem):
            record = item.record
            batch.events.append(scrubbed_event(item, settings) if item.is_foreign else record)

    def _prepare_ours(self, described: Described, batch: _Batch) -> None:
        exporters = self._exporters_now()
        place = self._runtime.settings.content_place
        has_logs = exporters.logs is not None
        if exporters.post_spans is None or (has_logs and exporters.post_events is None):
            batch.spans.append(to_readable(described, self._runtime))
            if has_logs:
                events = events_of(described, place)
                batch.events += [event.readable(self._runtime) for event in events]
            return
        span, encoded_events = _encoded(described, place)
        batch.our_spans.append((described.span, span))
        if has_logs:
            batch.our_events += encoded_events

    def _measure(self, described: Described) -> None:
        span = described.span
        calls = (span.n_inference_calls, span.n_tool_calls) if span.spec.kind == "agent" else None
        try:
            self._metrics.observe(
                described.attributes,
                span.duration_ns / 1e9,
                chunk_gaps_s=described.chunk_gaps_s,
                agent_calls=calls,
            )
        except Exception as error:  # a label of the application's may be of any type
            note_fault("measure a span", type(error))

    def _export_our_spans(self, ours: Sequence[tuple[LiveSpan, bytes]]) -> Outcome:
        exporters = self._exporters_now()
        if exporters.post_spans is not None:
            request = self._encode_ours(ours)
            try:
                return exporters.post_spans(request)
            except (AttributeError, TypeError) as error:  # not the door that we know
                note_fault("post encoded spans", type(error))
                exporters.post_spans = None
        return exporters.export_spans([self._readable(span) for span, _ in ours])

    def _export_our_events(self, ours: Sequence[tuple[SpanEvent, bytes]]) -> Outcome:
        exporters = self._exporters_now()
        if exporters.post_events is not None:
            request = self._encode_ours(ours)
            try:
                return exporters.post_events(request)
            except (AttributeError, TypeError) as error:  # not the door that we know
                note_fault("post encoded events", type(error))
                exporters.post_events = None
        return exporters.export_events([event.readable(self._runtime) for event, _ in ours])

    def _encode_ours(self, ours: Sequence[tuple[object, bytes]]) -> bytes:
        return encode_request((encoded for _, encoded in ours), self._runtime.resource, SCOPE)

    def _readable(self, span: LiveSpan) -> ReadableSpan:
        return to_readable(describe(span, self._runtime), self._runtime)

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

    def _send(self, items: Sequence[_T], export: Callable[[Sequence[_T]], Outcome]) -> int:
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
            outcome = Outcome.SICK
        if outcome is Outcome.TAKEN:
            return len(items)
        self._runtime.buffer.drop(outcome.value, len(items))
        return 0

    def _insist(self, export: Callable[[], Outcome]) -> Outcome:
        """Export over and over while the receiver is away.

        Meanwhile the buffer fills, and drops what finds no room.
        """
        give_up_s = monotonic() + self._runtime.settings.retry_s
        while True:
            outcome = export()
            is_last = self._is_closing.is_set() or monotonic() >= give_up_s
            if outcome is not Outcome.AWAY or is_last:
                return outcome
            report("receiver is away")
            self._runtime.buffer.report_losses()
            self._is_closing.wait(RETRY_PAUSE_S)

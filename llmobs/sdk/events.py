"""The events that go with a span of ours: what was said, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import time_ns
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.trace import SpanKind

from llmobs import semconv
from llmobs.sdk.content import sendable
from llmobs.sdk.describe import SCOPE, Described, failure_message
from llmobs.sdk.runtime import Place, Runtime
from llmobs.sdk.span import LiveSpan

__all__ = ["SpanEvent", "event_record", "events_of"]


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """One event at the end of a span."""

    span: LiveSpan
    name: str
    severity: SeverityNumber
    attributes: Mapping[str, Any]

    def readable(self, runtime: Runtime) -> ReadableLogRecord:
        """Return the event as OpenTelemetry's exporters take it."""
        where = trace.NonRecordingSpan(self.span.get_span_context())
        return event_record(
            runtime,
            self.name,
            dict(self.attributes),
            at_ns=self.span.end_ns,
            context=trace.set_span_in_context(where, Context()),
            severity=self.severity,
        )


def events_of(described: Described, place: Place) -> list[SpanEvent]:
    """Return the events that go with a span.

    Args:
        described: The span.
        place: Where content goes.
    """
    span = described.span
    if described.kind is not SpanKind.CLIENT or span.spec.kind == "mcp":
        return []
    events = []
    operation = described.attributes[semconv.GEN_AI_OPERATION_NAME]
    if operation in semconv.INFERENCE_OPERATIONS and described.content and place != "span":
        own = {k: v for k, v in described.attributes.items() if not k.startswith("llmobs.")}
        name = semconv.EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS
        events.append(SpanEvent(span, name, SeverityNumber.DEBUG, own | described.content))
    if span.failure is not None:
        facts = {semconv.EXCEPTION_TYPE: span.failure.type}
        message = failure_message(span)
        if message is not None:
            facts[semconv.EXCEPTION_MESSAGE] = message
        if span.failure.frames:
            facts[semconv.EXCEPTION_STACKTRACE] = span.failure.stacktrace()
        name = semconv.EVENT_GEN_AI_CLIENT_OPERATION_EXCEPTION
        events.append(SpanEvent(span, name, SeverityNumber.WARN, facts))
    return events


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

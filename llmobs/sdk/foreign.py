"""Spans and events of other instrumentations: led through our queue, scrubbed, sent."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Status
from opentelemetry.util.types import AnyValue

from llmobs import semconv
from llmobs.sdk import runtime as process
from llmobs.sdk.content import (
    CONTENT_MODES,
    MESSAGE_ATTRIBUTES,
    ContentMode,
    Redactor,
    dump,
    from_json,
    sendable,
)
from llmobs.sdk.context import session_of
from llmobs.sdk.guarded import guarded
from llmobs.sdk.runtime import Settings
from llmobs.sdk.span import LIVE_KEY, Kind, LiveSpan, Session

__all__ = [
    "EventItem",
    "ForeignEvents",
    "ForeignItem",
    "ForeignSpans",
    "is_model_span",
    "scrubbed",
    "scrubbed_event",
]

# First word of the attributes of GenAI instrumentations, of any convention.
_GENAI: Final = (
    "gen_ai.", "llm.", "openinference.", "traceloop.", "langfuse.", "langsmith.", "ai.", "mcp.",
    "pydantic_ai.",
)  # fmt: skip

# Attributes that hold what people wrote or models answered, by the names of all producers.
_CONTENT: Final = re.compile(
    r"gen_ai\.(input|output)\.messages|gen_ai\.system_instructions|gen_ai\.tool\.definitions"
    r"|gen_ai\.tool\.call\.(arguments|result)|gen_ai\.retrieval\.(query\.text|documents)"
    r"|gen_ai\.memory\.(query\.text|records)|gen_ai\.(prompt|completion)(\.\d+\..*)?$"
    r"|gen_ai\.prompt\.variable|gen_ai\.content\.|gen_ai\.evaluation\.explanation"
    r"|gen_ai\.embeddings\.input_texts|gen_ai\.(system|user|assistant|tool)\.message"
    r"|(input|output)\.value|llm\.(input_messages|output_messages|prompts|choices|tools)"
    r"|llm\.(prompt_template|function_call|request\.functions)|retrieval\.documents|embedding\."
    r"|reranker\.|tool\.parameters|tool_call\.|message\."
    r"|traceloop\.(entity\.(input|output)|prompt\.template)"
    r"|langfuse\.(observation|trace)\.(input|output)"
    r"|ai\.prompt|ai\.(response|result)\.(text|object|reasoning|toolCalls)"
    r"|ai\.toolCall\.(args|result)"
    r"|ai\.values?$|pydantic_ai\..*messages|all_messages|final_result|model_request_parameters"
    r"|exception\.(message|stacktrace)|logfire\.(msg|json_schema)|langsmith\.(inputs|outputs)"
)
# Headers of the client's request may hold its key: they leave in no mode.
_HEADERS: Final = re.compile(r"(gen_ai|llm|ai\.request)\.(extra_)?headers?\b")
_LLM_KINDS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "openinference.span.kind": {"LLM": "chat", "EMBEDDING": "embeddings"},
    "llm.request.type": {"chat": "chat", "completion": "chat", "embedding": "embeddings"},
}
_ITEM_BYTES: Final = 2_000  # what a span or an event weighs in memory beside its content, about
_NODE_BYTES: Final = 64


class ForeignItem:
    """A finished span of another instrumentation."""

    __slots__ = ("is_sent", "size", "span")

    def __init__(self, span: ReadableSpan, *, is_sent: bool) -> None:
        self.span = span
        self.is_sent = is_sent
        self.size = _ITEM_BYTES + _size(span.attributes)
        self.size += sum(_ITEM_BYTES + _size(event.attributes) for event in span.events)


class EventItem:
    """A log record that is to be sent; `content` is what a decorator says of its content."""

    __slots__ = ("content", "is_foreign", "record", "size")

    def __init__(self, record: ReadableLogRecord, *, is_foreign: bool) -> None:
        self.content: ContentMode | None = None
        self.record = record
        self.is_foreign = is_foreign
        said = record.log_record
        self.size = _ITEM_BYTES + _size(said.attributes) + _size(said.body)


def _size(value: Any) -> int:
    """Return about how many bytes of memory a value of an attribute holds."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_NODE_BYTES + _size(item) for item in value.values())
    if isinstance(value, Sequence):
        return sum(_NODE_BYTES + _size(item) for item in value)
    return _NODE_BYTES


class ForeignSpans(SpanProcessor):
    """Puts session and user on spans as they begin, and queues them as they end."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Add the session's attributes; note an inference span below a chat span of ours."""
        active = process.active
        if active is None:
            return
        with guarded("begin a foreign span"):
            session = session_of(parent_context)
            if session is not None:
                span.set_attributes(session_attributes(session))
            live = _live_of(parent_context)
            content = None if live is None else live.content_below
            if content is not None:
                span.set_attribute(semconv.LLMOBS_CONTENT, content)
            # A span that is not sent can't stand for ours.
            is_sent = active.settings.foreign != "off"
            kind = _model_kind(span.attributes or {})
            if is_sent and live is not None and kind is not None:
                live.mark_model_child(kind)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, where it is wanted."""
        active = process.active
        if active is None:
            return
        with guarded("end a foreign span"):
            wanted = active.settings.foreign
            if wanted == "off" or (wanted == "genai" and not _is_genai(span.attributes or {})):
                return
            context = span.get_span_context()
            is_sent = context is not None and context.trace_flags.sampled
            if is_sent:
                active.buffer.count_foreign()
            active.buffer.put(ForeignItem(span, is_sent=is_sent))


class ForeignEvents(LogRecordProcessor):
    """Queues the events of GenAI instrumentations; all other log records are not our business."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Queue the record, where it is an event about GenAI."""
        active = process.active
        name = log_record.log_record.event_name or ""
        if active is None or active.settings.foreign == "off" or not name.startswith("gen_ai."):
            return
        with guarded("queue a foreign event"):
            record = ReadableLogRecord(
                log_record.log_record, active.resource, log_record.instrumentation_scope
            )
            item = EventItem(record, is_foreign=True)
            live = _live_of(log_record.log_record.context)
            item.content = None if live is None else live.content_below
            active.buffer.put(item)

    def shutdown(self) -> None:
        """Do nothing: the queue has its own end."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Do nothing: `llmobs.flush` is for that."""
        return True


def session_attributes(session: Session) -> dict[str, AnyValue]:
    """Return what a session puts on every span within."""
    named = {
        semconv.GEN_AI_CONVERSATION_ID: session.session_id,
        semconv.SESSION_ID: session.session_id,
        semconv.USER_ID: session.user_id,
        semconv.LLMOBS_FEATURE: session.feature,
    }
    return {k: v for k, v in named.items() if v is not None} | dict(session.attributes)


def _live_of(context: Context | None) -> LiveSpan | None:
    live = context_api.get_value(LIVE_KEY, context)
    return live if isinstance(live, LiveSpan) else None


def _model_kind(attributes: Mapping[str, Any]) -> Kind | None:
    """Return which of our kinds a span of a model's call would be, None of any other span."""
    operation = attributes.get(semconv.GEN_AI_OPERATION_NAME)
    if operation in semconv.INFERENCE_OPERATIONS:
        return "chat"
    if operation == semconv.OPERATION_EMBEDDINGS:
        return "embeddings"
    found = (kinds.get(attributes.get(name, "")) for name, kinds in _LLM_KINDS.items())
    return next((kind for kind in found if kind is not None), None)


def is_model_span(span: object) -> bool:
    """Return whether a span of another instrumentation stands for a call of a model."""
    attributes = getattr(span, "attributes", None)
    is_open = isinstance(span, ReadableSpan) and span.end_time is None
    return is_open and bool(attributes) and _model_kind(attributes or {}) is not None


def _is_genai(attributes: Mapping[str, Any]) -> bool:
    """Return whether a span is about GenAI: not by what a session of ours has put on it."""
    return any(
        name.startswith(_GENAI) and name != semconv.GEN_AI_CONVERSATION_ID for name in attributes
    )


def scrubbed(span: ReadableSpan, settings: Settings, resource: Resource) -> ReadableSpan:
    """Return a foreign span with no more content than the application lets out.

    Args:
        span: As the other instrumentation has made it.
        settings: What may leave.
        resource: Ours; a span of a provider with another resource keeps what that one adds.
    """
    said = (span.attributes or {}).get(semconv.LLMOBS_CONTENT)
    settings = _as_decorated(settings, said)
    attributes = _scrub(span.attributes, settings)
    events = [
        Event(event.name, _scrub(event.attributes, settings), event.timestamp)
        for event in span.events
    ]
    kept = _scrub({semconv.EXCEPTION_MESSAGE: span.status.description}, settings)
    status = Status(span.status.status_code, kept.get(semconv.EXCEPTION_MESSAGE))
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource.merge(resource),
        attributes=attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _as_decorated(settings: Settings, content: object) -> Settings:
    """Return the settings with the content mode that a decorator around a client's call gives."""
    if content not in CONTENT_MODES or content == settings.content:
        return settings
    return dataclasses.replace(settings, content=content)


def scrubbed_event(item: EventItem, settings: Settings) -> ReadableLogRecord:
    """Return a foreign event with no more content than the application lets out.

    A copy: the record itself goes to the application's own processors too.
    """
    record = item.record
    settings = _as_decorated(settings, item.content)
    own = copy.copy(record.log_record)
    own.attributes = _scrub(own.attributes, settings)
    # Instrumentations of older conventions put the whole message into the body.
    own.body = _scrub({semconv.GEN_AI_INPUT_MESSAGES: own.body}, settings).get(
        semconv.GEN_AI_INPUT_MESSAGES
    )
    return ReadableLogRecord(own, record.resource, record.instrumentation_scope)


def _scrub(attributes: Mapping[str, Any] | None, settings: Settings) -> dict[str, Any]:
    """Return attributes with their content, with it masked, or without it."""
    redactor = Redactor(settings.max_characters, settings.redact)
    kept = {}
    for name, value in (attributes or {}).items():
        if _HEADERS.match(name):
            continue
        if settings.content == "full" or not _CONTENT.match(name):
            kept[name] = sendable(value)
        elif settings.content == "redacted":
            kept[name] = sendable(_mask(value, redactor, name in MESSAGE_ATTRIBUTES))
    if redactor.truncated:
        kept[semconv.LLMOBS_CONTENT_TRUNCATED] = True
    return kept


def _mask(value: Any, redactor: Redactor, is_messages: bool) -> Any:
    """Mask an attribute; in JSON the texts, so that it stays JSON whatever is cut or replaced."""
    data = from_json(value) if isinstance(value, str) and value[:1] in {"[", "{"} else value
    masked = redactor.apply(data, masked=True, is_messages=is_messages)
    return masked if data is value else dump(masked)

"""From a finished span to what is sent of it: the conventions, in one place, off the hot path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AnyValue

from llmobs import semconv
from llmobs.sdk.batch import read_batch
from llmobs.sdk.content import (
    MESSAGE_ATTRIBUTES,
    Redactor,
    characters,
    dump,
    sendable,
    to_messages,
    unpack,
    word,
)
from llmobs.sdk.guarded import guarded, note_fault
from llmobs.sdk.media import without_media
from llmobs.sdk.runtime import Place, Runtime
from llmobs.sdk.span import CLIENT_KINDS, OPERATIONS, Call, Failure, LiveSpan
from llmobs.sdk.usage import Answer, Usage, estimate_usage, read_answer, read_stream, read_usage

__all__ = ["SCOPE", "Described", "content_on_span", "describe", "failure_message", "to_readable"]

SCOPE: Final = InstrumentationScope("llmobs", semconv.VERSION, semconv.SCHEMA_URL)

# Name of an argument -> (attribute, type that the conventions ask for).
REQUEST_ATTRIBUTES: Final[Mapping[str, tuple[str, type]]] = {
    "model": (semconv.GEN_AI_REQUEST_MODEL, str),
    "temperature": (semconv.GEN_AI_REQUEST_TEMPERATURE, float),
    "top_p": (semconv.GEN_AI_REQUEST_TOP_P, float),
    "max_tokens": (semconv.GEN_AI_REQUEST_MAX_TOKENS, int),
    "max_completion_tokens": (semconv.GEN_AI_REQUEST_MAX_TOKENS, int),
    "max_output_tokens": (semconv.GEN_AI_REQUEST_MAX_TOKENS, int),
    "frequency_penalty": (semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY, float),
    "presence_penalty": (semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, float),
    "seed": (semconv.GEN_AI_REQUEST_SEED, int),
    "top_k": (semconv.GEN_AI_REQUEST_TOP_K, int),
    "top_n": (semconv.GEN_AI_RETRIEVAL_TOP_K, int),
    "n": (semconv.GEN_AI_REQUEST_CHOICE_COUNT, int),
    "previous_response_id": (semconv.GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, str),
    "reasoning_effort": (semconv.GEN_AI_REQUEST_REASONING_LEVEL, str),
}
_CONVERSING: Final = frozenset({"workflow", "agent", "tool", "chat"})
# Kinds whose spans name a model and a provider.
_ASKING: Final = CLIENT_KINDS - {"mcp"}
# Those whose request the conventions have few attributes for.
_REQUEST_OF: Final[Mapping[str, Mapping[str, str]]] = {
    "embeddings": {"model": semconv.GEN_AI_REQUEST_MODEL},
    "retrieval": {"top_k": semconv.GEN_AI_RETRIEVAL_TOP_K},
    "rerank": {
        "model": semconv.GEN_AI_REQUEST_MODEL,
        "top_k": semconv.GEN_AI_RETRIEVAL_TOP_K,
        "top_n": semconv.GEN_AI_RETRIEVAL_TOP_K,
    },
}
# A smaller span, in bytes of memory, holds no picture.
_MAY_HOLD_MEDIA: Final = 1_500
# MCP's own name for a tool that answers with an error.
_TOOL_ERROR: Final = "tool_error"


@dataclass(slots=True)
class Described:
    """One span in the conventions' words.

    Attributes:
        content: Structured content by attribute name; {} where none may leave.
        chunk_gaps_s: Seconds from chunk to chunk of a streamed answer.
    """

    span: LiveSpan
    name: str
    kind: SpanKind
    attributes: dict[str, AnyValue]
    content: dict[str, Any]
    chunk_gaps_s: Sequence[float]


def describe(span: LiveSpan, runtime: Runtime) -> Described:
    """Say in the conventions' words what a finished span holds."""
    # An instrumented client below has made the inference span: ours only wraps it, else every
    # token would count twice.
    if span.reading is not None:
        with guarded("read a client's call"):  # bytes of any shape
            span.reading.read(span)
    kind = "workflow" if span.has_model_child else span.spec.kind
    operation = OPERATIONS[kind]
    attributes: dict[str, AnyValue] = {semconv.GEN_AI_OPERATION_NAME: operation}
    call = span.call or Call()
    try:
        answer = _answer(span)
    except Exception as error:  # of any shape; what it doesn't tell is not known
        note_fault("read an answer", type(error))
        answer = Answer()
    if kind in _ASKING:
        _add_model(attributes, kind, span, call, answer)
    target = _add_target(attributes, kind, span)
    if span.spec.prompt_name is not None:
        attributes[semconv.GEN_AI_PROMPT_NAME] = span.spec.prompt_name
        if span.spec.prompt_version is not None:
            attributes[semconv.GEN_AI_PROMPT_VERSION] = span.spec.prompt_version
    _add_session(attributes, kind, span)
    if kind == "mcp" and span.failure is None and _is_tool_error(_returned(span)):
        span.failure = Failure(_TOOL_ERROR, "", ())
    if span.failure is not None:
        attributes[semconv.ERROR_TYPE] = span.failure.type
    redactor = Redactor(runtime.settings.max_characters, runtime.settings.redact)
    try:
        content = _content(attributes, kind, span, call, answer, redactor, runtime)
    except Exception as error:  # without it the span is worth sending still
        note_fault("shape content", type(error))
        content = {}
    if span.facts and not span.has_model_child:
        attributes.update(span.facts)
    _add_own(attributes, span, runtime, redactor)
    return Described(
        span=span,
        name=span.other_name or _named(kind, operation, target),
        kind=SpanKind.CLIENT if kind in CLIENT_KINDS else SpanKind.INTERNAL,
        attributes=attributes,
        content=content,
        chunk_gaps_s=_gaps_s(span.chunk_ns),
    )


def _named(kind: str, operation: str, target: str) -> str:
    if kind == "mcp":
        operation = semconv.MCP_METHOD_TOOLS_CALL
    return f"{operation} {target}" if target else operation


def _is_tool_error(result: Any) -> bool:
    return isinstance(result, dict) and result.get("isError", result.get("is_error")) is True


def _gaps_s(chunk_ns: Sequence[int] | None) -> Sequence[float]:
    if not chunk_ns or len(chunk_ns) < 2:
        return ()
    return [(later - sooner) / 1e9 for sooner, later in pairwise(chunk_ns)]


def _answer(span: LiveSpan) -> Answer:
    """Read the answer from what was returned, streamed or set; what was set wins."""
    said = span.updates or {}
    if "output" in said:
        answer = read_answer(said["output"])
    elif span.answer is not None:
        answer = span.answer
    elif span.spec.kind == "batch":
        batch = span.batch
        if batch is None or not batch.n_results:  # returned, not yielded
            batch = read_batch(_returned(span))
        answer = batch.answer
        span.facts = {**(span.facts or {}), semconv.LLMOBS_BATCH_SIZE: batch.n_results}
    elif span.chunks is not None:
        answer = read_stream(span.chunks)
    else:
        answer = read_answer(unpack(span.output))
    if (usage := said.get("usage")) is not None and isinstance(usage, dict):
        answer.usage = read_usage(usage)
    answer.model = word(said.get("model")) or answer.model
    answer.response_id = word(said.get("response_id")) or answer.response_id
    reasons = said.get("finish_reason")
    if reasons:
        answer.finish_reasons = [
            str(r) for r in (reasons if isinstance(reasons, list) else [reasons])
        ]
    return answer


def _add_model(
    attributes: dict[str, AnyValue], kind: str, span: LiveSpan, call: Call, answer: Answer
) -> None:
    said = span.updates or {}
    provider = word(said.get("provider")) or span.spec.provider or span.provider
    if provider is None and OPERATIONS[kind] != semconv.OPERATION_RETRIEVAL:
        provider = semconv.PROVIDER_UNKNOWN
    if provider is not None:
        attributes[semconv.GEN_AI_PROVIDER_NAME] = provider
    if span.spec.model is not None:
        attributes[semconv.GEN_AI_REQUEST_MODEL] = span.spec.model
    _add_request(attributes, kind, call)
    if kind not in {"retrieval", "rerank"}:
        _add_answer(attributes, kind, span, call, answer)


def _add_answer(
    attributes: dict[str, AnyValue], kind: str, span: LiveSpan, call: Call, answer: Answer
) -> None:
    if answer.model is not None:
        attributes[semconv.GEN_AI_RESPONSE_MODEL] = answer.model
    if kind == "batch":
        _add_batch(attributes, answer)
        return
    is_stream = span.chunks is not None or call.request.get("stream") is True
    if answer.usage is None and kind == "chat" and is_stream and answer.messages:
        answer.usage, answer.is_estimated = _estimated(span.updates or {}, call, answer), True
    if answer.usage is not None:
        _add_usage(attributes, kind, answer.usage)
        if answer.is_estimated:
            attributes[semconv.LLMOBS_USAGE_ESTIMATED] = True
    if kind == "embeddings":
        if answer.n_dimensions is not None:
            attributes[semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT] = answer.n_dimensions
        return
    if answer.response_id is not None:
        attributes[semconv.GEN_AI_RESPONSE_ID] = answer.response_id
    if answer.finish_reasons:
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = tuple(answer.finish_reasons)
    if is_stream:
        attributes[semconv.GEN_AI_REQUEST_STREAM] = True
    if span.chunk_ns:
        seconds = (span.chunk_ns[0] - span.start_ns) / 1e9
        attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = seconds


def _add_batch(attributes: dict[str, AnyValue], answer: Answer) -> None:
    if answer.usage is not None:
        _add_usage(attributes, "chat", answer.usage)
    if attributes[semconv.GEN_AI_PROVIDER_NAME] == "openai":  # where the price is told apart by it
        attributes[semconv.OPENAI_RESPONSE_SERVICE_TIER] = "batch"


def _estimated(said: Mapping[str, Any], call: Call, answer: Answer) -> Usage:
    """Reckon a stream's tokens: not to know them would make it free of cost."""
    asked = to_messages(said["input"] if "input" in said else unpack(call.input))
    system = said.get("system", call.request.get("system"))
    return estimate_usage([*to_messages(system, role="system"), *asked], answer.messages)


def _add_request(attributes: dict[str, AnyValue], kind: str, call: Call) -> None:
    for name, value in call.request.items():
        if name == "stop":
            stops = [value] if isinstance(value, str) else value
            if kind == "chat" and isinstance(stops, list) and stops:
                attributes[semconv.GEN_AI_REQUEST_STOP_SEQUENCES] = tuple(map(str, stops))
            continue
        known = REQUEST_ATTRIBUTES.get(name)
        if known is None or value is None or isinstance(value, (dict, list, bool)):
            continue
        attribute, kind_of_value = known
        if kind in _REQUEST_OF:
            attribute = _REQUEST_OF[kind].get(name, "")
        elif name == "top_n" or (name == "n" and value == 1):
            continue
        if attribute:
            with suppress(ValueError, OverflowError):  # a word or infinity where a number goes
                attributes[attribute] = kind_of_value(value)


def _add_usage(attributes: dict[str, AnyValue], kind: str, usage: Usage) -> None:
    counts = {semconv.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens}
    if kind == "chat":
        counts |= {
            semconv.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
            semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.cache_read_tokens,
            semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: usage.cache_write_tokens,
            semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: usage.reasoning_tokens,
            semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS: usage.audio_input_tokens,
            semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: usage.audio_output_tokens,
            semconv.GEN_AI_USAGE_IMAGE_INPUT_TOKENS: usage.image_input_tokens,
            semconv.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS: usage.image_output_tokens,
        }
    for name, value in counts.items():
        if value is not None:
            attributes[name] = value


def _add_target(attributes: dict[str, AnyValue], kind: str, span: LiveSpan) -> str:
    """Add the name of what is called, and return it for the span's name."""
    name = span.spec.name
    if kind in {"chat", "batch", "embeddings"}:
        model = attributes.get(semconv.GEN_AI_REQUEST_MODEL)
        return model if isinstance(model, str) else ""
    if kind in {"retrieval", "rerank"}:
        attributes[semconv.GEN_AI_DATA_SOURCE_ID] = name
    elif kind == "mcp":
        attributes[semconv.MCP_METHOD_NAME] = semconv.MCP_METHOD_TOOLS_CALL
        attributes[semconv.GEN_AI_TOOL_NAME] = name
    elif kind == "workflow":
        attributes[semconv.GEN_AI_WORKFLOW_NAME] = name
    elif kind == "agent":
        attributes[semconv.GEN_AI_AGENT_NAME] = name
    else:
        attributes[semconv.GEN_AI_TOOL_NAME] = name
        attributes[semconv.GEN_AI_TOOL_TYPE] = "function"
        if span.spec.description:
            attributes[semconv.GEN_AI_TOOL_DESCRIPTION] = span.spec.description
        if span.agent is not None:
            attributes[semconv.GEN_AI_AGENT_NAME] = span.agent.spec.name
    return name


def _add_session(attributes: dict[str, AnyValue], kind: str, span: LiveSpan) -> None:
    session = span.session
    if session is None:
        return
    if session.session_id is not None:
        attributes[semconv.SESSION_ID] = session.session_id
        if kind in _CONVERSING:
            attributes[semconv.GEN_AI_CONVERSATION_ID] = session.session_id
    if session.user_id is not None:
        attributes[semconv.USER_ID] = session.user_id
    if session.feature is not None:
        attributes[semconv.LLMOBS_FEATURE] = session.feature


def _add_own(
    attributes: dict[str, AnyValue], span: LiveSpan, runtime: Runtime, redactor: Redactor
) -> None:
    """Add what the application set by name, and what is ours."""
    masked = span.content != "full"
    of_session = None if span.session is None else span.session.attributes
    for extra in (of_session, span.spec.attributes, span.attributes):
        if extra:
            attributes.update(redactor.apply(extra, masked=masked))
    if span.events:
        span.events = [
            (name, at_ns, redactor.apply(facts, masked=masked))
            for name, at_ns, facts in span.events
        ]
    if span.links:
        span.links = [
            (context, redactor.apply(facts, masked=masked)) for context, facts in span.links
        ]
    if span.spec.kind in {"batch", "rerank"}:
        attributes[semconv.LLMOBS_KIND] = span.spec.kind
    if span.n_attempts:
        attributes[semconv.LLMOBS_ATTEMPTS] = span.n_attempts
    attributes[semconv.LLMOBS_CONTENT] = span.content
    attributes[semconv.LLMOBS_SEQUENCE] = span.sequence
    attributes[semconv.LLMOBS_PROCESS_ID] = runtime.process_id
    if redactor.truncated:
        attributes[semconv.LLMOBS_CONTENT_TRUNCATED] = True


def _content(
    attributes: dict[str, AnyValue],
    kind: str,
    span: LiveSpan,
    call: Call,
    answer: Answer,
    redactor: Redactor,
    runtime: Runtime,
) -> dict[str, Any]:
    """Return the content that may leave, by attribute; add lengths where only these may."""
    mode = span.content
    if mode == "off" or not span.is_sampled:
        return {}
    content = _raw_content(kind, span, call, answer)
    if mode == "metadata":
        lengths = {
            semconv.GEN_AI_INPUT_MESSAGES: semconv.LLMOBS_INPUT_CHARACTERS,
            semconv.GEN_AI_OUTPUT_MESSAGES: semconv.LLMOBS_OUTPUT_CHARACTERS,
        }
        for name, attribute in lengths.items():
            if name in content:
                attributes[attribute] = characters(content[name])
        return {}
    masked = mode == "redacted"
    if not masked and span.size <= runtime.settings.max_characters:
        return content  # all of it together is no longer than one text may be
    return {
        name: redactor.apply(value, masked=masked, is_messages=name in MESSAGE_ATTRIBUTES)
        for name, value in content.items()
    }


def _raw_content(kind: str, span: LiveSpan, call: Call, answer: Answer) -> dict[str, Any]:
    content = _shaped_content(kind, span, call, answer)
    if span.size < _MAY_HOLD_MEDIA:
        return content
    return {
        name: value if name in MESSAGE_ATTRIBUTES else without_media(value)
        for name, value in content.items()
    }


def _shaped_content(kind: str, span: LiveSpan, call: Call, answer: Answer) -> dict[str, Any]:
    said = span.updates or {}
    asked = said["input"] if "input" in said else unpack(call.input)
    if kind in {"tool", "mcp"}:
        return _present(
            {
                semconv.GEN_AI_TOOL_CALL_ARGUMENTS: said.get("input", call.arguments),
                semconv.GEN_AI_TOOL_CALL_RESULT: _as_object(said.get("output", _returned(span))),
            }
        )
    if kind in {"retrieval", "rerank"}:
        documents = said.get("documents", said.get("output", _returned(span)))
        return _present(
            {
                semconv.GEN_AI_RETRIEVAL_QUERY_TEXT: None if asked is None else dump(asked),
                semconv.GEN_AI_RETRIEVAL_DOCUMENTS: _documents(documents),
            }
        )
    if kind in {"batch", "embeddings"}:
        return {}
    if asked is None and call.arguments:
        asked = _only_text(call.arguments) or dump(without_media(call.arguments))
    system = said.get("system", call.request.get("system"))
    return _present(
        {
            semconv.GEN_AI_SYSTEM_INSTRUCTIONS: _system(system) if kind != "workflow" else None,
            semconv.GEN_AI_INPUT_MESSAGES: to_messages(asked),
            semconv.GEN_AI_OUTPUT_MESSAGES: answer.messages,
        }
    )


def _only_text(arguments: Mapping[str, Any]) -> str | None:
    """Return the one text that a function was called with, None where there is more to see."""
    values = list(arguments.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _present(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None and value != []}


def _returned(span: LiveSpan) -> Any:
    return unpack(span.output) if span.chunks is None else span.chunks


def _as_object(value: Any) -> Any:
    """Return a tool's result as the object that the conventions expect."""
    return value if value is None or isinstance(value, dict) else {"result": value}


def _system(value: Any) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    return [
        part
        for message in to_messages(value, role="system")
        for part in message["parts"]
        if part["type"] == "text"
    ]


def _documents(value: Any) -> list[dict[str, Any]]:
    """Return documents as objects: a text as one with ``content``, unset fields left out."""
    if isinstance(value, dict):
        value = next((value[n] for n in ("documents", "results", "matches") if n in value), [value])
    if not isinstance(value, (list, tuple)):
        return []
    documents = []
    for item in value:
        if isinstance(item, dict):
            documents.append(_document(item))
        elif isinstance(item, (list, tuple)) and len(item) == 2:  # (document, score), as LangChain
            found = item[0] if isinstance(item[0], dict) else {"content": dump(item[0])}
            documents.append({**found, "score": item[1]})
        elif item is not None:
            documents.append({"content": dump(item)})
    return documents


def _document(item: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: part for key, part in item.items() if part is not None}
    if "relevance_score" in found:  # of a reranker, which names a document by its place
        found.setdefault("score", found.pop("relevance_score"))
    if isinstance(place := found.get("index"), int):
        found.setdefault("id", str(place))
    return found


def content_on_span(described: Described, place: Place) -> dict[str, str]:
    """Return the content that goes on the span itself.

    As JSON in a text: the conventions allow that on a span, other instrumentations send it so, and
    it takes half the bytes of structured values.
    """
    # The event has no place for tools and documents.
    return {
        name: dump(value)
        for name, value in described.content.items()
        if place != "event" or name not in MESSAGE_ATTRIBUTES
    }


def to_readable(described: Described, runtime: Runtime) -> ReadableSpan:
    """Return the span as OpenTelemetry's exporters take it."""
    span = described.span
    on_span = content_on_span(described, runtime.settings.content_place)
    return ReadableSpan(
        name=described.name,
        context=span.get_span_context(),
        parent=_parent(span),
        resource=runtime.resource,
        attributes=sendable(described.attributes | on_span),
        events=[Event(name, facts, at_ns) for name, at_ns, facts in span.events or ()],
        links=[Link(context, facts) for context, facts in span.links or ()],
        kind=described.kind,
        status=Status(StatusCode.UNSET)
        if span.failure is None
        else Status(StatusCode.ERROR, sendable(failure_message(span))),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=SCOPE,
    )


def _parent(span: LiveSpan) -> SpanContext | None:
    if not span.parent_id:
        return None
    flags = TraceFlags(span.flags)
    return SpanContext(span.trace_id, span.parent_id, span.parent_is_remote, flags)


def failure_message(span: LiveSpan) -> str | None:
    """Return the exception's message as far as it may leave: providers quote prompts in them."""
    if span.failure is None or span.content in {"off", "metadata"} or not span.failure.message:
        return None
    redactor = Redactor(span.settings.max_characters, span.settings.redact)
    return str(redactor.apply(span.failure.message, masked=span.content == "redacted"))

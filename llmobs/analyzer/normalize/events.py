"""Span events and links, folded into attributes of their span: a batch has no other place."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from llmobs import semconv
from llmobs.analyzer.normalize.attributes import Extra
from llmobs.analyzer.normalize.messages import dumps, loads, messages_of, plain
from llmobs.records import (
    OWNER_EVENT,
    OWNER_LINK,
    VALUE_BOOL,
    VALUE_DOUBLE,
    VALUE_INT,
    VALUE_STRING,
    RawPart,
)

__all__ = ["EVENTS_KEY", "LINKS_KEY", "MESSAGE_EVENTS", "fold", "messages_of_event"]

EVENTS_KEY: Final = "otel.span.events"
LINKS_KEY: Final = "otel.span.links"

_EXCEPTION: Final = (
    semconv.EXCEPTION_TYPE,
    semconv.EXCEPTION_MESSAGE,
    semconv.EXCEPTION_STACKTRACE,
)
# Conventions before 1.28 sent a prompt and an answer as one event each, with this attribute.
_CONTENT: Final = {
    "gen_ai.content.prompt": "gen_ai.prompt",
    "gen_ai.content.completion": "gen_ai.completion",
}
# Marks in time: the first one of a span tells how long the user waited.
_FIRST_CHUNK: Final = frozenset(
    {
        "First Token Stream Event",  # OpenInference
        "gen_ai.content.completion.chunk",  # OpenLLMetry, one a chunk
        "ai.stream.firstChunk",  # Vercel
    }
)
# Conventions before 1.37 sent an event a message; the name tells the role.
MESSAGE_EVENTS: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "assistant",
}


def fold(part: RawPart) -> list[Extra]:
    """Return what the events and links of spans say, as attributes of the spans.

    Exceptions and messages get the names that spans have for them; all other events, and
    links, become one JSON text a span.
    """
    if not part.events.num_rows and not part.links.num_rows:
        return []
    inputs: dict[int, list[Any]] = {}
    outputs: dict[int, list[Any]] = {}
    others: dict[int, list[Any]] = {}
    extras: list[Extra] = []
    first_chunks: dict[int, int] = {}
    values = _values(part, OWNER_EVENT)
    for i, event in enumerate(part.events.to_pylist()):
        span, name, attributes = event["span"], event["name"], values.get(i, {})
        if name in _FIRST_CHUNK:
            first_chunks.setdefault(span, event["ts_ns"])
        elif name == "exception":
            extras += [
                Extra(span, key, plain(attributes[key])) for key in _EXCEPTION if key in attributes
            ]
        elif name in _CONTENT and _CONTENT[name] in attributes:
            extras.append(Extra(span, _CONTENT[name], plain(attributes[_CONTENT[name]])))
        elif name in MESSAGE_EVENTS:
            sink = outputs if name == "gen_ai.choice" else inputs
            sink.setdefault(span, []).extend(messages_of_event(name, attributes))
            if reason := attributes.get("finish_reason"):
                extras.append(Extra(span, semconv.GEN_AI_RESPONSE_FINISH_REASONS, plain(reason)))
        else:
            others.setdefault(span, []).append(
                {"name": name, "ts_ns": event["ts_ns"], "attributes": attributes}
            )
    starts = part.spans.column("start_ns")
    extras += [
        Extra(
            span,
            semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
            repr((at - starts[span].as_py()) / 1e9),
        )
        for span, at in first_chunks.items()
    ]
    values = _values(part, OWNER_LINK)
    links: dict[int, list[Any]] = {}
    for i, link in enumerate(part.links.to_pylist()):
        links.setdefault(link["span"], []).append(
            {
                "trace_id": link["trace_id"].hex(),
                "span_id": link["span_id"].hex(),
                "attributes": values.get(i, {}),
            }
        )
    for key, found in (
        (semconv.GEN_AI_INPUT_MESSAGES, inputs),
        (semconv.GEN_AI_OUTPUT_MESSAGES, outputs),
        (EVENTS_KEY, others),
        (LINKS_KEY, links),
    ):
        extras += [Extra(span, key, dumps(items)) for span, items in found.items()]
    return extras


def messages_of_event(name: str, attributes: dict[str, Any]) -> list[Any]:
    """Return the message of an event: its attributes are its fields, or one holds them all."""
    role = MESSAGE_EVENTS[name]
    body = attributes.get("gen_ai.event.content", attributes)
    if isinstance(body, str):
        body = _read(body)
    if isinstance(body, dict):
        inner = body.get("message")
        body = _read(inner) if isinstance(inner, str) else inner or body
    if isinstance(body, dict):
        body = {
            "role": body.get("role") or role,
            **{
                name: body[name]
                for name in ("content", "parts", "tool_calls", "name", "id")
                if body.get(name)
            },
        }
    return messages_of(body, role)


def _read(text: str) -> Any:
    value = loads(text)
    return text if value is None else value


def _values(part: RawPart, owner_kind: int) -> dict[int, dict[str, Any]]:
    """Return the attributes of every owner of one kind as Python values."""
    batch = part.attributes
    rows = np.flatnonzero(batch.column("owner_kind").to_numpy() == owner_kind)
    out: dict[int, dict[str, Any]] = {}
    for row in batch.take(rows).to_pylist():
        match row["kind"]:
            case kind if kind == VALUE_STRING:
                value: Any = row["text"]
            case kind if kind == VALUE_BOOL:
                value = bool(row["number"])
            case kind if kind == VALUE_INT:
                value = row["number"]
            case kind if kind == VALUE_DOUBLE:
                value = float(np.int64(row["number"]).view(np.float64))
            case _:
                value = _read(row["text"]) if row["text"] else None
        out.setdefault(row["owner"], {})[part.keys[row["key"]].as_py()] = value
    return out

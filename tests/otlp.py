"""Requests and senders for tests that go through the server's front door."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Mapping, Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = ["chat_span", "post", "traces_request"]


def attribute(key: str, value: str | float | bool | Sequence[str]) -> KeyValue:
    """Build one attribute."""
    out = AnyValue()
    if isinstance(value, bool):
        out.bool_value = value
    elif isinstance(value, int):
        out.int_value = value
    elif isinstance(value, float):
        out.double_value = value
    elif isinstance(value, str):
        out.string_value = value
    else:
        out.array_value.values.extend(AnyValue(string_value=item) for item in value)
    return KeyValue(key=key, value=out)


def chat_span(
    chance: random.Random,
    *,
    at_ns: int | None = None,
    session: str = "s-1",
    text: str = "What is a span?",
    answer: str = "A span is one timed operation.",
    error: str = "",
    attributes: Mapping[str, str | float | bool | Sequence[str]] | None = None,
) -> Span:
    """Build one chat span of the GenAI conventions."""
    start = at_ns if at_ns is not None else time.time_ns()
    message = '[{"role":"%s","parts":[{"type":"text","content":"%s"}]}]'
    values: dict[str, str | float | bool | Sequence[str]] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.conversation.id": session,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.input.messages": message % ("user", text),
        "gen_ai.output.messages": message % ("assistant", answer),
        "gen_ai.response.finish_reasons": ["stop"],
        "llmobs.feature": "tests",
        **({"error.type": error} if error else {}),
        **(attributes or {}),
    }
    return Span(
        trace_id=chance.getrandbits(128).to_bytes(16, "big"),
        span_id=chance.getrandbits(64).to_bytes(8, "big"),
        name="chat gpt-4o-mini",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 250_000_000,
        status=Status(code=Status.STATUS_CODE_ERROR) if error else None,
        attributes=[attribute(key, value) for key, value in values.items()],
    )


def traces_request(spans: Sequence[Span], service: str = "tests") -> bytes:
    """Build an export request and return its bytes."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(attribute("service.name", service))
    resource.scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def post(
    port: int,
    body: bytes,
    *,
    path: str = "/v1/traces",
    content_type: str = "application/x-protobuf",
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> tuple[int, bytes]:
    """Send one request and return (status, body).

    Raises:
        OSError: Nothing answers; the request may or may not have been kept.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()

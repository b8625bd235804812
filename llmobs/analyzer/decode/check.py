"""What the receiver asks before it acknowledges: is this such a request, and how big is it?"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmobs.analyzer.decode.mend import parse
from llmobs.analyzer.decode.otlp_json import from_json
from llmobs.errors import BadRequestError
from llmobs.records import Signal

__all__ = ["REQUESTS", "check", "where_broken"]

REQUESTS: Final[dict[Signal, type[Message]]] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}


def check(signal: Signal, body: bytes, is_json: bool) -> tuple[bytes, int]:
    """Check that a body is an OTLP export request and count what is in it.

    Texts that are not UTF-8 pass: `decode` replaces the bad bytes and counts them.

    Args:
        signal: What the request is said to hold.
        body: The unpacked body.
        is_json: Whether it is OTLP/JSON; else protobuf.

    Returns:
        The request in protobuf (a protobuf body as it came), and the number of its spans, log
        records or metric data points.

    Raises:
        BadRequestError: The body is no such request; the message says what is wrong and where.
    """
    kind = REQUESTS[signal]
    if is_json:
        request = from_json(kind, body)
        return request.SerializeToString(), _count(signal, request)
    try:
        request, _ = parse(kind, body)
    except DecodeError as error:
        place = where_broken(kind.DESCRIPTOR, body) or "the nesting is too deep"
        message = f"The body is not an OTLP {signal} request in protobuf: {place}."
        raise BadRequestError(message) from error
    return body, _count(signal, request)


def _count(signal: Signal, request: Any) -> int:
    match signal:
        case "traces":
            return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        case "logs":
            return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
        case "metrics":
            return sum(
                len(getattr(metric, metric.WhichOneof("data")).data_points)
                for of_resource in request.resource_metrics
                for of_scope in of_resource.scope_metrics
                for metric in of_scope.metrics
                if metric.WhichOneof("data")
            )


def where_broken(message: Any, body: bytes, *, depth: int = 0) -> str:
    """Say at which field and byte protobuf can't go on; "" where nothing is found.

    Walks the wire in Python: only for bytes that the parser has refused.

    Args:
        message: Descriptor of what the bytes should be.
        body: The bytes.
        depth: How deep in the request the message is.
    """
    p, seen = 0, dict[str, int]()
    while p < len(body):
        start = p
        tag, p = _varint(body, p)
        if p < 0 or tag < 8:
            return f"byte {start} does not begin a field"
        field = message.fields_by_number.get(tag >> 3)
        name = field.name if field else f"field {tag >> 3}"
        if field and field.is_repeated:
            seen[name] = seen.get(name, -1) + 1
            name = f"{name}[{seen[name]}]"
        size = {0: 0, 1: 8, 2: 0, 5: 4}.get(tag & 7, -1)
        if size < 0:
            return f"{name} has wire type {tag & 7}"
        if tag & 7 in (0, 2):
            value, p = _varint(body, p)
            if p < 0:
                return f"{name} ends in the middle of a number"
            size = value if tag & 7 == 2 else 0
        if p + size > len(body):
            return f"{name} needs {size} bytes and {len(body) - p} are left"
        if field and field.type == FieldDescriptor.TYPE_MESSAGE and tag & 7 == 2 and depth < 100:
            below = where_broken(field.message_type, body[p : p + size], depth=depth + 1)
            if below:
                return f"{name}.{below}" if below[:4] != "byte" else f"{name}: {below}"
        p += size
    return ""


def _varint(body: bytes, p: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if p == len(body):
            break
        value |= (body[p] & 127) << shift
        p += 1
        if body[p - 1] < 128:
            return value, p
    return 0, -1

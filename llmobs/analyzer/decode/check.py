"""What the receiver asks before it acknowledges: is this such a request, and how big is it?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmobs.analyzer.decode.mend import parse_loose
from llmobs.analyzer.decode.otlp_json import from_json
from llmobs.errors import BadRequestError, TooLargeError
from llmobs.records import Signal

__all__ = ["REQUESTS", "check", "where_broken"]

REQUESTS: Final[dict[Signal, type[Message]]] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}

MAX_ITEMS: Final = 250_000
"""Spans, log records or data points of one request. An empty one takes 2 bytes on the wire and
some 180 in memory, so that a body within its limit could hold gigabytes."""
MAX_ROWS: Final = 2_000_000
"""Attributes, events and links of the spans of one request, for the same reason."""
MAX_JSON_BYTES: Final = 16 << 20
"""Of a JSON body: read into some 25 times as many bytes of Python objects."""

_ITEMS: Final[dict[Signal, str]] = {
    "traces": "spans",
    "logs": "log records",
    "metrics": "metrics or data points",
}
# A body up to here can't reach either limit by much, so that counting would be time lost.
_UNCOUNTED_BYTES: Final = 2 << 20
_MAX_TAG_BYTES: Final = 5  # of a tag or a length: upb takes no more, even if all are zeros
# Fields that are looked at to say where a body is broken: some 0.1 s.
_MAX_STEPS: Final = 100_000


def check(
    signal: Signal, body: bytes, is_json: bool, *, now_ns: int | None = None
) -> tuple[bytes, int]:
    """Check that a body is an OTLP export request and count what is in it.

    Texts that are not UTF-8 pass: `decode` replaces the bad bytes and counts them. Log records
    and data points without any time get that of their arrival: nothing else would tell two of
    them apart from one that is sent twice.

    Args:
        signal: What the request is said to hold.
        body: The unpacked body.
        is_json: Whether it is OTLP/JSON; else protobuf.
        now_ns: The time, in ns since 1970; None: ask the clock.

    Returns:
        The request in protobuf (a protobuf body as it came, but for missing times), and the
        number of its spans, log records or metric data points.

    Raises:
        BadRequestError: The body is no such request; the message says what is wrong and where.
        TooLargeError: It holds more than `MAX_ITEMS` or `MAX_ROWS`, or is too large for JSON.
    """
    kind = REQUESTS[signal]
    if is_json:
        if len(body) > MAX_JSON_BYTES:
            message = f"a JSON body may have {MAX_JSON_BYTES} bytes unpacked; send protobuf"
            raise TooLargeError(message)
        request = from_json(kind, body)
    else:
        request = _from_protobuf(signal, body)
    n_items = _count(signal, request)
    if len(body) > _UNCOUNTED_BYTES:
        _refuse_above(MAX_ITEMS, n_items, _ITEMS[signal])
        if signal == "traces":
            _refuse_above(MAX_ROWS, _n_rows(request), "attributes, events and links")
    is_changed = _stamp(signal, request, time.time_ns() if now_ns is None else now_ns)
    return (request.SerializeToString() if is_json or is_changed else body), n_items


def _from_protobuf(signal: Signal, body: bytes) -> Any:
    """Parse a body, after a look whether that would take too much memory."""
    kind = REQUESTS[signal]
    try:
        if len(body) > _UNCOUNTED_BYTES:
            # Resources, their scopes, what these hold: one level each.
            for n, _ in enumerate(_below(memoryview(body), (1, 2, 2)), 1):
                if n > MAX_ITEMS:
                    _refuse_above(MAX_ITEMS, n, _ITEMS[signal])
        return parse_loose(kind, body)
    except DecodeError as error:
        place = where_broken(kind.DESCRIPTOR, memoryview(body)) or "the nesting is too deep"
        message = f"The body is not an OTLP {signal} request in protobuf: {place}."
        raise BadRequestError(message) from error


def _below(body: memoryview, numbers: tuple[int, ...]) -> Iterator[memoryview]:
    """Yield the messages at a path of field numbers, up to where the bytes are malformed."""
    p = 0
    while p < len(body):
        tag, p = _varint(body, p)
        wire = tag & 7
        size = {1: 8, 5: 4}.get(wire, 0)  # 0 for the ends of a group: its fields count as ours
        if wire in (0, 2) and p >= 0:
            value, p = _varint(body, p)
            size = value if wire == 2 else 0
        if p < 0 or wire > 5 or p + size > len(body):
            return
        if tag == numbers[0] << 3 | 2:
            inner = body[p : p + size]
            if len(numbers) > 1:
                yield from _below(inner, numbers[1:])
            else:
                yield inner
        p += size


def _refuse_above(limit: int, n: int, what: str) -> None:
    if n > limit:
        raise TooLargeError(f"the request holds more than {limit} {what}; send fewer at once")


def _count(signal: Signal, request: Any) -> int:
    match signal:
        case "traces":
            return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        case "logs":
            return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
        case "metrics":
            return sum(len(points) for points in _data_points(request))


def _n_rows(request: Any) -> int:
    return sum(
        len(span.attributes)
        + sum(1 + len(event.attributes) for event in span.events)
        + sum(1 + len(link.attributes) for link in span.links)
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    )


def _data_points(request: Any) -> Iterator[Any]:
    for of_resource in request.resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                if kind := metric.WhichOneof("data"):
                    yield getattr(metric, kind).data_points


def _stamp(signal: Signal, request: Any, now_ns: int) -> bool:
    """Give what has no time the time of its arrival; return whether something had none."""
    n_stamped = 0
    match signal:
        case "logs":
            for of_resource in request.resource_logs:
                for of_scope in of_resource.scope_logs:
                    for record in of_scope.log_records:
                        if not (record.time_unix_nano or record.observed_time_unix_nano):
                            record.observed_time_unix_nano = now_ns
                            n_stamped += 1
        case "metrics":
            for points in _data_points(request):
                for point in points:
                    if not point.time_unix_nano:
                        point.time_unix_nano = now_ns
                        n_stamped += 1
        case "traces":  # told apart by their ids
            pass
    return n_stamped > 0


def where_broken(
    message: Any, body: memoryview, *, depth: int = 0, steps: Iterator[int] | None = None
) -> str:
    """Say at which field and byte protobuf can't go on; "" where nothing is found.

    Walks the wire in Python: only for bytes that the parser has refused.

    Args:
        message: Descriptor of what the bytes should be.
        body: The bytes.
        depth: How deep in the request the message is.
        steps: Counts the fields of the whole request that were looked at.
    """
    steps = itertools.count() if steps is None else steps
    p, seen = 0, dict[str, int]()
    while p < len(body):
        if next(steps) >= _MAX_STEPS:
            return f"the fault is behind the first {_MAX_STEPS} fields"
        start = p
        tag, p = _varint(body, p)
        if p < 0 or tag < 8 or p - start > _MAX_TAG_BYTES:
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
            at = p
            value, p = _varint(body, p)
            if p < 0 or (tag & 7 == 2 and p - at > _MAX_TAG_BYTES):
                return f"{name} ends in the middle of a number"
            size = value if tag & 7 == 2 else 0
        if p + size > len(body):
            return f"{name} needs {size} bytes and {len(body) - p} are left"
        if field and field.type == FieldDescriptor.TYPE_MESSAGE and tag & 7 == 2 and depth < 100:
            inner = body[p : p + size]
            below = where_broken(field.message_type, inner, depth=depth + 1, steps=steps)
            if below:
                is_field = not below.startswith(("byte", "the fault"))
                return f"{name}.{below}" if is_field else f"{name}: {below}"
        p += size
    return ""


def _varint(body: memoryview, p: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if p == len(body):
            break
        value |= (body[p] & 127) << shift
        p += 1
        if body[p - 1] < 128:
            return value, p
    return 0, -1

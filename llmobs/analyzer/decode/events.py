"""Log requests to `EventBatch`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from llmobs.analyzer.decode.mend import parse
from llmobs.analyzer.decode.resource import Origin
from llmobs.analyzer.decode.values import json_text
from llmobs.records import EVENT_SCHEMA, EventBatch, Rejected

__all__ = ["decode_events"]

_MAX_NS = 2**63 - 1


def decode_events(
    requests: Sequence[bytes], *, repairs: Counter[str] | None = None
) -> tuple[EventBatch, tuple[Rejected, ...]]:
    """Decode OTLP log requests.

    A record without a time of its own gets the time it was observed. An id of a wrong length
    becomes zeros: a record belongs to a span or to none.

    Args:
        requests: Each an ExportLogsServiceRequest in protobuf.
        repairs: Where to count what had to be mended.

    Returns:
        The records of all readable requests, and which ones were refused.
    """
    repairs = Counter() if repairs is None else repairs
    rows: list[tuple[Any, ...]] = []
    rejected = []
    for i, body in enumerate(requests):
        try:
            request, n_mended = parse(ExportLogsServiceRequest, body)
        except DecodeError as error:
            rejected.append(Rejected(i, str(error)))
            continue
        if n_mended:
            repairs["invalid_utf8"] += n_mended
        rows += _rows(request, repairs)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(EVENT_SCHEMA)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, EVENT_SCHEMA, strict=True)]
    return EventBatch(pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)), tuple(rejected)


def _rows(request: ExportLogsServiceRequest, repairs: Counter[str]) -> Iterator[tuple[Any, ...]]:
    for of_resource in request.resource_logs:
        origin = Origin.of(of_resource.resource)
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                texts, numbers = origin.attributes(record.attributes)
                yield (
                    min(record.time_unix_nano or record.observed_time_unix_nano, _MAX_NS),
                    _id(record.trace_id, 16, repairs),
                    _id(record.span_id, 8, repairs),
                    origin.service,
                    origin.environment,
                    # Before OTLP 1.5 the name was an attribute.
                    record.event_name or texts.pop("event.name", ""),
                    record.severity_number if 0 <= record.severity_number < 256 else 0,
                    _body(record.body),
                    list(texts.items()),
                    list(numbers.items()),
                )


def _id(sent: bytes, n_bytes: int, repairs: Counter[str]) -> bytes:
    if len(sent) == n_bytes:
        return sent
    if sent:
        repairs["event_id"] += 1
    return bytes(n_bytes)


def _body(body: AnyValue) -> str:
    match body.WhichOneof("value"):
        case None:
            return ""
        case "string_value":
            return body.string_value
        case _:
            return json_text(body)

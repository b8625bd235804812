"""Trace requests to `RawSpans`: by the compiled scan where it is ready, else by upb."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llmobs.analyzer.decode.mend import parse
from llmobs.analyzer.decode.values import read_value, varint
from llmobs.records import (
    OWNER_EVENT,
    OWNER_LINK,
    OWNER_RESOURCE,
    OWNER_SCOPE,
    OWNER_SPAN,
    RAW_ATTRIBUTE_SCHEMA,
    RAW_EVENT_SCHEMA,
    RAW_LINK_SCHEMA,
    RAW_SCOPE_SCHEMA,
    RAW_SPAN_SCHEMA,
    RawPart,
    RawSpans,
    Rejected,
)

__all__ = ["decode_spans", "decode_spans_upb", "is_warm", "warm"]

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]

PART_BYTES: Final = 4 << 20
"""Requests are scanned together up to this size. Decode and normalize take 6.4 us of CPU a span
at 1 MiB, 5.8 at 4, where the fixed cost of a part no longer shows, and as much at 8."""

_MAX_BYTES: Final = 1 << 31
"""What the 32-bit offsets of an Arrow text column reach."""

_scan: ModuleType | None = None
_warming = threading.Lock()


def warm() -> bool:
    """Compile the scan or load it from numba's cache: 0.5 to 10 s, once a process.

    Until this has returned, `decode_spans` takes upb; so a server calls it on a thread.

    Returns:
        False where there is no numba; spans then go through upb for good.
    """
    global _scan  # noqa: PLW0603 - machine code is a thing of the process
    with _warming:
        if _scan is None:
            try:
                from llmobs.analyzer.decode import scan
            except ImportError:
                logger.warning("numba is missing, spans are decoded by upb")
                return False
            _scan_part(scan, [b""])
            _scan = scan
    return True


def is_warm() -> bool:
    """Return whether `decode_spans` uses the compiled scan by now."""
    return _scan is not None


def decode_spans(requests: Sequence[bytes]) -> RawSpans:
    """Decode OTLP trace requests.

    A request that the scan can't take is given to upb, and rejected when upb refuses it too;
    it never costs the others more than time.

    Args:
        requests: Each an ExportTraceServiceRequest in protobuf.

    Returns:
        The spans of all readable requests, and which ones were refused.
    """
    if _scan is None:
        return decode_spans_upb(requests)
    parts: list[RawPart] = []
    left: list[int] = []
    for group in _groups(requests):
        part = _scan_part(_scan, [requests[i] for i in group])
        if part is not None:
            parts.append(part)
            continue
        for i in group:
            part = _scan_part(_scan, [requests[i]]) if len(group) > 1 else None
            if part is None:
                left.append(i)
            else:
                parts.append(part)
    if not left:
        return RawSpans(tuple(parts))
    rest = decode_spans_upb([requests[i] for i in left])
    rejected = tuple(Rejected(left[i], reason) for i, reason in rest.rejected)
    return RawSpans((*parts, *rest.parts), rejected, rest.repairs)


def decode_spans_upb(requests: Sequence[bytes]) -> RawSpans:
    """Decode as `decode_spans` does, message by message: slower, and what it is checked against."""
    builder = _Builder()
    rejected = []
    n_mended = 0
    for i, body in enumerate(requests):
        try:
            request, n = parse(ExportTraceServiceRequest, body)
        except DecodeError as error:
            rejected.append(Rejected(i, str(error)))
            continue
        n_mended += n
        builder.add(request)
    parts = (builder.part(),) if builder.spans else ()
    return RawSpans(parts, tuple(rejected), {"invalid_utf8": n_mended} if n_mended else {})


def _groups(requests: Sequence[bytes]) -> Iterator[list[int]]:
    """Yield indices of neighbours that together have about `PART_BYTES`."""
    group: list[int] = []
    size = 0
    for i, body in enumerate(requests):
        group.append(i)
        size += len(body)
        if size >= PART_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


# ── by the compiled scan ─────────────────────────────────────────────────────────────────


def _scan_part(scan: Any, requests: Sequence[bytes]) -> RawPart | None:
    """Scan requests into one part; None when one of them is not for the scanner."""
    buf = np.frombuffer(requests[0] if len(requests) == 1 else b"".join(requests), np.uint8)
    if len(buf) * scan.JSON_GROWTH >= _MAX_BYTES:
        return None
    offsets = np.zeros(len(requests) + 1, np.int64)
    np.cumsum([len(body) for body in requests], out=offsets[1:])
    # Room for the spans of most producers; what has more of something is walked twice.
    room = np.array([0, len(buf) // 1024, len(buf) // 256, len(buf) // 1024, 0, len(buf) // 40])
    tables = _tables(scan, room)
    counts = np.zeros(scan.N_COUNTS, np.int64)
    if not scan.walk(buf, offsets, *tables, counts):
        return None
    if any(n > len(table) for n, table in zip(counts[1:].tolist(), tables, strict=True)):
        tables = _tables(scan, counts)
        scan.walk(buf, offsets, *tables, np.zeros_like(counts))
    scopes, spans, events, links, attributes = (
        table[:n] for n, table in zip(counts[1:].tolist(), tables, strict=True)
    )
    n = len(attributes)
    keys = np.zeros((n, scan.KEY_COLUMNS), np.int64)
    slots = np.zeros(1 << (n.bit_length() + 1), np.int64)
    seen = np.zeros((n, 2), np.int64)
    arena = np.empty(scan.JSON_GROWTH * len(buf) + 8, np.uint8)
    stack = np.empty((scan.MAX_DEPTH, 3), np.int64)
    n, n_keys, used = scan.read_attributes(buf, attributes, keys, slots, seen, arena, stack)
    if n < 0:
        return None
    attributes, arena = attributes[:n], arena[:used]
    try:
        arena = _finish_pending(scan, buf, arena, attributes)
        text = _Gather(scan, buf, arena)
        return RawPart(
            spans=_span_batch(scan, spans, text),
            scopes=text.batch(RAW_SCOPE_SCHEMA, scopes, [scan.SCOPE_NAME, scan.SCOPE_VERSION]),
            events=text.batch(
                RAW_EVENT_SCHEMA, events, [scan.EVENT_SPAN, scan.EVENT_TIME, scan.EVENT_NAME]
            ),
            links=text.batch(
                RAW_LINK_SCHEMA,
                links,
                [scan.LINK_SPAN, scan.LINK_TRACE_ID, scan.LINK_SPAN_ID, scan.LINK_STATE],
            ),
            attributes=text.batch(
                RAW_ATTRIBUTE_SCHEMA,
                attributes,
                [
                    scan.OWNER_KIND,
                    scan.OWNER,
                    scan.KEY,
                    scan.VALUE_KIND,
                    scan.NUMBER,
                    scan.TEXT,
                ],
            ),
            keys=text.column(pa.string(), keys[:n_keys], 0),
        )
    except (DecodeError, pa.ArrowInvalid):  # bad bytes deep in a value; text that is not UTF-8
        return None


def _tables(scan: Any, counts: Ints) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return scopes, spans, events, links and attributes, for so many rows and at least one."""
    scopes, spans, events, links, attributes = (
        np.zeros((max(n, 1), n_columns), np.int64)
        for n, n_columns in zip(
            counts[1:].tolist(),
            (
                scan.SCOPE_COLUMNS,
                scan.SPAN_COLUMNS,
                scan.EVENT_COLUMNS,
                scan.LINK_COLUMNS,
                scan.ATTRIBUTE_COLUMNS,
            ),
            strict=True,
        )
    )
    return scopes, spans, events, links, attributes


def _span_batch(scan: Any, spans: Ints, text: _Gather) -> pa.RecordBatch:
    columns = [
        *range(scan.SCOPE + 1),
        scan.TRACE_ID,
        scan.SPAN_ID,
        scan.PARENT_ID,
        scan.NAME,
        scan.MESSAGE,
        scan.STATE,
    ]
    return text.batch(RAW_SPAN_SCHEMA, spans, columns)


def _finish_pending(
    scan: Any, buf: npt.NDArray[np.uint8], arena: npt.NDArray[np.uint8], attributes: Ints
) -> npt.NDArray[np.uint8]:
    """Make the texts that the scan left to upb; return the arena with them at its end."""
    pending = np.flatnonzero(attributes[:, scan.VALUE_KIND] >= scan.PENDING)
    if not len(pending):
        return arena
    texts = []
    end = len(buf) + len(arena)
    for i in pending.tolist():
        at, n = attributes[i, scan.TEXT : scan.TEXT + 2].tolist()
        body = buf[at : at + n].tobytes()
        _refuse_too_deep(body, int(attributes[i, scan.OWNER_KIND]))
        value = read_value(AnyValue.FromString(body))
        text = value.text.encode()
        attributes[i, scan.VALUE_KIND] = value.kind
        attributes[i, scan.TEXT : scan.TEXT + 2] = end, len(text)
        end += len(text)
        texts.append(text)
    return np.concatenate([arena, np.frombuffer(b"".join(texts), np.uint8)])


# The fields around an attribute's value, innermost first: their numbers.
_AROUND: Final = {
    OWNER_RESOURCE: (2, 1, 1, 1),
    OWNER_SCOPE: (2, 3, 1, 2, 1),
    OWNER_SPAN: (2, 9, 2, 2, 1),
    OWNER_EVENT: (2, 3, 11, 2, 2, 1),
    OWNER_LINK: (2, 4, 13, 2, 2, 1),
}


def _refuse_too_deep(body: bytes, owner_kind: int) -> None:
    """Parse a value where it was in the request: upb counts levels from the top.

    Raises:
        DecodeError: It is nested too deeply there, or malformed.
    """
    for number in _AROUND[owner_kind]:
        body = bytes([number << 3 | 2]) + varint(len(body)) + body
    ExportTraceServiceRequest.FromString(body)


class _Gather:
    """Turns tables of numbers and slices into Arrow columns."""

    def __init__(self, scan: Any, buf: npt.NDArray[np.uint8], arena: npt.NDArray[np.uint8]) -> None:
        self._scan, self._buf, self._arena = scan, buf, arena

    def batch(self, schema: pa.Schema, table: Ints, columns: Sequence[int]) -> pa.RecordBatch:
        """Return a batch of the schema whose fields stand in these columns of the table."""
        arrays = [
            self.column(field.type, table, column)
            for field, column in zip(schema, columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def column(self, kind: pa.DataType, table: Ints, column: int) -> pa.Array:
        """Return one column.

        Raises:
            pa.ArrowInvalid: A text is not UTF-8.
        """
        if pa.types.is_integer(kind):
            return pa.array(table[:, column].astype(kind.to_pandas_dtype()))
        offsets, data = self._scan.gather(
            self._buf, self._arena, table[:, column], table[:, column + 1]
        )
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        array = pa.Array.from_buffers(kind, len(table), buffers)
        array.validate(full=True)
        return array


# ── by upb ───────────────────────────────────────────────────────────────────────────────


class _Builder:
    """Collects messages as rows of the raw schemas."""

    def __init__(self) -> None:
        self.spans: list[tuple[Any, ...]] = []
        self._scopes: list[tuple[str, str]] = []
        self._events: list[tuple[Any, ...]] = []
        self._links: list[tuple[Any, ...]] = []
        self._attributes: list[tuple[Any, ...]] = []
        self._keys: dict[str, int] = {}
        self._n_resources = 0

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Take the spans of a request."""
        for of_resource in request.resource_spans:
            self._add_attributes(OWNER_RESOURCE, self._n_resources, of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                scope = of_scope.scope
                self._add_attributes(OWNER_SCOPE, len(self._scopes), scope.attributes)
                for span in of_scope.spans:
                    self._add_span(span)
                self._scopes.append((scope.name, scope.version))
            self._n_resources += 1

    def part(self) -> RawPart:
        """Return all that was taken."""
        return RawPart(
            spans=_batch(RAW_SPAN_SCHEMA, self.spans),
            scopes=_batch(RAW_SCOPE_SCHEMA, self._scopes),
            events=_batch(RAW_EVENT_SCHEMA, self._events),
            links=_batch(RAW_LINK_SCHEMA, self._links),
            attributes=_batch(RAW_ATTRIBUTE_SCHEMA, self._attributes),
            keys=pa.array(list(self._keys), pa.string()),
        )

    def _add_span(self, span: Span) -> None:
        i = len(self.spans)
        self._add_attributes(OWNER_SPAN, i, span.attributes)
        for event in span.events:
            self._add_attributes(OWNER_EVENT, len(self._events), event.attributes)
            self._events.append((i, event.time_unix_nano, event.name))
        for link in span.links:
            self._add_attributes(OWNER_LINK, len(self._links), link.attributes)
            self._links.append((i, link.trace_id, link.span_id, link.trace_state))
        self.spans.append(
            (
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                _byte(span.kind),
                _byte(span.status.code),
                span.flags,
                span.dropped_attributes_count,
                span.dropped_events_count,
                span.dropped_links_count,
                self._n_resources,
                len(self._scopes),
                span.trace_id,
                span.span_id,
                span.parent_span_id,
                span.name,
                span.status.message,
                span.trace_state,
            )
        )

    def _add_attributes(self, owner_kind: int, owner: int, pairs: Sequence[KeyValue]) -> None:
        # A dict keeps the place of the first and takes the value of the last.
        for key, value in {pair.key: pair.value for pair in pairs}.items():
            number = self._keys.setdefault(key, len(self._keys))
            self._attributes.append((owner_kind, owner, number, *read_value(value)))


def _byte(value: int) -> int:
    """Return an enum value that fits a byte, 0 (unspecified) for any other."""
    return value if 0 <= value < 256 else 0


def _batch(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [
        pa.array(list(column), field.type) for field, column in zip(schema, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

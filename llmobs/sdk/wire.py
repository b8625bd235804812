"""Spans of ours as OTLP protobuf, written by hand.

OpenTelemetry's encoder makes two Python objects per attribute, which costs more than all else that
is done for a span; this writes the same bytes (a test holds the two equal) in a third of the time.

References:
    opentelemetry-proto, trace/v1/trace.proto and common/v1/common.proto.
    https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind

from llmobs.sdk.span import LiveSpan

__all__ = ["encode_request", "encode_span"]

_FIXED64: Final = Struct("<Q").pack
_DOUBLE: Final = Struct("<d").pack
_FIXED32: Final = Struct("<I").pack

# OTLP numbers the kinds from 1.
_KINDS: Final = {kind: kind.value + 1 for kind in SpanKind}
_STATUS_ERROR: Final = 2
# Flags beyond the trace's own byte: it is known whether the parent is remote; and it is.
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_SMALL: Final = [bytes((n,)) for n in range(128)]


def _varint(number: int) -> bytes:
    if number < 128:
        return _SMALL[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _framed(tag: bytes, body: bytes) -> bytes:
    """Write a field of a length and as many bytes."""
    return tag + _varint(len(body)) + body


def _text(text: str) -> bytes:
    # A lone surrogate is no text that a receiver could read; the rest of it is.
    return text.encode("utf-8", "replace")


def _value(value: Any) -> bytes:
    """Write an AnyValue."""
    kind = type(value)
    if kind is str:
        return _framed(b"\x0a", _text(value))
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int and -(2**63) <= value < 2**63:
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if kind is float:
        return b"\x21" + _DOUBLE(value)
    if kind is tuple or kind is list:
        return _framed(b"\x2a", b"".join([_framed(b"\x0a", _value(item)) for item in value]))
    if kind is dict:
        return _framed(b"\x32", b"".join([_pair(b"\x0a", k, v) for k, v in value.items()]))
    if value is None:
        return b""
    return _other_value(value)


def _other_value(value: Any) -> bytes:
    if isinstance(value, str):
        return _value(str(value))
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return _value(int(value))
        # OTLP has no such integer, and 64 bits of it were another number.
        return _value(float(value)) if value.bit_length() < 1024 else _value("<int>")
    if isinstance(value, float):
        return _value(float(value))
    if isinstance(value, bytes):
        return _framed(b"\x3a", value)
    if isinstance(value, Mapping):
        return _value(dict(value))
    if isinstance(value, Sequence):
        return _value(list(value))
    return _value(f"<{type(value).__name__}>")


def _pair(tag: bytes, key: str, value: Any) -> bytes:
    """Write a KeyValue."""
    name = _text(key)
    said = _value(value)
    body = b"\x0a" + _varint(len(name)) + name + b"\x12" + _varint(len(said)) + said
    return tag + _varint(len(body)) + body


def _pairs(tag: bytes, attributes: Mapping[str, Any]) -> list[bytes]:
    return [_pair(tag, key, value) for key, value in attributes.items()]


def encode_span(
    span: LiveSpan, name: str, kind: SpanKind, attributes: Mapping[str, Any], message: str | None
) -> bytes:
    """Write one span as the field of a ScopeSpans that holds it.

    Args:
        span: Ids, times, events and links.
        name: Of the span.
        kind: Of the span.
        attributes: All that is sent of it.
        message: Why it failed, as far as that may leave.
    """
    parts = [b"\x0a\x10", span.trace_id.to_bytes(16), b"\x12\x08", span.span_id.to_bytes(8)]
    if span.trace_state:
        parts.append(_framed(b"\x1a", _text(span.trace_state.to_header())))
    if span.parent_id:
        parts += (b"\x22\x08", span.parent_id.to_bytes(8))
    parts += (
        _framed(b"\x2a", _text(name)),
        b"\x30",
        _SMALL[_KINDS[kind]],
        b"\x39",
        _FIXED64(span.start_ns),
        b"\x41",
        _FIXED64(span.end_ns),
    )
    parts += _pairs(b"\x4a", attributes)
    for event, at_ns, facts in span.events or ():
        body = b"\x09" + _FIXED64(at_ns) + _framed(b"\x12", _text(event))
        parts.append(_framed(b"\x5a", body + b"".join(_pairs(b"\x1a", facts))))
    for context, facts in span.links or ():
        body = (
            b"\x0a\x10" + context.trace_id.to_bytes(16) + b"\x12\x08" + context.span_id.to_bytes(8)
        )
        flags = _HAS_IS_REMOTE | (_IS_REMOTE if context.is_remote else 0)
        body += b"".join(_pairs(b"\x22", facts)) + b"\x35" + _FIXED32(flags)
        parts.append(_framed(b"\x6a", body))
    if span.failure is None:
        parts.append(b"\x7a\x00")
    else:
        said = _framed(b"\x12", _text(message)) if message else b""
        parts.append(_framed(b"\x7a", said + b"\x18" + _SMALL[_STATUS_ERROR]))
    flags = _HAS_IS_REMOTE | (_IS_REMOTE if span.parent_is_remote else 0)
    parts += (b"\x85\x01", _FIXED32(flags))
    return _framed(b"\x12", b"".join(parts))


def encode_request(
    spans: Iterable[bytes], resource: Resource, scope: InstrumentationScope
) -> bytes:
    """Write an ExportTraceServiceRequest of spans that share a resource and a scope."""
    of_resource = _framed(b"\x0a", b"".join(_pairs(b"\x0a", resource.attributes)))
    of_scope = _framed(b"\x0a", _text(scope.name))
    if scope.version:
        of_scope += _framed(b"\x12", _text(scope.version))
    in_scope = _framed(b"\x0a", of_scope) + b"".join(spans)
    if scope.schema_url:
        in_scope += _framed(b"\x1a", _text(scope.schema_url))
    body = of_resource + _framed(b"\x12", in_scope)
    if resource.schema_url:
        body += _framed(b"\x1a", _text(resource.schema_url))
    return _framed(b"\x0a", body)

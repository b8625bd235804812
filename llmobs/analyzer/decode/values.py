"""Attribute values as a kind, a number and a text: how every signal keeps them."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from llmobs.records import (
    VALUE_BOOL,
    VALUE_BYTES,
    VALUE_DOUBLE,
    VALUE_INT,
    VALUE_LIST,
    VALUE_MAP,
    VALUE_STRING,
    VALUE_UNSET,
)

__all__ = ["Value", "json_text", "read_value", "varint"]


class Value(NamedTuple):
    """One attribute value.

    Attributes:
        kind: One of ``VALUE_*``.
        number: A bool, an int, or the bits of a double; else 0.
        text: A string; a list or map as JSON; bytes as base64; else "".
    """

    kind: int
    number: int = 0
    text: str = ""


def read_value(value: AnyValue) -> Value:
    """Return an attribute value in the form that `RAW_ATTRIBUTE_SCHEMA` has."""
    match value.WhichOneof("value"):
        case "string_value":
            return Value(VALUE_STRING, text=value.string_value)
        case "bool_value":
            return Value(VALUE_BOOL, int(value.bool_value))
        case "int_value":
            return Value(VALUE_INT, value.int_value)
        case "double_value":
            bits: int = struct.unpack("<q", struct.pack("<d", value.double_value))[0]
            return Value(VALUE_DOUBLE, bits)
        case "array_value":
            return Value(VALUE_LIST, text=json_text(value))
        case "kvlist_value":
            return Value(VALUE_MAP, text=json_text(value))
        case "bytes_value":
            return Value(VALUE_BYTES, text=base64.b64encode(value.bytes_value).decode())
        case _:
            return Value(VALUE_UNSET)


def json_text(value: AnyValue) -> str:
    """Write a value as compact JSON; bytes as base64, not-a-number and infinities as strings.

    A map that has a key twice keeps both: the order of the wire is the order of the text.
    """
    match value.WhichOneof("value"):
        case "string_value":
            return json.dumps(value.string_value, ensure_ascii=False)
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return _json_double(value.double_value)
        case "array_value":
            return "[" + ",".join(map(json_text, value.array_value.values)) + "]"
        case "kvlist_value":
            pairs = (
                f"{json.dumps(pair.key, ensure_ascii=False)}:{json_text(pair.value)}"
                for pair in value.kvlist_value.values
            )
            return "{" + ",".join(pairs) + "}"
        case "bytes_value":
            return json.dumps(base64.b64encode(value.bytes_value).decode())
        case _:
            return "null"


def _json_double(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def varint(value: int) -> bytes:
    """Write a number from 0 up as protobuf does."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)

"""OTLP/JSON to protobuf messages.

OTLP/JSON is proto3 JSON with differences: trace and span ids are hex, not base64, and what a
receiver does not know it ignores. Field names in snake_case and enum values by name are taken
too, as protobuf's own reader does.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from llmobs.errors import BadRequestError

__all__ = ["MAX_DEPTH", "from_json"]

M = TypeVar("M", bound=Message)

MAX_DEPTH: Final = 100
"""Levels of messages, as upb allows in protobuf; lists and maps in an attribute take two each."""

# What protobuf's reader lets through: infinity for an integer, half a character as a name.
_PROTOBUFS_OWN: Final = (OverflowError, SystemError)
_IDS: Final = frozenset(
    {"traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id"}
)
# What is below these is the user's, and no id of ours.
_VALUES: Final = frozenset({"attributes", "body", "value"})


def from_json(kind: type[M], body: bytes) -> M:
    """Read an OTLP/JSON body.

    Raises:
        BadRequestError: It is no JSON, or not such a request.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise BadRequestError(f"The body can't be read as JSON: {reason}.") from error
    if not isinstance(document, dict):
        found = type(document).__name__
        raise BadRequestError(f"An OTLP/JSON request is an object, and the body is a {found}.")
    message = kind()
    try:
        json_format.ParseDict(
            _with_ids(document, ""),
            message,
            ignore_unknown_fields=True,
            max_recursion_depth=MAX_DEPTH,
        )
        message.SerializeToString()  # a lone surrogate shows only here
    except (json_format.ParseError, RecursionError, ValueError, *_PROTOBUFS_OWN) as error:
        reason = str(error).rstrip(".") or "it is nested too deeply"
        raise BadRequestError(f"The body is not an OTLP/JSON request: {reason}.") from error
    return message


def _with_ids(node: Any, place: str) -> Any:
    """Return the document with ids in base64, where protobuf's reader expects it."""
    if isinstance(node, list):
        return [_with_ids(item, f"{place}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    out = {}
    for name, value in node.items():
        if name in _IDS:
            out[name] = _base64(value, f"{place}.{name}".lstrip("."))
        elif name in _VALUES:
            out[name] = value
        else:
            out[name] = _with_ids(value, f"{place}.{name}")
    return out


def _base64(value: Any, place: str) -> str:
    if value is None:
        return ""
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (TypeError, ValueError) as error:
        message = f"The body is not an OTLP/JSON request: {place} is no hex text: {value!r:.60}."
        raise BadRequestError(message) from error

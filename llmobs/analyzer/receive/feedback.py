"""Feedback from web pages: a few fields of JSON, which become the conventions' evaluation event.

From there on it is a log record like the SDK's `llmobs.feedback` sends: kept in the log before it
is acknowledged, and joined to its span whichever of both comes first.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from llmobs import semconv
from llmobs.errors import BadRequestError

__all__ = ["MAX_FEEDBACK_BYTES", "read_feedback"]

MAX_FEEDBACK_BYTES: Final = 64 << 10
"""Of a body, packed or not: a hundred comments of a few sentences."""
MAX_ITEMS: Final = 100

# Field -> the most characters that it may have.
_TEXTS: Final[Mapping[str, int]] = {
    "response_id": 200,
    "session_id": 200,
    "user_id": 200,
    "service": 200,
    "feature": 100,
    "name": 100,
    "label": 100,
    "comment": 4000,
}
_IDS: Final = {"trace_id": 16, "span_id": 8}  # in bytes, sent as hex
_FIELDS: Final = (*_IDS, *_TEXTS, "score")
# Field -> attribute of the event.
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "label": semconv.GEN_AI_EVALUATION_SCORE_LABEL,
    "comment": semconv.GEN_AI_EVALUATION_EXPLANATION,
    "response_id": semconv.GEN_AI_RESPONSE_ID,
    "session_id": semconv.SESSION_ID,
    "user_id": semconv.USER_ID,
    "feature": semconv.LLMOBS_FEATURE,
}
# As `llmobs.feedback`. Names that pages choose stand below it: none of them speaks for a scorer.
_NAME: Final = "user_feedback"
_SOURCE: Final = "user"


def read_feedback(body: bytes, *, clock: Callable[[], int] = time.time_ns) -> tuple[bytes, int]:
    """Turn feedback into an OTLP export request of log records.

    Args:
        body: JSON, one object or a list of some. An object has ``score`` (a number or a boolean),
            ``label`` or ``comment``, and says of what: ``trace_id`` (with ``span_id``),
            ``response_id`` or ``session_id``. It may have ``name`` (``user_feedback.`` goes
            before it), ``user_id``, ``service`` and ``feature``.
        clock: Nanoseconds since 1970.

    Returns:
        The request in protobuf, and how many records it holds.

    Raises:
        BadRequestError: It is something else; the message names the field.
    """
    try:
        said = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise BadRequestError(f"feedback is not JSON: {str(error)[:100]}") from error
    is_list = isinstance(said, list)
    items = said if is_list else [said]
    if not 0 < len(items) <= MAX_ITEMS:
        raise BadRequestError(f"feedback is a list of {len(items)}; send 1 to {MAX_ITEMS} at once")
    now_ns = clock()
    request = ExportLogsServiceRequest()
    by_service: dict[str, ResourceLogs] = {}
    for i, item in enumerate(items):
        try:
            service, record = _record(item, now_ns)
        except BadRequestError as error:
            place = f"feedback {i}" if is_list else "feedback"
            raise BadRequestError(f"{place}: {error}") from error
        if service not in by_service:
            by_service[service] = _resource(request, service)
        by_service[service].scope_logs[0].log_records.append(record)
    return request.SerializeToString(), len(items)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _resource(request: ExportLogsServiceRequest, service: str) -> ResourceLogs:
    resource: ResourceLogs = request.resource_logs.add()
    if service:
        resource.resource.attributes.append(_text(semconv.SERVICE_NAME, service))
    resource.scope_logs.add().scope.name = "llmobs.feedback"
    return resource


def _record(item: Any, now_ns: int) -> tuple[str, LogRecord]:
    """Return the service of one item, and its event."""
    if not isinstance(item, dict):
        raise BadRequestError(f"is no object but {str(item)[:50]!r}")
    given = {field: value for field, value in item.items() if value is not None}
    if unknown := sorted(given.keys() - set(_FIELDS)):
        raise BadRequestError(f"{unknown[0][:50]!r} is not known; it takes {', '.join(_FIELDS)}")
    ids = {field: _id(field, given.get(field, ""), size) for field, size in _IDS.items()}
    texts = {
        field: _checked(field, given[field], limit)
        for field, limit in _TEXTS.items()
        if field in given
    }
    if ids["span_id"] and not ids["trace_id"]:
        raise BadRequestError("a span_id needs the trace_id beside it")
    if not ids["trace_id"] and not texts.get("response_id") and not texts.get("session_id"):
        raise BadRequestError("what is it about? give trace_id, response_id or session_id")
    if "score" not in given and not texts.get("label") and not texts.get("comment"):
        raise BadRequestError("it says nothing; give score, label or comment")
    record = LogRecord(
        time_unix_nano=now_ns,
        observed_time_unix_nano=now_ns,
        event_name=semconv.EVENT_GEN_AI_EVALUATION_RESULT,
        trace_id=ids["trace_id"],
        span_id=ids["span_id"],
    )
    name = f"{_NAME}.{texts['name']}" if texts.get("name") else _NAME
    record.attributes.append(_text(semconv.GEN_AI_EVALUATION_NAME, name))
    record.attributes.append(_text(semconv.LLMOBS_FEEDBACK_SOURCE, _SOURCE))
    for field, attribute in _ATTRIBUTES.items():
        if texts.get(field):
            record.attributes.append(_text(attribute, texts[field]))
    if "score" in given:
        score = record.attributes.add(key=semconv.GEN_AI_EVALUATION_SCORE_VALUE)
        score.value.double_value = _number(given["score"])
    return texts.get("service", ""), record


def _id(field: str, value: Any, size: int) -> bytes:
    if value == "":
        return b""
    pattern = rf"[0-9a-fA-F]{{{2 * size}}}"
    if not isinstance(value, str) or not re.fullmatch(pattern, value) or not value.strip("0"):
        raise BadRequestError(
            f"{field} is {str(value)[:50]!r}; it takes {2 * size} hex digits that are not all 0"
        )
    return bytes.fromhex(value)


def _checked(field: str, value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise BadRequestError(f"{field} is no text but {str(value)[:50]!r}")
    if len(value) > limit:
        raise BadRequestError(f"{field} has {len(value)} characters; it takes {limit} at most")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRequestError(f"{field} has half of a surrogate pair; send whole characters")
    return value


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadRequestError(f"score is {str(value)[:50]!r}; it takes a number, true or false")
    return number


def _text(key: str, value: str) -> KeyValue:
    attribute = KeyValue(key=key)
    attribute.value.string_value = value
    return attribute

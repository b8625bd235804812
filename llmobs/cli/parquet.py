"""Exported Parquet files back to OTLP: what is replayed goes through every stage again.

Each column becomes the attribute of OpenTelemetry's conventions that fills it, so that
`normalize` makes the same row of it. A price is not sent: the span is priced anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from llmobs import semconv
from llmobs.analyzer.normalize import messages
from llmobs.cli.recorded import PROTOBUF, Recorded
from llmobs.errors import BadRequestError
from llmobs.records import EVENT_SCHEMA, SPAN_SCHEMA, Signal

__all__ = ["events_request", "read_parquet", "spans_request"]

Row = Mapping[str, Any]

# As many spans as a collector sends at once; long texts make a request of some MB of them.
_BATCH_ROWS: Final = 512
_NO_PARENT: Final = bytes(8)
_THRESHOLDS: Final = 1 << 56  # of a sampling threshold, from 0

_TEXTS: Final[Mapping[str, str]] = {
    "operation": semconv.GEN_AI_OPERATION_NAME,
    "provider": semconv.GEN_AI_PROVIDER_NAME,
    "request_model": semconv.GEN_AI_REQUEST_MODEL,
    "response_model": semconv.GEN_AI_RESPONSE_MODEL,
    "agent": semconv.GEN_AI_AGENT_NAME,
    "tool": semconv.GEN_AI_TOOL_NAME,
    "workflow": semconv.GEN_AI_WORKFLOW_NAME,
    "session_id": semconv.GEN_AI_CONVERSATION_ID,
    "user_id": semconv.USER_ID,
    "error_type": semconv.ERROR_TYPE,
    "prompt_name": semconv.GEN_AI_PROMPT_NAME,
    "prompt_version": semconv.GEN_AI_PROMPT_VERSION,
    "response_id": semconv.GEN_AI_RESPONSE_ID,
}
_COUNTS: Final[Mapping[str, str]] = {
    "input_tokens": semconv.GEN_AI_USAGE_INPUT_TOKENS,
    "output_tokens": semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
    "cache_read_tokens": semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
    "cache_write_tokens": semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
    "reasoning_tokens": semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
}


def read_parquet(path: Path, disk: IO[bytes], start: int) -> Iterator[Recorded]:
    """Read exported spans or events as export requests.

    Args:
        path: Name of the file, for messages.
        disk: The file, open for reading.
        start: Rows that are not wanted.

    Raises:
        BadRequestError: It is no such file.
    """
    try:
        file = pq.ParquetFile(disk)
        signal, make = _kind(file.schema_arrow)
        size = path.stat().st_size
        for end, rows in _batches(file, start):
            n_read = size * end // file.metadata.num_rows
            yield Recorded(signal, PROTOBUF, make(rows), len(rows), end, n_read)
    except (pa.ArrowException, KeyError) as error:
        raise BadRequestError(
            f"{str(path)!r} is no Parquet file of spans or events that llmobs exported: {error}"
        ) from error


def _kind(schema: pa.Schema) -> tuple[Signal, Callable[[Iterable[Row]], bytes]]:
    names = set(schema.names)
    if names >= set(SPAN_SCHEMA.names):
        return "traces", spans_request
    if names >= set(EVENT_SCHEMA.names):
        return "logs", events_request
    raise KeyError("it has other columns")


def _batches(file: pq.ParquetFile, start: int) -> Iterator[tuple[int, list[Row]]]:
    """Return rows from `start` on, some at a time, with the number of the row behind them."""
    end = 0
    for group in range(file.num_row_groups):
        n_rows = file.metadata.row_group(group).num_rows
        if end + n_rows <= start:
            end += n_rows
            continue
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
            begin, end = end, end + batch.num_rows
            if end > start:
                yield end, batch.slice(max(0, start - begin)).to_pylist()


def spans_request(rows: Iterable[Row]) -> bytes:
    """Make an export request of rows of `SPAN_SCHEMA`."""
    request = ExportTraceServiceRequest()
    scopes: dict[tuple[str, str, str], Any] = {}
    for row in rows:
        place = (row["service"], row["environment"], row["scope"])
        if place not in scopes:
            of_resource = request.resource_spans.add(resource=_resource(row))
            scopes[place] = of_resource.scope_spans.add()
            scopes[place].scope.name = row["scope"]
        scopes[place].spans.append(_span(row))
    return bytes(request.SerializeToString())


def events_request(rows: Iterable[Row]) -> bytes:
    """Make an export request of rows of `EVENT_SCHEMA`."""
    request = ExportLogsServiceRequest()
    scopes: dict[tuple[str, str], Any] = {}
    for row in rows:
        place = (row["service"], row["environment"])
        if place not in scopes:
            scopes[place] = request.resource_logs.add(resource=_resource(row)).scope_logs.add()
        scopes[place].log_records.append(
            LogRecord(
                time_unix_nano=row["ts_ns"],
                trace_id=row["trace_id"] if any(row["trace_id"]) else b"",
                span_id=row["span_id"] if any(row["span_id"]) else b"",
                event_name=row["event_name"],
                severity_number=row["severity"],
                body=AnyValue(string_value=row["body"]) if row["body"] else None,
                attributes=_attributes(_others(row)),
            )
        )
    return bytes(request.SerializeToString())


def _resource(row: Row) -> Resource:
    names = {
        semconv.SERVICE_NAME: row["service"],
        semconv.DEPLOYMENT_ENVIRONMENT_NAME: row["environment"],
    }
    return Resource(attributes=_attributes({key: text for key, text in names.items() if text}))


def _span(row: Row) -> Span:
    own = {key: row[column] for column, key in _TEXTS.items() if row[column]}
    if not row["operation"] and row["request_model"]:
        own[semconv.GEN_AI_OPERATION_NAME] = _NO_OPERATION  # else a model makes it a call
    own[semconv.LLMOBS_FEATURE] = row["feature"]  # "" too: else the workflow's name would be it
    own |= {key: row[column] for column, key in _COUNTS.items() if row[column] is not None}
    if row["ttft_ns"] is not None:
        own[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = row["ttft_ns"] / 1e9
    if row["finish_reason"]:
        own[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = json.dumps([row["finish_reason"]])
    if row["cache_read_tokens"] is not None or row["cache_write_tokens"] is not None:
        own[_TOKEN_SEMANTICS] = "inclusive"  # whatever the producer's own counting was
    is_tool = row["operation"] == semconv.OPERATION_EXECUTE_TOOL
    own |= _tool_content(row) if is_tool else _content(row)
    return Span(
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        parent_span_id=b"" if row["parent_id"] == _NO_PARENT else row["parent_id"],
        trace_state=_trace_state(row["weight"]),
        name=row["name"],
        kind=row["kind"],
        start_time_unix_nano=row["ts_ns"],
        end_time_unix_nano=row["ts_ns"] + row["duration_ns"],
        status=Status(code=row["status"], message=row["status_message"]),
        attributes=_attributes({**_others(row), **own}),
    )


_NO_OPERATION: Final = "unknown"
_TOKEN_SEMANTICS: Final = "gen_ai.token.semantics"


def _trace_state(weight: float) -> str:
    """Return the sampling threshold that stands for a weight, "" for 1."""
    if weight <= 1:
        return ""
    threshold = _THRESHOLDS - round(_THRESHOLDS / weight)
    return f"ot=th:{threshold:014x}".rstrip("0")


def _tool_content(row: Row) -> dict[str, str]:
    texts = {
        semconv.GEN_AI_TOOL_CALL_ARGUMENTS: row["input_text"],
        semconv.GEN_AI_TOOL_CALL_RESULT: row["output_text"],
    }
    # A text that looks like a JSON string would be unquoted once more.
    return {key: _dumps(s) if s.startswith('"') else s for key, s in texts.items() if s}


def _content(row: Row) -> dict[str, str]:
    """Return the texts as messages; instructions that stood apart from them still do.

    Retrieved documents, which `context_text` shows too, are among the other attributes.
    """
    asked, answered = row["input_messages"], row["output_messages"]
    system = row["system_text"]
    if asked:
        told = messages.input_texts(messages.read_canonical(asked) or [])
        system = "" if told.system == system else system
    elif row["input_text"]:
        said = [("system", system)] * bool(system) + [("user", row["input_text"])]
        asked, system = _dumps([_message(role, text) for role, text in said]), ""
    if not answered and row["output_text"]:
        answered = _dumps([_message("assistant", row["output_text"])])
    texts = {
        semconv.GEN_AI_INPUT_MESSAGES: asked,
        semconv.GEN_AI_OUTPUT_MESSAGES: answered,
        semconv.GEN_AI_SYSTEM_INSTRUCTIONS: _dumps([_part(system)]) if system else "",
    }
    return {key: text for key, text in texts.items() if text}


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [_part(text)]}


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _others(row: Row) -> dict[str, Any]:
    return dict(row["attributes_s"]) | dict(row["attributes_n"])


def _attributes(values: Mapping[str, Any]) -> Iterator[KeyValue]:
    for key, value in values.items():
        match value:
            case str():
                yield KeyValue(key=key, value=AnyValue(string_value=value))
            case int():
                yield KeyValue(key=key, value=AnyValue(int_value=value))
            case _:
                yield KeyValue(key=key, value=AnyValue(double_value=value))

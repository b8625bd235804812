"""Tables of the store: one source of DDL, as numbered migrations.

Every table carries `seg`, the number of the log's segment that a row came with, and
`stored_at`. Partitions and retention follow the time of arrival, not a span's own clock: a
sender whose clock stands at 1970 or 2100 can then neither have its spans dropped at once, nor
keep them for ever, nor open a partition for each day that it makes up.
"""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from llmobs.analyzer.store.clients import Clients
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import EVENT_SCHEMA, METRIC_SCHEMA, SOURCE_SHIFT, SPAN_SCHEMA
from llmobs.semconv import INFERENCE_OPERATIONS, MODEL_OPERATIONS

__all__ = [
    "INFERENCE",
    "MINUTE_OF",
    "MODEL",
    "MODEL_CALL",
    "QUANTILES",
    "ROLLUP_COLUMNS",
    "ROLLUP_GROUPS",
    "ROLLUP_SELECT",
    "SCORE_SCHEMA",
    "SOURCE_OF",
    "UNPRICED",
    "Retention",
    "migrate",
]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept after they arrived, in days.

    Attributes:
        spans_days: Spans, scores, events and metric points.
        texts_days: Prompts, answers and bodies of events; they go earlier than their spans.
        rollups_days: The minute roll-up, which knows no user and no text.
    """

    spans_days: int
    texts_days: int
    rollups_days: int

    def __post_init__(self) -> None:
        for name in ("spans_days", "texts_days", "rollups_days"):
            days = getattr(self, name)
            if not 1 <= days <= 36_500:
                raise ConfigurationError(f"retention {name} is {days}; use 1 to 36500 days")


def _sql_list(names: frozenset[str]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in sorted(names)) + ")"


INFERENCE: Final = f"operation IN {_sql_list(INFERENCE_OPERATIONS)}"
"""Condition: the span is a call."""
MODEL_CALL: Final = f"operation IN {_sql_list(MODEL_OPERATIONS)}"
"""Condition: a provider bills the span; agents and workflows repeat their calls' tokens."""
MODEL: Final = "if(spans.request_model = '', spans.response_model, spans.request_model)"
"""The model that was asked for; what answered where no request names one."""
UNPRICED: Final = (
    f"{MODEL_CALL} AND isNull(cost_usd) "
    "AND NOT (status = 2 AND isNull(input_tokens) AND isNull(output_tokens))"
)
"""Condition: money was spent that we can't tell (a call that failed without usage costs none)."""
MINUTE_OF: Final = "intDiv(toUnixTimestamp64Nano(ts), 60000000000)"
"""Minutes since 1970 of a span's start (toStartOfMinute would end in the year 2106)."""
SOURCE_OF: Final = f"toUInt16(bitShiftRight(seg, {SOURCE_SHIFT}))"
"""Which log or partition a row came from; one process at a time writes rows of a source."""
QUANTILES: Final = "(0.5, 0.95, 0.99)"

SCORE_SCHEMA: Final = pa.schema(
    pa.field(name, kind, nullable=False)
    for name, kind in (
        ("seg", pa.uint64()),
        ("ts", pa.timestamp("ns", "UTC")),
        ("trace_id", pa.binary(16)),
        ("span_id", pa.binary(8)),
        ("service", pa.string()),
        ("environment", pa.string()),
        ("feature", pa.string()),
        ("session_id", pa.string()),
        ("name", pa.string()),
        ("target", pa.string()),
        ("version", pa.string()),
        ("value", pa.float64()),
        ("label", pa.string()),
        ("explanation", pa.string()),
    )
)

_TEXTS: Final = frozenset(
    {
        "input_text",
        "output_text",
        "system_text",
        "context_text",
        "input_messages",
        "output_messages",
        "body",
    }
)
# Text columns with few distinct values; the others (ids, texts, messages) stay plain.
_FEW_VALUES: Final = frozenset(
    {
        "name",
        "service",
        "environment",
        "scope",
        "operation",
        "provider",
        "request_model",
        "response_model",
        "agent",
        "tool",
        "workflow",
        "feature",
        "error_type",
        "finish_reason",
        "prompt_name",
        "prompt_version",
        "event_name",
        "unit",
        "kind",
        "target",
        "version",
        "label",
    }
)
_KINDS: Final = {
    pa.string(): "String",
    pa.int64(): "Int64",
    pa.uint64(): "UInt64",
    pa.uint8(): "UInt8",
    pa.float64(): "Float64",
    pa.binary(16): "FixedString(16)",
    pa.binary(8): "FixedString(8)",
    pa.list_(pa.float64()): "Array(Float64)",
    pa.list_(pa.int64()): "Array(Int64)",
    pa.map_(pa.string(), pa.string()): "Map(LowCardinality(String), String)",
    pa.map_(pa.string(), pa.float64()): "Map(LowCardinality(String), Float64)",
    pa.timestamp("ns", "UTC"): "DateTime64(9, 'UTC')",
}


def _column(field: pa.Field) -> str:
    """Return the DDL of one column of a record's schema."""
    if field.name in {"ts_ns", "ts"}:
        return "ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1))"
    if field.name == "span_id":
        return "span_id FixedString(8) CODEC(NONE)"  # random bytes: nothing to gain
    if field.name in _FEW_VALUES and field.type == pa.string():
        return f"{field.name} LowCardinality(String)"
    kind = _KINDS[field.type]
    codec = "CODEC(T64, ZSTD(1))" if field.type == pa.int64() else "CODEC(ZSTD(1))"
    return f"{field.name} {f'Nullable({kind})' if field.nullable else kind} {codec}"


def _table(name: str, schema: pa.Schema, order_by: str, *extra: str) -> str:
    columns = [_column(field) for field in schema]
    if "seg" not in schema.names:
        columns.append("seg UInt64 CODEC(Delta, ZSTD(1))")
    columns.append("stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))")
    columns.append("INDEX ix_seg seg TYPE minmax GRANULARITY 1")
    body = ",\n  ".join([*columns, *extra])
    return f"""CREATE TABLE IF NOT EXISTS {name} (
  {body}
) ENGINE = MergeTree PARTITION BY toDate(stored_at) ORDER BY {order_by}
SETTINGS {_DURABLE}, ttl_only_drop_parts = 1, index_granularity = {_GRANULE_ROWS}"""


# Who opens a trace reads the texts of whole granules: with the engine's 8192 rows twice the
# time, with these 0.7 % more on disk.
_GRANULE_ROWS: Final = 1024
# A part that was acknowledged survives a power cut; repeated inserts of a living client count once.
_DURABLE: Final = (
    "fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000"
)
_IX_TRACE: Final = "INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1"
_IX_SESSION: Final = "INDEX ix_session session_id TYPE bloom_filter(0.01) GRANULARITY 1"
# Finds a window of time across services without their help.
_IX_TS: Final = "INDEX ix_ts ts TYPE minmax GRANULARITY 1"

ROLLUP_SELECT: Final = f"""SELECT
  toDateTime64({MINUTE_OF} * 60, 0, 'UTC') AS minute,
  service, environment, feature, operation, provider, {MODEL} AS request_model,
  toStartOfMonth(stored_at) AS month,
  {SOURCE_OF} AS source,
  sum(weight) AS n_spans,
  sumIf(weight, status = 2) AS n_errors,
  sumIf(weight, {UNPRICED}) AS n_unpriced,
  sum(weight * input_tokens) AS n_input,
  sum(weight * output_tokens) AS n_output,
  sum(weight * cache_read_tokens) AS n_cache_read,
  sum(weight * cache_write_tokens) AS n_cache_write,
  sum(weight * reasoning_tokens) AS n_reasoning,
  sum(weight * cost_usd) AS cost,
  quantilesTDigestWeightedState{QUANTILES}(duration_ns, toUInt64(round(weight))) AS duration,
  quantilesTDigestWeightedState{QUANTILES}(ifNull(ttft_ns, 0),
    if(isNull(ttft_ns), 0, toUInt64(round(weight)))) AS ttft
FROM spans"""
"""What the roll-up holds of spans, before a condition and `ROLLUP_GROUPS`."""
ROLLUP_GROUPS: Final = (
    f"GROUP BY minute, service, environment, feature, operation, provider, {MODEL}, month, source"
)

ROLLUP_COLUMNS: Final = (
    "minute, service, environment, feature, operation, provider, request_model, month, source, "
    "n_spans, n_errors, n_unpriced, n_input, n_output, n_cache_read, n_cache_write, n_reasoning, "
    "cost, duration, ttft"
)
"""The roll-up's columns, in the order of `ROLLUP_SELECT`."""

_MINUTES: Final = f"""CREATE TABLE IF NOT EXISTS minutes (
  minute DateTime64(0, 'UTC') CODEC(Delta, ZSTD(1)),
  service LowCardinality(String),
  environment LowCardinality(String),
  feature LowCardinality(String),
  operation LowCardinality(String),
  provider LowCardinality(String),
  request_model LowCardinality(String),
  month Date,
  source UInt16,
  n_spans SimpleAggregateFunction(sum, Float64),
  n_errors SimpleAggregateFunction(sum, Float64),
  n_unpriced SimpleAggregateFunction(sum, Float64),
  n_input SimpleAggregateFunction(sum, Nullable(Float64)),
  n_output SimpleAggregateFunction(sum, Nullable(Float64)),
  n_cache_read SimpleAggregateFunction(sum, Nullable(Float64)),
  n_cache_write SimpleAggregateFunction(sum, Nullable(Float64)),
  n_reasoning SimpleAggregateFunction(sum, Nullable(Float64)),
  cost SimpleAggregateFunction(sum, Nullable(Float64)),
  duration AggregateFunction(quantilesTDigestWeighted{QUANTILES}, Int64, UInt64),
  ttft AggregateFunction(quantilesTDigestWeighted{QUANTILES}, Int64, UInt64)
) ENGINE = AggregatingMergeTree PARTITION BY month
ORDER BY (minute, service, environment, feature, operation, provider, request_model, month, source)
SETTINGS {_DURABLE}, ttl_only_drop_parts = 1"""

_SEGMENTS: Final = f"""CREATE TABLE IF NOT EXISTS segments (
  seg UInt64 CODEC(Delta, ZSTD(1)),
  until UInt64 CODEC(Delta, ZSTD(1)),
  n_spans UInt64 CODEC(T64, ZSTD(1)),
  n_events UInt64 CODEC(T64, ZSTD(1)),
  n_metrics UInt64 CODEC(T64, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))
) ENGINE = MergeTree PARTITION BY toYYYYMM(stored_at) ORDER BY seg
SETTINGS {_DURABLE}, ttl_only_drop_parts = 1"""

_SCORED: Final = f"""CREATE TABLE IF NOT EXISTS scored (
  seg UInt64 CODEC(Delta, ZSTD(1)),
  n_spans UInt64 CODEC(T64, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))
) ENGINE = MergeTree PARTITION BY toYYYYMM(stored_at) ORDER BY seg
SETTINGS {_DURABLE}, ttl_only_drop_parts = 1"""

# Minutes whose roll-up is being rebuilt: what a killed process leaves here is rebuilt on open.
_STALE_MINUTES: Final = f"""CREATE TABLE IF NOT EXISTS stale_minutes (minute Int64, source UInt16)
ENGINE = MergeTree ORDER BY (source, minute) SETTINGS {_DURABLE}"""


def _message(role: str, column: str) -> str:
    """Return SQL for the message that a text column stands for."""
    head = f'{{"role":"{role}","parts":[{{"type":"text","content":'
    return f"concat('{head}', toJSONString({column}), '}}]}}')"


# The table of the OpenTelemetry Collector's ClickHouse exporter, for dashboards made for it.
_OTEL_TRACES: Final = f"""CREATE OR REPLACE VIEW otel_traces AS SELECT
  ts AS Timestamp,
  lower(hex(trace_id)) AS TraceId,
  lower(hex(span_id)) AS SpanId,
  if(parent_id = toFixedString('', 8), '', lower(hex(parent_id))) AS ParentSpanId,
  '' AS TraceState,
  name AS SpanName,
  transform(kind, [1, 2, 3, 4, 5], ['Internal', 'Server', 'Client', 'Producer', 'Consumer'],
    'Unspecified') AS SpanKind,
  service AS ServiceName,
  map('service.name', service, 'deployment.environment.name', environment) AS ResourceAttributes,
  scope AS ScopeName,
  '' AS ScopeVersion,
  mapFilter((k, v) -> v != '', mapConcat(
    mapApply((k, v) -> (toString(k), v), attributes_s),
    mapApply((k, v) -> (toString(k), toString(v)), attributes_n),
    map(
      'gen_ai.operation.name', toString(operation),
      'gen_ai.provider.name', toString(provider),
      'gen_ai.request.model', toString(request_model),
      'gen_ai.response.model', toString(response_model),
      'gen_ai.agent.name', toString(agent),
      'gen_ai.tool.name', toString(tool),
      'gen_ai.conversation.id', session_id,
      'user.id', user_id,
      'error.type', toString(error_type),
      'gen_ai.usage.input_tokens', ifNull(toString(input_tokens), ''),
      'gen_ai.usage.output_tokens', ifNull(toString(output_tokens), ''),
      'llmobs.feature', toString(feature),
      'llmobs.cost_usd', ifNull(toString(cost_usd), ''),
      'gen_ai.input.messages', if(input_messages != '' OR input_text = '', input_messages,
        concat('[', if(system_text = '', '', concat({_message("system", "system_text")}, ', ')),
          {_message("user", "input_text")}, ']')),
      'gen_ai.output.messages', if(output_messages != '' OR output_text = '', output_messages,
        concat('[', {_message("assistant", "output_text")}, ']'))
    ))) AS SpanAttributes,
  duration_ns AS Duration,
  transform(status, [1, 2], ['Ok', 'Error'], 'Unset') AS StatusCode,
  status_message AS StatusMessage
FROM spans"""

_MIGRATIONS: Final = (
    (
        _table("spans", SPAN_SCHEMA, "(service, ts)", _IX_TRACE, _IX_SESSION, _IX_TS),
        _table("scores", SCORE_SCHEMA, "(name, ts)", _IX_TRACE, _IX_SESSION),
        _table("events", EVENT_SCHEMA, "(service, ts)", _IX_TRACE),
        _table("metric_points", METRIC_SCHEMA, "(name, service, ts)"),
        _SEGMENTS,
        _SCORED,
        _STALE_MINUTES,
        _MINUTES,
        "CREATE MATERIALIZED VIEW IF NOT EXISTS minutes_of_spans TO minutes AS "
        f"{ROLLUP_SELECT} {ROLLUP_GROUPS}",
        _OTEL_TRACES,
    ),
)
"""Statements of each version, oldest first; each can be run again after a kill in between."""

_META: Final = f"""CREATE TABLE IF NOT EXISTS meta (
  name String, value String, at DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC')
) ENGINE = MergeTree ORDER BY (name, at) SETTINGS {_DURABLE}"""


def migrate(clients: Clients, retention: Retention) -> None:
    """Bring the tables to this version's shape and retention.

    Raises:
        StoreError: The tables were made by a newer version of llmobs.
    """
    clients.command(_META)
    known = {
        row["name"]: row["value"]
        for row in clients.ask("SELECT name, argMax(value, at) AS value FROM meta GROUP BY name")
    }
    version = int(known.get("version", "0"))
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"the store has tables of version {version}, this llmobs knows {len(_MIGRATIONS)}; "
            "install the newer llmobs again"
        )
    for number, statements in enumerate(_MIGRATIONS[version:], start=version + 1):
        for statement in statements:
            clients.command(statement)
        _remember(clients, "version", str(number))
    if known.get("retention") != repr(retention):
        _retain(clients, retention)
        _remember(clients, "retention", repr(retention))


def _retain(clients: Clients, retention: Retention) -> None:
    rows = f"MODIFY TTL stored_at + toIntervalDay({retention.spans_days})"
    texts = f"stored_at + toIntervalDay({min(retention.texts_days, retention.spans_days)})"
    for table, schema in (("spans", SPAN_SCHEMA), ("events", EVENT_SCHEMA)):
        columns = [
            f"MODIFY COLUMN {_column(field)} TTL {texts}"
            for field in schema
            if field.name in _TEXTS
        ]
        clients.command(f"ALTER TABLE {table} {', '.join([*columns, rows])}")
    for table in ("scores", "metric_points", "segments", "scored"):
        clients.command(f"ALTER TABLE {table} {rows}")
    # A month's partition goes when its last day is old enough.
    days = retention.rollups_days + 31
    clients.command(f"ALTER TABLE minutes MODIFY TTL month + toIntervalDay({days})")


def _remember(clients: Clients, name: str, value: str) -> None:
    clients.command(
        "INSERT INTO meta (name, value) SELECT {name:String}, {value:String}",
        {"name": name, "value": value},
    )

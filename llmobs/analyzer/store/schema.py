"""Tables of the store: one source of DDL, as numbered migrations.

Every table carries `seg`, the number of the log's segment that a row came with, and
`stored_at`. Partitions and retention follow the time of arrival, not a span's own clock: a
sender whose clock stands at 1970 or 2100 can then neither have its spans dropped at once, nor
keep them for ever, nor open a partition for each day that it makes up.
"""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from llmobs.analyzer.store.clients import Clients
from llmobs.analyzer.store.cluster import Definition, Layout, RollUp, Table, View
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import (
    EVENT_SCHEMA,
    METRIC_SCHEMA,
    SOURCE_SHIFT,
    SPAN_SCHEMA,
    Cursor,
    first_number,
)
from llmobs.semconv import INFERENCE_OPERATIONS, MODEL_OPERATIONS

__all__ = [
    "FAILURE",
    "HOUR_OF",
    "INFERENCE",
    "MINUTE_OF",
    "MODEL",
    "MODEL_CALL",
    "OF_TRACES",
    "QUANTILES",
    "ROLLUP_COLUMNS",
    "ROLLUP_GROUPS",
    "ROLLUP_SELECT",
    "SCORE_SCHEMA",
    "SOURCE_OF",
    "UNPRICED",
    "WINDOW",
    "Retention",
    "migrate",
    "statements",
    "unread",
]

logger = logging.getLogger(__name__)


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
FAILURE: Final = "if(status = 2, if(error_type = '', '_OTHER', error_type), '')"
"""Why a span failed; "" where it did not."""
MINUTE_OF: Final = "intDiv(toUnixTimestamp64Nano(ts), 60000000000)"
"""Minutes since 1970 of a span's start (toStartOfMinute would end in the year 2106)."""
HOUR_OF: Final = "intDiv(toUnixTimestamp64Nano(ts), 3600000000000)"
"""Hours since 1970 of a span's start. Projections are matched by this text."""
WINDOW: Final = (
    "ts >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')"
    " AND ts < fromUnixTimestamp64Nano({until:Int64}, 'UTC')"
)
"""Condition: a row began within the bounds, the last exclusive."""
OF_TRACES: Final = "trace_id IN (SELECT toFixedString(unhex(arrayJoin({ids:Array(String)})), 16))"
"""Condition: a row is of the traces whose ids, in hex, ``ids`` is bound to."""
SOURCE_OF: Final = f"toUInt16(bitShiftRight(seg, {SOURCE_SHIFT}))"
"""Which log or partition a row came from; one process at a time writes rows of a source."""


def unread(after: Cursor) -> str:
    """Return the condition that a segment, of whatever source, lies behind a cursor."""
    read = (f"(seg >= {first_number(source)} AND seg <= {last})" for source, last in after.items())
    return f"NOT ({' OR '.join(read) or '0'})"


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


# Texts are four fifths of what is stored. Against level 1 in blocks of a granule, level 3 in
# blocks of a megabyte takes a fifth off for 1 µs a span; level 6 another fifteenth for 6 µs.
_TEXT_CODEC: Final = "CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576)"


def _column(field: pa.Field) -> str:
    """Return the DDL of one column of a record's schema."""
    if field.name in {"ts_ns", "ts"}:
        return "ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1))"
    if field.name == "span_id":
        return "span_id FixedString(8) CODEC(NONE)"  # random bytes: nothing to gain
    if field.name in _FEW_VALUES and field.type == pa.string():
        return f"{field.name} LowCardinality(String) CODEC(ZSTD(1))"
    if field.name in _TEXTS:
        return f"{field.name} String {_TEXT_CODEC}"
    kind = _KINDS[field.type]
    codec = "CODEC(T64, ZSTD(1))" if field.type == pa.int64() else "CODEC(ZSTD(1))"
    return f"{field.name} {f'Nullable({kind})' if field.nullable else kind} {codec}"


def _table(name: str, schema: pa.Schema, order_by: str, *extra: str) -> Table:
    columns = [_column(field) for field in schema]
    if "seg" not in schema.names:
        columns.append("seg UInt64 CODEC(Delta, ZSTD(1))")
    columns.append("stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))")
    columns.append("INDEX ix_seg seg TYPE minmax GRANULARITY 1")
    return Table(
        name,
        ",\n  ".join([*columns, *extra]),
        "MergeTree",
        f"PARTITION BY toDate(stored_at) ORDER BY {order_by}",
        f"{_DURABLE}, {_PACKED}, {_ONE_FILE}, {_WIDE_MERGES}, ttl_only_drop_parts = 1, "
        f"index_granularity = {_GRANULE_ROWS}, lightweight_mutation_projection_mode = 'rebuild'",
    )


# Who opens a trace reads the texts of whole granules, so they are smaller than the engine's 8192
# rows. Half of these cost 0.5 µs a span more to insert.
_GRANULE_ROWS: Final = 2048
# A part that was acknowledged survives a power cut; repeated inserts of a living client count once.
_DURABLE: Final = (
    "fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000"
)
# Also for what can't name a codec: the columns of projections and the states of the roll-up.
_PACKED: Final = "default_compression_codec = 'ZSTD(1)'"
# Below this a part is one file and not a hundred and thirty, a few for each column: making,
# syncing and removing files was half of what an insert costs.
_ONE_FILE: Final = f"min_bytes_for_wide_part = {128 << 20}"
# Ten parts and more are merged at once: against the engine's five a span is written 1.5 times
# less often until its day is done, and a question reads a dozen parts more.
_WIDE_MERGES: Final = "merge_selector_base = 10"
_IX_TRACE: Final = "INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1"
# A hundred sessions are looked for at once: each may be wrong about a granule.
_IX_SESSION: Final = "INDEX ix_session session_id TYPE bloom_filter(0.001) GRANULARITY 1"
# What the page asks of a day, in rows of an hour or a minute and not of every span: the engine
# keeps them in each part beside the rows that they sum up, so nothing can come apart.
_SESSION_HOURS: Final = f"""PROJECTION session_hours (
    SELECT {HOUR_OF}, session_id, user_id, service, environment, feature,
      min(ts), max(ts),
      sumIf(weight, {INFERENCE}),
      sumIf(weight, {INFERENCE} AND status = 2),
      countIf({MODEL_CALL}),
      sumIf(weight * cost_usd, {MODEL_CALL}),
      sumIf(weight, {UNPRICED}),
      sumIf(weight * input_tokens, {MODEL_CALL}),
      sumIf(weight * output_tokens, {MODEL_CALL})
    GROUP BY {HOUR_OF}, session_id, user_id, service, environment, feature)"""
_SCORE_MINUTES: Final = f"""PROJECTION score_minutes (
    SELECT {MINUTE_OF}, name, target, version, service, environment, feature,
      max(ts), count(), countIf(isNaN(value)), sumIf(value, NOT isNaN(value)),
      countIf(label = 'fail')
    GROUP BY {MINUTE_OF}, name, target, version, service, environment, feature)"""
# Finds a window of time across services without their help.
_IX_TS: Final = "INDEX ix_ts ts TYPE minmax GRANULARITY 1"

_ROLLED_UP: Final = f"""SELECT
  toDateTime64({MINUTE_OF} * 60, 0, 'UTC') AS minute,
  service, environment, feature, operation, provider, {MODEL} AS request_model,
  {FAILURE} AS failure,
  toStartOfMonth(stored_at) AS month,
  {SOURCE_OF} AS source,
  sum(weight) AS n_spans,
  sumIf(weight, {UNPRICED}) AS n_unpriced,
  sum(weight * input_tokens) AS n_input,
  sum(weight * output_tokens) AS n_output,
  sum(weight * cache_read_tokens) AS n_cache_read,
  sum(weight * cache_write_tokens) AS n_cache_write,
  sum(weight * reasoning_tokens) AS n_reasoning,
  sum(weight * cost_usd) AS cost,
  quantilesTDigestWeightedState{QUANTILES}(duration_ns, toUInt64(round(weight))) AS duration,
  quantilesTDigestWeightedState{QUANTILES}(ifNull(ttft_ns, 0),
    if(isNull(ttft_ns), 0, toUInt64(round(weight)))) AS ttft"""
ROLLUP_SELECT: Final = f"{_ROLLED_UP}\nFROM spans"
"""What the roll-up holds of spans, before a condition and `ROLLUP_GROUPS`."""
ROLLUP_GROUPS: Final = (
    f"GROUP BY minute, service, environment, feature, operation, provider, {MODEL}, {FAILURE}, "
    "month, source"
)

ROLLUP_COLUMNS: Final = (
    "minute, service, environment, feature, operation, provider, request_model, failure, month, "
    "source, n_spans, n_unpriced, n_input, n_output, n_cache_read, n_cache_write, n_reasoning, "
    "cost, duration, ttft"
)
"""The roll-up's columns, in the order of `ROLLUP_SELECT`."""

_MINUTES: Final = Table(
    "minutes",
    f"""minute DateTime64(0, 'UTC') CODEC(Delta, ZSTD(1)),
  service LowCardinality(String),
  environment LowCardinality(String),
  feature LowCardinality(String),
  operation LowCardinality(String),
  provider LowCardinality(String),
  request_model LowCardinality(String),
  failure LowCardinality(String),
  month Date,
  source UInt16,
  n_spans SimpleAggregateFunction(sum, Float64),
  n_unpriced SimpleAggregateFunction(sum, Float64),
  n_input SimpleAggregateFunction(sum, Nullable(Float64)),
  n_output SimpleAggregateFunction(sum, Nullable(Float64)),
  n_cache_read SimpleAggregateFunction(sum, Nullable(Float64)),
  n_cache_write SimpleAggregateFunction(sum, Nullable(Float64)),
  n_reasoning SimpleAggregateFunction(sum, Nullable(Float64)),
  cost SimpleAggregateFunction(sum, Nullable(Float64)),
  duration AggregateFunction(quantilesTDigestWeighted{QUANTILES}, Int64, UInt64),
  ttft AggregateFunction(quantilesTDigestWeighted{QUANTILES}, Int64, UInt64)""",
    "AggregatingMergeTree",
    "PARTITION BY month ORDER BY (minute, service, environment, feature, operation, provider, "
    "request_model, failure, month, source)",
    f"{_DURABLE}, {_PACKED}, ttl_only_drop_parts = 1",
)

_SEGMENTS: Final = Table(
    "segments",
    """seg UInt64 CODEC(Delta, ZSTD(1)),
  until UInt64 CODEC(Delta, ZSTD(1)),
  n_spans UInt64 CODEC(T64, ZSTD(1)),
  n_events UInt64 CODEC(T64, ZSTD(1)),
  n_metrics UInt64 CODEC(T64, ZSTD(1)),
  n_bytes UInt64 CODEC(T64, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))""",
    "MergeTree",
    "PARTITION BY toYYYYMM(stored_at) ORDER BY seg",
    f"{_DURABLE}, ttl_only_drop_parts = 1",
)

_SCORED: Final = Table(
    "scored",
    """seg UInt64 CODEC(Delta, ZSTD(1)),
  n_spans UInt64 CODEC(T64, ZSTD(1)),
  n_bytes UInt64 CODEC(T64, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))""",
    "MergeTree",
    "PARTITION BY toYYYYMM(stored_at) ORDER BY seg",
    f"{_DURABLE}, ttl_only_drop_parts = 1",
)

# Minutes whose roll-up is being rebuilt: what a killed process leaves here is rebuilt on open.
_STALE_MINUTES: Final = Table(
    "stale_minutes",
    "minute Int64, source UInt16",
    "MergeTree",
    "ORDER BY (source, minute)",
    _DURABLE,
)


# Whom to forget (see `erasure`): hashes of users and sessions for good, their traces for a while.
_ERASURES: Final = Table(
    "erasures",
    """kind LowCardinality(String),
  id FixedString(16),
  until DateTime64(9, 'UTC'),
  noted_at DateTime('UTC') DEFAULT now('UTC')""",
    "MergeTree",
    "ORDER BY (kind, id) TTL noted_at + toIntervalDay(30) DELETE WHERE kind = 'trace'",
    _DURABLE,
)


def _message(role: str, column: str) -> str:
    """Return SQL for the message that a text column stands for."""
    head = f'{{"role":"{role}","parts":[{{"type":"text","content":'
    return f"concat('{head}', toJSONString({column}), '}}]}}')"


# The table of the OpenTelemetry Collector's ClickHouse exporter, for dashboards made for it.
_OTEL_TRACES: Final = View(
    "otel_traces",
    f"""SELECT
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
FROM spans""",
)

_MIGRATIONS: Final[tuple[tuple[Definition, ...], ...]] = (
    (
        _table(
            "spans", SPAN_SCHEMA, "(service, ts)", _IX_TRACE, _IX_SESSION, _IX_TS, _SESSION_HOURS
        ),
        _table("scores", SCORE_SCHEMA, "(name, ts)", _IX_TRACE, _IX_SESSION, _SCORE_MINUTES),
        _table("events", EVENT_SCHEMA, "(service, ts)", _IX_TRACE),
        _table("metric_points", METRIC_SCHEMA, "(name, service, ts)"),
        _SEGMENTS,
        _SCORED,
        _STALE_MINUTES,
        _ERASURES,
        _MINUTES,
        RollUp("minutes_of_spans", "spans", "minutes", _ROLLED_UP, ROLLUP_GROUPS),
        _OTEL_TRACES,
    ),
)
"""What each version adds, oldest first; each can be run again after a kill in between."""

_META: Final = Table(
    "meta",
    "name String, value String, at DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC')",
    "MergeTree",
    "ORDER BY (name, at)",
    _DURABLE,
)


# Processes that start at once trip over each other's changes for about so long.
_MEETINGS_S: Final = (0.5, 1.0, 2.0, 4.0)


def statements(layout: Layout, retention: Retention) -> list[str]:
    """Return all that makes a store from nothing, for whoever wants to read or run it first."""
    definitions = [_META, *(definition for version in _MIGRATIONS for definition in version)]
    return [
        *(statement for definition in definitions for statement in layout.create(definition)),
        *_retention(layout, retention),
    ]


def migrate(clients: Clients, retention: Retention) -> None:
    """Bring the tables to this version's shape and retention.

    Processes that start at once may all do so: each statement can be run again, and one that
    met another's is tried again.

    Raises:
        StoreError: The tables were made by a newer version of llmobs.
    """
    for wait_s in _MEETINGS_S if clients.is_shared else ():
        try:
            return _migrate(clients, retention)
        except StoreError as error:
            if isinstance(error, _NewerStoreError):
                raise
            logger.info("migration tried again", extra={"reason": str(error), "wait_s": wait_s})
            time.sleep(wait_s * random.uniform(0.5, 1.5))  # noqa: S311 -- no secret
    return _migrate(clients, retention)


class _NewerStoreError(StoreError):
    pass


def _migrate(clients: Clients, retention: Retention) -> None:
    layout = clients.layout
    for statement in layout.create(_META):
        clients.command(statement)
    known = {
        row["name"]: row["value"]
        for row in clients.ask_everywhere(
            "meta", "SELECT name, argMax(value, at) AS value FROM {table} GROUP BY name"
        )
    }
    version = int(known.get("version", "0"))
    if version > len(_MIGRATIONS):
        raise _NewerStoreError(
            f"the store has tables of version {version}, this llmobs knows {len(_MIGRATIONS)}; "
            "install the newer llmobs again"
        )
    for number, definitions in enumerate(_MIGRATIONS[version:], start=version + 1):
        for definition in definitions:
            for statement in layout.create(definition):
                clients.command(statement)
        _remember(clients, "version", str(number))
    if known.get("retention") != repr(retention):
        for statement in _retention(layout, retention):
            clients.command(statement)
        _remember(clients, "retention", repr(retention))


def _retention(layout: Layout, retention: Retention) -> list[str]:
    rows = f"MODIFY TTL stored_at + toIntervalDay({retention.spans_days})"
    texts = f"stored_at + toIntervalDay({min(retention.texts_days, retention.spans_days)})"
    changes = {}
    for table, schema in (("spans", SPAN_SCHEMA), ("events", EVENT_SCHEMA)):
        columns = [
            f"MODIFY COLUMN {field.name} TTL {texts}" for field in schema if field.name in _TEXTS
        ]
        changes[table] = ", ".join([*columns, rows])
    for table in ("scores", "metric_points", "segments", "scored"):
        changes[table] = rows
    # A month's partition goes when its last day is old enough.
    changes["minutes"] = f"MODIFY TTL month + toIntervalDay({retention.rollups_days + 31})"
    return [layout.alter(table, change) for table, change in changes.items()]


def _remember(clients: Clients, name: str, value: str) -> None:
    clients.command(
        "INSERT INTO meta (name, value) SELECT {name:String}, {value:String}",
        {"name": name, "value": value},
    )

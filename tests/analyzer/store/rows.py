"""Batches for tests of the store: rows as dicts, what they leave out has a plain value."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from llmobs.records import (
    EVENT_SCHEMA,
    METRIC_SCHEMA,
    SPAN_SCHEMA,
    EventBatch,
    MetricBatch,
    ScoreColumn,
    Scores,
    SpanBatch,
)

__all__ = [
    "NO_EVENTS",
    "NO_METRICS",
    "T0_NS",
    "events",
    "generated",
    "metrics",
    "scores",
    "span_id",
    "spans",
    "trace_id",
]

T0_NS: Final = 1_763_985_600_000_000_000
"""2025-11-24 12:00:00 UTC."""

_PLAIN: Final[dict[Any, Any]] = {
    pa.string(): "",
    pa.map_(pa.string(), pa.string()): [],
    pa.map_(pa.string(), pa.float64()): [],
    pa.list_(pa.float64()): [],
    pa.list_(pa.int64()): [],
}


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _table(schema: pa.Schema, rows: tuple[dict[str, Any], ...], plain: dict[str, Any]) -> pa.Table:
    def value(row: dict[str, Any], field: pa.Field) -> Any:
        if field.name in row:
            return row[field.name]
        if field.name in plain:
            return plain[field.name]
        return None if field.nullable else _PLAIN.get(field.type, 0)

    unknown = {name for row in rows for name in row} - set(schema.names)
    assert not unknown, f"not in the schema: {unknown}"
    columns = [pa.array([value(row, field) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def spans(*rows: dict[str, Any]) -> SpanBatch:
    plain = {
        "ts_ns": T0_NS,
        "trace_id": trace_id(1),
        "span_id": span_id(1),
        "parent_id": bytes(8),
        "weight": 1.0,
    }
    return SpanBatch(_table(SPAN_SCHEMA, rows, plain))


def events(*rows: dict[str, Any]) -> EventBatch:
    plain = {"ts_ns": T0_NS, "trace_id": bytes(16), "span_id": bytes(8)}
    return EventBatch(_table(EVENT_SCHEMA, rows, plain))


def metrics(*rows: dict[str, Any]) -> MetricBatch:
    return MetricBatch(_table(METRIC_SCHEMA, rows, {"ts_ns": T0_NS, "kind": "gauge"}))


NO_EVENTS: Final = events()
NO_METRICS: Final = metrics()


def scores(batch: SpanBatch, **values: list[float]) -> Scores:
    """One column per name; below 0 fails."""
    columns = [
        ScoreColumn(
            name=name,
            version="1",
            target="output",
            values=np.array(numbers, dtype=np.float64),
            labels=["fail" if number < 0 else "pass" for number in numbers],
            explanations=["because" if number < 0 else "" for number in numbers],
        )
        for name, numbers in values.items()
    ]
    assert all(len(column.values) == len(batch) for column in columns)
    return Scores(columns=tuple(columns), embeddings={})


def generated(segment: int, n: int = 50, *, start_ns: int = T0_NS) -> SpanBatch:
    """Spans that a segment number determines: the same again in every process."""
    chance = np.random.default_rng(segment)
    ids = chance.integers(1, 2**62, (n, 3))
    return spans(
        *(
            {
                "trace_id": trace_id(int(a) << 64 | int(b)),
                "span_id": span_id(int(c)),
                "ts_ns": start_ns + segment * 20_000_000_000 + i * 1_000_000,
                "duration_ns": int(chance.integers(1, 10**9)),
                "service": f"service-{i % 3}",
                "operation": ("chat", "embeddings", "execute_tool")[i % 3],
                "request_model": ("gpt-4o", "claude-sonnet-4-5")[i % 2],
                "status": 2 if i % 7 == 0 else 0,
                "input_tokens": None if i % 5 == 0 else i,
                "output_tokens": i,
                "cost_usd": None if i % 4 == 0 else i * 0.001,
                "user_id": f"user-{i % 2}",
                "session_id": f"session-{segment}-{i % 4}",
                "input_text": f"question {i} of segment {segment}",
            }
            for i, (a, b, c) in enumerate(ids)
        )
    )

"""Batches of spans and scores, written as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from llmobs.records import SPAN_SCHEMA, ScoreColumn, Scores, SpanBatch

NO_SCORES = Scores((), {})

_DEFAULTS: Mapping[str, Any] = {
    "ts_ns": 1_700_000_000_000_000_000,
    "duration_ns": 300_000_000,
    "trace_id": b"\x01" * 16,
    "span_id": b"\x02" * 8,
    "parent_id": b"\x00" * 8,
    "kind": 3,
    "status": 0,
    "service": "shop",
    "operation": "chat",
    "provider": "openai",
    "request_model": "gpt-5-mini",
    "feature": "answers",
    "attributes_s": [],
    "attributes_n": [],
    "weight": 1.0,
}


def spans(*rows: Mapping[str, Any]) -> SpanBatch:
    """Return a batch; what a row does not say is as in a plain successful chat call."""
    columns = {}
    for field in SPAN_SCHEMA:
        default = _DEFAULTS.get(field.name, None if field.nullable else "")
        columns[field.name] = pa.array([row.get(field.name, default) for row in rows], field.type)
    return SpanBatch(pa.table(columns, schema=SPAN_SCHEMA))


def column(
    name: str,
    target: Literal["input", "output", "pair"],
    values: Sequence[float],
    labels: Sequence[str],
) -> ScoreColumn:
    """Return a column of scores."""
    return ScoreColumn(name, "1", target, np.array(values), labels, [""] * len(labels))


def scores(*columns: ScoreColumn) -> Scores:
    """Return the scores of a batch."""
    return Scores(columns, {})

"""Span batches from a few columns; the rest is empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from llmobs.records import SPAN_SCHEMA, SpanBatch


def spans(rows: Sequence[dict[str, Any]]) -> SpanBatch:
    """Make one span a row; a chat unless the row says otherwise."""
    table = pa.table(
        {
            field.name: pa.array(
                [row.get(field.name, _blank(field)) for row in rows], type=field.type
            )
            for field in SPAN_SCHEMA
        },
        schema=SPAN_SCHEMA,
    )
    return SpanBatch(table)


def chat(question: str, answer: str = "", **columns: Any) -> dict[str, Any]:
    """Return the columns of a chat span."""
    return {"operation": "chat", "input_text": question, "output_text": answer, **columns}


def _blank(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_fixed_size_binary(field.type):
        return bytes(field.type.byte_width)
    if pa.types.is_map(field.type):
        return []
    return "" if pa.types.is_string(field.type) else 0

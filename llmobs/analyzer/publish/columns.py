"""A batch as the metrics need it: text columns by their distinct values, numbers as arrays."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.records import STATUS_ERROR, FloatArray, SpanBatch

__all__ = ["Codes", "Groups", "IntArray", "Labels", "SpanColumns", "encode", "group"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
Labels: TypeAlias = tuple[str, ...]

TOKEN_COLUMNS: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
}


class Codes(NamedTuple):
    """A text column by its distinct values."""

    values: Sequence[str]
    codes: IntArray

    def where(self, rows: BoolArray) -> Codes:
        """Return the column of some rows only."""
        return Codes(self.values, self.codes[rows])


class Groups(NamedTuple):
    """Rows by their distinct label sets: row i has the labels `labels[which[i]]`."""

    labels: list[Labels]
    which: IntArray


def encode(column: pa.ChunkedArray | Sequence[str]) -> Codes:
    """Turn a text column without nulls into codes."""
    array = pa.array(column, pa.string()) if not isinstance(column, pa.ChunkedArray) else column
    encoded = pc.dictionary_encode(array)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Codes(encoded.dictionary.to_pylist(), codes)


def group(columns: Sequence[Codes]) -> Groups:
    """Group the rows of equally long columns by their values."""
    key = np.zeros(len(columns[0].codes), np.int64)
    n_keys = 1
    for column in columns:
        if n_keys * max(1, len(column.values)) >= 2**62:  # the next product would overflow
            distinct, key = np.unique(key, return_inverse=True)
            n_keys = len(distinct)
        key = key * len(column.values) + column.codes
        n_keys *= max(1, len(column.values))
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    labels = [tuple(c.values[c.codes[row]] for c in columns) for row in first]
    return Groups(labels, index.astype(np.int64))


@dataclass(frozen=True, slots=True)
class SpanColumns:
    """The columns of a batch that the metrics read, each of shape (n,)."""

    service: Codes
    feature: Codes
    operation: Codes
    provider: Codes
    model: Codes
    target: Codes
    error: Codes
    session: Codes
    duration_s: FloatArray
    end_s: FloatArray
    ttft_s: FloatArray
    cost_usd: FloatArray
    weight: FloatArray
    tokens: dict[str, FloatArray]
    trace_id: pa.ChunkedArray
    span_id: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.weight)

    @classmethod
    def of(cls, spans: SpanBatch) -> SpanColumns:
        """Take the columns out of a batch."""
        table = spans.table
        duration_ns = spans.ints("duration_ns")
        return cls(
            service=encode(table.column("service")),
            feature=encode(table.column("feature")),
            operation=encode(table.column("operation")),
            provider=encode(table.column("provider")),
            model=encode(table.column("request_model")),
            target=encode(_target(table)),
            error=encode(_error_type(table)),
            session=encode(table.column("session_id")),
            duration_s=duration_ns / 1e9,
            end_s=(spans.ints("ts_ns") + duration_ns) / 1e9,
            ttft_s=spans.numbers("ttft_ns") / 1e9,
            cost_usd=spans.numbers("cost_usd"),
            weight=spans.numbers("weight"),
            tokens={kind: spans.numbers(name) for kind, name in TOKEN_COLUMNS.items()},
            trace_id=table.column("trace_id"),
            span_id=table.column("span_id"),
        )

    @property
    def call(self) -> list[Codes]:
        """The columns of the labels that every call has."""
        return [self.service, self.feature, self.operation, self.provider, self.model]

    @property
    def failed(self) -> BoolArray:
        """Which spans ended in an error."""
        return np.array([bool(v) for v in self.error.values], bool)[self.error.codes]

    def is_in(self, operations: Set[str]) -> BoolArray:
        """Which spans are of these operations."""
        wanted = np.array([v in operations for v in self.operation.values], bool)
        return wanted[self.operation.codes]

    def where(self, rows: BoolArray) -> SpanColumns:
        """Return some rows only."""
        return SpanColumns(
            service=self.service.where(rows),
            feature=self.feature.where(rows),
            operation=self.operation.where(rows),
            provider=self.provider.where(rows),
            model=self.model.where(rows),
            target=self.target.where(rows),
            error=self.error.where(rows),
            session=self.session.where(rows),
            duration_s=self.duration_s[rows],
            end_s=self.end_s[rows],
            ttft_s=self.ttft_s[rows],
            cost_usd=self.cost_usd[rows],
            weight=self.weight[rows],
            tokens={kind: tokens[rows] for kind, tokens in self.tokens.items()},
            trace_id=self.trace_id.filter(pa.array(rows)),
            span_id=self.span_id.filter(pa.array(rows)),
        )


def _target(table: pa.Table) -> pa.ChunkedArray:
    """Return what a step worked on: its tool, else its agent, else its workflow, else its model."""
    target = table.column("request_model")
    for name in ("workflow", "agent", "tool"):
        column = table.column(name)
        target = pc.if_else(pc.equal(column, ""), target, column)
    return target


def _error_type(table: pa.Table) -> pa.ChunkedArray:
    """Return the error's type, "" where the span did not fail."""
    sent = table.column("error_type")
    unnamed = pc.and_(pc.equal(table.column("status"), STATUS_ERROR), pc.equal(sent, ""))
    return pc.if_else(unnamed, semconv.ERROR_TYPE_OTHER, sent)

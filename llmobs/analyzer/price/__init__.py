"""Exact USD per span, as spans come in."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.measures.cost import Call, PriceBook, Usage
from llmobs.records import SPAN_SCHEMA, SpanBatch

__all__ = ["price"]

_KEY: Final = ("provider", "response_model", "request_model")
_READ: Final = [
    *_KEY,
    "attributes_s",
    "ts_ns",
    *(f"{kind}_tokens" for kind in ("input", "output", "cache_read", "cache_write", "reasoning")),
]
_OPERATIONS: Final = pa.array(sorted(semconv.MODEL_OPERATIONS))


def price(batch: SpanBatch, book: PriceBook) -> SpanBatch:
    """Fill `cost_usd` of the spans that a provider bills.

    It is null where the model or the usage is not known, and on all other operations: agents
    and workflows repeat the tokens of the calls below them, and would be paid for twice. What
    a producer claims to have paid stays in its attributes; it is not taken over.
    """
    table = batch.table
    cost_usd = np.full(len(batch), np.nan)
    billed = np.flatnonzero(pc.is_in(table.column("operation"), value_set=_OPERATIONS).to_numpy())
    if len(billed):
        spans = SpanBatch(table.select(_READ).take(pa.array(billed)))  # texts stay where they are
        calls, which = _calls(spans.table)
        usage = Usage(
            input=spans.numbers("input_tokens"),
            output=spans.numbers("output_tokens"),
            cache_read=spans.numbers("cache_read_tokens"),
            cache_write=spans.numbers("cache_write_tokens"),
            reasoning=spans.numbers("reasoning_tokens"),
        )
        cost_usd[billed] = book.price(calls, which, spans.ints("ts_ns"), usage)
    place = SPAN_SCHEMA.get_field_index("cost_usd")
    column = pa.array(cost_usd, from_pandas=True)  # NaN becomes null
    return SpanBatch(table.set_column(place, SPAN_SCHEMA.field(place), column))


def _calls(table: pa.Table) -> tuple[list[Call], npt.NDArray[np.int64]]:
    """Return the distinct calls of a table and, of each row, which one it is."""
    tiers = pc.map_lookup(
        table.column("attributes_s"), pa.scalar(semconv.OPENAI_RESPONSE_SERVICE_TIER), "first"
    )
    names = [table.column(name) for name in _KEY] + [pc.fill_null(tiers, "")]
    which = np.zeros(table.num_rows, dtype=np.int64)
    for column in names:
        coded = column.combine_chunks().dictionary_encode()
        which = which * len(coded.dictionary) + coded.indices.to_numpy()
        # Distinct so far, numbered anew: the product never outgrows an int64.
        _, which = np.unique(which, return_inverse=True)
    first = np.unique(which, return_index=True)[1]
    kinds = zip(*(column.take(pa.array(first)).to_pylist() for column in names), strict=True)
    return [Call(*kind) for kind in kinds], which

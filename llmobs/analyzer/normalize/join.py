"""Spans and the log records that belong to them, joined by their ids, in whatever order they came.

Content may travel apart from its span: as one ``gen_ai.client.inference.operation.details``
event a call, or, by conventions before 1.37, as one event a message. Evaluations may name the
response in place of the span. Both joins are pure and cost next to nothing where there is
nothing to join, so they can run on a segment, and again on what is read together later.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.analyzer.normalize import messages
from llmobs.analyzer.normalize.content import Content, read_inputs, read_outputs
from llmobs.analyzer.normalize.events import MESSAGE_EVENTS, messages_of_event
from llmobs.records import EventBatch, SpanBatch

__all__ = ["CONTENT_EVENTS", "content_of", "join_content", "join_responses", "without_content"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CONTENT_EVENTS: Final = frozenset(
    {semconv.EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS, *MESSAGE_EVENTS}
)
"""Names of log records that hold prompts and answers."""


def content_of(events: EventBatch) -> EventBatch:
    """Return the log records that hold content."""
    is_content = pc.is_in(events.table["event_name"], pa.array(CONTENT_EVENTS))
    return EventBatch(events.table.filter(is_content))


def without_content(spans: SpanBatch) -> SpanBatch:
    """Return the calls that neither say what was asked nor what was answered."""
    table = spans.table
    is_call = pc.is_in(table["operation"], pa.array(semconv.INFERENCE_OPERATIONS))
    is_silent = pc.and_(pc.equal(table["input_text"], ""), pc.equal(table["output_text"], ""))
    return SpanBatch(table.filter(pc.and_(is_call, is_silent)))


def join_content(spans: SpanBatch, events: EventBatch) -> SpanBatch:
    """Fill the texts of spans from log records of the same span.

    What a span says itself stays: its input, its output and its system text each come as a
    whole from the span or from its events. Of two details events of a span the later one in
    the batch counts.

    Args:
        spans: Any spans.
        events: Any log records; those that are no content, or of other spans, change nothing.

    Returns:
        The same spans in the same order; the very same object when nothing is to be joined.
    """
    if not len(spans):
        return spans
    kept = content_of(events).table
    if not kept.num_rows:
        return spans
    kept = kept.combine_chunks()
    of_span = pc.index_in(_keys(kept), _keys(spans.table)).to_numpy(zero_copy_only=False)
    owners = np.nan_to_num(of_span, nan=-1).astype(np.int64)  # span of each event
    if (owners < 0).all():
        return spans
    has_input = _any_said(spans, ("input_text", "input_messages"))
    has_output = _any_said(spans, ("output_text", "output_messages"))
    out = Content(len(spans))
    _join_details(kept, owners, has_input, has_output, out)
    _join_messages(kept, owners, has_input, has_output, out)
    table = spans.table
    for name, joined in out.columns().items():
        own = table[name].combine_chunks()
        column = pc.if_else(pc.equal(own, ""), joined, own)
        table = table.set_column(table.schema.get_field_index(name), table.field(name), column)
    return SpanBatch(table)


def join_responses(events: EventBatch, spans: SpanBatch) -> EventBatch:
    """Give log records that name a response in place of a span the ids of its span.

    Args:
        events: Any log records, evaluations and feedback among them.
        spans: Where to look; of several spans of one response the first counts.

    Returns:
        The same records in the same order.
    """
    table = events.table.combine_chunks()
    lonely = np.flatnonzero(_is_zero(table["span_id"]))
    if not len(lonely) or not len(spans):
        return events
    rows = _attribute(table, semconv.GEN_AI_RESPONSE_ID)[lonely]
    lonely, rows = lonely[rows >= 0], rows[rows >= 0]
    if not len(lonely):
        return events
    named = _items(table).take(pa.array(rows))
    found = pc.index_in(named, spans.table["response_id"].combine_chunks())
    known = found.is_valid().to_numpy(zero_copy_only=False) & (
        pc.binary_length(named).to_numpy() > 0
    )
    source = np.full(table.num_rows, -1, np.int64)
    source[lonely[known]] = found.filter(pa.array(known)).to_numpy()
    for name in ("trace_id", "span_id"):
        ids = spans.table[name].combine_chunks().take(pa.array(source, mask=source < 0))
        column = pc.coalesce(ids, table[name].combine_chunks())
        table = table.set_column(table.schema.get_field_index(name), table.field(name), column)
    return EventBatch(table)


# ── one event a call ─────────────────────────────────────────────────────────────────────


def _join_details(
    events: pa.Table, owners: Rows, has_input: Mask, has_output: Mask, out: Content
) -> None:
    is_details = pc.equal(
        events["event_name"], semconv.EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS
    ).to_numpy(zero_copy_only=False)
    owners = np.where(is_details, owners, -1)
    items = _items(events)

    def rows(key: str, has: Mask) -> Rows:
        """Return for each span the row of an attribute among `items`, -1 for none."""
        of_event = _attribute(events, key)
        meant = np.flatnonzero((owners >= 0) & (of_event >= 0))
        of_span = np.full(len(has), -1, np.int64)
        of_span[owners[meant]] = of_event[meant]
        of_span[has] = -1
        return of_span

    read_inputs(items, rows(semconv.GEN_AI_INPUT_MESSAGES, has_input), out)
    read_outputs(items, rows(semconv.GEN_AI_OUTPUT_MESSAGES, has_output), out)
    instructions = rows(semconv.GEN_AI_SYSTEM_INSTRUCTIONS, np.zeros_like(has_input))
    for i in np.flatnonzero(instructions >= 0).tolist():
        text = items[int(instructions[i])].as_py()
        out.put(i, system_text=messages.instructions_text(text))


def _items(events: pa.Table) -> pa.StringArray:
    """Return the values of all text attributes, one record's after the other's."""
    return _map(events).items


def _map(events: pa.Table) -> pa.MapArray:
    column = events["attributes_s"].combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def _attribute(events: pa.Table, key: str) -> Rows:
    """Return for each record where an attribute stands among `_items`, -1 for nowhere."""
    column = _map(events)
    at = np.flatnonzero(pc.equal(column.keys, key).to_numpy(zero_copy_only=False))
    offsets = column.offsets.to_numpy()
    rows = np.full(len(column), -1, np.int64)
    records = np.searchsorted(offsets, at, side="right") - 1
    inside = (records >= 0) & (records < len(column))
    rows[records[inside]] = at[inside]
    return rows


# ── one event a message ──────────────────────────────────────────────────────────────────


def _join_messages(
    events: pa.Table, owners: Rows, has_input: Mask, has_output: Mask, out: Content
) -> None:
    is_message = pc.is_in(events["event_name"], pa.array(MESSAGE_EVENTS)).to_numpy(
        zero_copy_only=False
    )
    places = np.flatnonzero(is_message & (owners >= 0))
    if not len(places):
        return
    sides: tuple[dict[int, list[Any]], dict[int, list[Any]]] = {}, {}
    columns = ("event_name", "ts_ns", "body", "attributes_s")
    found = events.select(columns).take(pa.array(places)).to_pylist()
    for i, event in sorted(
        zip(owners[places].tolist(), found, strict=True), key=lambda pair: pair[1]["ts_ns"]
    ):
        is_output = event["event_name"] == "gen_ai.choice"
        if (has_output if is_output else has_input)[i]:
            continue
        fields = messages.loads(event["body"])
        if not isinstance(fields, dict):
            fields = dict(event["attributes_s"])
        sides[is_output].setdefault(i, []).extend(messages_of_event(event["event_name"], fields))
    for side, read in zip(sides, (read_inputs, read_outputs), strict=True):
        rows = np.full(len(has_input), -1, np.int64)
        rows[list(side)] = np.arange(len(side))
        read(pa.array(map(messages.dumps, side.values()), pa.string()), rows, out)


# ── ids ──────────────────────────────────────────────────────────────────────────────────


def _keys(table: pa.Table) -> pa.BinaryArray:
    """Return trace and span id of each row as one value; null where there is no span id."""
    trace, span = (
        table[name].combine_chunks().cast(pa.binary()) for name in ("trace_id", "span_id")
    )
    keys = pc.binary_join_element_wise(trace, span, b"")
    return pc.if_else(pa.array(_is_zero(table["span_id"])), None, keys)


def _is_zero(ids: pa.ChunkedArray) -> Mask:
    zero: Mask = pc.equal(ids, pa.scalar(bytes(8), pa.binary(8))).to_numpy()
    return zero


def _any_said(spans: SpanBatch, names: tuple[str, ...]) -> Mask:
    said = np.zeros(len(spans), np.bool_)
    for name in names:
        said |= pc.not_equal(spans.table[name], "").to_numpy()
    return said

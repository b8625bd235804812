"""Spans of every producer to one set of columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.analyzer.normalize.attributes import Attributes, text_array
from llmobs.analyzer.normalize.content import content
from llmobs.analyzer.normalize.convert import (
    ABSURD,
    instant_ns,
    model_asked_for,
    reader,
    sampling_weight,
    usage,
)
from llmobs.analyzer.normalize.events import fold
from llmobs.analyzer.normalize.ids import Ids, mend_ids, times
from llmobs.analyzer.normalize.mapping import (
    CACHE_APART,
    DROPPED,
    MARKERS,
    NAMED_BY_SPAN,
    NUMBERS,
    SCOPES,
    TEXTS,
    Dialect,
    Source,
)
from llmobs.records import SPAN_SCHEMA, STATUS_ERROR, FloatArray, RawPart, RawSpans, SpanBatch

__all__ = ["normalize"]

Dialects = npt.NDArray[np.uint8]

Mask = npt.NDArray[np.bool_]

_MAX_WEIGHT: Final = 1e5
"""Nobody keeps one call of more: a tracestate may come from outside with a caller's request, and
2^56 made-up calls in one span would be on every bill and in every alarm."""

_OPERATIONS: Final = semconv.MODEL_OPERATIONS
# Producers in `CACHE_APART` that count in full since they send these.
_COUNTS_IN_FULL: Final = (
    "ai.usage.inputTokenDetails.cacheReadTokens",
    "ai.usage.inputTokenDetails.noCacheTokens",
    "langfuse.observation.usage_details",
)


_MARKERS: Final = tuple(marker for marker, _ in MARKERS)
# JSON objects of counts, and whether theirs go before those of other attributes: two hold what
# the provider itself has counted, beside the attributes that tell a part of it.
_USAGES: Final = (
    ("langfuse.observation.usage_details", True),
    ("langsmith.metadata.usage_metadata", False),
    ("gen_ai.usage.raw", False),
)


def normalize(raw: RawSpans, *, now_ns: int, repairs: Counter[str] | None = None) -> SpanBatch:
    """Give every span the columns of `SPAN_SCHEMA`, whoever made it.

    A span that is no GenAI operation keeps its times, names and attributes, with operation "".
    Costs are left null: they are priced later, and what a producer says stays an attribute.

    Args:
        raw: Spans as sent.
        now_ns: The time, to notice clocks that run ahead.
        repairs: Where to count what had to be mended, those of decoding included.
    """
    repairs = Counter() if repairs is None else repairs
    repairs.update(raw.repairs)
    batches = [_normalize_part(part, now_ns, repairs) for part in raw.parts]
    return SpanBatch(pa.Table.from_batches(batches, schema=SPAN_SCHEMA))


def _normalize_part(part: RawPart, now_ns: int, repairs: Counter[str]) -> pa.RecordBatch:
    spans = part.spans
    attributes = Attributes(part, fold(part))
    attributes.use_keys(DROPPED)
    scopes, resources = spans.column("scope").to_numpy(), spans.column("resource").to_numpy()
    dialects = _dialects(part, attributes)
    ids = mend_ids(spans, repairs)
    starts, durations = times(spans, now_ns, repairs)
    roots = ~np.frombuffer(ids.parent.buffers()[1], np.uint64).astype(np.bool_)
    texts = {name: _text_column(name, attributes, dialects, roots) for name in TEXTS}
    _take_model_asked_for(texts, attributes, dialects)
    operations = _operations(texts, spans.column("name"), roots, attributes, dialects)
    _name_what_ran(texts, operations, attributes, dialects, spans.column("name"))
    numbers = _numbers(attributes, dialects, starts, repairs)
    _include_cached(numbers, attributes, dialects, texts)
    _count_once(operations, ids, texts, numbers["output_tokens"], repairs)
    columns: dict[str, pa.Array] = {
        "ts_ns": pa.array(starts),
        "duration_ns": pa.array(durations),
        "trace_id": ids.trace,
        "span_id": ids.span,
        "parent_id": ids.parent,
        "name": spans.column("name"),
        "kind": spans.column("kind"),
        "status": _status(spans.column("status"), texts["level"]),
        "scope": part.scopes.column("name").take(pa.array(scopes)),
        "cost_usd": pa.nulls(len(starts), pa.float64()),
        "weight": _weights(spans.column("trace_state"), repairs),
        **texts,
        "operation": pa.array(operations, pa.string()),
        "service": _either(
            attributes.of_resource([semconv.SERVICE_NAME], resources), texts["service"]
        ),
        "status_message": _either(spans.column("status_message"), texts["status_message"]),
        "environment": _either(
            attributes.of_resource(
                [semconv.DEPLOYMENT_ENVIRONMENT_NAME, "deployment.environment"], resources
            ),
            texts["environment"],
        ),
        "feature": _either(
            texts["feature"], attributes.of_resource([semconv.LLMOBS_FEATURE], resources)
        ),
        **{name: _int_column(values) for name, values in numbers.items()},
        **content(attributes, dialects, operations).columns(),
    }
    columns["attributes_s"], columns["attributes_n"] = attributes.maps(resources, scopes, repairs)
    return pa.RecordBatch.from_arrays(
        [columns[field.name] for field in SPAN_SCHEMA], schema=SPAN_SCHEMA
    )


def _dialects(part: RawPart, attributes: Attributes) -> Dialects:
    """Tell each span's producer by its scope, else by an attribute that only it sends."""
    of_scope = [
        next((dialect for pattern, dialect in SCOPES if re.match(pattern, name)), Dialect.OTEL)
        for name in part.scopes.column("name").to_pylist()
    ]
    dialects: Dialects = np.array(of_scope, np.uint8)[part.spans.column("scope").to_numpy()]
    marked = attributes.starting_with(_MARKERS)
    for marker, dialect in MARKERS:
        for name in marked:
            if name.startswith(marker):
                owners = attributes.owners(attributes.rows_of(name))
                dialects[owners[dialects[owners] == Dialect.OTEL]] = dialect
    return dialects


def _text_column(
    name: str, attributes: Attributes, dialects: Dialects, roots: Mask
) -> pa.StringArray:
    sources = TEXTS[name]
    if not attributes.has_any(sources):
        return pa.repeat("", attributes.n_spans)
    rows, places = attributes.first(sources, dialects, roots)
    if name != "feature":  # which only repeats what has a column of its own
        attributes.use(rows)
    else:
        attributes.use(rows[places == 0] if len(rows) else rows)
    texts = attributes.texts(rows)
    used = np.unique(places[places >= 0])
    readers = [reader(sources[i].values) for i in used.tolist()]
    if all(read is str for read in readers):
        return texts
    # Few distinct values: read each of them once by each of the tables.
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    readings = [read(text) for read in readers for text in distinct]
    index = encoded.indices.to_numpy() + np.searchsorted(used, places) * len(distinct)
    return text_array(readings).take(pa.array(index))


def _either(column: pa.StringArray, other: pa.StringArray) -> pa.StringArray:
    """Return the first column where it says something, else the other."""
    return pc.if_else(pc.equal(column, ""), other, column)


def _take_model_asked_for(
    texts: dict[str, pa.StringArray], attributes: Attributes, dialects: Dialects
) -> None:
    """Set the request's model where OpenInference has it among the call's parameters alone."""
    rows, _ = attributes.first(
        (
            Source("llm.request.model_name", of=Dialect.OPENINFERENCE),
            Source("llm.invocation_parameters", of=Dialect.OPENINFERENCE),
        ),
        dialects,
    )
    if (rows < 0).all():
        return
    encoded = attributes.texts(rows).dictionary_encode()
    distinct = text_array([model_asked_for(text) for text in encoded.dictionary.to_pylist()])
    texts["request_model"] = _either(distinct.take(encoded.indices), texts["request_model"])


def _operations(
    texts: dict[str, pa.StringArray],
    names: pa.StringArray,
    roots: Mask,
    attributes: Attributes,
    dialects: Dialects,
) -> list[str]:
    """Return what each span is, in the words of ``gen_ai.operation.name``.

    Args:
        texts: Text columns by name.
        names: Names of the spans.
        roots: Which spans are the outermost of their trace.
        attributes: Of the spans.
        dialects: Producer of each span.
    """
    operations: list[str] = texts["operation"].to_pylist()
    # A chain of LangChain's is any step; the outermost one is the workflow.
    steps = ~roots & np.isin(dialects, (Dialect.OPENINFERENCE, Dialect.LANGSMITH))
    for i in np.flatnonzero(steps).tolist():
        if operations[i] == semconv.OPERATION_INVOKE_WORKFLOW:
            operations[i] = ""
    # Conventions before 1.27 had no operation: a span with provider and model is a call, unless
    # its producer says what it is, be it none of these words.
    silent, provider, model = (
        _equal(texts[name], "") for name in ("operation", "provider", "request_model")
    )
    calls = np.flatnonzero(silent & ~provider & ~model)
    if len(calls):
        said, _ = attributes.first(TEXTS["operation"], dialects)
        calls = calls[said[calls] < 0]
    for i in calls.tolist():
        word = names[i].as_py().partition(" ")[0]
        operations[i] = word if word in _OPERATIONS else semconv.OPERATION_CHAT
    return operations


def _count_once(
    operations: list[str],
    ids: Ids,
    texts: dict[str, pa.StringArray],
    tokens: FloatArray,
    repairs: Counter[str],
) -> None:
    """Take the operation from one of two spans that tell of the same call.

    Two libraries that both trace a call (a framework and the client below it; Anthropic's
    client, which traces itself, and an instrumentation of it) give one span inside the other.
    The outer one stays, unless the inner one alone knows the tokens.
    """
    calls = np.flatnonzero([operation in _OPERATIONS for operation in operations])
    spans, parents, traces = (
        np.frombuffer(column.buffers()[1], np.uint64)
        for column in (ids.span, ids.parent, ids.trace)
    )
    inner = calls[np.isin(parents[calls], spans[calls])]
    if not len(inner):
        return
    outer_of = {int(spans[i]): i for i in calls.tolist()}
    for i in inner.tolist():
        outer = outer_of[int(parents[i])]
        is_same = operations[i] == operations[outer] and all(
            len({column[i].as_py(), column[outer].as_py()} - {""}) < 2
            for column in (texts["response_id"], texts["request_model"])
        )
        if is_same and (traces[2 * i : 2 * i + 2] == traces[2 * outer : 2 * outer + 2]).all():
            knows_more = np.isnan(tokens[outer]) and not np.isnan(tokens[i])
            operations[outer if knows_more else i] = ""
            repairs["call_told_twice"] += 1


def _name_what_ran(
    texts: dict[str, pa.StringArray],
    operations: Sequence[str],
    attributes: Attributes,
    dialects: Dialects,
    names: pa.StringArray,
) -> None:
    """Fill tool, agent and workflow from the span's name where the producer has no other."""
    candidates = np.flatnonzero(np.isin(dialects, tuple(NAMED_BY_SPAN)))
    if not len(candidates):
        return
    entities, _ = attributes.first((Source("traceloop.entity.name"),), dialects)
    for operation, column in (
        (semconv.OPERATION_EXECUTE_TOOL, "tool"),
        (semconv.OPERATION_INVOKE_AGENT, "agent"),
        (semconv.OPERATION_INVOKE_WORKFLOW, "workflow"),
    ):
        values = texts[column].to_pylist()
        for i in candidates.tolist():
            if operations[i] == operation and not values[i]:
                row = int(entities[i])
                values[i] = attributes.text(row) if row >= 0 else names[i].as_py()
        texts[column] = pa.array(values, pa.string())


def _numbers(
    attributes: Attributes, dialects: Dialects, starts: npt.NDArray[np.int64], repairs: Counter[str]
) -> dict[str, FloatArray]:
    """Return tokens and time to first chunk, NaN where not sent or absurd."""
    out: dict[str, FloatArray] = {}
    for name, sources in NUMBERS.items():
        if not attributes.has_any(sources):
            out[name] = np.full(attributes.n_spans, np.nan)
            continue
        rows, places = attributes.first(sources, dialects)
        factors = np.array([source.factor for source in sources])
        with np.errstate(over="ignore"):  # infinity is absurd too
            values = attributes.numbers(rows) * factors[places]
        absurd = (values < 0) | (values > ABSURD)
        if n := int(absurd.sum()):
            repairs[name] += n
        values[absurd] = np.nan
        attributes.use(rows[~np.isnan(values)])  # what was absurd can be looked at
        out[name] = values
    for key, goes_before in _USAGES:
        rows = attributes.rows_of(key)
        for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
            for name, count in usage(attributes.text(row)).items():
                if goes_before or np.isnan(out[name][i]):
                    out[name][i] = count if 0 <= count <= ABSURD else np.nan
    rows = attributes.rows_of(semconv.GEN_AI_REQUEST_STREAM)
    whole = rows[attributes.numbers(rows) == 0]  # OpenLIT: the first chunk is the answer
    out["ttft_ns"][attributes.owners(whole)] = np.nan
    rows = attributes.rows_of("langfuse.observation.completion_start_time")
    for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
        at = instant_ns(attributes.text(row))
        if at is not None and 0 <= at - int(starts[i]) <= ABSURD:
            out["ttft_ns"][i] = at - int(starts[i])
    return out


def _include_cached(
    numbers: dict[str, FloatArray],
    attributes: Attributes,
    dialects: Dialects,
    texts: dict[str, pa.StringArray],
) -> None:
    """Add cached tokens to the input where a producer counts them apart.

    That is known of some producers, said by others, and plain where more was read from the
    cache than the whole input is said to be.
    """
    inputs = numbers["input_tokens"]
    cached = np.nan_to_num(numbers["cache_read_tokens"]) + np.nan_to_num(
        numbers["cache_write_tokens"]
    )
    apart = cached > inputs
    for dialect, provider in CACHE_APART:
        if (of_dialect := dialects == dialect).any():
            apart |= of_dialect & _equal(texts["provider"], provider)
    for key in _COUNTS_IN_FULL:
        apart[attributes.owners(attributes.rows_of(key))] = False
    apart |= _equal(texts["token_semantics"], "exclusive")
    apart &= ~_equal(texts["token_semantics"], "inclusive")
    inputs[apart] += cached[apart]


def _equal(column: pa.StringArray, text: str) -> Mask:
    out: Mask = pc.equal(column, text).to_numpy(zero_copy_only=False)
    return out


def _int_column(values: FloatArray) -> pa.Array:
    missing = np.isnan(values)
    whole = np.rint(np.where(missing, 0, values)).astype(np.int64)
    return pa.array(whole, mask=missing)


def _status(sent: pa.Array, levels: pa.StringArray) -> pa.Array:
    """Return the status, an error also where only Langfuse's level says so."""
    return pc.if_else(pc.equal(levels, "ERROR"), pa.scalar(STATUS_ERROR, pa.uint8()), sent)


def _weights(states: pa.StringArray, repairs: Counter[str]) -> pa.Array:
    encoded = states.dictionary_encode()
    of_distinct = [sampling_weight(state) for state in encoded.dictionary.to_pylist()]
    weights = np.array(of_distinct, np.float64)[encoded.indices.to_numpy()]
    absurd = weights > _MAX_WEIGHT
    if n := int(absurd.sum()):
        repairs["sampling_weight"] += n
    return pa.array(np.where(absurd, 1.0, weights))

"""The frozen values that stages hand to each other.

A batch is columnar from the decoder to the store: one Arrow column per field that is
filtered, grouped or summed, never a Python object per span. What is not known is null in
a column (or NaN in a NumPy array), never 0 and never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "EVENT_SCHEMA",
    "METRIC_SCHEMA",
    "OWNER_EVENT",
    "OWNER_LINK",
    "OWNER_RESOURCE",
    "OWNER_SCOPE",
    "OWNER_SPAN",
    "RAW_ATTRIBUTE_SCHEMA",
    "RAW_EVENT_SCHEMA",
    "RAW_LINK_SCHEMA",
    "RAW_SCOPE_SCHEMA",
    "RAW_SPAN_SCHEMA",
    "SOURCE_SHIFT",
    "SPAN_SCHEMA",
    "STATUS_ERROR",
    "STATUS_OK",
    "STATUS_UNSET",
    "VALUE_BOOL",
    "VALUE_BYTES",
    "VALUE_DOUBLE",
    "VALUE_INT",
    "VALUE_LIST",
    "VALUE_MAP",
    "VALUE_STRING",
    "VALUE_UNSET",
    "Alert",
    "Cursor",
    "EventBatch",
    "Finding",
    "FloatArray",
    "MetricBatch",
    "MonitorStatus",
    "RawPart",
    "RawSpans",
    "Rejected",
    "ScoreColumn",
    "Scores",
    "Seen",
    "Segment",
    "Signal",
    "SpanBatch",
    "first_number",
    "source_of",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
Signal: TypeAlias = Literal["traces", "logs", "metrics"]

# Values of `status`, as in OTLP.
STATUS_UNSET: Final = 0
STATUS_OK: Final = 1
STATUS_ERROR: Final = 2

_TEXT = pa.string()
_MAP_S = pa.map_(pa.string(), pa.string())
_MAP_N = pa.map_(pa.string(), pa.float64())


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


SPAN_SCHEMA: Final = pa.schema(
    [
        _required("ts_ns", pa.int64()),  # start, ns since 1970
        _required("duration_ns", pa.int64()),  # >= 0
        _required("trace_id", pa.binary(16)),
        _required("span_id", pa.binary(8)),
        _required("parent_id", pa.binary(8)),  # zeros: a root
        _required("name", _TEXT),
        _required("kind", pa.uint8()),  # OTLP SpanKind
        _required("status", pa.uint8()),
        _required("status_message", _TEXT),
        _required("service", _TEXT),
        _required("environment", _TEXT),
        _required("scope", _TEXT),  # instrumentation scope's name
        _required("operation", _TEXT),  # gen_ai.operation.name; "": not a GenAI span
        _required("provider", _TEXT),
        _required("request_model", _TEXT),
        _required("response_model", _TEXT),
        _required("agent", _TEXT),
        _required("tool", _TEXT),
        _required("workflow", _TEXT),
        _required("feature", _TEXT),
        _required("session_id", _TEXT),
        _required("user_id", _TEXT),
        _required("error_type", _TEXT),
        _required("finish_reason", _TEXT),
        _required("prompt_name", _TEXT),
        _required("prompt_version", _TEXT),
        _required("response_id", _TEXT),
        pa.field("input_tokens", pa.int64()),  # cached tokens included
        pa.field("output_tokens", pa.int64()),  # reasoning tokens included
        pa.field("cache_read_tokens", pa.int64()),
        pa.field("cache_write_tokens", pa.int64()),
        pa.field("reasoning_tokens", pa.int64()),
        pa.field("ttft_ns", pa.int64()),  # time to first chunk
        pa.field("cost_usd", pa.float64()),  # null: not priced (unknown model or usage)
        _required("input_text", _TEXT),  # what the user asked: last user message, or tool arguments
        _required("output_text", _TEXT),  # what was answered
        _required("system_text", _TEXT),
        _required("context_text", _TEXT),  # retrieved documents and tool results in the input
        # JSON as in gen_ai.input.messages; "" where the texts above say it all: one plain
        # text a role.
        _required("input_messages", _TEXT),
        _required("output_messages", _TEXT),
        _required("attributes_s", _MAP_S),  # all other attributes, text-valued
        _required("attributes_n", _MAP_N),  # all other attributes, numbers and booleans
        _required(
            "weight", pa.float64()
        ),  # calls that this span stands for (1 / sampling probability)
    ]
)
"""Columns of a normalized span. "" in a text column means: not sent."""

EVENT_SCHEMA: Final = pa.schema(
    [
        _required("ts_ns", pa.int64()),
        _required("trace_id", pa.binary(16)),  # zeros: none
        _required("span_id", pa.binary(8)),
        _required("service", _TEXT),
        _required("environment", _TEXT),
        _required("event_name", _TEXT),
        _required("severity", pa.uint8()),  # OTLP SeverityNumber
        _required("body", _TEXT),  # text as sent, anything else as JSON
        _required("attributes_s", _MAP_S),
        _required("attributes_n", _MAP_N),
    ]
)
"""Columns of a log record (an *event* where it has a name)."""

METRIC_SCHEMA: Final = pa.schema(
    [
        _required("ts_ns", pa.int64()),
        _required("service", _TEXT),
        _required("environment", _TEXT),
        _required("name", _TEXT),
        _required("unit", _TEXT),
        _required("kind", _TEXT),  # gauge, sum, histogram, exponential_histogram, summary
        pa.field("value", pa.float64()),  # gauge or sum
        pa.field("count", pa.int64()),  # histograms and summaries
        pa.field("sum", pa.float64()),
        _required("bounds", pa.list_(pa.float64())),
        _required("bucket_counts", pa.list_(pa.int64())),
        _required("attributes_s", _MAP_S),
        _required("attributes_n", _MAP_N),
    ]
)
"""Columns of a metric data point."""


RAW_SPAN_SCHEMA: Final = pa.schema(
    [
        _required("start_ns", pa.uint64()),
        _required("end_ns", pa.uint64()),
        _required("kind", pa.uint8()),
        _required("status", pa.uint8()),
        _required("flags", pa.uint32()),
        _required("dropped_attributes", pa.uint32()),
        _required("dropped_events", pa.uint32()),
        _required("dropped_links", pa.uint32()),
        _required("resource", pa.int32()),  # owner of attributes with `OWNER_RESOURCE`
        _required("scope", pa.int32()),  # row of `RawPart.scopes`
        _required("trace_id", pa.binary()),  # of any length, as sent
        _required("span_id", pa.binary()),
        _required("parent_id", pa.binary()),
        _required("name", _TEXT),
        _required("status_message", _TEXT),
        _required("trace_state", _TEXT),
    ]
)
"""Columns of a span as it was sent."""

RAW_SCOPE_SCHEMA: Final = pa.schema([_required("name", _TEXT), _required("version", _TEXT)])
RAW_EVENT_SCHEMA: Final = pa.schema(
    [
        _required("span", pa.int32()),  # row of `RawPart.spans`
        _required("ts_ns", pa.uint64()),
        _required("name", _TEXT),
    ]
)
RAW_LINK_SCHEMA: Final = pa.schema(
    [
        _required("span", pa.int32()),
        _required("trace_id", pa.binary()),
        _required("span_id", pa.binary()),
        _required("trace_state", _TEXT),
    ]
)
RAW_ATTRIBUTE_SCHEMA: Final = pa.schema(
    [
        _required("owner_kind", pa.uint8()),  # one of `OWNER_*`
        _required("owner", pa.int32()),  # row of that owner's table; a key occurs once an owner
        _required("key", pa.int32()),  # row of `RawPart.keys`
        _required("kind", pa.uint8()),  # one of `VALUE_*`
        _required("number", pa.int64()),  # bool, int, or the bits of a double; else 0
        _required("text", _TEXT),  # string; list and map as JSON; bytes as base64; else ""
    ]
)
"""Attributes in long form, one row each."""

OWNER_SPAN: Final = 0
OWNER_RESOURCE: Final = 1
OWNER_SCOPE: Final = 2
OWNER_EVENT: Final = 3
OWNER_LINK: Final = 4

# Kinds of attribute value: the field numbers of OTLP's AnyValue.
VALUE_UNSET: Final = 0
VALUE_STRING: Final = 1
VALUE_BOOL: Final = 2
VALUE_INT: Final = 3
VALUE_DOUBLE: Final = 4
VALUE_LIST: Final = 5
VALUE_MAP: Final = 6
VALUE_BYTES: Final = 7


class Rejected(NamedTuple):
    """A request that could not be decoded; the others of its segment are not touched by it.

    Attributes:
        request: Its index among the requests handed in.
        reason: One sentence.
    """

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class RawPart:
    """Spans of some requests as they were sent, before any name is understood.

    Attributes:
        spans: `RAW_SPAN_SCHEMA`.
        scopes: `RAW_SCOPE_SCHEMA`, instrumentation scopes.
        events: `RAW_EVENT_SCHEMA`, span events.
        links: `RAW_LINK_SCHEMA`.
        attributes: `RAW_ATTRIBUTE_SCHEMA`, of all five kinds of owner.
        keys: Every distinct attribute key, shape (n_keys,).
    """

    spans: pa.RecordBatch
    scopes: pa.RecordBatch
    events: pa.RecordBatch
    links: pa.RecordBatch
    attributes: pa.RecordBatch
    keys: pa.StringArray


@dataclass(frozen=True, slots=True)
class RawSpans:
    """What stands between decode and normalize: spans of a segment, in parts of about 4 MiB.

    Attributes:
        parts: In no order that means anything.
        rejected: Requests that hold no readable spans.
        repairs: How often something had to be mended, by name.
    """

    parts: tuple[RawPart, ...]
    rejected: tuple[Rejected, ...] = ()
    repairs: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(part.spans.num_rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Batch:
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def texts(self, name: str) -> list[str]:
        """Return a text column as Python strings, "" where nothing was sent."""
        return [value or "" for value in self.table.column(name).to_pylist()]

    def numbers(self, name: str) -> FloatArray:
        """Return a numeric column as float64 of shape (n,), NaN where not known."""
        # Not safe: an integer above 2^53 may be rounded, and must not stop a loop.
        column = self.table.column(name).cast(pa.float64(), safe=False)
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)

    def ints(self, name: str) -> npt.NDArray[np.int64]:
        """Return a column without nulls as int64 of shape (n,)."""
        column = self.table.column(name).cast(pa.int64())
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)

    def ids(self, name: str) -> list[str]:
        """Return an id column as lower-case hex strings."""
        return [value.hex() for value in self.table.column(name).to_pylist()]


@dataclass(frozen=True, slots=True)
class SpanBatch(_Batch):
    """Spans as columns, `SPAN_SCHEMA`."""


@dataclass(frozen=True, slots=True)
class EventBatch(_Batch):
    """Log records as columns, `EVENT_SCHEMA`."""


@dataclass(frozen=True, slots=True)
class MetricBatch(_Batch):
    """Metric data points as columns, `METRIC_SCHEMA`."""


SOURCE_SHIFT: Final = 48
"""A segment's number holds its source in the bits above these: a segment log or a partition."""


def source_of(number: int) -> int:
    """Return the source that a segment came from, in [0, 32768)."""
    return number >> SOURCE_SHIFT


def first_number(source: int) -> int:
    """Return the lowest number that a segment of a source can have."""
    return source << SOURCE_SHIFT


Cursor: TypeAlias = Mapping[int, int]
"""How far somebody has come: the last segment by source. A source that is missing: not begun."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One sealed piece of the log: what is stored together or not at all.

    Attributes:
        number: Increases with every segment of a source; never used twice.
        requests: The acknowledged requests in order, each an OTLP export request in
            protobuf (JSON was transcoded before it was acknowledged).
        until: The lowest number that the source's next segment can have; 0: the next one.
        may_be_stored: Whether a process that died may have stored all or a part of it.
    """

    number: int
    requests: Sequence[tuple[Signal, bytes]]
    until: int = 0
    may_be_stored: bool = False


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """One number per span of a batch.

    Attributes:
        name: What was measured, as in ``gen_ai.evaluation.name``: ``toxicity``, ``injection`` …
        version: Version of the scorer; scores of different versions are never mixed.
        target: Which text was judged.
        values: Shape (n,); NaN where the scorer has nothing to say.
        labels: One per span: ``pass``, ``fail``, a category such as a language, or "".
        explanations: One short sentence per span, or "".
    """

    name: str
    version: str
    target: Literal["input", "output", "pair"]
    values: FloatArray
    labels: Sequence[str]
    explanations: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scores:
    """All that the score stage says about one batch, row for row.

    Attributes:
        columns: One per scorer and target that succeeded.
        embeddings: ``input`` and ``output``, each float32 of shape (n, n_dimensions);
            a row of NaN where there is no text.
        failed: Scorers that raised or ran out of time, with the reason.
    """

    columns: tuple[ScoreColumn, ...]
    embeddings: Mapping[str, npt.NDArray[np.float32]]
    failed: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> ScoreColumn | None:
        """Return the column of that name, None where no such scorer ran."""
        return next((column for column in self.columns if column.name == name), None)


class Seen(NamedTuple):
    """How much of what a service's processes have numbered has come in.

    Attributes:
        ratio: Spans seen of those that were numbered, of the last day, in [0, 1]; NaN where
            none came.
        n_missing: Numbers that had not come in time, since counting began; never falls.
    """

    ratio: float
    n_missing: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict of a detector with place, evidence and examples.

    Attributes:
        id: Stable: the same verdict found again after a restart has the same id.
        monitor: Name of the monitor, such as ``input.topic``.
        kind: ``input`` (what users send), ``output`` (what is answered), ``model`` (output
            given the input), ``security``, ``cost`` or ``reliability``.
        level: ``page`` is announced; ``watch`` shows on the page only.
        at_ns: When the threshold was crossed, in ns since 1970 (time of the data).
        onset_ns: Estimated begin of the change.
        summary: One sentence for people: what moved, where, by how much.
        log_e: Natural log of the detector's evidence; alarm at `log_threshold`.
        reference: The statistic in the reference, in `unit`; None where it has none.
        current: The same statistic since the onset.
        evidence: JSON-ready details (movers with shares before and after, counts).
        examples: Trace ids (hex) that show it.
        provisional: The reference was still short when this was found.
    """

    id: str
    monitor: str
    kind: Literal["input", "output", "model", "security", "cost", "reliability"]
    level: Literal["watch", "page"]
    service: str
    environment: str
    feature: str
    at_ns: int
    onset_ns: int
    summary: str
    log_e: float
    log_threshold: float
    reference: float | None
    current: float | None
    unit: str
    evidence: Mapping[str, Any]
    examples: tuple[str, ...]
    provisional: bool

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a dict of JSON values."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return json.loads(json.dumps(value, default=float))
    return value


@dataclass(frozen=True, slots=True)
class Alert:
    """What people get: one or more findings about one thing, with a state.

    Attributes:
        id: Stable over the life of the alert.
        key: Findings with the same key belong to one alert (monitor and place).
        severity: ``page`` wakes somebody, ``ticket`` waits for the morning.
        starts_at_ns: When the first finding was made.
        ends_at_ns: When it was resolved; None while firing.
        n_findings: How many findings it holds by now.
        finding_id: The first finding, with the evidence.
    """

    id: str
    key: str
    state: Literal["firing", "resolved"]
    severity: Literal["page", "ticket"]
    title: str
    message: str
    service: str
    environment: str
    feature: str
    monitor: str
    starts_at_ns: int
    ends_at_ns: int | None
    n_findings: int
    finding_id: str

    def to_json(self) -> dict[str, Any]:
        """Return the alert as a dict of JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class MonitorStatus:
    """How one monitor stands, in words and numbers.

    Attributes:
        state: ``learning``, ``watching`` or ``alarm``.
        words: One sentence: "learning, 212 of 400 sessions", "quiet since 14:05".
        n_units: Units (sessions) judged since the reference was pinned.
        n_reference: Units in the reference.
        history: (ts_ns, log_e) pairs, oldest first, at most a few hundred.
    """

    monitor: str
    kind: str
    service: str
    environment: str
    feature: str
    state: Literal["learning", "watching", "alarm"]
    words: str
    log_e: float
    log_threshold: float
    reference: float | None
    current: float | None
    unit: str
    n_units: int
    n_reference: int
    history: Sequence[tuple[int, float]]

    def to_json(self) -> dict[str, Any]:
        """Return the status as a dict of JSON values."""
        out = {name: getattr(self, name) for name in self.__slots__}
        out["history"] = [list(point) for point in self.history]
        return out

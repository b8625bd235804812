"""The conventions' metrics, made of the attributes of finished spans: ours and others' alike.

Aggregated by the one thread that sends, so no instrument is touched in the application's threads.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any, Final

from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.types import AnyValue

from llmobs import semconv
from llmobs.sdk.runtime import Names

__all__ = ["Metrics"]

# Series per metric, as in OpenTelemetry's SDK; what comes after is counted in one series.
MAX_SERIES: Final = 2000
_OVERFLOW: Final = (("otel.metric.overflow", True),)

Dimensions = tuple[tuple[str, AnyValue], ...]


@dataclass(frozen=True, slots=True, eq=False)  # by identity: hashing bounds per span is dear
class Instrument:
    """One metric. Without bounds it is a counter."""

    name: str
    unit: str
    description: str
    bounds: Sequence[float] = ()


class _Counter:
    __slots__ = ("total",)

    def __init__(self, _: Instrument) -> None:
        self.total: float = 0

    def add(self, value: float) -> None:
        self.total += value


class _Histogram:
    __slots__ = ("bounds", "counts", "count", "high", "low", "total")  # noqa: RUF023 - by meaning

    def __init__(self, instrument: Instrument) -> None:
        self.bounds = instrument.bounds
        self.counts = [0] * (len(self.bounds) + 1)
        self.count = 0
        self.total: float = 0
        self.low: float = float("inf")
        self.high: float = float("-inf")

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value
        self.low = min(self.low, value)
        self.high = max(self.high, value)


def _seconds(name: str, description: str, bounds: Sequence[float] | None = None) -> Instrument:
    return Instrument(name, "s", description, bounds or semconv.BUCKETS_DURATION_S)


def _tokens(name: str, description: str, bounds: Sequence[float] = ()) -> Instrument:
    return Instrument(name, "{token}", description, bounds)


INFERENCE: Final = {
    "current": _seconds(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_DURATION, "Duration of a call of a model."
    ),
    "released": _seconds(
        semconv.METRIC_GEN_AI_CLIENT_OPERATION_DURATION, "Duration of a GenAI operation."
    ),
}
FIRST_CHUNK: Final = {
    "current": _seconds(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK, "Time to the first chunk."
    ),
    "released": _seconds(
        semconv.METRIC_GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, "Time to the first chunk."
    ),
}
PER_CHUNK: Final = {
    "current": _seconds(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK, "Time between chunks."
    ),
    "released": _seconds(
        semconv.METRIC_GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK, "Time between chunks."
    ),
}
OPERATION: Final = INFERENCE["released"]
# Attribute of a span -> the metrics that add it up.
TOKENS: Final = {
    semconv.GEN_AI_USAGE_INPUT_TOKENS: _tokens(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, "Input tokens used."
    ),
    semconv.GEN_AI_USAGE_OUTPUT_TOKENS: _tokens(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS, "Output tokens used."
    ),
    semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: _tokens(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS,
        "Input tokens read from a cache.",
    ),
    semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: _tokens(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS,
        "Input tokens written to a cache.",
    ),
    semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: _tokens(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS,
        "Output tokens of reasoning.",
    ),
}
TOKENS_PER_CALL: Final = {
    semconv.GEN_AI_USAGE_INPUT_TOKENS: _tokens(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS,
        "Input tokens of a call.",
        semconv.BUCKETS_TOKENS,
    ),
    semconv.GEN_AI_USAGE_OUTPUT_TOKENS: _tokens(
        semconv.METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS,
        "Output tokens of a call.",
        semconv.BUCKETS_TOKENS,
    ),
}
TOKENS_RELEASED: Final = _tokens(
    semconv.METRIC_GEN_AI_CLIENT_TOKEN_USAGE, "Tokens of a call.", semconv.BUCKETS_TOKENS
)
WORKFLOW: Final = _seconds(
    semconv.METRIC_GEN_AI_INVOKE_WORKFLOW_DURATION, "Duration of a workflow.",
    semconv.BUCKETS_WORKFLOW_S,
)  # fmt: skip
AGENT: Final = _seconds(
    semconv.METRIC_GEN_AI_INVOKE_AGENT_DURATION, "Duration of an agent.", semconv.BUCKETS_AGENT_S
)
TOOL: Final = _seconds(semconv.METRIC_GEN_AI_EXECUTE_TOOL_DURATION, "Duration of a tool.")
MCP: Final = _seconds(
    semconv.METRIC_MCP_CLIENT_OPERATION_DURATION, "Duration of a request to an MCP server.",
    semconv.BUCKETS_MCP_S,
)  # fmt: skip
AGENT_INFERENCE_CALLS: Final = Instrument(
    semconv.METRIC_GEN_AI_INVOKE_AGENT_INFERENCE_CALLS,
    "{inference_call}",
    "Calls of a model that an agent made itself.",
    semconv.BUCKETS_CALLS,
)
AGENT_TOOL_CALLS: Final = Instrument(
    semconv.METRIC_GEN_AI_INVOKE_AGENT_TOOL_CALLS,
    "{tool_call}",
    "Tools that an agent called itself.",
    semconv.BUCKETS_CALLS,
)

_CALL: Final = (
    semconv.GEN_AI_OPERATION_NAME,
    semconv.GEN_AI_PROVIDER_NAME,
    semconv.GEN_AI_REQUEST_MODEL,
    semconv.GEN_AI_RESPONSE_MODEL,
    semconv.SERVER_ADDRESS,
    semconv.SERVER_PORT,
)
_MCP: Final = (semconv.MCP_METHOD_NAME, semconv.GEN_AI_TOOL_NAME, semconv.GEN_AI_OPERATION_NAME)
_MODALITY: Final = (semconv.GEN_AI_TOKEN_MODALITY, semconv.TOKEN_MODALITY_UNKNOWN)
_OPERATIONS: Final = frozenset({semconv.OPERATION_EMBEDDINGS, semconv.OPERATION_RETRIEVAL})


class Metrics:
    """Series of all metrics of one process, and the answer to "what changed since"."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._series: dict[Instrument, dict[Dimensions, _Counter | _Histogram]] = {}
        preference = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "")
        # Without up-down counters, "lowmemory" and "delta" are the same here.
        self._is_delta = preference.strip().lower() in {"delta", "lowmemory"}
        self._since_ns = self._collected_ns = time_ns()

    def taken(self) -> None:
        """Note that what was collected last has arrived; what has not is in the next."""
        if self._is_delta:
            self._series = {}
            self._since_ns = self._collected_ns

    def observe(
        self,
        attributes: Mapping[str, AnyValue],
        duration_s: float,
        *,
        chunk_gaps_s: Iterable[float] = (),
        agent_calls: tuple[int, int] | None = None,
    ) -> None:
        """Count one finished span.

        Args:
            attributes: Of the span, in the conventions' words; a span without
                ``gen_ai.operation.name`` counts nowhere.
            duration_s: How long it took, in seconds.
            chunk_gaps_s: Seconds between the chunks of a stream.
            agent_calls: Inference calls and tool calls of an agent, where they were counted.
        """
        operation = attributes.get(semconv.GEN_AI_OPERATION_NAME)
        if operation in semconv.INFERENCE_OPERATIONS:
            self._observe_inference(attributes, duration_s, chunk_gaps_s)
        elif operation in _OPERATIONS:
            self._add(OPERATION, (*self._pick(attributes, _CALL), *_error(attributes)), duration_s)
            if self._names == "released":
                self._add_released_tokens(attributes, self._pick(attributes, _CALL))
        elif operation == semconv.OPERATION_INVOKE_WORKFLOW:
            named = self._pick(attributes, (semconv.GEN_AI_WORKFLOW_NAME,))
            self._add(WORKFLOW, (*named, *_error(attributes)), duration_s)
        elif semconv.MCP_METHOD_NAME in attributes:
            self._add(MCP, (*self._pick(attributes, _MCP), *_error(attributes)), duration_s)
        elif operation == semconv.OPERATION_EXECUTE_TOOL:
            names = (semconv.GEN_AI_TOOL_NAME, semconv.GEN_AI_TOOL_TYPE, semconv.GEN_AI_AGENT_NAME)
            named = self._pick(attributes, names)
            self._add(TOOL, (*named, *_error(attributes)), duration_s)
        elif operation == semconv.OPERATION_INVOKE_AGENT:
            named = self._pick(attributes, (semconv.GEN_AI_AGENT_NAME,))
            asked = self._pick(attributes, (semconv.GEN_AI_REQUEST_MODEL,))
            self._add(AGENT, (*named, *asked, *_error(attributes)), duration_s)
            if agent_calls is not None:
                self._add(AGENT_INFERENCE_CALLS, named, agent_calls[0])
                self._add(AGENT_TOOL_CALLS, named, agent_calls[1])

    def _observe_inference(
        self, attributes: Mapping[str, AnyValue], duration_s: float, gaps_s: Iterable[float]
    ) -> None:
        call = self._pick(attributes, _CALL)
        self._add(INFERENCE[self._names], (*call, *_error(attributes)), duration_s)
        first_s = attributes.get(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
        if isinstance(first_s, (int, float)):
            self._add(FIRST_CHUNK[self._names], call, first_s)
        for gap_s in gaps_s:
            self._add(PER_CHUNK[self._names], call, gap_s)
        if self._names == "released":
            self._add_released_tokens(attributes, call)
            return
        by_modality = (*call, _MODALITY)
        for attribute, instrument in TOKENS.items():
            n_tokens = attributes.get(attribute)
            if isinstance(n_tokens, int):
                self._add(instrument, by_modality, n_tokens)
        for attribute, instrument in TOKENS_PER_CALL.items():
            n_tokens = attributes.get(attribute)
            if isinstance(n_tokens, int):
                self._add(instrument, call, n_tokens)

    def _add_released_tokens(self, attributes: Mapping[str, AnyValue], call: Dimensions) -> None:
        for attribute, kind in (
            (semconv.GEN_AI_USAGE_INPUT_TOKENS, semconv.TOKEN_TYPE_INPUT),
            (semconv.GEN_AI_USAGE_OUTPUT_TOKENS, semconv.TOKEN_TYPE_OUTPUT),
        ):
            n_tokens = attributes.get(attribute)
            if isinstance(n_tokens, int):
                self._add(TOKENS_RELEASED, (*call, (semconv.GEN_AI_TOKEN_TYPE, kind)), n_tokens)

    @staticmethod
    def _pick(attributes: Mapping[str, AnyValue], names: Sequence[str]) -> Dimensions:
        return tuple([(name, attributes[name]) for name in names if name in attributes])

    def _add(self, instrument: Instrument, dimensions: Dimensions, value: float) -> None:
        series = self._series.get(instrument)
        if series is None:
            series = self._series[instrument] = {}
        point = series.get(dimensions)
        if point is None:
            if len(series) >= MAX_SERIES:
                dimensions = _OVERFLOW
            kind = _Histogram if instrument.bounds else _Counter
            point = series.setdefault(dimensions, kind(instrument))
        point.add(value)

    def collect(self, resource: Resource, scope: InstrumentationScope) -> MetricsData | None:
        """Return all series as of now, None where there is none.

        Cumulative, unless ``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`` asks for deltas:
        then since the last that `taken` was told of.
        """
        if not self._series:
            return None
        now_ns = time_ns()
        metrics = [
            _metric(instrument, series, self._since_ns, now_ns, self._is_delta)
            for instrument, series in self._series.items()
        ]
        self._collected_ns = now_ns
        url = scope.schema_url or ""
        return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, url)], "")])


def _error(attributes: Mapping[str, AnyValue]) -> Dimensions:
    kind = attributes.get(semconv.ERROR_TYPE)
    return () if kind is None else ((semconv.ERROR_TYPE, kind),)


def _metric(
    instrument: Instrument,
    series: Mapping[Dimensions, _Counter | _Histogram],
    since_ns: int,
    now_ns: int,
    is_delta: bool,
) -> Metric:
    temporality = AggregationTemporality.DELTA if is_delta else AggregationTemporality.CUMULATIVE
    data: Any
    if instrument.bounds:
        data = Histogram(
            [
                HistogramDataPoint(
                    attributes=dict(dimensions),
                    start_time_unix_nano=since_ns,
                    time_unix_nano=now_ns,
                    count=point.count,
                    sum=point.total,
                    bucket_counts=tuple(point.counts),
                    explicit_bounds=tuple(instrument.bounds),
                    min=point.low,
                    max=point.high,
                )
                for dimensions, point in series.items()
                if isinstance(point, _Histogram)
            ],
            temporality,
        )
    else:
        points = [
            NumberDataPoint(dict(dimensions), since_ns, now_ns, point.total)
            for dimensions, point in series.items()
        ]
        data = Sum(points, temporality, is_monotonic=True)
    return Metric(instrument.name, instrument.description, instrument.unit, data)

"""Metric requests to `MetricBatch`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import DataPointFlags

from llmobs.analyzer.decode.mend import parse
from llmobs.analyzer.decode.resource import Origin
from llmobs.records import METRIC_SCHEMA, MetricBatch, Rejected

__all__ = ["decode_metrics"]

_MAX_INT = 2**63 - 1


def decode_metrics(
    requests: Sequence[bytes], *, repairs: Counter[str] | None = None
) -> tuple[MetricBatch, tuple[Rejected, ...]]:
    """Decode OTLP metric requests.

    Exponential histograms get explicit bounds: bucket by bucket from the most negative to the
    most positive, so that ``bucket_counts`` has one more entry than ``bounds``, as with others.
    A summary has no buckets; its quantiles stand in the attribute ``quantiles``, as JSON.
    Points that say "no recorded value" are left out.

    Args:
        requests: Each an ExportMetricsServiceRequest in protobuf.
        repairs: Where to count what had to be mended.

    Returns:
        The data points of all readable requests, and which requests were refused.
    """
    repairs = Counter() if repairs is None else repairs
    rows: list[tuple[Any, ...]] = []
    rejected = []
    for i, body in enumerate(requests):
        try:
            request, n_mended = parse(ExportMetricsServiceRequest, body)
        except DecodeError as error:
            rejected.append(Rejected(i, str(error)))
            continue
        if n_mended:
            repairs["invalid_utf8"] += n_mended
        rows += _rows(request)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(METRIC_SCHEMA)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, METRIC_SCHEMA, strict=True)]
    return MetricBatch(pa.Table.from_arrays(arrays, schema=METRIC_SCHEMA)), tuple(rejected)


def _rows(request: ExportMetricsServiceRequest) -> Iterator[tuple[Any, ...]]:
    for of_resource in request.resource_metrics:
        origin = Origin.of(of_resource.resource)
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                for point in getattr(metric, kind).data_points:
                    if point.flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
                        continue
                    texts, numbers = origin.attributes(point.attributes)
                    if kind == "summary":
                        quantiles = {q.quantile: q.value for q in point.quantile_values}
                        texts["quantiles"] = json.dumps(quantiles)
                    yield (
                        min(point.time_unix_nano, _MAX_INT),
                        origin.service,
                        origin.environment,
                        metric.name,
                        metric.unit,
                        kind,
                        *_numbers(kind, point),
                        list(texts.items()),
                        list(numbers.items()),
                    )


def _numbers(kind: str, point: Any) -> tuple[Any, ...]:
    """Return value, count, sum, bounds and bucket counts of a data point."""
    match kind:
        case "gauge" | "sum":
            which = point.WhichOneof("value")
            return (None if which is None else float(getattr(point, which))), None, None, [], []
        case "histogram":
            total = point.sum if point.HasField("sum") else None
            counts = list(map(_int64, point.bucket_counts))
            return None, _int64(point.count), total, list(point.explicit_bounds), counts
        case "exponential_histogram":
            total = point.sum if point.HasField("sum") else None
            return None, _int64(point.count), total, *_explicit(point)
        case _:
            return None, _int64(point.count), point.sum, [], []


def _explicit(point: Any) -> tuple[list[float], list[int]]:
    """Return bounds and counts of an exponential histogram's buckets, lowest first.

    Bucket i holds values in (base**i, base**(i + 1)] with base = 2**(2**-scale), and the
    negative ones mirror it (OpenTelemetry, data model of metrics).
    """
    upper, counts = _side(point.scale, point.positive)
    lower, negative = _side(point.scale, point.negative)
    bounds = [-bound for bound in reversed(lower)]
    zero = point.zero_threshold
    if not bounds:
        bounds = [-zero]
    if not upper:
        upper = [zero]
    # Below the first bound, the negative buckets, around zero, the positive ones, above.
    all_counts = [0, *reversed(negative), _int64(point.zero_count), *counts, 0]
    return [*bounds, *upper], all_counts


def _side(scale: int, buckets: Any) -> tuple[list[float], list[int]]:
    """Return the n + 1 edges of n buckets and their counts."""
    counts = list(map(_int64, buckets.bucket_counts))
    if not any(counts):
        return [], []
    edges = [_power(scale, buckets.offset + i) for i in range(len(counts) + 1)]
    return edges, counts


def _power(scale: int, index: int) -> float:
    try:
        return float(2.0 ** math.ldexp(index, -scale))
    except OverflowError:
        return math.inf if index > 0 else 0.0


def _int64(value: int) -> int:
    return min(value, _MAX_INT)

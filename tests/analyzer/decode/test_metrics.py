from __future__ import annotations

import json
import math
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from llmobs.analyzer.decode import decode_metrics
from llmobs.records import METRIC_SCHEMA


def rows(*metrics: Metric) -> list[dict[str, Any]]:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    of_resource.scope_metrics.add().metrics.extend(metrics)
    batch, rejected = decode_metrics([request.SerializeToString()])
    assert rejected == ()
    assert batch.table.schema == METRIC_SCHEMA
    batch.table.validate(full=True)
    out: list[dict[str, Any]] = batch.table.to_pylist()
    return out


def test_gauges_and_sums_have_a_value() -> None:
    gauge, total = Metric(name="g", unit="s"), Metric(name="t")
    gauge.gauge.data_points.add(time_unix_nano=3, as_double=1.5)
    point = total.sum.data_points.add(as_int=7)
    point.attributes.add(key="model").value.string_value = "m"
    first, second = rows(gauge, total)
    assert (first["kind"], first["value"], first["unit"], first["ts_ns"]) == ("gauge", 1.5, "s", 3)
    assert (second["kind"], second["value"], second["count"]) == ("sum", 7.0, None)
    assert dict(second["attributes_s"]) == {"model": "m"}
    assert second["service"] == "shop"


def test_a_histogram_has_bounds_and_counts() -> None:
    metric = Metric(name="h")
    metric.histogram.data_points.add(
        count=6, sum=9.0, explicit_bounds=[1.0, 2.0], bucket_counts=[1, 2, 3]
    )
    [row] = rows(metric)
    assert (row["kind"], row["count"], row["sum"]) == ("histogram", 6, 9.0)
    assert (row["bounds"], row["bucket_counts"]) == ([1.0, 2.0], [1, 2, 3])


@pytest.mark.parametrize("negative", [False, True])
def test_an_exponential_histogram_gets_explicit_bounds(negative: bool) -> None:
    metric = Metric(name="e")
    point = metric.exponential_histogram.data_points.add(count=10, scale=0, zero_count=4)
    point.positive.offset = 1
    point.positive.bucket_counts.extend([1, 2, 0])
    if negative:
        point.negative.offset = 0
        point.negative.bucket_counts.extend([3, 5])
    [row] = rows(metric)
    assert row["kind"] == "exponential_histogram"
    if negative:  # [-4, -2), [-2, -1), around zero, (2, 4], (4, 8], (8, 16]
        assert row["bounds"] == [-4.0, -2.0, -1.0, 2.0, 4.0, 8.0, 16.0]
        assert row["bucket_counts"] == [0, 5, 3, 4, 1, 2, 0, 0]
    else:
        assert row["bounds"] == [-0.0, 2.0, 4.0, 8.0, 16.0]
        assert row["bucket_counts"] == [0, 4, 1, 2, 0, 0]
    assert len(row["bucket_counts"]) == len(row["bounds"]) + 1


def test_an_empty_exponential_histogram_still_has_bounds_in_order() -> None:
    metric = Metric(name="e")
    metric.exponential_histogram.data_points.add(count=2, zero_count=2, zero_threshold=0.1)
    [row] = rows(metric)
    assert (row["bounds"], row["bucket_counts"]) == ([-0.1, 0.1], [0, 2, 0])


@pytest.mark.parametrize(
    ("offset", "bounds"),
    [(1, [-0.0, math.inf, math.inf]), (-2, [-0.0, 0.0, 0.0]), (0, [-0.0, 1.0, math.inf])],
)
def test_a_scale_beyond_what_a_double_holds_keeps_the_order(
    offset: int, bounds: list[float]
) -> None:
    metric = Metric(name="e")
    point = metric.exponential_histogram.data_points.add(count=1, scale=-2000)
    point.positive.offset = offset
    point.positive.bucket_counts.append(1)
    assert rows(metric)[0]["bounds"] == bounds


def test_a_summary_keeps_its_quantiles() -> None:
    metric = Metric(name="s")
    point = metric.summary.data_points.add(count=2, sum=3.0)
    point.quantile_values.add(quantile=0.5, value=1.5)
    [row] = rows(metric)
    assert (row["kind"], row["count"], row["sum"], row["bounds"]) == ("summary", 2, 3.0, [])
    assert json.loads(dict(row["attributes_s"])["quantiles"]) == {"0.5": 1.5}


def test_a_point_without_a_value_is_left_out() -> None:
    metric = Metric(name="g")
    metric.gauge.data_points.add(flags=1)
    assert rows(metric, Metric(name="nothing")) == []


def test_a_poisoned_request_is_refused_alone() -> None:
    good = ExportMetricsServiceRequest()
    of_scope = good.resource_metrics.add().scope_metrics.add()
    of_scope.metrics.add(name="g").gauge.data_points.add(as_int=2**63 - 1)
    batch, rejected = decode_metrics([b"\x0a\xff", good.SerializeToString()])
    assert [r.request for r in rejected] == [0]
    assert len(batch) == 1

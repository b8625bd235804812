from __future__ import annotations

import socket
import time

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from llmobs.analyzer.publish.metrics import Metrics
from llmobs.analyzer.publish.otlp import OtlpPublisher
from llmobs.errors import ConfigurationError
from tests.analyzer.publish.batches import NO_SCORES, spans
from tests.analyzer.publish.listener import Listener, listening


def pushed(listener: Listener) -> dict[str, Metric]:
    """Decode the last request."""
    path, headers, body = listener.received[-1]
    assert path == "/v1/metrics"
    assert headers["content-type"] == "application/x-protobuf"
    request = ExportMetricsServiceRequest.FromString(body)
    scope = request.resource_metrics[0].scope_metrics[0]
    return {metric.name: metric for metric in scope.metrics}


def test_a_push_carries_the_same_numbers_under_the_names_of_opentelemetry() -> None:
    metrics = Metrics()
    metrics.record(spans({"weight": 1.5, "trace_id": b"\xab" * 16}, {"cost_usd": 0.5}), NO_SCORES)
    with listening() as listener:
        publisher = OtlpPublisher(metrics, listener.url)
        assert publisher.push()
        publisher.stop()
        got = pushed(listener)
    calls = got["llmobs_calls_total"].sum
    assert calls.is_monotonic
    assert calls.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    assert calls.data_points[0].as_double == 2.5
    attributes = {a.key: a.value.string_value for a in calls.data_points[0].attributes}
    assert attributes["service.name"] == "shop"
    assert attributes["gen_ai.request.model"] == "gpt-5-mini"
    assert got["llmobs_cost_usd_total"].unit == "{USD}"
    duration = got["llmobs_call_duration_seconds"].histogram.data_points[0]
    assert duration.count == sum(duration.bucket_counts) == 2
    assert len(duration.bucket_counts) == len(duration.explicit_bounds) + 1
    assert not duration.HasField("min")
    assert duration.exemplars[0].trace_id == b"\x01" * 16
    assert got["llmobs_alerts_firing"].gauge.data_points


def test_a_receiver_that_is_down_costs_a_count_and_nothing_else() -> None:
    metrics = Metrics()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        publisher = OtlpPublisher(metrics, f"http://127.0.0.1:{taken.getsockname()[1]}", 0.2)
        assert not publisher.push()
        publisher.stop()
    failures = {
        series.labels: series.value
        for spec, all_series in metrics.snapshot()
        if spec.name == "llmobs_publish_failures_total"
        for series in all_series
    }
    assert failures[("otlp",)] == 1


def test_it_pushes_by_itself_and_once_more_at_the_end() -> None:
    metrics = Metrics()
    with listening() as listener:
        publisher = OtlpPublisher(metrics, listener.url, interval_s=0.05, headers={"x-key": "k"})
        publisher.start()
        deadline = time.monotonic() + 5
        while len(listener.received) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        metrics.record(spans({}), NO_SCORES)
        publisher.stop()
        assert len(listener.received) >= 3
        assert listener.received[-1][1]["x-key"] == "k"
        assert "llmobs_calls_total" in pushed(listener)


@pytest.mark.parametrize(("endpoint", "interval_s"), [("collector:4318", 15), ("http://c", 0)])
def test_a_wrong_setting_is_said_at_once(endpoint: str, interval_s: float) -> None:
    with pytest.raises(ConfigurationError):
        OtlpPublisher(Metrics(), endpoint, interval_s)

"""The same metrics pushed over OTLP, for receivers that don't scrape."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

import numpy as np
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from llmobs import semconv
from llmobs.analyzer.publish.catalogue import MetricSpec
from llmobs.analyzer.publish.families import Series, Snapshot
from llmobs.analyzer.publish.metrics import Metrics
from llmobs.errors import ConfigurationError

__all__ = ["OtlpPublisher", "to_otlp"]

logger = logging.getLogger(__name__)

_NS: Final = 1_000_000_000
# How long a shutdown waits for the last push.
_LAST_PUSH_S: Final = 5.0


def to_otlp(snapshot: Snapshot, now_ns: int) -> MetricsData:
    """Turn a snapshot into OTLP's shape; sums and histograms are cumulative."""
    metrics = [
        Metric(
            name=spec.name,
            description=spec.meaning,
            unit=spec.unit,
            data=_data(spec, series, now_ns),
        )
        for spec, series in snapshot
    ]
    scope = ScopeMetrics(InstrumentationScope("llmobs.analyzer"), metrics, schema_url="")
    resource = Resource({semconv.SERVICE_NAME: "llmobs"})
    return MetricsData([ResourceMetrics(resource, [scope], schema_url="")])


def _data(spec: MetricSpec, series: list[Series], now_ns: int) -> Gauge | Sum | Histogram:
    if spec.kind == "histogram":
        points = [_histogram_point(spec, one, now_ns) for one in series]
        return Histogram(points, AggregationTemporality.CUMULATIVE)
    numbers = [
        NumberDataPoint(
            attributes=dict(zip(spec.labels, one.labels, strict=True)),
            start_time_unix_nano=int(one.created_s * _NS),
            time_unix_nano=now_ns,
            value=one.value,
        )
        for one in series
    ]
    if spec.kind == "gauge":
        return Gauge(numbers)
    return Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True)


def _histogram_point(spec: MetricSpec, series: Series, now_ns: int) -> HistogramDataPoint:
    # OTLP counts are whole. Rounding the running total keeps every bucket from falling.
    running = np.rint(np.cumsum(series.buckets)).astype(np.int64)
    return HistogramDataPoint(
        attributes=dict(zip(spec.labels, series.labels, strict=True)),
        start_time_unix_nano=int(series.created_s * _NS),
        time_unix_nano=now_ns,
        count=int(running[-1]),
        sum=series.value,
        bucket_counts=np.diff(running, prepend=0).tolist(),
        explicit_bounds=list(spec.bounds),
        min=None,  # type: ignore[arg-type]  # not kept; the encoder leaves a None out
        max=None,  # type: ignore[arg-type]
        exemplars=[
            Exemplar(
                filtered_attributes={},
                value=seen.value,
                time_unix_nano=int(seen.time_s * _NS),
                trace_id=int(seen.trace_id, 16),
                span_id=int(seen.span_id, 16),
            )
            for seen in series.exemplars.values()
        ],
    )


class OtlpPublisher:
    """Pushes all metrics to an OTLP/HTTP receiver every few seconds, on a thread of its own.

    It never raises once it runs: a push that fails is counted and the next one, being
    cumulative, makes up for it. One push is in flight at most, and none is queued.

    Args:
        metrics: What is pushed.
        endpoint: Base URL of the receiver, such as ``http://collector:4318``.
        interval_s: Time between pushes, in seconds.
        headers: Sent along, for a receiver that wants a key.

    Raises:
        ConfigurationError: The endpoint is no http(s) URL or the interval is not positive.
    """

    def __init__(
        self,
        metrics: Metrics,
        endpoint: str,
        interval_s: float = 15.0,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"OTLP endpoint {endpoint!r} is no URL: write http://host:4318 or https://…"
            )
        if interval_s <= 0:
            raise ConfigurationError(
                f"the interval of OTLP pushes is {interval_s} s: give more than 0"
            )
        self._metrics = metrics
        self._interval_s = interval_s
        self._exporter = OTLPMetricExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/metrics",
            headers=dict(headers or {}),
            timeout=interval_s,  # its retries end before the next push
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmobs-otlp", daemon=True)

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def push(self) -> bool:
        """Push once and say whether the receiver took it; never raises."""
        try:
            data = to_otlp(self._metrics.snapshot(), time.time_ns())
            taken = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception:  # the exporter is someone else's code, and this thread has to live
            logger.exception("metrics push failed")
            taken = False
        if not taken:
            self._metrics.record_publish_failure("otlp")
        return taken

    def stop(self) -> None:
        """Push a last time and end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_PUSH_S)
        self._exporter.shutdown()  # breaks off a retry that still waits

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.push()
        self.push()

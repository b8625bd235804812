"""The receiver's own numbers, as Prometheus text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmobs.analyzer.receive.answer import Outcome
from llmobs.records import Signal

__all__ = ["CONTENT_TYPE", "ReceiverMetrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# A group commit takes about a millisecond on an SSD; an OTLP sender gives up after ten seconds.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Key of `Sink.stats()` -> (name, help). A name that ends in _total is a counter.
_LOG: Final = {
    "n_requests": ("llmobs_log_requests_total", "Requests acknowledged, duplicates included."),
    "n_duplicates": ("llmobs_log_duplicates_total", "Byte-identical retries, not written again."),
    "n_refused": ("llmobs_log_refused_total", "Requests refused: log full or disk failing."),
    "n_disk_errors": ("llmobs_log_disk_errors_total", "Writes and seals that the disk refused."),
    "bytes_written": ("llmobs_log_written_bytes_total", "Bytes made durable."),
    "n_fsyncs": ("llmobs_log_fsyncs_total", "Group commits."),
    "fsync_seconds": ("llmobs_log_fsync_seconds_total", "Time spent in group commits."),
    "bytes_on_disk": ("llmobs_log_backlog_bytes", "Size of the segments the engine has to read."),
    "n_segments": ("llmobs_log_backlog_segments", "Segments the engine has to read."),
    "oldest_segment_age_s": ("llmobs_log_backlog_seconds", "Age of the oldest of these segments."),
    "limit_bytes": ("llmobs_log_limit_bytes", "Size from which senders are asked to wait."),
    "queue_bytes": ("llmobs_log_queue_bytes", "Requests in memory that wait for the disk."),
}


class _LogCollector(Collector):
    def __init__(self, stats: Callable[[], Mapping[str, float]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        for key, value in self._stats().items():
            if key not in _LOG:
                continue
            name, text = _LOG[key]
            if name.endswith("_total"):
                yield CounterMetricFamily(name.removesuffix("_total"), text, value=value)
            else:
                yield GaugeMetricFamily(name, text, value=value)


class ReceiverMetrics:
    """Counts requests: ``llmobs_receive_*`` of both transports, ``llmobs_log_*`` of the log."""

    def __init__(self, stats: Callable[[], Mapping[str, float]]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # else every counter has a second series nobody reads
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "llmobs_receive_requests_total",
            "Export requests by how they ended.",
            ("transport", "signal", "outcome"),
            registry=self._registry,
        )
        self._items = Counter(
            "llmobs_receive_items_total",
            "Spans, log records and data points acknowledged.",
            ("signal",),
            registry=self._registry,
        )
        self._bytes = Counter(
            "llmobs_receive_bytes_total",
            "Unpacked bytes acknowledged.",
            ("signal",),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "llmobs_receive_seconds",
            "Time from a request's head to its answer.",
            ("transport",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_LogCollector(stats))

    def count(
        self,
        transport: str,
        signal: Signal | Literal["feedback", "none"],
        outcome: Outcome,
        seconds: float,
    ) -> None:
        """Count one request that was answered; "none": it went to an unknown path."""
        self._requests.labels(transport, signal, outcome.label).inc()
        self._seconds.labels(transport).observe(seconds)

    def count_kept(self, signal: Signal, n_items: int, n_bytes: int) -> None:
        """Count what an acknowledged request held."""
        self._items.labels(signal).inc(n_items)
        self._bytes.labels(signal).inc(n_bytes)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

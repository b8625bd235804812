"""The senders that people really use: OpenTelemetry's own exporters, into a log on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcMetrics,
)
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpMetrics,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from llmobs.access import Keys
from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.receive import Receiver
from llmobs.records import Signal
from tests.analyzer.receive.serving import KINDS, check, n_items

HEADERS = {"authorization": "Bearer secret"}


@dataclass
class Served:
    receiver: Receiver
    writer: SegmentWriter
    reader: SegmentReader

    def exporter(self, signal: Signal, transport: Literal["http", "grpc"], *, packed: bool) -> Any:
        if transport == "http":
            kinds: dict[Signal, Any] = {
                "traces": HttpSpans,
                "logs": HttpLogs,
                "metrics": HttpMetrics,
            }
            return kinds[signal](
                endpoint=f"http://127.0.0.1:{self.receiver.http_port}/v1/{signal}",
                headers=HEADERS,
                compression=Compression.Gzip if packed else Compression.NoCompression,
            )
        kinds = {"traces": GrpcSpans, "logs": GrpcLogs, "metrics": GrpcMetrics}
        return kinds[signal](
            endpoint=f"127.0.0.1:{self.receiver.grpc_port}",
            insecure=True,
            headers=HEADERS,
            compression=grpc.Compression.Gzip if packed else grpc.Compression.NoCompression,
        )

    def stored(self) -> list[tuple[Signal, Any]]:
        """Return the requests in the log, after all was sealed."""
        self.writer.close()
        return [
            (signal, KINDS[signal].FromString(request))
            for number in self.reader.sealed()
            for signal, request in self.reader.read(number).requests
        ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    writer = SegmentWriter(tmp_path / "log")
    reader = SegmentReader(tmp_path / "log", tmp_path / "aside")
    with Receiver(writer, check, keys=Keys(["secret"]), http_port=0, grpc_port=0) as receiver:
        yield Served(receiver, writer, reader)
    writer.close()


@pytest.mark.parametrize("transport", ["http", "grpc"])
@pytest.mark.parametrize("packed", [False, True])
def test_spans_logs_and_metrics_arrive(
    served: Served, transport: Literal["http", "grpc"], packed: bool
) -> None:
    tracing = TracerProvider()
    tracing.add_span_processor(
        BatchSpanProcessor(served.exporter("traces", transport, packed=packed))
    )
    logging = LoggerProvider()
    logging.add_log_record_processor(
        BatchLogRecordProcessor(served.exporter("logs", transport, packed=packed))
    )
    metering = MeterProvider(
        [PeriodicExportingMetricReader(served.exporter("metrics", transport, packed=packed))]
    )
    for i in range(1000):  # two batches
        tracing.get_tracer("test").start_span("chat", attributes={"n": i}).end()
    logging.get_logger("test").emit(event_name="answered", body="42")
    metering.get_meter("test").create_counter("calls").add(3)
    for provider in (tracing, logging, metering):
        provider.shutdown()
    counts: dict[Signal, int] = {"traces": 0, "logs": 0, "metrics": 0}
    for signal, message in served.stored():
        counts[signal] += n_items(message)
    assert counts == {"traces": 1000, "logs": 1, "metrics": 1}


def test_an_exporter_with_a_wrong_key_is_told_once_and_gives_up(served: Served) -> None:
    exporter: Any = HttpSpans(
        endpoint=f"http://127.0.0.1:{served.receiver.http_port}/v1/traces",
        headers={"authorization": "Bearer wrong"},
    )
    span: Any = TracerProvider().get_tracer("test").start_span("chat")
    span.end()
    assert exporter.export([span]) is SpanExportResult.FAILURE
    exporter.shutdown()
    assert served.stored() == []

"""The same over gRPC, against a real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    add_LogsServiceServicer_to_server,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

import llmobs


class Server(TraceServiceServicer, LogsServiceServicer, MetricsServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        return {
            "ExportTraceServiceRequest": ExportTraceServiceResponse,
            "ExportLogsServiceRequest": ExportLogsServiceResponse,
            "ExportMetricsServiceRequest": ExportMetricsServiceResponse,
        }[type(request).__name__]()


def test_all_three_signals_go_over_grpc() -> None:
    kept = Server()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]
    add_LogsServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]
    add_MetricsServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        llmobs.init(
            "s", endpoint=f"http://127.0.0.1:{port}", protocol="grpc", headers={"X-Key": "k1"}
        )

        @llmobs.observe(kind="chat", model="m")
        def ask(prompt: str) -> str:
            llmobs.feedback(1)
            return prompt

        ask("x")
        assert llmobs.flush(10)
        assert llmobs.shutdown(10)
    finally:
        server.stop(None).wait()
    names = {type(request).__name__ for request in kept.requests}
    assert len(names) == 3
    assert kept.metadata["x-key"] == "k1"
    assert llmobs.status().exported == llmobs.status().events_exported == 1

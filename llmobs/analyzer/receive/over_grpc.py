"""OTLP over gRPC: bytes in, bytes out; no generated stub, no second parse."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NoReturn

import grpc

from llmobs.analyzer.receive.answer import Outcome, RefusedError
from llmobs.analyzer.receive.intake import Intake
from llmobs.analyzer.receive.unpack import GZIP_MAGIC
from llmobs.errors import ConfigurationError
from llmobs.records import Signal

__all__ = ["GrpcServer"]

_SERVICES: Final[Mapping[Signal, str]] = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_EMPTY_RESPONSE: Final = b""  # every Export…ServiceResponse without a partial success

# Threads beyond the requests that may be handled at once: they say no to the rest, with
# RetryInfo. gRPC's own limit behind that says it without, and a sender would give up.
_N_REFUSING: Final = 4
_MAX_WAITING: Final = 1024
# Unpacking and parsing hold the processor, and for a bomb the memory: no use in more at once.
_N_PARSERS: Final = 2
# Some senders ping every ten seconds; gRPC's default would hang up on them.
_MIN_PING_INTERVAL_MS: Final = 10_000
# A call holds a thread from its head on. A sender that vanished is noticed by pings (gRPC's default
# is after two hours); one that stays and sends no message loses its connection in the end, and
# others, which gRPC tells to connect anew, nothing.
_KEEPALIVE_MS: Final = 30_000
_MAX_AGE_MS: Final = 600_000
_MAX_AGE_GRACE_MS: Final = 60_000
# Bit set over grpc.Compression: none and gzip. Others are answered with UNIMPLEMENTED.
_COMPRESSIONS: Final = 1 << 0 | 1 << 2


class GrpcServer:
    """The server of port 4317, threads and all."""

    def __init__(self, intake: Intake, *, host: str, port: int) -> None:
        """Bind the port; `start` answers.

        Args:
            intake: Shared with the HTTP application.
            host: Address to listen on.
            port: 0 for a free one.

        Raises:
            ConfigurationError: The port can't be had.
        """
        self._intake = intake
        self._slots = threading.Semaphore(intake.limits.max_grpc_requests)
        self._parsers = threading.Semaphore(_N_PARSERS)
        self._pool = ThreadPoolExecutor(
            intake.limits.max_grpc_requests + _N_REFUSING, thread_name_prefix="llmobs-grpc"
        )
        self._server = grpc.server(
            self._pool,
            handlers=[self._handler(signal, service) for signal, service in _SERVICES.items()],
            options=[
                ("grpc.max_receive_message_length", intake.limits.max_packed_bytes),
                # We unpack: gRPC uses plain zlib, and has not always limited what comes out.
                ("grpc.per_message_decompression", 0),
                ("grpc.compression_enabled_algorithms_bitset", _COMPRESSIONS),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.max_connection_age_ms", _MAX_AGE_MS),
                ("grpc.max_connection_age_grace_ms", _MAX_AGE_GRACE_MS),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
                ("grpc.so_reuseport", 0),  # else two servers share a port without a word
            ],
            maximum_concurrent_rpcs=_MAX_WAITING,
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigurationError(
                f"can't listen on {address} for OTLP/gRPC: is another program there? "
                "stop it or choose another port"
            ) from error

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Refuse new requests, let those in flight finish, and return."""
        self._server.stop(grace_s).wait()
        self._pool.shutdown()

    def _handler(self, signal: Signal, service: str) -> grpc.GenericRpcHandler:
        method = grpc.unary_unary_rpc_method_handler(partial(self._export, signal))
        return grpc.method_handlers_generic_handler(service, {"Export": method})

    def _export(self, signal: Signal, packed: bytes, context: grpc.ServicerContext) -> bytes:
        started = time.perf_counter()
        try:
            self._keep(signal, packed, dict(context.invocation_metadata()))
        except RefusedError as refused:
            self._count(signal, refused.outcome, started)
            _abort(context, refused)
        self._count(signal, Outcome.ACCEPTED, started)
        return _EMPTY_RESPONSE

    def _count(self, signal: Signal, outcome: Outcome, started: float) -> None:
        self._intake.metrics.count("grpc", signal, outcome, time.perf_counter() - started)

    def _keep(self, signal: Signal, packed: bytes, headers: Mapping[str, Any]) -> None:
        owner = self._intake.admit(headers)
        if not self._slots.acquire(blocking=False):
            raise RefusedError(
                Outcome.BUSY, "too many requests at the same time; try again", retry_after_s=1.0
            )
        try:
            encoding = "gzip" if packed.startswith(GZIP_MAGIC) else "identity"
            with self._intake.reservation() as reservation, self._parsers:
                reservation.grow(len(packed))
                request = self._intake.read(signal, owner, packed, encoding, is_json=False)
            if not request.content:
                return
            answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
            self._intake.sink.append(signal, request.content, answers.put)
            try:
                error = answers.get(timeout=self._intake.limits.answer_timeout_s)
            except queue.Empty as late:
                raise self._intake.late() from late
            self._intake.settle(request, error)
        finally:
            self._slots.release()


def _abort(context: grpc.ServicerContext, refused: RefusedError) -> NoReturn:
    details = (("grpc-status-details-bin", refused.to_protobuf()),)
    context.set_trailing_metadata(details)
    context.abort(_CODES[refused.outcome.code], refused.message)
    raise AssertionError("abort always raises")

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from llmobs.access import Key, Keys, Quota, Role
from llmobs.analyzer.receive import Limits, Receiver, over_grpc
from llmobs.errors import ConfigurationError, OverloadedError
from llmobs.records import Signal
from tests.analyzer.receive.serving import TIMEOUT_S, MemorySink, check, export

METHODS: dict[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
GOOD = export("traces", n=20).SerializeToString()
LIMITS = Limits(
    max_packed_bytes=1 << 20,
    max_unpacked_bytes=4 << 20,
    max_grpc_requests=2,
    answer_timeout_s=0.5,
)


@dataclass
class Served:
    sink: MemorySink
    channel: Any

    def export(self, body: bytes, signal: Signal = "traces", **options: Any) -> Any:
        method = self.channel.unary_unary(METHODS[signal])
        return method(body, timeout=TIMEOUT_S, **options)

    def refused(self, body: bytes, **options: Any) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self.export(body, **options)
        return caught.value


@pytest.fixture
def served() -> Iterator[Served]:
    """A server; a good request sent after the test must still be kept."""
    sink = MemorySink()
    with (
        Receiver(sink, check, http_port=0, grpc_port=0, limits=LIMITS) as receiver,
        grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel,
    ):
        served = Served(sink, channel)
        yield served
        sink.answer, sink.silent = None, False
        served.export(b"\x0a\x00" + GOOD)
        assert sink.kept[-1] == ("traces", b"\x0a\x00" + GOOD)


def _said(error: Any) -> Status:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = Status.FromString(details)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    return status


def _retry_after_ms(error: Any) -> int:
    retry = RetryInfo()
    assert _said(error).details[0].Unpack(retry)
    return int(retry.retry_delay.ToMilliseconds())


@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
@pytest.mark.parametrize("packing", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_requests_are_kept_unpacked_and_answered_with_an_empty_message(
    served: Served, signal: Signal, packing: grpc.Compression
) -> None:
    body = export(signal, n=500).SerializeToString()
    assert served.export(body, signal, compression=packing) == b""
    assert served.sink.kept == [(signal, body)]


def test_an_empty_request_is_fine_and_nothing_is_kept(served: Served) -> None:
    assert served.export(b"") == b""
    assert served.sink.kept == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(GOOD[:-5], "not an export request", id="truncated"),
        pytest.param(GOOD.replace(b"one", b"\xff\xfe\xfd"), "not an export", id="bad-utf8"),
        pytest.param(gzip.compress(GOOD)[:-9], "cut short", id="truncated-gzip"),
        pytest.param(
            gzip.compress(b"\0" * (100 << 20), compresslevel=1), "bytes unpacked", id="gzip-bomb"
        ),
    ],
)
def test_bad_requests_are_refused_for_good(served: Served, body: bytes, words: str) -> None:
    error = served.refused(body)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.details()
    assert not _said(error).details  # nothing that asks to try again
    assert served.sink.kept == []


def test_a_bomb_that_grpc_packed_is_refused(served: Served) -> None:
    error = served.refused(b"\0" * (100 << 20), compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "bytes unpacked" in error.details()


def test_a_request_larger_than_allowed_is_refused(served: Served) -> None:
    error = served.refused(b"x" * (1 << 20 | 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-status-details-bin" not in dict(error.trailing_metadata())


def test_an_overloaded_log_asks_to_try_again(served: Served) -> None:
    served.sink.answer = OverloadedError("the disk is full", retry_after_s=2.5)
    error = served.refused(GOOD)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the disk is full"
    assert _retry_after_ms(error) == 2500


def test_requests_beyond_the_limit_ask_to_try_again_while_the_disk_is_silent(
    served: Served,
) -> None:
    served.sink.silent = True
    codes: list[grpc.StatusCode] = []
    hints: list[int] = []

    def send() -> None:
        error = served.refused(GOOD)
        codes.append(error.code())
        hints.append(_retry_after_ms(error))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2 + [grpc.StatusCode.UNAVAILABLE] * 2
    assert hints == [1000] * 2 + [5000] * 2


def test_calls_that_never_send_their_message_do_not_hold_the_server_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(over_grpc, "_MAX_AGE_MS", 1000)
    monkeypatch.setattr(over_grpc, "_MAX_AGE_GRACE_MS", 100)
    sink, over = MemorySink(), threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(3 * TIMEOUT_S)
        yield from ()

    with (
        Receiver(sink, check, http_port=0, grpc_port=0, limits=LIMITS) as receiver,
        grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as stalled,
        grpc.insecure_channel(
            f"127.0.0.1:{receiver.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]
        ) as channel,
    ):
        calls = [stalled.stream_unary(METHODS["traces"]).future(nothing()) for _ in range(10)]
        time.sleep(0.2)
        try:
            assert Served(sink, channel).export(GOOD) == b""
        finally:
            over.set()
        assert all(call.code() is not grpc.StatusCode.OK for call in calls)


def test_keys_and_quotas_are_those_of_http() -> None:
    keys = Keys(
        [
            Key("good"),
            Key("reader", role=Role.READ),
            Key("poor", quota=Quota(spans_per_s=10, burst_s=1)),
        ]
    )
    with (
        Receiver(MemorySink(), check, keys=keys, http_port=0, grpc_port=0) as receiver,
        grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel,
    ):
        served = Served(MemorySink(), channel)
        assert served.refused(GOOD).code() is grpc.StatusCode.UNAUTHENTICATED
        reader = served.refused(GOOD, metadata=[("x-api-key", "reader")])
        assert reader.code() is grpc.StatusCode.PERMISSION_DENIED
        assert served.export(GOOD, metadata=[("authorization", "Bearer good")]) == b""
        assert served.export(GOOD, metadata=[("api-key", "poor")]) == b""
        poor = served.refused(GOOD, metadata=[("api-key", "poor")])
        assert poor.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0 < _retry_after_ms(poor) <= 1000


def test_a_port_that_is_taken_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port} for OTLP/gRPC"):
            Receiver(MemorySink(), check, http_port=0, grpc_port=port)
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port} for OTLP/HTTP"):
            Receiver(MemorySink(), check, http_port=port, grpc_port=0)

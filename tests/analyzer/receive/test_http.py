from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from llmobs.access import Key, Keys, Quota, Role
from llmobs.analyzer.log import SegmentWriter
from llmobs.analyzer.receive import Limits, Receiver
from llmobs.errors import OverloadedError, TooLargeError
from llmobs.records import Signal
from tests.analyzer.receive.serving import (
    JSON,
    PATHS,
    PROTOBUF,
    Answer,
    MemorySink,
    check,
    export,
    send,
)

SIGNALS: tuple[Signal, ...] = ("traces", "logs", "metrics")
LIMITS = Limits(
    max_packed_bytes=1 << 20,
    max_unpacked_bytes=4 << 20,
    max_in_flight_bytes=3 << 20,
    read_timeout_s=0.5,
    answer_timeout_s=0.5,
)


@dataclass
class Served:
    sink: MemorySink
    port: int

    def post(self, body: bytes, *, path: str = "/v1/traces", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return send(self.port, path, body, {**PROTOBUF, **named})


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[MemorySink, Receiver]]:
    sink = MemorySink()
    with Receiver(sink, check, http_port=0, grpc_port=0, limits=LIMITS) as receiver:
        yield sink, receiver


@pytest.fixture
def served(receiver: tuple[MemorySink, Receiver]) -> Iterator[Served]:
    """A server; a good request sent after the test must still be kept."""
    sink, running = receiver
    sink.__init__()  # type: ignore[misc] # a fresh start for each test
    yield Served(sink, running.http_port)
    sink.__init__()  # type: ignore[misc]
    good = export("traces", "afterwards").SerializeToString()
    assert send(running.http_port, "/v1/traces", good, PROTOBUF).status == 200
    assert sink.kept == [("traces", good)]


def _drip(connection: socket.socket, data: bytes) -> float:
    """Send byte after byte until the other side hangs up; return the seconds that took."""
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        for byte in data:
            connection.sendall(bytes([byte]))
            connection.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                if connection.recv(100) == b"":
                    break
    return time.monotonic() - started


def _status(answer: Answer) -> Status:
    assert answer.headers["content-type"] == "application/x-protobuf"
    return Status.FromString(answer.body)


class TestGoodRequests:
    @pytest.mark.parametrize("signal", SIGNALS)
    def test_protobuf_is_kept_and_answered_with_an_empty_message(
        self, served: Served, signal: Signal
    ) -> None:
        body = export(signal).SerializeToString()
        answer = served.post(body, path=PATHS[signal])
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"] == "application/x-protobuf"
        assert served.sink.kept == [(signal, body)]

    @pytest.mark.parametrize("signal", SIGNALS)
    def test_json_is_kept_as_protobuf_and_answered_in_json(
        self, served: Served, signal: Signal
    ) -> None:
        message = export(signal)
        answer = send(
            served.port,
            PATHS[signal],
            json_format.MessageToJson(message).encode(),
            {"content-type": "Application/JSON; charset=utf-8"},
        )
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.headers["content-type"] == "application/json"
        assert served.sink.kept == [(signal, message.SerializeToString())]

    def test_packed_bodies_are_kept_unpacked(self, served: Served) -> None:
        body = export("traces", n=3000).SerializeToString()
        small = export("traces").SerializeToString()
        assert served.post(gzip.compress(body), content_encoding="gzip").status == 200
        assert served.post(zlib.compress(small), content_encoding="deflate").status == 200
        assert served.post(small, content_encoding="identity").status == 200
        assert [request for _, request in served.sink.kept] == [body, small, small]

    def test_a_chunked_body_is_kept(self, served: Served) -> None:
        body = export("traces", n=200).SerializeToString()
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part)
            for part in (body[:100], body[100:3000], body[3000:])
        )
        head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert served.sink.kept == [("traces", body)]

    def test_an_empty_request_is_fine_and_nothing_is_kept(self, served: Served) -> None:
        assert served.post(b"").status == 200
        assert send(served.port, "/v1/traces", b"{}", JSON).status == 200
        assert send(served.port, "/v1/traces", b"", JSON).status == 200
        assert served.post(gzip.compress(b""), content_encoding="gzip").status == 200
        assert served.sink.kept == []


GOOD = export("traces", n=20).SerializeToString()
BOMB = gzip.compress(b"\0" * (100 << 20), compresslevel=1)


class TestBadRequests:
    @pytest.mark.parametrize(
        ("body", "headers", "status", "words"),
        [
            pytest.param(GOOD[:-5], {}, 400, "not an export request", id="truncated"),
            pytest.param(b"\xff" * 50, {}, 400, "not an export request", id="noise"),
            pytest.param(b"\x0a\x7f\x08", {}, 400, "not an export request", id="wrong-length"),
            pytest.param(
                GOOD.replace(b"one", b"\xff\xfe\xfd"), {}, 400, "not an export", id="bad-utf8"
            ),
            pytest.param(
                gzip.compress(GOOD)[:-9],
                {"content_encoding": "gzip"},
                400,
                "cut short",
                id="truncated-gzip",
            ),
            pytest.param(GOOD, {"content_encoding": "gzip"}, 400, "not valid gzip", id="not-gzip"),
            pytest.param(gzip.compress(GOOD), {}, 400, "Content-Encoding: gzip", id="secret-gzip"),
            pytest.param(BOMB, {"content_encoding": "gzip"}, 413, "bytes unpacked", id="gzip-bomb"),
            pytest.param(b"x" * (1 << 20 | 1), {}, 413, "1048576 bytes", id="too-large"),
            pytest.param(GOOD, {"content_encoding": "br"}, 415, "gzip, deflate", id="brotli"),
            pytest.param(
                GOOD, {"content_encoding": "gzip, gzip"}, 415, "gzip, deflate", id="twice"
            ),
        ],
    )
    def test_are_refused_with_a_status_in_protobuf(
        self, served: Served, body: bytes, headers: dict[str, str], status: int, words: str
    ) -> None:
        answer = served.post(body, **headers)
        assert answer.status == status
        said = _status(answer)
        assert said.code == 3  # INVALID_ARGUMENT
        assert words in said.message
        assert served.sink.kept == []

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b'{"resourceSpans": 5}', id="wrong-type"),
            pytest.param(b'{"resourceSpans"', id="truncated"),
            pytest.param(b'{"resourceSpans": [{"a": "\xff"}]}', id="bad-utf8"),
            pytest.param(b"[" * 3000 + b"]" * 3000, id="deep"),
            pytest.param(
                b'{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":'
                + b'{"arrayValue":{"values":[' * 2000
                + b"]}}" * 2000
                + b"}]}}]}",
                id="deep-values",
            ),
        ],
    )
    def test_in_json_are_refused_in_json(self, served: Served, body: bytes) -> None:
        answer = send(served.port, "/v1/traces", body, JSON)
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/json"
        said = json.loads(answer.body)
        assert said["code"] == 3
        assert "not an export request" in said["message"]

    @pytest.mark.parametrize("content_type", ["text/plain", "application/grpc", ""])
    def test_of_another_content_type_hear_which_are_taken(
        self, served: Served, content_type: str
    ) -> None:
        answer = send(served.port, "/v1/traces", GOOD, {"content-type": content_type})
        assert answer.status == 415
        assert "application/x-protobuf or application/json" in json.loads(answer.body)["message"]

    @pytest.mark.parametrize("path", ["/", "/v1/trace", "/v1/traces/", "/" + "x" * 500])
    def test_to_a_wrong_path_hear_the_right_ones(self, served: Served, path: str) -> None:
        answer = send(served.port, path, GOOD, PROTOBUF)
        assert answer.status == 404
        assert "/v1/traces, /v1/logs, /v1/metrics" in json.loads(answer.body)["message"]

    def test_by_another_method_hear_which_is_taken(self, served: Served) -> None:
        answer = send(served.port, "/v1/traces", method="GET")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        answer = send(served.port, "/metrics", GOOD, PROTOBUF)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")

    def test_that_are_no_http_at_all_harm_nobody(self, served: Served) -> None:
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(b"\x16\x03\x01\x00\xa5 TLS, perhaps\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")

    def test_without_an_end_to_their_chunks_stop_at_the_limit(self, served: Served) -> None:
        head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
            for _ in range(20):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_whose_body_never_comes_time_out(self, served: Served) -> None:
        head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(head + b"content-length: 100\r\n\r\nabc")
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")

    @pytest.mark.parametrize("start", [b"", b"POST /v1/tra", b"POST /v1/traces HTTP/1.1\r\nho"])
    def test_whose_head_never_comes_lose_their_connection(
        self, served: Served, start: bytes
    ) -> None:
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(start)
            assert connection.recv(100) == b""

    def test_that_come_drop_by_drop_lose_their_connection(self, served: Served) -> None:
        whole = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 1000
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            assert _drip(connection, whole) < 3

    def test_that_go_on_drop_by_drop_after_their_refusal_lose_their_connection(
        self, served: Served
    ) -> None:
        head = (
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: a/b\r\ncontent-length: 9999\r\n"
        )
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(head + b"\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 415 ")
            assert _drip(connection, b"x" * 1000) < 3

    def test_with_a_head_without_end_are_refused(self, served: Served) -> None:
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(b"POST /v1/traces HTTP/1.1\r\n" + b"x: yyyyyy\r\n" * 10_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")

    def test_are_parsed_on_the_event_loop_only_when_small_unpacked(self) -> None:
        threads: list[str] = []

        def notice(signal: Signal, body: bytes, is_json: bool) -> tuple[bytes, int]:
            threads.append(threading.current_thread().name.partition("_")[0])
            return body, 1

        with Receiver(MemorySink(), notice, http_port=0, grpc_port=0) as receiver:
            for body in (b"x" * 1000, b"x" * 1_000_000):
                headers = PROTOBUF | {"content-encoding": "gzip"}
                send(receiver.http_port, "/v1/traces", gzip.compress(body), headers)
        assert threads == ["llmobs-http", "llmobs-parse"]

    def test_whose_sender_hangs_up_leave_nothing_behind(self, served: Served) -> None:
        head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        for _ in range(5):  # together more than may be in flight
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
                connection.sendall(head + b"content-length: 1000000\r\n\r\nabc")
        time.sleep(0.1)
        assert served.post(GOOD).status == 200

    def test_that_break_the_checker_are_refused_for_good(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(signal: Signal, body: bytes, is_json: bool) -> tuple[bytes, int]:
            raise ZeroDivisionError

        with Receiver(MemorySink(), broken, http_port=0, grpc_port=0) as receiver:
            answer = send(receiver.http_port, "/v1/traces", GOOD, PROTOBUF)
        assert answer.status == 500
        assert "check failed" in caplog.text


class TestLoad:
    def test_an_overloaded_log_is_answered_with_503_and_retry_after(self, served: Served) -> None:
        served.sink.answer = OverloadedError("the disk is full", retry_after_s=2.5)
        answer = served.post(GOOD)
        assert (answer.status, answer.headers["retry-after"]) == (503, "3")
        said = _status(answer)
        assert (said.code, said.message) == (14, "the disk is full")
        retry = RetryInfo()
        assert said.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == 2500
        in_json = send(served.port, "/v1/traces", b'{"resourceSpans":[{}]}', JSON)
        assert in_json.status == 200  # without a span there is nothing to keep

    def test_what_a_broker_finds_too_large_is_answered_with_413(self, served: Served) -> None:
        served.sink.answer = TooLargeError("the topic takes 1,000,000 bytes")
        answer = served.post(GOOD)
        assert answer.status == 413
        assert "the topic takes" in _status(answer).message

    def test_a_silent_disk_is_answered_with_503(self, served: Served) -> None:
        served.sink.silent = True
        answer = served.post(GOOD)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "send the same bytes again" in _status(answer).message

    def test_more_bodies_than_memory_is_given_are_answered_with_429(self, served: Served) -> None:
        head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        answers: list[bytes] = []

        def hold() -> None:
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
                connection.sendall(head + b"content-length: 1000000\r\n\r\nabc")
                answers.append(connection.recv(100)[:13])

        threads = [threading.Thread(target=hold) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [b"HTTP/1.1 408 "] * 3 + [b"HTTP/1.1 429 "]


class TestKeys:
    @pytest.fixture
    def guarded(self) -> Iterator[Served]:
        sink = MemorySink()
        keys = Keys(
            [
                Key("good", name="app"),
                Key("reader", role=Role.READ),
                Key("poor", quota=Quota(spans_per_s=10, burst_s=1)),
            ]
        )
        with Receiver(sink, check, keys=keys, http_port=0, grpc_port=0) as receiver:
            yield Served(sink, receiver.http_port)

    def test_decide_who_may_send(self, guarded: Served) -> None:
        for headers, status in (
            ({}, 401),
            ({"x_api_key": "bad"}, 401),
            ({"x_api_key": "reader"}, 403),
            ({"x_api_key": "good"}, 200),
            ({"authorization": "Bearer good"}, 200),
        ):
            answer = guarded.post(GOOD, **headers)
            assert answer.status == status
        assert len(guarded.sink.kept) == 2
        answer = guarded.post(GOOD)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer KEY" in _status(answer).message

    def test_bring_a_quota(self, guarded: Served) -> None:
        assert guarded.post(GOOD, x_api_key="poor").status == 200  # 20 spans: 10 owed
        answer = guarded.post(GOOD, x_api_key="poor")
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert _status(answer).code == 8
        assert guarded.post(GOOD, x_api_key="good").status == 200

    def test_are_asked_for_before_the_body_is_read(self, guarded: Served) -> None:
        head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
            connection.sendall(head + b"content-length: 1000000\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


class TestBrowsers:
    ORIGIN = "https://app.example.com"

    def test_may_not_send_unless_their_origin_is_allowed(self, served: Served) -> None:
        assert served.post(GOOD, origin=self.ORIGIN).status == 403
        assert served.sink.kept == []
        refused = send(served.port, "/v1/traces", b"", {"origin": self.ORIGIN}, method="OPTIONS")
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers

    def test_may_send_from_an_allowed_origin(self) -> None:
        sink = MemorySink()
        with Receiver(
            sink, check, http_port=0, grpc_port=0, cors_origins=[self.ORIGIN]
        ) as receiver:
            asked = {
                "origin": self.ORIGIN,
                "access-control-request-method": "POST",
                "access-control-request-headers": "content-type",
            }
            preflight = send(receiver.http_port, "/v1/traces", b"", asked, method="OPTIONS")
            assert preflight.status == 200
            assert preflight.headers["access-control-allow-origin"] == self.ORIGIN
            assert "content-type" in preflight.headers["access-control-allow-headers"]
            answer = send(
                receiver.http_port, "/v1/traces", GOOD, {**PROTOBUF, "origin": self.ORIGIN}
            )
            assert (answer.status, len(sink.kept)) == (200, 1)
            assert answer.headers["access-control-allow-origin"] == self.ORIGIN
            other = {**PROTOBUF, "origin": "https://evil.example.com"}
            assert send(receiver.http_port, "/v1/traces", GOOD, other).status == 403


class TestSideDoors:
    def test_health_is_always_fine_and_readiness_follows_the_log(self, served: Served) -> None:
        assert send(served.port, "/readyz", method="GET").status == 200
        served.sink.trouble = "the log is full"
        ready = send(served.port, "/readyz", method="GET")
        assert (ready.status, ready.body) == (503, b"the log is full\n")
        assert send(served.port, "/healthz", method="GET").status == 200

    def test_metrics_count_requests_by_how_they_ended(self) -> None:
        with Receiver(MemorySink(), check, http_port=0, grpc_port=0) as receiver:
            port = receiver.http_port
            send(port, "/v1/traces", GOOD, PROTOBUF)
            send(port, "/v1/traces", b"\xff", PROTOBUF)
            send(port, "/v1/logs", b"", {"content-type": "a/b"})
            text = send(port, "/metrics", method="GET").body.decode()
        samples = {
            (sample.name, frozenset(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

        def value(name: str, *labels: str) -> float:
            return samples[f"llmobs_{name}", frozenset(labels)]

        assert value("receive_requests_total", "http", "traces", "accepted") == 1
        assert value("receive_requests_total", "http", "traces", "invalid") == 1
        assert value("receive_requests_total", "http", "logs", "unsupported") == 1
        assert value("receive_items_total", "traces") == 20
        assert value("receive_bytes_total", "traces") == len(GOOD)
        assert value("receive_seconds_count", "http") == 3
        assert value("log_requests_total") == 1
        assert not [name for name, _ in samples if name.endswith("_created")]

    def test_metrics_show_the_numbers_of_the_log(self, tmp_path: Path) -> None:
        writer = SegmentWriter(tmp_path / "log")
        with Receiver(writer, check, http_port=0, grpc_port=0) as receiver:
            send(receiver.http_port, "/v1/traces", GOOD, PROTOBUF)
            text = send(receiver.http_port, "/metrics", method="GET").body.decode()
        writer.close()
        families = {f.name: f for f in text_string_to_metric_families(text)}
        assert {name for name in families if name.startswith("llmobs_log_")} == {
            "llmobs_log_requests",
            "llmobs_log_duplicates",
            "llmobs_log_refused",
            "llmobs_log_disk_errors",
            "llmobs_log_written_bytes",
            "llmobs_log_fsyncs",
            "llmobs_log_fsync_seconds",
            "llmobs_log_backlog_bytes",
            "llmobs_log_backlog_segments",
            "llmobs_log_backlog_seconds",
            "llmobs_log_limit_bytes",
            "llmobs_log_queue_bytes",
        }
        assert families["llmobs_log_requests"].samples[0].value == 1

"""Bad input through the front door of a running server: refused clearly or mended, never lost."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llmobs.errors import LlmobsError
from llmobs.server import Server
from llmobs.settings import Settings
from llmobs.web.client import Api
from tests.otlp import chat_span, post, traces_request

S = 10**9


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(
        data=tmp_path_factory.mktemp("data"),
        grpc_port=0,
        http_port=0,
        web_port=0,
        segment_max_age_s=0.1,
        max_unpacked_bytes=32 << 20,
    )
    with Server(settings) as running:
        running.wait_ready()
        yield running.settings
        assert running.n_restarts == 0, "a process died of bad input"


def nested(depth: int) -> AnyValue:
    value = AnyValue(string_value="deep")
    for _ in range(depth):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    return value


def field(number: int, payload: bytes) -> bytes:
    """Encode one length-delimited field by hand: deeper than the library itself would."""
    size, out = len(payload), bytearray([number << 3 | 2])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size]) + payload


def nested_on_the_wire(depth: int) -> bytes:
    value = field(1, b"deep")
    for _ in range(depth):
        value = field(5, field(1, value))
    span = field(1, b"1" * 16) + field(2, b"1" * 8) + field(9, field(1, b"k") + field(2, value))
    return field(1, field(2, field(2, span)))


def good(session: str) -> bytes:
    return traces_request([chat_span(random.Random(session), session=session)])


BOMB = gzip.compress(b"\0" * (100 << 20), 9)
REFUSED: dict[str, tuple[bytes, dict[str, str], set[int]]] = {
    "truncated protobuf": (good("x")[:-7], {}, {400}),
    "not protobuf": (b"hello, is this the right place?", {}, {400}),
    "wrong wire type": (b"\x08\x01" * 40 + b"\x0f", {}, {400}),
    "truncated gzip": (gzip.compress(good("x"))[:-9], {"Content-Encoding": "gzip"}, {400}),
    "not gzip": (good("x"), {"Content-Encoding": "gzip"}, {400}),
    "gzip bomb of 100 MB": (BOMB, {"Content-Encoding": "gzip"}, {413}),
    "too large as sent": (b"\0" * (17 << 20), {}, {413}),
    "unknown encoding": (good("x"), {"Content-Encoding": "br"}, {415}),
    "unknown type": (good("x"), {"Content-Type": "text/plain"}, {415}),
    "broken JSON": (b'{"resourceSpans": [', {"Content-Type": "application/json"}, {400}),
    "JSON of the wrong shape": (
        b'{"resourceSpans": 7}',
        {"Content-Type": "application/json"},
        {400},
    ),
    "JSON nested 100,000 deep": (
        b'{"resourceSpans":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        {"Content-Type": "application/json"},
        {400},
    ),
    "protobuf nested 500 deep": (nested_on_the_wire(500), {}, {400}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_a_sentence_and_the_server_goes_on(server: Settings, case: str) -> None:
    body, headers, expected = REFUSED[case]
    content_type = headers.get("Content-Type", "application/x-protobuf")
    status, answer = post(server.http_port, body, content_type=content_type, headers=headers)
    assert status in expected, answer
    assert len(answer) > 10, "no reason was given"
    assert post(server.http_port, good(f"after {case}"))[0] == 200


def test_what_was_sent_between_bad_requests_is_stored(server: Settings) -> None:
    api = Api(server.page_url)
    for n in range(10):
        post(server.http_port, good(f"between-{n}")[:-3])
        assert post(server.http_port, good(f"between-{n}"))[0] == 200
    sessions = _wait(lambda: {r["session_id"] for r in api.get("sessions", limit=1000)["sessions"]})
    assert {f"between-{n}" for n in range(10)} <= sessions


def stored(server: Settings, span: Span) -> dict[str, Any]:
    """Send one span and return how it is stored."""
    assert post(server.http_port, traces_request([span]))[0] == 200
    api = Api(server.page_url)

    def find() -> list[dict[str, Any]]:
        try:
            rows = api.get(f"sessions/{_session(span)}")["traces"]
        except LlmobsError:  # not there yet
            return []
        return [s for row in rows for s in api.get(f"traces/{row['trace_id']}")["spans"]]

    found: list[dict[str, Any]] = _wait(find)
    assert found, "accepted and not stored"
    return found[0]


def _session(span: Span) -> str:
    return next(a.value.string_value for a in span.attributes if a.key == "gen_ai.conversation.id")


def _wait(find: Any, timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    last = find()
    settled = 0
    while time.monotonic() < deadline and settled < 3:
        time.sleep(0.4)
        now = find()
        settled = settled + 1 if now and now == last else 0
        last = now
    return last


@pytest.mark.parametrize(
    ("case", "at_ns"), [("1970", 5 * S), ("2100", 4_102_444_800 * S)], ids=["1970", "2100"]
)
def test_a_clock_that_is_far_off_is_kept_as_it_was(server: Settings, case: str, at_ns: int) -> None:
    chance = random.Random(case)
    span = chat_span(chance, session=f"clock-{case}", at_ns=at_ns)
    assert stored(server, span)["ts_ms"] == pytest.approx(at_ns / 1e6)


def test_zero_ids_are_replaced(server: Settings) -> None:
    span = chat_span(random.Random(1), session="zero-ids")
    span.trace_id, span.span_id = bytes(16), bytes(8)
    row = stored(server, span)
    assert int(row["trace_id"], 16) != 0
    assert int(row["span_id"], 16) != 0


def test_ids_of_the_wrong_length_are_replaced(server: Settings) -> None:
    span = chat_span(random.Random(2), session="odd-ids")
    span.trace_id, span.span_id = b"short", b"much too long for a span"
    row = stored(server, span)
    assert (len(row["trace_id"]), len(row["span_id"])) == (32, 16)


def test_an_end_before_the_start_gives_no_negative_duration(server: Settings) -> None:
    span = chat_span(random.Random(3), session="backwards")
    span.end_time_unix_nano = span.start_time_unix_nano - 5 * S
    assert stored(server, span)["duration_ms"] == 0


def test_attributes_of_every_kind_are_kept(server: Settings) -> None:
    span = chat_span(random.Random(4), session="kinds")
    span.attributes.extend(
        [
            KeyValue(key="a.text", value=AnyValue(string_value="text")),
            KeyValue(key="a.true", value=AnyValue(bool_value=True)),
            KeyValue(key="a.int", value=AnyValue(int_value=-(2**53))),
            KeyValue(key="a.double", value=AnyValue(double_value=0.25)),
            KeyValue(key="a.bytes", value=AnyValue(bytes_value=b"\x00\xff")),
            KeyValue(key="a.list", value=nested(3)),
            KeyValue(
                key="a.map",
                value=AnyValue(
                    kvlist_value=KeyValueList(
                        values=[KeyValue(key="k", value=AnyValue(int_value=1))]
                    )
                ),
            ),
            KeyValue(key="a.unset", value=AnyValue()),
            KeyValue(key="", value=AnyValue(string_value="no key")),
        ]
    )
    attributes = stored(server, span)["attributes"]
    assert attributes["a.text"] == "text"
    assert attributes["a.true"] == 1
    assert attributes["a.int"] == -(2**53)
    assert attributes["a.double"] == 0.25
    assert json.loads(attributes["a.map"]) == {"k": 1}
    assert "deep" in attributes["a.list"]
    assert {"a.bytes", "a.unset"} <= attributes.keys()


def test_invalid_utf8_is_replaced_or_refused(server: Settings) -> None:
    request = ExportTraceServiceRequest()
    request.ParseFromString(traces_request([chat_span(random.Random(5), session="utf8")]))
    whole = request.SerializeToString().replace(b"What is a span?", b"What is a \xff\xfean?")
    status, answer = post(server.http_port, whole)
    assert status in {200, 400}, answer


def test_absurd_token_counts_are_not_stored_as_numbers(server: Settings) -> None:
    span = chat_span(
        random.Random(6), session="tokens", attributes={"gen_ai.usage.input_tokens": -5}
    )
    assert stored(server, span)["input_tokens"] is None


def test_what_was_mended_is_counted(server: Settings) -> None:
    import urllib.request

    with urllib.request.urlopen(f"{server.page_url}/metrics") as answer:
        text = answer.read().decode()
    assert "llmobs_repairs_total" in text


def test_the_log_keeps_nothing_back(server: Settings) -> None:
    assert _wait(lambda: not list((Path(server.data) / "log").glob("*.seg")))

"""Feedback of web pages over real sockets: what is kept, what is refused, and who may send."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from llmobs.access import Key, Keys, Quota, Role
from llmobs.analyzer.receive import Receiver
from llmobs.analyzer.receive.feedback import MAX_FEEDBACK_BYTES, read_feedback
from llmobs.errors import BadRequestError, OverloadedError
from tests.analyzer.receive.serving import JSON, PATHS, Answer, MemorySink, check, export, send

ORIGIN = "https://shop.example"
PUBLIC = {"x-api-key": "public"}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD: dict[str, Any] = {"trace_id": TRACE, "span_id": SPAN, "score": 1}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[MemorySink, Receiver]]:
    sink = MemorySink()
    keys = Keys([Key("private"), Key("public", role=Role.FEEDBACK), Key("r", role=Role.READ)])
    with Receiver(
        sink, check, keys=keys, http_port=0, grpc_port=0, cors_origins=[ORIGIN]
    ) as receiver:
        yield sink, receiver


@pytest.fixture
def sink(running: tuple[MemorySink, Receiver]) -> MemorySink:
    running[0].__init__()  # type: ignore[misc] # a fresh start for each test
    return running[0]


@pytest.fixture
def port(running: tuple[MemorySink, Receiver]) -> int:
    return running[1].http_port


def post(port: int, said: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return send(port, "/v1/feedback", body, {**JSON, **PUBLIC, **named})


def kept(sink: MemorySink) -> ExportLogsServiceRequest:
    ((signal, request),) = sink.kept
    assert signal == "logs"
    return ExportLogsServiceRequest.FromString(request)


def attributes(owner: Any) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
        for pair in owner.attributes
    }


def test_feedback_becomes_the_evaluation_event_of_its_span(sink: MemorySink, port: int) -> None:
    said = {
        **GOOD,
        "score": False,
        "label": "wrong",
        "comment": "Das stimmt nicht 🌙",
        "session_id": "s-1",
        "user_id": "u-1",
        "service": "shop",
        "feature": "chat",
        "name": "thumbs",
    }
    answer = post(port, said)
    assert (answer.status, answer.body) == (200, b"{}")
    (resource,) = kept(sink).resource_logs
    assert attributes(resource.resource) == {"service.name": "shop"}
    (record,) = resource.scope_logs[0].log_records
    assert (record.event_name, record.trace_id.hex(), record.span_id.hex()) == (
        "gen_ai.evaluation.result",
        TRACE,
        SPAN,
    )
    assert record.time_unix_nano > 0
    assert attributes(record) == {
        "gen_ai.evaluation.name": "user_feedback.thumbs",
        "gen_ai.evaluation.score.value": 0.0,
        "gen_ai.evaluation.score.label": "wrong",
        "gen_ai.evaluation.explanation": "Das stimmt nicht 🌙",
        "session.id": "s-1",
        "user.id": "u-1",
        "llmobs.feature": "chat",
        "llmobs.feedback.source": "user",
    }


def test_several_come_at_once_packed_or_not_each_with_its_service(
    sink: MemorySink, port: int
) -> None:
    said = [
        {"session_id": "s", "label": "ok", "service": "a"},
        {"response_id": "r", "score": 0.5},
        {"trace_id": TRACE, "comment": "hm", "service": "a", "score": None},
    ]
    packed = gzip.compress(json.dumps(said).encode())
    assert post(port, packed, content_encoding="gzip").status == 200
    services = [attributes(one.resource) for one in kept(sink).resource_logs]
    assert services == [{"service.name": "a"}, {}]
    n_records = [len(one.scope_logs[0].log_records) for one in kept(sink).resource_logs]
    assert n_records == [2, 1]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"trace_id": "\xff"}', "not JSON"),
        (b"[" * 30_000, "not JSON"),
        (b'{"session_id": "s", "score": NaN}', "NaN is no number"),
        ([], "a list of 0"),
        ([GOOD] * 101, "a list of 101"),
        ("up", "is no object"),
        ([GOOD, 7], "feedback 1: is no object"),
        ({**GOOD, "thumb": "up"}, "'thumb' is not known; it takes trace_id"),
        ({"trace_id": TRACE}, "it says nothing"),
        ({"trace_id": TRACE, "label": "", "score": None}, "it says nothing"),
        ({"score": 1}, "what is it about"),
        ({"span_id": SPAN, "score": 1}, "needs the trace_id"),
        ({**GOOD, "trace_id": "abc"}, "trace_id is 'abc'; it takes 32 hex digits"),
        ({**GOOD, "span_id": "0" * 16}, "not all 0"),
        ({**GOOD, "trace_id": 7}, "trace_id is '7'"),
        ({**GOOD, "score": "1"}, "score is '1'"),
        ({**GOOD, "score": 10**400}, "score is '1000"),
        ({**GOOD, "label": 1}, "label is no text"),
        ({**GOOD, "comment": "x" * 4001}, "comment has 4001 characters"),
        ({**GOOD, "comment": "\ud83d"}, "surrogate"),
    ],
)
def test_what_is_no_feedback_is_told_why(
    sink: MemorySink, port: int, said: object, message: str
) -> None:
    answer = post(port, said)
    assert answer.status == 400
    assert message in json.loads(answer.body)["message"]
    assert sink.kept == []


def test_a_body_that_is_too_large_is_refused_packed_or_not(sink: MemorySink, port: int) -> None:
    large = b" " * (MAX_FEEDBACK_BYTES + 1)
    assert post(port, large).status == 413
    assert post(port, gzip.compress(large), content_encoding="gzip").status == 413
    assert sink.kept == []


def test_feedback_is_json_sent_by_post(sink: MemorySink, port: int) -> None:
    assert post(port, GOOD, content_type="application/x-protobuf").status == 415
    assert post(port, GOOD, content_type="text/plain").status == 415
    assert send(port, "/v1/feedback", headers=PUBLIC, method="GET").status == 405
    assert sink.kept == []


def test_a_public_key_sends_feedback_and_nothing_else(sink: MemorySink, port: int) -> None:
    assert post(port, GOOD).status == 200
    for signal, path in PATHS.items():
        body = export(signal).SerializeToString()
        head = {"content-type": "application/x-protobuf", **PUBLIC}
        refused = send(port, path, body, head)
        assert refused.status == 403, signal
    assert len(sink.kept) == 1


def test_a_public_key_sends_nothing_over_grpc(
    sink: MemorySink, running: tuple[MemorySink, Receiver]
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{running[1].grpc_port}") as channel:
        method = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        with pytest.raises(grpc.RpcError) as caught:
            method(export("logs").SerializeToString(), metadata=tuple(PUBLIC.items()))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert sink.kept == []


def test_who_may_send_everything_may_send_feedback_and_others_may_not(
    sink: MemorySink, port: int
) -> None:
    assert post(port, GOOD, x_api_key="private").status == 200
    assert post(port, GOOD, x_api_key="r").status == 403
    assert post(port, GOOD, x_api_key="guessed").status == 401
    assert len(sink.kept) == 1


def test_pages_of_allowed_origins_may_ask_and_send_with_their_key(
    sink: MemorySink, port: int
) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }
    preflight = send(port, "/v1/feedback", headers=asked, method="OPTIONS")
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    assert post(port, GOOD, origin=ORIGIN).headers["access-control-allow-origin"] == ORIGIN
    bad = post(port, {}, origin=ORIGIN)  # the page can read why
    assert (bad.status, bad.headers["access-control-allow-origin"]) == (400, ORIGIN)
    other = "https://evil.example"
    assert (
        send(port, "/v1/feedback", headers={**asked, "origin": other}, method="OPTIONS").status
        == 403
    )
    assert post(port, GOOD, origin=other).status == 403
    assert len(sink.kept) == 1


def test_a_key_that_floods_is_told_to_wait() -> None:
    sink = MemorySink()
    quota = Quota(spans_per_s=1, burst_s=3, clock=lambda: 0.0)
    keys = Keys(["private", Key("public", role=Role.FEEDBACK, quota=quota)])
    with Receiver(sink, check, keys=keys, http_port=0, grpc_port=0) as receiver:
        answers = [post(receiver.http_port, [GOOD, GOOD]) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["retry-after"] == "1"
        assert post(receiver.http_port, GOOD, x_api_key="private").status == 200
    assert len(sink.kept) == 3


def test_what_the_log_does_not_take_is_not_acknowledged(sink: MemorySink, port: int) -> None:
    sink.answer = OverloadedError("the log is full", retry_after_s=5)
    assert post(port, GOOD).status == 503
    assert sink.kept == []


def test_feedback_is_counted_by_how_it_ended(sink: MemorySink, port: int) -> None:
    post(port, GOOD)
    post(port, {})
    text = send(port, "/metrics", method="GET").body.decode()
    for outcome in ("accepted", "invalid"):
        series = f'{{outcome="{outcome}",signal="feedback",transport="http"}}'
        assert f"llmobs_receive_requests_total{series}" in text
    assert sink.kept


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["trace_id", "session_id", "score", "label", "comment", "x"]), inner
        )
    ),
    max_leaves=10,
)


@given(_JSON | st.binary(max_size=50))
def test_any_body_is_feedback_or_a_bad_request(said: object) -> None:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    try:
        request, n_items = read_feedback(body)
    except BadRequestError:
        return
    parsed = ExportLogsServiceRequest.FromString(request)
    assert n_items == sum(len(one.scope_logs[0].log_records) for one in parsed.resource_logs)

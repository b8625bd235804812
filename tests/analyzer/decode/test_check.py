from __future__ import annotations

import base64
import json
import resource
import sys
import threading
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmobs.analyzer.decode import check, decode_spans_upb
from llmobs.analyzer.decode.values import varint
from llmobs.errors import BadRequestError, TooLargeError
from llmobs.records import Signal
from tests.analyzer.decode.requests import sample, trace_requests

RSS_BYTES = 1 if sys.platform == "darwin" else 1024
NOW_NS = 1_795_000_000_000_000_000


def as_json(body: bytes, *, kind: Any = ExportTraceServiceRequest, **how: Any) -> bytes:
    """Write a request as OTLP/JSON does: proto3 JSON with ids in hex."""

    def with_hex(node: Any) -> Any:
        if isinstance(node, list):
            return [with_hex(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: base64.b64decode(value).hex() if key.endswith(("Id", "_id")) else with_hex(value)
            for key, value in node.items()
        }

    return json.dumps(with_hex(MessageToDict(kind.FromString(body), **how))).encode()


@settings(max_examples=60, deadline=None)
@given(trace_requests(distinct=False))
def test_json_and_protobuf_are_the_same_request(body: bytes) -> None:
    for how in ({}, {"preserving_proto_field_name": True}, {"use_integers_for_enums": True}):
        made, n = check("traces", as_json(body, **how), True)
        assert MessageToDict(ExportTraceServiceRequest.FromString(made)) == MessageToDict(
            ExportTraceServiceRequest.FromString(body)
        )
        assert n == check("traces", body, False)[1]


def test_protobuf_comes_back_as_it_was() -> None:
    body = sample(1)
    made, n = check("traces", body, False)
    assert made is body
    assert n == 2


def test_records_and_points_are_counted() -> None:
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(severity_number=9)
    assert check("logs", logs.SerializeToString(), False)[1] == 1
    metrics = ExportMetricsServiceRequest()
    of_scope = metrics.resource_metrics.add().scope_metrics.add()
    of_scope.metrics.add(name="none")
    of_scope.metrics.add(name="g").gauge.data_points.add(as_int=1)
    of_scope.metrics.add(name="h").exponential_histogram.data_points.add(count=1)
    assert check("metrics", metrics.SerializeToString(), False)[1] == 2


BAD: list[tuple[bytes, bool, str]] = [
    (b"\x0a\xff", False, "resource_spans[0] ends in the middle of a number"),
    (b"\x0a\x05\x12\x03", False, "resource_spans[0] needs 5 bytes and 2 are left"),
    (b"\x0a\x05\x12\x03\x12\x01\x0a", False, "scope_spans[0].spans[0].trace_id ends"),
    (b"\x0b", False, "resource_spans[0] has wire type 3"),
    (b"\x00\x01", False, "byte 0 does not begin a field"),
    (b"{}", False, "not an OTLP traces request in protobuf"),
    (b"{", True, "can't be read as JSON"),
    (b"\xff\xfe", True, "can't be read as JSON"),
    (b"[]", True, "is an object, and the body is a list"),
    (b"null", True, "is an object"),
    (b"[" * 200_000, True, "nested too deeply"),
    (b'{"resourceSpans": 3}', True, "resourceSpans"),
    (b'{"\\ud800": 3}', True, "not an OTLP/JSON request"),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":1e999}]}]}]}',
        True,
        "infinity",
    ),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"k","value":'
        b'{"doubleValue":NaN}}]}]}]}]}',
        True,
        "NaN",
    ),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}',
        True,
        "resourceSpans[0].scopeSpans[0].spans[0].traceId is no hex text: 'zz'",
    ),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":7}]}]}]}',
        True,
        "spanId is no hex text: 7",
    ),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"x"}]}]}]}',
        True,
        "startTimeUnixNano",
    ),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"k","value":'
        b'{"stringValue":1}}]}]}]}]}',
        True,
        "stringValue",
    ),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"k","value":'
        b'{"stringValue":"\\ud800"}}]}]}]}]}',
        True,
        "",
    ),
]


@pytest.mark.parametrize(("body", "is_json", "words"), BAD)
def test_a_bad_body_is_refused_with_what_is_wrong_and_where(
    body: bytes, is_json: bool, words: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        check("traces", body, is_json)
    message = str(caught.value)
    assert words in message
    assert len(message) < 600


def test_json_is_read_leniently() -> None:
    span = {
        "trace_id": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "eee19b7ec3c1b174",
        "name": "n",
        "kind": "SPAN_KIND_CLIENT",
        "startTimeUnixNano": 1_700_000_000_000_000_000,
        "end_time_unix_nano": "1700000000000000001",
        "futureField": {"traceId": None},
        "attributes": [
            {"key": "traceId", "value": {"intValue": "9007199254740993"}},
            {"key": "b", "value": {"bytesValue": "AAE="}},
        ],
    }
    body = json.dumps({"resourceSpans": [{"scope_spans": [{"spans": [span]}]}]}).encode()
    made, n = check("traces", body, True)
    got = ExportTraceServiceRequest.FromString(made).resource_spans[0].scope_spans[0].spans[0]
    assert n == 1
    assert got.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert got.kind == 3
    assert got.start_time_unix_nano == 1_700_000_000_000_000_000
    assert got.attributes[0].value.int_value == 9007199254740993
    assert got.attributes[1].value.bytes_value == b"\x00\x01"


def test_bad_utf8_passes_the_door_as_it_came() -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="abcd")
    body = request.SerializeToString().replace(b"abcd", b"ab\xffd")
    assert check("traces", body, False) == (body, 1)


def test_records_and_points_without_any_time_get_that_of_their_arrival() -> None:
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    records.add(event_name="none")
    records.add(event_name="own", time_unix_nano=5)
    records.add(event_name="observed", observed_time_unix_nano=6)
    body = logs.SerializeToString()
    made, n = check("logs", body, False, now_ns=NOW_NS)
    [none, own, observed] = (
        ExportLogsServiceRequest.FromString(made).resource_logs[0].scope_logs[0].log_records
    )
    assert (n, none.time_unix_nano, none.observed_time_unix_nano) == (3, 0, NOW_NS)
    assert (own.time_unix_nano, own.observed_time_unix_nano) == (5, 0)
    assert (observed.time_unix_nano, observed.observed_time_unix_nano) == (0, 6)
    # So two that say the same are two, and a retry of one that has a time is still a retry.
    assert check("logs", body, False, now_ns=NOW_NS + 1)[0] != made
    assert check("logs", made, False, now_ns=NOW_NS + 1)[0] is made
    metrics = ExportMetricsServiceRequest()
    of_scope = metrics.resource_metrics.add().scope_metrics.add()
    of_scope.metrics.add(name="g").gauge.data_points.add(as_int=1)
    body = as_json(metrics.SerializeToString(), kind=ExportMetricsServiceRequest)
    made, _ = check("metrics", body, True, now_ns=NOW_NS)
    [metric] = (
        ExportMetricsServiceRequest.FromString(made).resource_metrics[0].scope_metrics[0].metrics
    )
    assert metric.gauge.data_points[0].time_unix_nano == NOW_NS


def test_a_time_is_given_where_texts_are_not_utf8_too() -> None:
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(event_name="abcd")
    body = logs.SerializeToString().replace(b"abcd", b"ab\xffd")
    made, n = check("logs", body, False, now_ns=NOW_NS)
    assert (n, b"ab\xffd" in made, made == body) == (1, True, False)


def _nested(body: bytes, *tags: bytes) -> bytes:
    for tag in tags:
        body = tag + varint(len(body)) + body
    return body


EMPTY_SPANS = _nested(b"\x12\x00" * 2_000_000, b"\x12", b"\x0a")
EMPTY_ATTRIBUTES = _nested(b"\x4a\x00" * 2_500_000, b"\x12", b"\x12", b"\x0a")
BEHIND_A_GROUP = b"\x0b\x0c" + EMPTY_SPANS


@pytest.mark.parametrize("body", [EMPTY_SPANS, EMPTY_ATTRIBUTES, BEHIND_A_GROUP])
def test_bytes_that_would_unfold_to_gigabytes_are_refused(body: bytes) -> None:
    with pytest.raises(TooLargeError, match="send fewer at once"):
        check("traces", body, False)


def test_empty_spans_are_refused_before_they_are_parsed() -> None:
    body = _nested(b"\x12\x00" * (16 << 20), b"\x12", b"\x0a")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLargeError):
        check("traces", body, False)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * RSS_BYTES < 100 << 20  # parsed, they take almost 3 GB


def test_a_large_request_of_usual_spans_passes() -> None:
    span = _nested(b"\x2a\xe8\x07" + b"n" * 1000, b"\x12")
    body = _nested(span * 5_000, b"\x12", b"\x0a")
    assert check("traces", body, False) == (body, 5_000)


def test_json_beyond_its_limit_is_refused() -> None:
    with pytest.raises(TooLargeError, match="protobuf"):
        check("traces", b" " * (16 << 20) + b"{}", True)


def test_what_is_broken_is_not_searched_for_long() -> None:
    body = _nested(b"\x12\x00" * 200_000 + b"\x12\x05", b"\x12", b"\x0a")
    with pytest.raises(BadRequestError, match="behind the first"):
        check("traces", body, False)


def test_what_passes_as_json_is_never_refused_by_decode() -> None:
    for depth in range(30, 60):
        value: dict[str, Any] = {"stringValue": "x"}
        for _ in range(depth):
            value = {"arrayValue": {"values": [value]}}
        span = {"attributes": [{"key": "k", "value": value}]}
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
        try:
            made, _ = check("traces", body, True)
        except BadRequestError:
            continue
        assert not decode_spans_upb([made]).rejected, depth


@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
def test_an_empty_request_holds_nothing(signal: Signal) -> None:
    assert check(signal, b"", False) == (b"", 0)
    assert check(signal, b"{}", True) == (b"", 0)


def test_many_threads_may_check_bad_utf8_at_once() -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="abcd")
    body = request.SerializeToString().replace(b"abcd", b"ab\xffd")
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(check("traces", body, False)[1]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 8

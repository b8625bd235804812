from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from llmobs.analyzer.decode import decode_spans, decode_spans_upb, is_warm
from llmobs.analyzer.decode import spans as spans_module
from llmobs.analyzer.decode.values import varint
from llmobs.records import RawSpans
from tests.analyzer.decode.requests import contents, mutate, sample, trace_requests


def scanned(requests: list[bytes]) -> RawSpans:
    """Decode by the compiled scan alone: nothing may be left to upb."""
    part = spans_module._scan_part(spans_module._scan, requests)
    assert part is not None
    return RawSpans((part,))


def one_span(*attributes: KeyValue) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="s", trace_id=b"t" * 16)
    span.attributes.extend(attributes)
    return request


@pytest.mark.usefixtures("warm")
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trace_requests(distinct=True))
def test_the_scan_gives_the_very_same_tables_as_upb(body: bytes) -> None:
    fast, slow = scanned([body]), decode_spans_upb([body])
    assert contents(fast) == contents(slow)
    if slow.parts:
        for name in ("spans", "scopes", "events", "links", "attributes", "keys"):
            assert getattr(fast.parts[0], name).equals(getattr(slow.parts[0], name)), name


@pytest.mark.usefixtures("warm")
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trace_requests(distinct=False))
def test_keys_sent_twice_are_read_as_upb_reads_them(body: bytes) -> None:
    assert contents(decode_spans([body])) == contents(decode_spans_upb([body]))


@pytest.mark.usefixtures("warm")
def test_mutated_bytes_get_the_verdict_and_the_spans_that_upb_gives() -> None:
    rnd = random.Random(20261124)
    n_scanned = n_rejected = 0
    for i in range(4000):
        body = bytearray(sample(i % 40))
        mutate(rnd, body, rnd.randrange(1, 3))
        fast, slow = decode_spans([bytes(body)]), decode_spans_upb([bytes(body)])
        assert fast.rejected == slow.rejected
        assert contents(fast) == contents(slow)
        n_rejected += len(fast.rejected)
        n_scanned += spans_module._scan_part(spans_module._scan, [bytes(body)]) is not None
    assert n_rejected > 1000, "mutations have to break requests"
    assert n_scanned > 300, "and have to leave some to the scan"


@pytest.mark.usefixtures("warm")
def test_every_truncation_is_judged_as_upb_judges_it() -> None:
    body = sample(3)
    for end in range(len(body)):
        fast, slow = decode_spans([body[:end]]), decode_spans_upb([body[:end]])
        assert fast.rejected == slow.rejected
        assert contents(fast) == contents(slow)


@pytest.mark.usefixtures("warm")
def test_noise_never_crashes_the_scan() -> None:
    rnd = random.Random(7)
    for _ in range(3000):
        body = rnd.randbytes(rnd.randrange(200))
        assert decode_spans([body]).rejected == decode_spans_upb([body]).rejected


@pytest.mark.usefixtures("warm")
def test_a_length_that_reaches_into_the_next_request_does_not_read_it() -> None:
    whole = sample(1)
    # Cut off 10 bytes: joined with the next request, its lengths would be right again.
    raw = decode_spans([whole[:-10], whole[-10:] + whole])
    assert [r.request for r in raw.rejected] == [0, 1]


@pytest.mark.usefixtures("warm")
def test_a_poisoned_request_costs_the_others_nothing() -> None:
    bodies = [sample(1), b"\x0a\xff\xff", sample(2), b"poison", sample(3)]
    raw = decode_spans(bodies)
    assert [r.request for r in raw.rejected] == [1, 3]
    assert all(r.reason for r in raw.rejected)
    expected = decode_spans_upb([sample(1), sample(2), sample(3)])
    assert sorted(map(repr, contents(raw))) == sorted(map(repr, contents(expected)))


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("decode", [decode_spans, decode_spans_upb])
def test_bad_utf8_is_replaced_and_counted(decode: Callable[[list[bytes]], RawSpans]) -> None:
    request = one_span(KeyValue(key="k", value=AnyValue(string_value="abcd")))
    body = request.SerializeToString().replace(b"abcd", b"ab\xffd")
    raw = decode([sample(1), body])
    assert raw.repairs == {"invalid_utf8": 1}
    assert not raw.rejected
    assert contents(raw)[-1]["attributes"] == [("k", 1, 0, "ab�d")]


@pytest.mark.usefixtures("warm")
def test_a_key_sent_twice_keeps_its_place_and_takes_the_last_value() -> None:
    body = one_span(
        KeyValue(key="a", value=AnyValue(int_value=1)),
        KeyValue(key="b", value=AnyValue(int_value=2)),
        KeyValue(key="a", value=AnyValue(string_value="x")),
    ).SerializeToString()
    for raw in (scanned([body]), decode_spans_upb([body])):
        assert contents(raw)[0]["attributes"] == [("a", 1, 0, "x"), ("b", 3, 2, "")]


@pytest.mark.usefixtures("warm")
def test_lists_deeper_than_the_scan_writes_are_left_to_upb() -> None:
    value = AnyValue(string_value="deep")
    for _ in range(45):
        outer = AnyValue()
        outer.array_value.values.append(value)
        value = outer
    body = one_span(KeyValue(key="k", value=value)).SerializeToString()
    [span] = contents(scanned([body]))
    assert span["attributes"] == [("k", 5, 0, "[" * 45 + '"deep"' + "]" * 45)]


@pytest.mark.usefixtures("warm")
def test_nesting_without_end_is_refused() -> None:
    inner = b""
    for _ in range(5000):
        inner = (
            b"\x2a"
            + varint(len(inner) + 1 + len(varint(len(inner))))
            + b"\x0a"
            + varint(len(inner))
            + inner
        )
    attribute = b"\x0a\x01k\x12" + varint(len(inner)) + inner
    body = attribute
    for tag in (b"\x4a", b"\x12", b"\x12", b"\x0a"):
        body = tag + varint(len(body)) + body
    assert len(decode_spans([body]).rejected) == 1


@pytest.mark.usefixtures("warm")
def test_many_keys_that_differ_in_their_end_are_told_apart() -> None:
    pairs = [
        KeyValue(key=f"gen_ai.prompt.{i}.role", value=AnyValue(int_value=i)) for i in range(3000)
    ]
    body = one_span(*pairs).SerializeToString()
    [span] = contents(scanned([body]))
    assert [(key, number) for key, _, number, _ in span["attributes"]] == [
        (f"gen_ai.prompt.{i}.role", i) for i in range(3000)
    ]


def test_upb_serves_until_the_scan_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "_scan", None)
    assert not is_warm()
    assert len(decode_spans([sample(1), sample(2)])) == 4


def test_no_requests_give_no_spans() -> None:
    assert len(decode_spans([])) == 0
    assert len(decode_spans([b""])) == 0

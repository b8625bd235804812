"""Bytes of the wire, whole and in pieces, as clients and networks deliver them."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs.sdk import runtime as process
from llmobs.sdk.integrations.exchange import MAX_BYTES, Api, Exchange
from llmobs.sdk.span import LiveSpan, Spec, open_span
from tests.sdk.conftest import Start
from tests.sdk.integrations.stub import anthropic_events

AWS = "application/vnd.amazon.eventstream"
TEXTS = ["Hel", "lo", ", wörld", "."]
USAGE = {"prompt_tokens": 7, "completion_tokens": 4}


def event(choices: list[Any], **more: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps({"id": "c", "choices": choices, **more}).encode()


EVENTS = [event([{"index": 0, "delta": {"content": text}}]) for text in TEXTS]
BODY = b"".join([*EVENTS, event([], usage=USAGE), b"data: [DONE]\n\n"])


def span_of(exchange: Exchange) -> LiveSpan:
    assert process.active is not None
    span, _ = open_span(process.active, Spec("chat", "m"))
    exchange.read(span)
    return span


def exchange_of(pieces: list[bytes], encoding: str = "") -> Exchange:
    exchange = Exchange(Api("chat"))
    exchange.pieces = []
    exchange.encoding = encoding
    for number, piece in enumerate(pieces):
        exchange.note(piece, 1_000 + number)
    return exchange


def said(span: LiveSpan) -> str:
    assert span.answer is not None
    return "".join(p["content"] for m in span.answer.messages for p in m["parts"])


def test_wherever_the_network_cuts_a_stream_it_says_the_same(start: Start) -> None:
    start()

    @given(st.lists(st.integers(0, len(BODY)), max_size=12))
    def check(cuts: list[int]) -> None:
        ends = [0, *sorted(cuts), len(BODY)]
        span = span_of(exchange_of([BODY[a:b] for a, b in pairwise(ends)]))
        assert said(span) == "".join(TEXTS)
        assert span.answer is not None
        assert span.answer.usage is not None
        assert span.answer.usage.input_tokens == 7
        assert span.chunk_ns is not None
        assert len(span.chunk_ns) == 5
        assert span.chunk_ns == sorted(span.chunk_ns)

    check()


def test_a_chunk_has_come_when_its_last_byte_has(start: Start) -> None:
    start()
    first, second = EVENTS[:2]
    span = span_of(exchange_of([first[:9], first[9:] + second[:4], second[4:]]))
    assert span.chunk_ns == [1_001, 1_002]


@pytest.mark.parametrize("newline", [b"\r\n", b"\r"])
def test_lines_may_end_as_the_standard_allows(start: Start, newline: bytes) -> None:
    start()
    span = span_of(exchange_of([event.replace(b"\n", newline) for event in EVENTS]))
    assert said(span) == "".join(TEXTS)
    assert span.chunk_ns == [1_000, 1_001, 1_002, 1_003]


def test_a_stream_that_breaks_in_an_event_says_what_came_before(start: Start) -> None:
    start()
    assert said(span_of(exchange_of([EVENTS[0], EVENTS[1], EVENTS[2][:20]]))) == "Hello"


def test_packed_streams_are_unpacked_and_unknown_packings_say_nothing(start: Start) -> None:
    start()
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(BODY) + packer.flush(zlib.Z_SYNC_FLUSH), packer.flush()]
    assert said(span_of(exchange_of(packed, "gzip"))) == "".join(TEXTS)
    assert said(span_of(exchange_of(packed, "br"))) == ""


def frame(said: dict[str, Any]) -> bytes:
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(said).encode()).decode()}).encode()
    headers = b"\x0b:event-type\x07\x00\x05chunk"
    head = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    front = head + struct.pack(">I", zlib.crc32(head)) + headers + payload
    return front + struct.pack(">I", zlib.crc32(front))


def test_claudes_streams_on_bedrock_come_in_frames_of_aws(start: Start) -> None:
    start()
    events = [event for event in anthropic_events("Hel", "lo") if isinstance(event, dict)]
    frames = [frame(event) for event in events]
    exchange = exchange_of([*frames[:-1], frames[-1][:30]])  # the last is cut off
    exchange.content_type = AWS
    span = span_of(exchange)
    assert said(span) == "Hello"
    assert span.answer is not None
    assert span.answer.usage is not None
    assert span.answer.usage.cache_read_tokens == 60
    assert span.chunk_ns is not None
    assert len(span.chunk_ns) == len(events) - 1
    assert span.call is not None
    assert span.call.request["stream"] is True


def test_of_a_stream_beyond_all_bounds_the_begin_and_the_usage_stay(start: Start) -> None:
    start()
    long = event([{"index": 0, "delta": {"content": "x" * 99_000}}])
    n_pieces = 3 * MAX_BYTES // len(long)
    exchange = exchange_of([*[long] * n_pieces, event([], usage=USAGE)])
    assert exchange.size < MAX_BYTES + len(long)
    span = span_of(exchange)
    assert span.answer is not None
    assert span.answer.usage is not None
    assert span.answer.usage.output_tokens == 4


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_no_bytes_of_a_server_make_reading_fail(pieces: list[bytes]) -> None:
    exchange = exchange_of(pieces)
    exchange.request = exchange.response = b"".join(pieces)
    for response, form in ((exchange.response, ""), (None, "text/event-stream"), (None, AWS)):
        exchange.response, exchange.content_type = response, form
        span = LiveSpan.__new__(LiveSpan)
        exchange.read(span)
        assert span.answer is not None

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmobs.analyzer.decode import decode_spans_upb
from llmobs.analyzer.normalize import normalize
from llmobs.records import SPAN_SCHEMA, RawSpans
from tests.analyzer.normalize.spans import NOW_NS, request, row, rows

DAY_NS = 86_400 * 10**9


def test_a_batch_has_exactly_the_schema_with_and_without_spans() -> None:
    for raw in (RawSpans(()), decode_spans_upb([request({})])):
        table = normalize(raw, now_ns=NOW_NS).table
        assert table.schema == SPAN_SCHEMA
        assert table.num_rows == len(raw)


def test_own_attributes_win_over_those_of_the_resource() -> None:
    got = row(
        {"service.version": "2", "k": True, "x": 1.5},
        resource={"service.version": "1", "host.name": "h", "pid": 7, "service.name": "s"},
    )
    assert got["attributes_s"] == {"service.version": "2", "host.name": "h"}
    assert got["attributes_n"] == {"k": 1.0, "x": 1.5, "pid": 7.0}
    assert got["service"] == "s"


def test_every_span_gets_the_attributes_of_its_own_resource() -> None:
    a = request({"k": "1"}, resource={"service.name": "a", "host.name": "ha"})
    b = request({"k": "2"}, resource={"service.name": "b"}, span_id=b"u" * 8)
    got = rows(a, b, a)
    assert [r["service"] for r in got] == ["a", "b", "a"]
    assert [r["attributes_s"] for r in got] == [
        {"k": "1", "host.name": "ha"}, {"k": "2"}, {"k": "1", "host.name": "ha"},
    ]  # fmt: skip


def test_the_first_name_in_order_fills_the_column_and_the_other_is_kept() -> None:
    got = row({"session.id": "s", "gen_ai.conversation.id": "c"})
    assert got["session_id"] == "c"
    assert got["attributes_s"] == {"session.id": "s"}


def test_a_key_means_something_only_with_its_producer() -> None:
    assert row({"tool.name": "t", "openinference.span.kind": "TOOL"})["tool"] == "t"
    got = row({"tool.name": "t", "input.value": "x"})
    assert (got["tool"], got["input_text"]) == ("", "")
    assert got["attributes_s"] == {"tool.name": "t", "input.value": "x"}


@pytest.mark.parametrize(
    ("sent", "provider"),
    [
        ("openai.chat", "openai"), ("azure.ai.openai", "azure.ai.openai"),
        ("gcp.vertex_ai", "gcp.vertex_ai"), ("mistralai", "mistral_ai"), ("xai", "x_ai"),
        ("google.generative-ai", "gcp.gemini"), ("amazon-bedrock", "aws.bedrock"),
        ("OpenAI", "openai"), ("home-grown", "home-grown"),
    ],
)  # fmt: skip
def test_providers_are_named_as_in_the_conventions(sent: str, provider: str) -> None:
    assert row({"gen_ai.system": sent})["provider"] == provider


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(["tool_calls"], "tool_call"), ([], ""), ("MAX_TOKENS", "length"), (["odd", "stop"], "odd")],
)
def test_the_finish_reason_is_that_of_the_first_choice(sent: Any, reason: str) -> None:
    assert row({"gen_ai.response.finish_reasons": sent})["finish_reason"] == reason


def test_a_call_of_old_conventions_is_recognized_by_provider_and_model() -> None:
    base = {"gen_ai.system": "openai", "gen_ai.request.model": "m"}
    assert row(base)["operation"] == "chat"
    assert row(base, name="embeddings m")["operation"] == "embeddings"
    assert row({"gen_ai.request.model": "m"})["operation"] == ""


def test_tokens_that_nobody_can_have_counted_are_null_and_counted() -> None:
    repairs: Counter[str] = Counter()
    got = row({"gen_ai.usage.input_tokens": -5, "gen_ai.usage.output_tokens": 7.0}, repairs=repairs)
    assert (got["input_tokens"], got["output_tokens"]) == (None, 7)
    assert got["attributes_n"] == {"gen_ai.usage.input_tokens": -5.0}
    assert repairs == {"input_tokens": 1}


def test_a_number_as_an_answer_is_a_text_too() -> None:
    chat, tool = {"gen_ai.operation.name": "chat"}, {"gen_ai.operation.name": "execute_tool"}
    assert row(chat | {"langfuse.observation.output": 42})["output_text"] == "42"
    assert row(chat | {"traceloop.entity.input": True})["input_text"] == "true"
    assert row(tool | {"gen_ai.tool.call.result": 1.5})["output_text"] == "1.5"


def test_numbers_sent_as_text_are_read() -> None:
    got = row({"gen_ai.usage.input_tokens": "12", "gen_ai.usage.output_tokens": "many"})
    assert (got["input_tokens"], got["output_tokens"]) == (12, None)


def test_more_cached_than_input_tokens_means_they_were_counted_apart() -> None:
    got = row({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read.input_tokens": 90})
    assert got["input_tokens"] == 100
    got = row({"gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_read.input_tokens": 90})
    assert got["input_tokens"] == 100


@pytest.mark.parametrize(
    ("state", "weight"),
    [
        ("", 1.0), ("ot=th:0", 1.0), ("ot=th:8", 2.0), ("ot=th:c;rv:12345678901234", 4.0),
        ("vendor=x,ot=rv:1;th:fd70a4", 2**56 / (2**56 - 0xFD70A400000000)), ("ot=th:zz", 1.0),
        ("notot=th:8", 1.0),
    ],
)  # fmt: skip
def test_a_sampled_span_stands_for_the_calls_left_out(state: str, weight: float) -> None:
    assert row({}, trace_state=state)["weight"] == pytest.approx(weight)


def test_ids_of_a_wrong_length_become_a_stable_hash_and_keep_families_together() -> None:
    repairs: Counter[str] = Counter()
    parent = request({}, trace_id=b"short", span_id=b"toolongid")
    child = request({}, trace_id=b"short", span_id=b"c" * 8, parent_span_id=b"toolongid")
    first, second = rows(parent, child, repairs=repairs)
    assert first["trace_id"] == second["trace_id"] != bytes(16)
    assert second["parent_id"] == first["span_id"]
    assert rows(parent)[0]["trace_id"] == first["trace_id"]
    assert repairs == {"trace_id": 2, "span_id": 1, "parent_id": 1}


def test_missing_and_zero_ids_are_derived_from_the_span() -> None:
    repairs: Counter[str] = Counter()
    a = request({}, trace_id=b"", span_id=bytes(8), name="a")
    b = request({}, trace_id=bytes(16), span_id=b"", name="b")
    got = rows(a, b, a, repairs=repairs)
    assert got[0]["span_id"] == got[2]["span_id"] != got[1]["span_id"]
    assert got[0]["trace_id"] == got[2]["trace_id"] != got[1]["trace_id"]
    assert all(r["parent_id"] == bytes(8) for r in got)
    assert repairs == {"trace_id": 3, "span_id": 3}


@pytest.mark.parametrize(
    ("start", "end", "duration", "repaired"),
    [
        (NOW_NS, NOW_NS - 1, 0, "end_before_start"),
        (NOW_NS, 0, 0, "end_before_start"),
        (5, 9, 4, "clock_before_2000"),
        (NOW_NS + 2 * DAY_NS, NOW_NS + 2 * DAY_NS + 3, 3, "clock_in_future"),
        (2**64 - 1, 2**64 - 1, 0, "clock_in_future"),
    ],
)
def test_odd_times_are_kept_and_counted(start: int, end: int, duration: int, repaired: str) -> None:
    repairs: Counter[str] = Counter()
    got = row({}, start_time_unix_nano=start, end_time_unix_nano=end, repairs=repairs)
    assert got["ts_ns"] == min(start, 2**63 - 1)
    assert got["duration_ns"] == duration
    assert repairs == {repaired: 1}


def test_repairs_of_the_decoder_are_counted_too() -> None:
    body = request({"k": "abcd"}).replace(b"abcd", b"ab\xffd")
    repairs: Counter[str] = Counter()
    [got] = rows(body, repairs=repairs)
    assert got["attributes_s"] == {"k": "ab�d"}
    assert repairs == {"invalid_utf8": 1}


def test_events_and_links_are_kept_with_their_span() -> None:
    out = ExportTraceServiceRequest.FromString(request({"error.type": "own"}))
    span = out.resource_spans[0].scope_spans[0].spans[0]
    span.events.add(name="cache.miss", time_unix_nano=9)
    failure = span.events.add(name="exception", time_unix_nano=10)
    for key, value in (("exception.type", "ValueError"), ("exception.message", "no")):
        failure.attributes.add(key=key).value.string_value = value
    span.links.add(trace_id=b"l" * 16, span_id=b"m" * 8)
    [got] = rows(out.SerializeToString())
    assert got["error_type"] == "own"
    texts = got["attributes_s"]
    assert texts["exception.type"] == "ValueError"
    assert json.loads(texts["otel.span.events"]) == [
        {"name": "cache.miss", "ts_ns": 9, "attributes": {}}
    ]
    assert json.loads(texts["otel.span.links"])[0]["trace_id"] == (b"l" * 16).hex()


def test_an_exception_event_names_the_error_where_nothing_else_does() -> None:
    out = ExportTraceServiceRequest.FromString(request({}))
    event = out.resource_spans[0].scope_spans[0].spans[0].events.add(name="exception")
    event.attributes.add(key="exception.type").value.string_value = "TimeoutError"
    assert rows(out.SerializeToString())[0]["error_type"] == "TimeoutError"


def test_a_resource_without_spans_harms_nobody() -> None:
    out = ExportTraceServiceRequest()
    for name in ("first", "second", "last"):
        of_resource = out.resource_spans.add()
        of_resource.resource.attributes.add(key="service.name").value.string_value = name
        if name == "second":
            of_resource.scope_spans.add().spans.add(span_id=b"s" * 8, trace_id=b"t" * 16)
    assert [r["service"] for r in rows(out.SerializeToString())] == ["second"]


DEEP = "a." * 3000
NESTED = '{"content":' * 480 + '"x"' + "}" * 480
HOSTILE: dict[str, Any] = {
    "gen_ai.response.finish_reasons": '["\\ud800"]',
    "langfuse.observation.usage_details": '{"input": %s, "input_b": 0.5, "output": 3}'
    % ("9" * 400),
    "langfuse.observation.completion_start_time": "0001-01-01T00:00:00+23:59",
    "gen_ai.response.time_to_first_chunk": 1e308,
    "gen_ai.usage.output_tokens": "9" * 5000,
    "gen_ai.input.messages": NESTED,
    "gen_ai.output.messages": "[" * 480 + "]" * 480,
    "gen_ai.system_instructions": NESTED,
    "gen_ai.retrieval.documents": f"[{NESTED}]",
    "ai.response.toolCalls": f"[{NESTED}]",
    f"gen_ai.prompt.{'9' * 5000}.role": "user",
    f"gen_ai.prompt.0.{DEEP}b": "x",
    f"gen_ai.prompt.0.content.{DEEP}b": "x",
    f"gen_ai.completion.0.role.{DEEP}b": "x",
    f"gen_ai.completion.0.tool_calls.0.{DEEP}b": "x",
    f"gen_ai.completion.0.tool_calls.{'9' * 5000}.name": "x",
    f"llm.input_messages.0.message.contents.0.{DEEP}b": "x",
    f"retrieval.documents.0.document.content.{DEEP}b": "x",
}


@pytest.mark.parametrize("key", HOSTILE, ids=lambda key: key[:40])
def test_no_attribute_stops_the_batch(key: str) -> None:
    for operation in ("chat", "execute_tool", "retrieval"):
        got = rows(
            request({"gen_ai.operation.name": operation, key: HOSTILE[key]}),
            request({"k": "neighbour"}, span_id=b"u" * 8),
        )
        assert got[1]["attributes_s"] == {"k": "neighbour"}


def test_counts_are_summed_without_what_nobody_can_have_counted() -> None:
    got = row({"langfuse.observation.usage_details": HOSTILE["langfuse.observation.usage_details"]})
    assert (got["input_tokens"], got["output_tokens"]) == (0, 3)


@pytest.mark.parametrize(
    "key",
    ["langfuse.observation.usage_details", "langsmith.metadata.usage_metadata", "gen_ai.usage.raw"],
)
def test_a_sum_that_nobody_can_have_counted_is_null(key: str) -> None:
    assert row({key: json.dumps({"input": 2, "input_b": 3})})["input_tokens"] == 5
    counts = {f"input_{i}": 1e15 for i in range(10_000)}
    assert row({key: json.dumps(counts)})["input_tokens"] is None


def test_a_tracestate_from_outside_cannot_make_a_span_stand_for_billions() -> None:
    repairs: Counter[str] = Counter()
    assert row({}, trace_state="ot=th:ffffffffffffff", repairs=repairs)["weight"] == 1.0
    assert repairs == {"sampling_weight": 1}


def test_a_large_resource_is_not_copied_to_thousands_of_spans() -> None:
    out = ExportTraceServiceRequest()
    of_resource = out.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "s"
    of_resource.resource.attributes.add(key="large").value.string_value = "x" * 1_000_000
    spans = of_resource.scope_spans.add().spans
    for i in range(1000):
        spans.add(span_id=i.to_bytes(8, "big"), trace_id=b"t" * 16)
    repairs: Counter[str] = Counter()
    got = rows(out.SerializeToString(), repairs=repairs)
    assert {r["service"] for r in got} == {"s"}
    assert not got[0]["attributes_s"]
    assert repairs["inherited_attributes"] == 1000


def test_the_feature_may_come_from_the_resource() -> None:
    assert row({}, resource={"llmobs.feature": "f"})["feature"] == "f"
    assert row({"llmobs.feature": "g"}, resource={"llmobs.feature": "f"})["feature"] == "g"


def test_half_a_character_in_json_does_not_lose_the_span() -> None:
    sent = '[{"role": "user", "parts": [{"type": "text", "content": "a\\ud83d"}]}]'
    got = row({"gen_ai.operation.name": "chat", "gen_ai.input.messages": sent})
    assert got["input_text"] == "a?"


CALL = {"gen_ai.operation.name": "chat", "gen_ai.usage.output_tokens": 3}
UNKNOWN = {"gen_ai.operation.name": "chat"}


@pytest.mark.parametrize(
    ("outer", "inner", "operations"),
    [
        ({"gen_ai.response.id": "r"}, {"gen_ai.response.id": "r"}, ["chat", ""]),
        ({"gen_ai.response.id": "r"}, {}, ["chat", ""]),
        ({}, {}, ["chat", ""]),
        ({"gen_ai.response.id": "r"}, {"gen_ai.response.id": "other"}, ["chat", "chat"]),
        ({"gen_ai.request.model": "a"}, {"gen_ai.request.model": "b"}, ["chat", "chat"]),
        ({}, {"gen_ai.operation.name": "embeddings"}, ["chat", "embeddings"]),
        ({"gen_ai.operation.name": "invoke_agent"}, {}, ["invoke_agent", "chat"]),
    ],
)
def test_of_two_spans_of_one_call_one_is_counted(
    outer: dict[str, Any], inner: dict[str, Any], operations: list[str]
) -> None:
    repairs: Counter[str] = Counter()
    got = rows(
        request(CALL | outer, span_id=b"o" * 8),
        request(CALL | inner, span_id=b"i" * 8, parent_span_id=b"o" * 8),
        repairs=repairs,
    )
    assert [r["operation"] for r in got] == operations
    assert repairs["call_told_twice"] == operations.count("")


def test_the_span_that_knows_the_tokens_is_counted() -> None:
    outer = request(UNKNOWN, span_id=b"o" * 8)
    inner = request(CALL, span_id=b"i" * 8, parent_span_id=b"o" * 8)
    assert [r["operation"] for r in rows(inner, outer)] == ["chat", ""]


def test_spans_of_another_trace_are_another_call() -> None:
    outer = request(CALL, span_id=b"o" * 8)
    inner = request(CALL, span_id=b"i" * 8, parent_span_id=b"o" * 8, trace_id=b"x" * 16)
    assert [r["operation"] for r in rows(outer, inner)] == ["chat", "chat"]

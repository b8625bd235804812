"""Content and evaluations that came apart from their span."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from llmobs import semconv
from llmobs.analyzer.decode import check, decode_events, decode_spans_upb
from llmobs.analyzer.normalize import join_content, join_responses, normalize
from llmobs.records import EVENT_SCHEMA, EventBatch, SpanBatch
from tests.analyzer.normalize.spans import DATA, NOW_NS, fixture, request

QUESTION, ANSWER, SYSTEM = "Where is my order?", "On its way.", "Be brief."
DETAILS = semconv.EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS
TEXTS = ("input_text", "output_text", "system_text", "context_text")


def spans(*bodies: bytes) -> SpanBatch:
    return normalize(decode_spans_upb(bodies), now_ns=NOW_NS)


def event(name: str, attributes: dict[str, str], **columns: Any) -> dict[str, Any]:
    return {
        "ts_ns": NOW_NS,
        "trace_id": b"t" * 16,
        "span_id": b"s" * 8,
        "service": "",
        "environment": "",
        "event_name": name,
        "severity": 5,
        "body": "",
        "attributes_s": list(attributes.items()),
        "attributes_n": [],
    } | columns


def events(*rows: dict[str, Any]) -> EventBatch:
    return EventBatch(pa.Table.from_pylist(list(rows), schema=EVENT_SCHEMA))


def message(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def texts(batch: SpanBatch, i: int = 0) -> list[str]:
    batch.table.validate(full=True)
    return [batch.texts(name)[i] for name in TEXTS]


@pytest.mark.parametrize("name", ["recorded_genai_openai", "recorded_openlit"])
def test_what_a_library_sends_as_events_fills_the_texts_of_its_spans(name: str) -> None:
    traces, _ = check("traces", (DATA / f"{name}.json").read_bytes(), True)
    logs, n_records = check("logs", (DATA / "logs" / f"{name}.json").read_bytes(), True)
    apart, (records, _) = spans(traces), decode_events([logs])
    assert len(records) == n_records > 0
    joined = join_content(apart, records)
    assert joined.table.schema == apart.table.schema
    assert texts(joined, 0) == texts(joined, 1) == [QUESTION, ANSWER, SYSTEM, ""]
    assert texts(joined, 2) == [QUESTION, "", SYSTEM, ""]
    [asked] = json.loads(joined.texts("output_messages")[2])
    assert [part["name"] for part in asked["parts"]] == ["orders"]
    assert texts(joined, 3) == [QUESTION, ANSWER, SYSTEM, '{"state": "shipped"}']
    for name in set(apart.table.column_names) - {*TEXTS, "input_messages", "output_messages"}:
        assert joined.table[name].equals(apart.table[name]), name


def test_a_span_without_content_has_none_before_the_join() -> None:
    assert {row["input_text"] for row in fixture("recorded_genai_openai")} == {""}


def test_what_a_span_says_itself_stays() -> None:
    own = spans(
        request({"gen_ai.operation.name": "chat", "gen_ai.input.messages": message("user", "own")})
    )
    others = events(
        event(
            DETAILS,
            {
                "gen_ai.input.messages": message("user", "other"),
                "gen_ai.output.messages": message("assistant", "answer"),
                "gen_ai.system_instructions": "brief",
            },
        )
    )
    assert texts(join_content(own, others)) == ["own", "answer", "brief", ""]


def test_events_of_nobody_and_of_others_change_nothing() -> None:
    batch = spans(request({"gen_ai.operation.name": "chat"}))
    told = {"gen_ai.input.messages": message("user", "hi")}
    for other in (
        events(),
        events(event("app.started", told)),
        events(event(DETAILS, told, span_id=b"x" * 8)),
        events(event(DETAILS, told, trace_id=b"x" * 16)),
        events(event(DETAILS, told, trace_id=bytes(16), span_id=bytes(8))),
    ):
        assert join_content(batch, other) is batch
    assert len(join_content(spans(), events(event(DETAILS, told)))) == 0


def test_one_event_a_message_is_put_together_in_order_of_time() -> None:
    batch = spans(request({"gen_ai.operation.name": "chat"}), request({}, span_id=b"u" * 8))
    joined = join_content(
        batch,
        events(
            event("gen_ai.choice", {}, ts_ns=9, body=json.dumps({
                "index": 0, "finish_reason": "stop", "message": {"content": ANSWER},
            })),
            event("gen_ai.user.message", {}, ts_ns=3, body=json.dumps({"content": QUESTION})),
            event("gen_ai.system.message", {}, ts_ns=1, body=json.dumps({"content": SYSTEM})),
            event("gen_ai.user.message", {}, ts_ns=2, body=json.dumps({"content": "Hello"})),
            event("gen_ai.user.message", {"content": "as attribute"}, span_id=b"u" * 8),
        ),
    )  # fmt: skip
    assert texts(joined) == [QUESTION, ANSWER, SYSTEM, ""]
    assert [m["role"] for m in json.loads(joined.texts("input_messages")[0])] == [
        "system", "user", "user",
    ]  # fmt: skip
    assert joined.texts("output_messages")[0] == ""
    assert texts(joined, 1) == ["as attribute", "", "", ""]


def test_the_join_is_the_same_when_done_twice() -> None:
    batch = spans(request({"gen_ai.operation.name": "chat"}))
    told = events(event(DETAILS, {"gen_ai.input.messages": message("user", "hi")}))
    once = join_content(batch, told)
    assert join_content(once, told).table.equals(once.table)


def test_a_sliced_batch_of_events_is_read_where_it_begins() -> None:
    batch = spans(request({"gen_ai.operation.name": "chat"}))
    many = events(
        *(event(DETAILS, {"k": "v", "gen_ai.input.messages": message("user", t)}) for t in "abc")
    )
    sliced = EventBatch(many.table.slice(1, 1))
    assert texts(join_content(batch, sliced))[0] == "b"


def test_an_evaluation_that_names_a_response_finds_its_span() -> None:
    batch = spans(
        request({"gen_ai.response.id": "r1"}),
        request({"gen_ai.response.id": "r2"}, span_id=b"u" * 8),
    )
    nobody = {"trace_id": bytes(16), "span_id": bytes(8)}
    name = semconv.EVENT_GEN_AI_EVALUATION_RESULT
    sent = events(
        event(name, {"gen_ai.response.id": "r2"}, **nobody),
        event(name, {"gen_ai.response.id": "r1"}, span_id=b"x" * 8),
        event(name, {"gen_ai.response.id": "other"}, **nobody),
        event(name, {"gen_ai.response.id": ""}, **nobody),
        event(name, {}, **nobody),
    )
    found = join_responses(sent, batch)
    found.table.validate(full=True)
    assert found.table.schema == sent.table.schema
    assert found.table["span_id"].to_pylist() == [
        b"u" * 8, b"x" * 8, bytes(8), bytes(8), bytes(8),
    ]  # fmt: skip
    assert found.table["trace_id"].to_pylist()[0] == b"t" * 16
    assert join_responses(found, spans()) is found

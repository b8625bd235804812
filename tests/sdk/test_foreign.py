"""Other instrumentations beside ours: sessions on their spans, one inference span a call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, get_logger

import llmobs
from tests.sdk.conftest import Start


def instrumented_client(prompt: str) -> str:
    """Do what an official instrumentation does around a client's call."""
    tracer = trace.get_tracer("opentelemetry.instrumentation.genai.openai")
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt",
    }
    with tracer.start_as_current_span(
        "chat gpt", kind=trace.SpanKind.CLIENT, attributes=attributes
    ) as span:
        with trace.get_tracer("requests").start_as_current_span("POST"):
            pass
        messages = [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]
        span.set_attribute("gen_ai.input.messages", json.dumps(messages))
        span.set_attribute("gen_ai.usage.input_tokens", 5)
        span.set_attribute("gen_ai.usage.output_tokens", 2)
        span.add_event("gen_ai.content.prompt", {"gen_ai.prompt": prompt})
    return "answer"


def test_a_chat_around_an_instrumented_client_steps_back(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="gpt", provider="openai")
    def ask(prompt: str) -> str:
        return instrumented_client(prompt)

    @llmobs.observe(kind="agent")
    def boss() -> None:
        ask("x")

    boss()
    llmobs.flush(10)
    outer = otlp.span("invoke_workflow ask")
    inner = otlp.span("chat gpt")
    assert inner.parent_id == outer.span_id
    assert "gen_ai.usage.input_tokens" not in outer.attributes
    assert otlp.point("gen_ai.client.inference.duration").count == 1
    assert otlp.point("gen_ai.client.inference.usage.input_tokens").total == 5
    assert otlp.point("gen_ai.invoke_agent.inference_calls").total == 1


def test_a_chat_stays_where_the_clients_span_is_not_sent(start: Start) -> None:
    otlp = start(foreign="off")

    @llmobs.observe(kind="chat", model="gpt", provider="openai")
    def ask(prompt: str) -> str:
        return instrumented_client(prompt)

    ask("x")
    llmobs.flush(10)
    assert [span.name for span in otlp.spans] == ["chat gpt"]
    assert otlp.point("gen_ai.client.inference.duration").count == 1


def test_a_session_is_on_foreign_spans_and_others_than_genai_stay_away(start: Start) -> None:
    otlp = start()
    with llmobs.session("s-1", "u-1", feature="f"):
        instrumented_client("x")
    llmobs.flush(10)
    (span,) = otlp.spans  # not the HTTP client's
    assert span.name == "chat gpt"
    assert span.attributes["gen_ai.conversation.id"] == "s-1"
    assert span.attributes["session.id"] == "s-1"
    assert span.attributes["user.id"] == "u-1"
    assert span.attributes["llmobs.feature"] == "f"


@pytest.mark.parametrize(("foreign", "names"), [("all", ["POST", "chat gpt"]), ("off", [])])
def test_which_foreign_spans_are_sent_is_a_choice(
    start: Start, foreign: str, names: list[str]
) -> None:
    otlp = start(foreign=foreign)
    instrumented_client("x")
    llmobs.flush(10)
    assert [span.name for span in otlp.spans] == names


@pytest.mark.parametrize("mode", ["redacted", "metadata", "off"])
def test_foreign_spans_hold_no_more_content_than_ours(start: Start, mode: str) -> None:
    otlp = start(capture_content=mode)
    instrumented_client("write to jo@shop.example")
    get_logger("x").emit(
        event_name="gen_ai.client.inference.operation.details",
        attributes={"gen_ai.input.messages": [{"content": "jo@shop.example"}]},
    )
    llmobs.flush(10)
    everything = b"".join(body for _, body, _ in otlp.requests)
    assert len(otlp.spans) == len(otlp.events) == 1
    assert b"jo@shop" not in everything
    assert (b"[EMAIL]" in everything) is (mode == "redacted")
    assert otlp.spans[0].attributes["gen_ai.usage.input_tokens"] == 5


def test_other_log_records_are_not_our_business(start: Start) -> None:
    otlp = start()
    get_logger("x").emit(body="hello")
    get_logger("x").emit(event_name="device.crash")
    llmobs.flush(10)
    assert otlp.events == []


def test_a_missing_or_broken_instrumentation_harms_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start(instrument=["no-such-library"])

    @llmobs.observe
    def flow() -> str:
        return "x"

    assert flow() == "x"
    llmobs.flush(10)
    assert len(otlp.spans) == 1
    assert "instrumentation not installed" in caplog.text


def test_automatic_instrumentation_is_silent_where_nothing_is_installed(start: Start) -> None:
    start(instrument="auto")
    assert llmobs.status().active


def test_our_own_requests_are_not_traced(start: Start) -> None:
    otlp = start()
    from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value

    from llmobs.sdk import configure

    seen: list[object] = []
    sender = configure._here.sender
    assert sender is not None
    inner: Callable[..., int] = sender._send

    def spy(items: list[object], export: object) -> int:
        seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
        return inner(items, export)

    sender._send = spy  # type: ignore[assignment, method-assign]
    instrumented_client("x")
    llmobs.flush(10)
    assert seen == [True, True]  # spans and events
    assert len(otlp.spans) == 1


def test_an_events_body_holds_no_more_content_than_ours_and_stays_with_its_owner(
    start: Start,
) -> None:
    otlp = start(capture_content="redacted")
    record = LogRecord(
        event_name="gen_ai.user.message",
        body={"content": "mail jo@shop.example", "role": "user"},
        attributes={"gen_ai.input.messages": "jo@shop.example"},
    )
    get_logger("x").emit(record)
    llmobs.flush(10)
    llmobs.shutdown(10)
    llmobs.init("shop", endpoint=otlp.url, capture_content="metadata")
    get_logger("x").emit(record)
    llmobs.flush(10)
    everything = b"".join(otlp.bodies("/v1/logs"))
    assert b"jo@shop" not in everything
    assert everything.count(b"mail [EMAIL]") == 1
    # The application's own processors have the same record.
    assert record.body == {"content": "mail jo@shop.example", "role": "user"}
    assert record.attributes == {"gen_ai.input.messages": "jo@shop.example"}


def test_large_foreign_events_count_by_their_size(start: Start) -> None:
    otlp = start(queue_capacity_bytes=1_000_000)
    otlp.mode = "deaf"
    for _ in range(100):
        get_logger("x").emit(event_name="gen_ai.x", body={"parts": [{"content": "x" * 100_000}]})
    assert llmobs.status().waiting < 20


def test_a_foreign_event_that_no_encoder_takes_harms_no_other(start: Start) -> None:
    otlp = start()
    for number in range(3):
        get_logger("x").emit(event_name="gen_ai.x", body=number if number != 1 else 2**70)
    llmobs.flush(10)
    assert len(otlp.events) == 2
    assert llmobs.status().dropped == {"not_describable": 1}


def test_headers_leave_in_no_mode(start: Start) -> None:
    otlp = start()
    with trace.get_tracer("x").start_as_current_span("a") as span:
        span.set_attributes({"gen_ai.headers": "x-api-key: needle", "llm.headers": "needle"})
    llmobs.flush(10)
    assert len(otlp.spans) == 0 or b"needle" not in otlp.bodies("/v1/traces")[0]
    with trace.get_tracer("x").start_as_current_span("b") as span:
        span.set_attributes({"gen_ai.operation.name": "chat", "llm.headers": "needle"})
    llmobs.flush(10)
    assert otlp.span("b")
    assert b"needle" not in b"".join(otlp.bodies("/v1/traces"))


def test_an_embedding_around_an_instrumented_client_steps_back(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="embeddings", model="e", provider="openai")
    def embed(text: str) -> dict[str, object]:
        attributes = {"gen_ai.operation.name": "embeddings"}
        with trace.get_tracer("x").start_as_current_span("embeddings e", attributes=attributes):
            return {"embedding": [0.0], "usage": {"input_tokens": 3}}

    embed("x")
    llmobs.flush(10)
    assert "gen_ai.usage.input_tokens" not in otlp.span("invoke_workflow embed").attributes
    assert otlp.point("gen_ai.client.operation.duration").count == 1


def test_a_later_init_samples_foreign_traces_too(start: Start) -> None:
    start()
    llmobs.shutdown(5)
    otlp = start(sample_ratio=0.0)
    instrumented_client("x")
    llmobs.flush(10)
    assert otlp.spans == []
    assert otlp.point("gen_ai.client.inference.duration").count == 1


def test_masked_messages_of_others_stay_json_whatever_is_cut(start: Start) -> None:
    otlp = start(capture_content="redacted", max_characters=100, redact=lambda text: f'"{text}')
    instrumented_client("jo@shop.example " * 50)
    llmobs.flush(10)
    a = otlp.span("chat gpt").attributes
    (message,) = json.loads(a["gen_ai.input.messages"])
    assert message["role"] == "user"
    assert message["parts"][0]["type"] == "text"
    assert message["parts"][0]["content"].startswith('"[EMAIL] ')
    assert len(message["parts"][0]["content"]) == 100
    assert a["llmobs.content.truncated"] is True


@pytest.mark.parametrize(("process", "decorator"), [("full", "off"), ("metadata", "full")])
def test_what_a_decorator_says_of_content_holds_for_the_client_below(
    start: Start, process: str, decorator: Any
) -> None:
    otlp = start(capture_content=process)

    @llmobs.observe(kind="chat", model="gpt", capture_content=decorator)
    def ask(prompt: str) -> None:
        instrumented_client(prompt)
        body = {"gen_ai.input.messages": f"event {prompt}"}
        get_logger("other").emit(LogRecord(event_name="gen_ai.details", attributes=body))

    ask("the secret")
    instrumented_client("the rule")
    llmobs.flush(10)
    everything = b"".join(body for _, body, _ in otlp.requests)
    assert (b"the secret" in everything) is (decorator == "full")
    assert (b"event the secret" in everything) is (decorator == "full")
    assert (b"the rule" in everything) is (process == "full")

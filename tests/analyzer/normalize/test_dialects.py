"""What producers really send, and the columns it has to become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmobs import semconv
from tests.analyzer.normalize.spans import DATA, fixture

QUESTION, ANSWER, SYSTEM = "Where is my order?", "On its way.", "Be brief."
TEXTS = {"input_text": QUESTION, "output_text": ANSWER, "system_text": SYSTEM}
WHO = {"session_id": "sess-1", "user_id": "u1"}

# Name of the fixture, number of the span, what its columns hold.
EXPECTED: list[tuple[str, int, dict[str, Any]]] = [
    ("genai_current", 0, {
        "operation": "invoke_workflow", "workflow": "order-help", "feature": "order-help",
        "session_id": "conv_1", "input_text": QUESTION, "output_text": ANSWER,
        "service": "shop", "environment": "prod",
    }),
    ("genai_current", 1, TEXTS | {
        "operation": "chat", "provider": "openai", "request_model": "gpt-5-mini",
        "response_model": "gpt-5-mini-2025-08-07", "response_id": "chatcmpl-1",
        "feature": "support", "user_id": "u1", "finish_reason": "stop", "prompt_name": "greet",
        "prompt_version": "3", "input_tokens": 120, "output_tokens": 30,
        "cache_read_tokens": 100, "reasoning_tokens": 10, "cache_write_tokens": None,
        "ttft_ns": 250_000_000, "context_text": '{"state":"shipped"}',
    }),
    ("genai_current", 2, {
        "operation": "execute_tool", "tool": "orders", "input_text": '{"id":7}',
        "output_text": '{"state":"shipped"}', "input_tokens": None,
    }),
    ("genai_current", 3, {
        "operation": "retrieval", "input_text": "late orders",
        "output_text": "Orders take 3 days.",
    }),
    ("genai_current", 4, {
        "operation": "chat", "status": 2, "status_message": "429",
        "error_type": "RateLimitError", "input_text": QUESTION, "system_text": SYSTEM,
    }),
    ("genai_current", 5, {
        "operation": "", "provider": "", "name": "GET /health", "input_text": "",
        "attributes_s": {"http.request.method": "GET", "telemetry.sdk.language": "python"},
        "attributes_n": {"http.response.status_code": 200.0},
    }),
    ("genai_older", 0, {
        "operation": "chat", "provider": "aws.bedrock", "finish_reason": "stop",
        "environment": "staging", "input_tokens": 20,
    }),
    ("genai_older", 1, {
        "operation": "chat", "provider": "azure.ai.openai", "input_text": QUESTION,
        "output_text": ANSWER, "input_tokens": 11, "output_tokens": 7,
    }),
    ("genai_older", 2, TEXTS | {"operation": "chat", "finish_reason": "stop"}),
    ("openllmetry", 0, WHO | {
        "operation": "invoke_workflow", "workflow": "order-help", "feature": "order-help",
        "input_text": QUESTION, "output_text": ANSWER,
    }),
    ("openllmetry", 1, TEXTS | WHO | {
        "operation": "chat", "provider": "openai", "request_model": "gpt-4o-mini",
        "feature": "order-help", "input_tokens": 15, "output_tokens": 9,
        "cache_read_tokens": 4, "finish_reason": "stop", "prompt_name": "greet",
        "prompt_version": "3",
    }),
    ("openllmetry", 2, {
        "operation": "execute_tool", "tool": "orders", "output_text": '{"state": "shipped"}',
    }),
    ("openllmetry", 3, {
        "input_text": QUESTION, "output_text": "", "context_text": "shipped",
        "finish_reason": "tool_call",
    }),
    ("openinference", 0, WHO | {
        "operation": "invoke_workflow", "workflow": "RunnableSequence",
        "input_text": QUESTION, "output_text": ANSWER,
    }),
    ("openinference", 1, TEXTS | {
        "operation": "chat", "provider": "openai", "request_model": "gpt-4o-mini",
        "input_tokens": 15, "output_tokens": 9, "cache_read_tokens": 4, "reasoning_tokens": 2,
        "session_id": "sess-1",
    }),
    ("openinference", 2, {
        "operation": "retrieval", "input_text": "late orders",
        "output_text": "Orders take 3 days.\nRefunds take 5.",
    }),
    ("openinference", 3, {
        "operation": "execute_tool", "tool": "orders", "input_text": '{"id": 7}',
        "output_text": "shipped",
    }),
    ("openinference", 4, {"operation": "", "name": "RunnableLambda"}),
    ("openinference", 5, {
        "operation": "embeddings", "request_model": "text-embedding-3-small",
        "input_text": "late orders", "input_tokens": 3,
    }),
    ("langfuse", 0, WHO | {"operation": "", "feature": "order-help", "environment": "production"}),
    ("langfuse", 1, TEXTS | WHO | {
        "operation": "chat", "request_model": "claude-sonnet-4-5", "feature": "order-help",
        "input_tokens": 115, "output_tokens": 9, "cache_read_tokens": 100,
        "reasoning_tokens": 2, "ttft_ns": 250_000_000, "prompt_name": "greet",
        "prompt_version": "3",
    }),
    ("langfuse", 2, {
        "operation": "execute_tool", "tool": "orders", "status": 2, "status_message": "boom",
        "output_text": "shipped",
    }),
    ("vercel_ai", 0, TEXTS | WHO | {
        "operation": "invoke_agent", "agent": "order-help", "feature": "order-help",
    }),
    ("vercel_ai", 1, TEXTS | {
        "operation": "chat", "provider": "anthropic", "finish_reason": "tool_call",
        "response_id": "msg_1", "input_tokens": 120, "output_tokens": 5,
        "cache_read_tokens": 100, "ttft_ns": 251_500_000,
    }),
    ("vercel_ai", 2, {
        "operation": "execute_tool", "tool": "orders", "input_text": '{"id": 7}',
        "output_text": "shipped",
    }),
    ("pydantic_ai", 0, TEXTS | {
        "operation": "invoke_agent", "agent": "helper", "session_id": "conv_1",
    }),
    ("pydantic_ai", 1, TEXTS | {
        "operation": "chat", "provider": "gcp.gemini", "reasoning_tokens": 4,
        "finish_reason": "stop", "cost_usd": None,
    }),
    ("pydantic_ai", 2, {
        "operation": "execute_tool", "tool": "orders", "output_text": "shipped",
    }),
    ("pydantic_ai", 3, {"operation": "chat", "input_text": QUESTION, "system_text": SYSTEM}),
    ("langsmith", 0, {
        "operation": "invoke_workflow", "workflow": "order-help", "feature": "order-help",
        "session_id": "sess-1", "input_text": QUESTION, "output_text": ANSWER,
    }),
    ("langsmith", 1, TEXTS | {"operation": "chat", "provider": "openai", "input_tokens": 15}),
    ("langsmith", 2, {"operation": "execute_tool", "tool": "orders"}),
    ("openlit", 0, TEXTS | {
        "operation": "chat", "provider": "anthropic", "input_tokens": 135,
        "cache_read_tokens": 100, "cache_write_tokens": 20, "ttft_ns": 250_000_000,
    }),
    ("agento11y", 0, TEXTS | WHO | {
        "operation": "chat", "input_tokens": 25, "cache_read_tokens": 10, "reasoning_tokens": 2,
    }),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "i", "expected"), EXPECTED, ids=[f"{name}-{i}" for name, i, _ in EXPECTED]
)
def test_a_span_of_each_producer_gets_its_columns(
    name: str, i: int, expected: dict[str, Any]
) -> None:
    got = fixture(name)[i]
    assert {key: got[key] for key in expected} == expected


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_messages_are_always_those_of_the_conventions(path: Any) -> None:
    for row in fixture(path.stem):
        for column in ("input_messages", "output_messages"):
            for message in json.loads(row[column] or "[]"):
                assert isinstance(message["role"], str)
                assert all(isinstance(part["type"], str) for part in message["parts"])


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_no_secret_header_and_no_value_twice(path: Any) -> None:
    for row in fixture(path.stem):
        kept = row["attributes_s"] | row["attributes_n"]
        assert not {"llm.headers", "gen_ai.headers", "llm.usage.total_tokens"} & set(kept)
        assert semconv.GEN_AI_OPERATION_NAME not in kept
        assert semconv.SERVICE_NAME not in kept


def test_a_producers_own_cost_stays_an_attribute() -> None:
    [row] = fixture("openlit")
    assert row["cost_usd"] is None
    assert row["attributes_n"]["gen_ai.usage.cost"] == 0.001
    assert fixture("pydantic_ai")[1]["attributes_n"]["operation.cost"] == 0.0001


def test_tool_calls_of_an_answer_are_in_its_messages() -> None:
    for name, i in (("openinference", 1), ("vercel_ai", 1)):
        [message] = json.loads(fixture(name)[i]["output_messages"])
        calls = [part for part in message["parts"] if part["type"] == "tool_call"]
        assert calls == [
            {"type": "tool_call", "name": "orders", "arguments": {"id": 7}, "id": "c1"}
        ]

"""Calls that are no plain chat: rerankers, MCP servers, batches, what takes several tries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import llmobs
from llmobs.sdk.batch import read_batch
from tests.sdk.conftest import Start


def completion(n_tokens: int) -> dict[str, Any]:
    return {
        "id": "c",
        "model": "gpt-1",
        "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": n_tokens,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }


def test_a_reranker_is_a_retrieval_with_a_model_and_scores(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="rerank", name="docs", provider="cohere")
    def rerank(query: str, documents: list[str], model: str, top_n: int = 5) -> Any:
        return {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "score": 0.1}]}

    rerank("q", ["a", "b"], model="rerank-4", top_n=2)
    assert llmobs.flush(5)
    span = otlp.span("retrieval docs")
    said = span.attributes
    assert said["llmobs.kind"] == "rerank"
    assert said["gen_ai.request.model"] == "rerank-4"
    assert said["gen_ai.retrieval.top_k"] == 2
    assert said["gen_ai.retrieval.query.text"] == "q"
    assert json.loads(said["gen_ai.retrieval.documents"]) == [
        {"index": 1, "score": 0.9, "id": "1"},
        {"index": 0, "score": 0.1, "id": "0"},
    ]


def test_a_tool_of_an_mcp_server_is_named_as_the_conventions_name_it(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="mcp", name="forecast")
    def call(place: str) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": "sun"}]}

    @llmobs.observe(kind="agent")
    def agent() -> None:
        call("Rome")

    agent()
    assert llmobs.flush(5)
    span = otlp.span("tools/call forecast")
    assert span.kind == 3
    assert span.attributes["mcp.method.name"] == "tools/call"
    assert span.attributes["gen_ai.operation.name"] == "execute_tool"
    assert json.loads(span.attributes["gen_ai.tool.call.arguments"]) == {"place": "Rome"}
    assert otlp.point("mcp.client.operation.duration", gen_ai__tool__name="forecast").count == 1
    assert otlp.point("gen_ai.invoke_agent.tool_calls").total == 1
    assert "gen_ai.execute_tool.duration" not in {point.name for point in otlp.points}


def test_an_mcp_tool_that_answers_with_an_error_has_failed(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="mcp", name="forecast")
    def call(place: str) -> dict[str, Any]:
        return {"content": [], "isError": True}

    call("Rome")
    assert llmobs.flush(5)
    span = otlp.span("tools/call forecast")
    assert (span.status, span.attributes["error.type"]) == (2, "tool_error")
    assert otlp.events == []


def test_a_batch_is_one_span_with_the_sum_of_its_usage(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="batch", provider="openai", model="gpt-1")
    def results(batch_id: str) -> list[Any]:
        # More than one snapshot may hold: each result has room of its own.
        return [{"custom_id": str(n), "response": {"body": completion(10)}} for n in range(1_500)]

    results("b")
    assert llmobs.flush(5)
    said = otlp.span("chat gpt-1").attributes
    assert said["gen_ai.usage.input_tokens"] == 15_000
    assert said["gen_ai.usage.output_tokens"] == 3_000
    assert said["gen_ai.usage.cache_read.input_tokens"] == 1_500
    assert said["openai.response.service_tier"] == "batch"
    assert said["llmobs.batch.size"] == 1_500
    assert said["llmobs.kind"] == "batch"
    assert not any("messages" in name for name in said)


def test_results_that_are_yielded_are_added_up_too(start: Start) -> None:
    otlp = start(capture_content="off")

    @llmobs.observe(kind="batch", provider="anthropic", model="claude")
    def results() -> Iterator[Any]:
        message = {"model": "claude-1", "usage": {"input_tokens": 5, "output_tokens": 1}}
        yield {"custom_id": "a", "result": {"type": "succeeded", "message": message}}
        yield {"custom_id": "b", "result": {"type": "errored", "error": {}}}

    assert len(list(results())) == 2
    assert llmobs.flush(5)
    said = otlp.span("chat claude").attributes
    assert said["gen_ai.usage.input_tokens"] == 5
    assert said["llmobs.batch.size"] == 2
    assert "openai.response.service_tier" not in said


@pytest.mark.parametrize("shape", ["lines", "list", "object"])
def test_a_batch_is_read_in_any_common_shape(shape: str) -> None:
    bodies = [{"custom_id": "1", "response": {"body": completion(n)}} for n in (1, 2)]
    results: Any = {
        "lines": "\n".join(json.dumps(body) for body in bodies) + "\n",
        "list": bodies,
        "object": {"results": bodies},
    }[shape]
    batch = read_batch(results)
    assert batch.n_results == 2
    assert batch.answer.usage is not None
    assert batch.answer.usage.input_tokens == 3
    assert batch.answer.usage.reasoning_tokens is None


@pytest.mark.parametrize("results", [None, 3, "no json", [None, 1, "x"], {"results": None}])
def test_what_is_no_batch_has_no_usage(results: Any) -> None:
    assert read_batch(results).answer.usage is None


def test_tries_of_one_call_are_one_span_with_their_count(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt: str) -> str:
        for _ in range(2):
            llmobs.current().attempt()
        llmobs.current().attempt()
        return prompt

    ask("x")
    llmobs.current().attempt()  # outside a call it does nothing
    assert llmobs.flush(5)
    assert otlp.span("chat m").attributes["llmobs.attempts"] == 3
    assert otlp.point("gen_ai.client.inference.duration").count == 1


def test_results_that_are_yielded_are_added_up_however_many_they_are(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="batch", provider="anthropic", model="claude")
    def results() -> Iterator[Any]:
        for _ in range(21_000):  # and of more text than is kept of a stream
            usage = {"input_tokens": 1, "output_tokens": 2}
            message = {"content": [{"type": "text", "text": "x" * 300}], "usage": usage}
            yield {"custom_id": "a", "result": {"type": "succeeded", "message": message}}

    assert sum(1 for _ in results()) == 21_000
    assert llmobs.flush(5)
    said = otlp.span("chat claude").attributes
    assert said["llmobs.batch.size"] == 21_000
    assert said["gen_ai.usage.input_tokens"] == 21_000

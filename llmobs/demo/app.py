"""The demo's application: what a user of llmobs would write, around a model that is played.

Three features: an assistant that streams, a support desk that retrieves before it answers,
and a tutor that is an agent with a tool. The decorators are the whole instrumentation.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import llmobs
from llmobs.demo.workload import Call, factors

__all__ = ["ProviderError", "answer"]

SYSTEM: Final = {
    "assistant": "You are a helpful assistant.",
    "support": "You answer questions of a bank's customers from its help pages.",
    "tutor": "You are a patient tutor. Use the calculator for every multiplication.",
}
# A played model answers some ten times faster than a real one; slow enough that a machine
# with other work to do does not look like a slower provider.
FIRST_CHUNK_S: Final = 0.08
TOKEN_S: Final = 0.001


class ProviderError(Exception):
    """The provider refused; `type` is its own word for why."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"provider answered: {kind}")
        self.type = kind


def _messages(call: Call, *context: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": SYSTEM[call.feature]},
        *context,
        {"role": "user", "content": call.prompt},
    ]


def _usage(n_input: int, n_output: int) -> dict[str, int]:
    return {
        "prompt_tokens": n_input,
        "completion_tokens": n_output,
        "total_tokens": n_input + n_output,
    }


async def _complete(
    call: Call, model: str, text: str, n_input: int, n_output: int
) -> dict[str, Any]:
    await asyncio.sleep(FIRST_CHUNK_S + n_output * TOKEN_S)
    if call.error:
        raise ProviderError(call.error)
    return {
        "id": f"chatcmpl-{call.session_id}-{call.at_s:.3f}",
        "model": model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        ],
        "usage": _usage(n_input, n_output),
    }


# --- assistant: one streamed answer


@llmobs.observe(kind="chat", provider="openai", model="gpt-4o-mini")
async def stream_answer(
    messages: list[dict[str, Any]], call: Call
) -> AsyncIterator[dict[str, Any]]:
    await asyncio.sleep(FIRST_CHUNK_S)
    if call.error:
        raise ProviderError(call.error)
    words = call.answer.split(" ")
    for start in range(0, len(words), 40):
        piece = " ".join(words[start : start + 40]) + (" " if start + 40 < len(words) else "")
        yield {"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": piece}}]}
    await asyncio.sleep(call.output_tokens * TOKEN_S)
    yield {
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": _usage(call.input_tokens, call.output_tokens),
    }


async def assistant(call: Call) -> str:
    chunks = [chunk async for chunk in stream_answer(_messages(call), call)]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


# --- support: retrieve, then answer


@llmobs.observe(kind="retrieval", name="help-pages")
async def find_pages(query: str, topic: str) -> list[dict[str, Any]]:
    await asyncio.sleep(0.004)
    return [
        {"id": f"help/{topic.replace(' ', '-')}", "score": 0.82, "content": f"Help page: {topic}."},
        {"id": "help/contact", "score": 0.41, "content": "How to reach us, day and night."},
    ]


@llmobs.observe(kind="chat", provider="anthropic", model="claude-3-5-haiku-latest")
async def answer_from_pages(messages: list[dict[str, Any]], call: Call) -> dict[str, Any]:
    return await _complete(
        call, "claude-3-5-haiku-20241022", call.answer, call.input_tokens, call.output_tokens
    )


@llmobs.observe(kind="workflow", name="support-desk")
async def support(question: str, call: Call) -> str:
    pages = await find_pages(question, call.topic)
    context = {"role": "system", "content": "\n".join(page["content"] for page in pages)}
    reply = await answer_from_pages(_messages(call, context), call)
    return str(reply["choices"][0]["message"]["content"])


# --- tutor: an agent that plans, uses a tool, and answers


@llmobs.observe(kind="tool", name="calculator")
async def calculator(a: int, b: int) -> int:
    return a * b


@llmobs.observe(kind="chat", provider="openai", model="gpt-4.1-mini")
async def think(
    messages: list[dict[str, Any]], call: Call, text: str, n_input: int, n_output: int
) -> dict[str, Any]:
    return await _complete(call, "gpt-4.1-mini-2025-04-14", text, n_input, n_output)


@llmobs.observe(kind="agent", name="tutor")
async def tutor(question: str, call: Call) -> str:
    # Most problems take one look; every fourth needs the calculator and a second call.
    if call.input_tokens % 4 == 0:
        plan = "I will use the calculator first, and then explain the steps."
        await think(_messages(call), call, plan, call.input_tokens // 2, 24)
        first, second = factors(question)
        product = await calculator(first, second)
        arguments = json.dumps({"a": first, "b": second})
        function = {"name": "calculator", "arguments": arguments}
        messages = [
            *_messages(call),
            {
                "role": "assistant",
                "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
            },
            {"role": "tool", "content": str(product), "tool_call_id": "call_1"},
        ]
        reply = await think(messages, call, call.answer, call.input_tokens, call.output_tokens)
    else:
        reply = await think(
            _messages(call), call, call.answer, call.input_tokens, call.output_tokens
        )
    return str(reply["choices"][0]["message"]["content"])


async def answer(call: Call) -> str:
    """Answer one call as the application would.

    Raises:
        ProviderError: The provider refused.
    """
    with llmobs.session(call.session_id, user_id=call.user_id, feature=call.feature):
        if call.feature == "assistant":
            return await assistant(call)
        if call.feature == "support":
            return await support(call.prompt, call)
        return await tutor(call.prompt, call)

"""Anthropic's real client against a provider in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

import llmobs
from tests.sdk.conftest import Start
from tests.sdk.integrations import stub as shapes
from tests.sdk.integrations.stub import Reply, Stub
from tests.sdk.receiver import Receiver
from tests.sdk.test_conformance import faults

MODEL = "claude-test"
ASKED: Any = [{"role": "user", "content": "Hi"}]
TEXT = {"type": "text", "text": "hey"}
CALL = {"type": "tool_use", "id": "t1", "name": "search", "input": {"q": "x"}}


@pytest.fixture
def client(provider: Stub) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="none", base_url=provider.url) as made:
        yield made


@pytest.fixture
def sent(start: Start) -> Receiver:
    otlp = start()
    assert llmobs.instrument("anthropic") == ["anthropic"]
    return otlp


def parts(otlp: Receiver, number: int = 0) -> Any:
    (message,) = json.loads(otlp.spans[number].attributes["gen_ai.output.messages"])
    return message["parts"]


def test_a_message_makes_one_span_with_cached_tokens_apart(
    provider: Stub, client: anthropic.Anthropic, sent: Receiver
) -> None:
    provider.say(shapes.message(TEXT, CALL))
    client.messages.create(model=MODEL, max_tokens=9, messages=ASKED, system="Be brief.")
    llmobs.flush(10)
    (span,) = sent.spans  # the client's own span for the same call is not made
    facts = span.attributes
    assert span.name == f"chat {MODEL}"
    assert facts["gen_ai.provider.name"] == "anthropic"
    assert facts["gen_ai.usage.input_tokens"] == 100  # 10, and 60 and 30 of the cache
    assert facts["gen_ai.usage.cache_read.input_tokens"] == 60
    assert facts["gen_ai.usage.cache_write.input_tokens"] == 30
    assert facts["gen_ai.usage.output_tokens"] == 20
    assert facts["gen_ai.response.finish_reasons"] == ["tool_use"]
    assert facts["gen_ai.request.max_tokens"] == 9
    assert json.loads(facts["gen_ai.system_instructions"])[0]["content"] == "Be brief."
    assert parts(sent) == [
        {"type": "text", "content": "hey"},
        {"type": "tool_call", "id": "t1", "name": "search", "arguments": {"q": "x"}},
    ]
    assert faults(sent) == []


def test_streams_are_read_by_whichever_door(
    provider: Stub, client: anthropic.Anthropic, sent: Receiver
) -> None:
    provider.say(*[shapes.anthropic_events("a", "b")] * 3)
    stream = client.messages.create(model=MODEL, max_tokens=9, messages=ASKED, stream=True)
    assert type(stream) is anthropic.Stream
    assert [event.type for event in stream][-1] == "message_stop"
    with client.messages.stream(model=MODEL, max_tokens=9, messages=ASKED) as helper:
        assert list(helper.text_stream) == ["a", "b"]
    with client.beta.messages.stream(model=MODEL, max_tokens=9, messages=ASKED) as beta:
        assert beta.get_final_text() == "ab"
    llmobs.flush(10)
    assert len(sent.spans) == 3
    for number, span in enumerate(sent.spans):
        assert parts(sent, number) == [{"type": "text", "content": "ab"}]
        assert span.attributes["gen_ai.usage.input_tokens"] == 100
        assert span.attributes["gen_ai.usage.output_tokens"] == 20
        assert span.attributes["gen_ai.response.finish_reasons"] == ["end_turn"]
        assert span.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert faults(sent) == []


def test_a_tool_call_is_put_together_from_its_pieces(
    provider: Stub, client: anthropic.Anthropic, sent: Receiver
) -> None:
    events = shapes.anthropic_events()
    pieces = ['{"q"', ': "x"}']
    events[1:2] = [
        {"type": "content_block_start", "index": 0, "content_block": {**CALL, "input": {}}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in pieces
        ),
    ]
    provider.say(events)
    list(client.messages.create(model=MODEL, max_tokens=9, messages=ASKED, stream=True))
    llmobs.flush(10)
    assert parts(sent) == [
        {"type": "tool_call", "name": "search", "id": "t1", "arguments": {"q": "x"}}
    ]


def test_errors_and_retries_are_one_call(
    provider: Stub, client: anthropic.Anthropic, sent: Receiver
) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    busy = Reply(error, status=529, headers={"retry-after-ms": "1"})
    provider.say(busy, shapes.message(TEXT), *[busy] * 3)
    client.messages.create(model=MODEL, max_tokens=9, messages=ASKED)
    with pytest.raises(anthropic.APIStatusError, match="busy"):
        client.messages.create(model=MODEL, max_tokens=9, messages=ASKED)
    llmobs.flush(10)
    done, failed = sent.spans
    assert (done.attributes["llmobs.attempts"], done.status) == (2, 0)
    assert (failed.attributes["llmobs.attempts"], failed.status) == (3, 2)


def test_coroutines_are_traced_alike(provider: Stub, sent: Receiver) -> None:
    provider.say(shapes.message(TEXT), shapes.anthropic_events("a"))

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="none", base_url=provider.url) as client:
            await client.messages.create(model=MODEL, max_tokens=9, messages=ASKED)
            async with client.messages.stream(model=MODEL, max_tokens=9, messages=ASKED) as stream:
                assert await stream.get_final_text() == "a"

    asyncio.run(main())
    llmobs.flush(10)
    assert [part["content"] for n in (0, 1) for part in parts(sent, n)] == ["hey", "a"]
    assert faults(sent) == []

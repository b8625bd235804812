"""OpenAI's real client against a provider in this process."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from opentelemetry import trace
from pydantic import BaseModel

import llmobs
from llmobs.sdk.integrations.exchange import Api, Exchange
from tests.sdk.conftest import Start
from tests.sdk.integrations import stub as shapes
from tests.sdk.integrations.stub import Reply, Stub
from tests.sdk.receiver import Receiver, Span
from tests.sdk.test_conformance import faults

MODEL = "gpt-4o-mini"
ASKED: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.fixture
def client(provider: Stub) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-none", base_url=provider.url) as made:
        yield made


@pytest.fixture
def sent(start: Start) -> Receiver:
    otlp = start()
    assert llmobs.instrument("openai") == ["openai"]
    return otlp


def one(otlp: Receiver) -> Span:
    llmobs.flush(10)
    (span,) = otlp.spans
    assert faults(otlp) == []
    return span


def said(span: Span, name: str = "gen_ai.output.messages") -> Any:
    return json.loads(span.attributes[name])


def text(span: Span) -> list[str]:
    return ["".join(part.get("content", "") for part in message["parts"]) for message in said(span)]


def test_a_chat_makes_one_span_with_all_that_the_wire_says(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat("hello"))
    answer = client.chat.completions.create(model=MODEL, messages=ASKED, temperature=0, stop=["x"])
    assert type(answer).__name__ == "ChatCompletion"
    span = one(sent)
    assert span.name == f"chat {MODEL}"
    assert span.kind == 3
    facts = span.attributes
    assert facts["gen_ai.provider.name"] == "openai"
    assert facts["gen_ai.request.temperature"] == 0.0
    assert facts["gen_ai.request.stop_sequences"] == ["x"]
    assert facts["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"
    assert facts["gen_ai.response.id"] == "chatcmpl-1"
    assert facts["openai.response.system_fingerprint"] == "fp_1"
    assert facts["server.address"] == "127.0.0.1"
    assert provider.url.endswith(f":{facts['server.port']}")
    assert text(span) == ["hello"]
    assert [m["role"] for m in said(span, "gen_ai.input.messages")] == ["system", "user"]
    assert "llmobs.attempts" not in facts


def test_cached_reasoning_and_audio_tokens_are_parts_of_the_whole(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat("hello"))
    client.chat.completions.create(model=MODEL, messages=ASKED)
    usage = {
        name.removeprefix("gen_ai.usage."): value
        for name, value in one(sent).attributes.items()
        if name.startswith("gen_ai.usage.")
    }
    assert usage == {
        "input_tokens": 100,
        "output_tokens": 20,
        "cache_read.input_tokens": 60,
        "reasoning.output_tokens": 5,
        "audio.input_tokens": 7,
        "audio.output_tokens": 3,
    }


def test_a_stream_is_the_clients_own_and_ends_the_span_with_itself(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat_chunks("Hel", "lo.", usage=shapes.USAGE))
    stream = client.chat.completions.create(
        model=MODEL, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    assert type(stream) is openai.Stream
    assert stream.response.status_code == 200
    with stream as chunks:
        got = [c.choices[0].delta.content for c in chunks if c.choices]
    assert got == ["", "Hel", "lo.", None]
    span = one(sent)
    assert text(span) == ["Hello."]
    assert span.attributes["gen_ai.request.stream"] is True
    assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] < 5
    assert span.attributes["gen_ai.usage.input_tokens"] == 100
    assert "llmobs.usage.estimated" not in span.attributes
    per_chunk = sent.point("gen_ai.client.inference.time_per_output_chunk")
    assert per_chunk.count == 4  # gaps between five chunks


def test_a_stream_without_usage_is_reckoned_and_says_so(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat_chunks("four char" * 10))
    list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
    span = one(sent)
    assert span.attributes["llmobs.usage.estimated"] is True
    assert 20 <= span.attributes["gen_ai.usage.output_tokens"] <= 30
    assert span.attributes["gen_ai.usage.input_tokens"] > 0
    assert "stream_options" not in provider.requests[0][1]  # the request is the caller's


def test_usage_is_asked_for_where_the_application_allows_it(
    provider: Stub, client: openai.OpenAI, start: Start
) -> None:
    otlp = start()
    llmobs.instrument("openai", stream_usage=True)
    provider.say(shapes.chat_chunks("a", usage=shapes.USAGE))
    list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
    assert provider.requests[0][1]["stream_options"] == {"include_usage": True}
    assert one(otlp).attributes["gen_ai.usage.input_tokens"] == 100


@pytest.mark.parametrize("how", ["close", "break", "drop", "never"])
def test_an_abandoned_stream_ends_its_span(
    provider: Stub, client: openai.OpenAI, sent: Receiver, how: str
) -> None:
    provider.say(shapes.chat_chunks(*["x"] * 40))
    stream: Any = client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
    if how != "never":
        next(iter(stream))
    if how == "close":
        stream.close()
    if how == "break":
        with stream:
            pass
    else:
        del stream
        gc.collect()
    assert one(sent).status == 0


def test_every_choice_and_its_tool_calls_are_told_apart(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    def call(choice: int, piece: str, **more: Any) -> dict[str, Any]:
        calls = [{"index": 0, "function": {"arguments": piece, **more.pop("named", {})}, **more}]
        return shapes.chunk(
            [{"index": choice, "delta": {"tool_calls": calls}, "finish_reason": None}]
        )

    provider.say(
        [
            call(0, "", id="t0", type="function", named={"name": "f"}),
            call(1, "", id="t1", type="function", named={"name": "g"}),
            call(0, '{"a":'),
            call(1, '{"b":'),
            call(0, "1}"),
            call(1, "2}"),
            shapes.DONE,
        ]
    )
    list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, n=2))
    span = one(sent)
    parts = [message["parts"] for message in said(span)]
    assert parts == [
        [{"type": "tool_call", "name": "f", "id": "t0", "arguments": {"a": 1}}],
        [{"type": "tool_call", "name": "g", "id": "t1", "arguments": {"b": 2}}],
    ]
    assert span.attributes["gen_ai.request.choice.count"] == 2


class Capital(BaseModel):
    city: str


def test_structured_output_and_refusals_are_read(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat('{"city": "Paris"}'))
    answer = client.chat.completions.parse(model=MODEL, messages=ASKED, response_format=Capital)
    assert answer.choices[0].message.parsed == Capital(city="Paris")
    provider.say({**shapes.chat(""), "choices": [
        {"index": 0, "finish_reason": "stop",
         "message": {"role": "assistant", "content": None, "refusal": "I can't."}}
    ]})  # fmt: skip
    client.chat.completions.create(model=MODEL, messages=ASKED)
    llmobs.flush(10)
    parsed, refused = sent.spans
    assert parsed.attributes["gen_ai.output.type"] == "json"
    assert text(parsed) == ['{"city": "Paris"}']
    assert text(refused) == ["I can't."]


def test_helpers_for_streams_make_one_span_each(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat_chunks("a", "b", usage=shapes.USAGE), shapes.response_events("c", "d"))
    with client.chat.completions.stream(model=MODEL, messages=ASKED) as chat:
        assert chat.get_final_completion().choices[0].message.content == "ab"
    with client.responses.stream(model=MODEL, input="Hi") as response:
        assert response.get_final_response().output_text == "cd"
    llmobs.flush(10)
    assert [text(span) for span in sent.spans] == [["ab"], ["cd"]]
    assert sent.spans[1].attributes["openai.api.type"] == "responses"
    assert sent.spans[1].attributes["gen_ai.usage.cache_read.input_tokens"] == 60
    assert faults(sent) == []


def test_responses_and_embeddings_are_read(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    vectors = [{"object": "embedding", "index": 0, "embedding": [0.25] * 16}]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    provider.say(
        shapes.response("hey"),
        {"object": "list", "data": vectors, "model": "text-embedding-3-small", "usage": usage},
    )
    client.responses.create(
        model=MODEL, input="Hi", instructions="Be nice.", reasoning={"effort": "low"}
    )
    client.embeddings.create(model="text-embedding-3-small", input="x", encoding_format="float")
    llmobs.flush(10)
    response, embedding = sent.spans
    assert said(response, "gen_ai.system_instructions")[0]["content"] == "Be nice."
    assert response.attributes["gen_ai.request.reasoning.level"] == "low"
    assert response.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert embedding.name == "embeddings text-embedding-3-small"
    assert embedding.attributes["gen_ai.usage.input_tokens"] == 9
    assert embedding.attributes["gen_ai.embeddings.dimension.count"] == 16
    assert faults(sent) == []


def test_text_completions_of_servers_that_speak_the_language_are_read(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    def said_by(text: str, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return {"id": "cmpl-1", "object": "text_completion", "model": "llama", "choices": [choice]}

    provider.say({**said_by("there", "length"), "usage": shapes.USAGE})
    provider.say([said_by("th"), said_by("ere", "stop"), shapes.DONE])
    client.completions.create(model="llama", prompt="Hi", max_tokens=1)
    list(client.completions.create(model="llama", prompt="Hi", stream=True))
    llmobs.flush(10)
    assert [text(span) for span in sent.spans] == [["there"], ["there"]]
    assert {span.name for span in sent.spans} == {"text_completion llama"}
    assert sent.point("gen_ai.client.inference.duration").count == 2
    assert faults(sent) == []


def test_raw_and_streaming_responses_stay_what_they_are(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat("a"), shapes.chat("b"), shapes.chat_chunks("c", usage=shapes.USAGE))
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASKED)
    assert raw.parse().choices[0].message.content == "a"
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=ASKED
    ) as body:
        assert json.loads(b"".join(body.iter_bytes()))["choices"][0]["message"]["content"] == "b"
    streamed = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASKED, stream=True
    )
    assert len(list(streamed.parse())) == 4
    llmobs.flush(10)
    assert [text(span) for span in sent.spans] == [["a"], ["b"], ["c"]]
    assert {span.attributes["gen_ai.usage.input_tokens"] for span in sent.spans} == {100}


def test_an_error_passes_unchanged_and_is_told(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say({"error": {"message": "no such model", "type": "x"}}, status=404)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="nope", messages=ASKED)
    span = one(sent)
    assert span.status == 2
    assert span.attributes["error.type"] == "openai.NotFoundError"
    assert "gen_ai.usage.input_tokens" not in span.attributes


def test_a_timeout_is_told(provider: Stub, client: openai.OpenAI, sent: Receiver) -> None:
    provider.say(shapes.chat("late"), delay_s=1.0)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.1, max_retries=0).chat.completions.create(
            model=MODEL, messages=ASKED
        )
    assert one(sent).attributes["error.type"] == "openai.APITimeoutError"


def test_the_clients_own_retries_are_one_call(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    busy = Reply({"error": {"message": "busy"}}, status=500, headers={"retry-after-ms": "1"})
    provider.say(busy, busy, shapes.chat("at last"))
    client.chat.completions.create(model=MODEL, messages=ASKED)
    span = one(sent)
    assert span.attributes["llmobs.attempts"] == 3
    assert span.status == 0
    assert sent.point("gen_ai.client.inference.usage.input_tokens").total == 100


def test_a_stream_that_breaks_or_tells_of_an_error_fails_its_span(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    chunks = shapes.chat_chunks("Hel", "lo")
    provider.say(chunks[:2], is_cut=True)
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
    provider.say([*chunks[:2], {"error": {"message": "overloaded", "type": "server_error"}}])
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
    llmobs.flush(10)
    cut, told = sent.spans
    assert cut.status == told.status == 2
    assert cut.attributes["error.type"].endswith("RemoteProtocolError")
    assert told.attributes["error.type"] == "server_error"
    assert told.message == "overloaded"


def test_a_streamed_response_that_fails_fails_its_span(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    events = shapes.response_events("Hel")[:4]
    failed = {**shapes.response("", "failed"), "output": []}
    failed["error"] = {"code": "server_error", "message": "try again"}
    provider.say([*events, {"type": "response.failed", "response": failed, "sequence_number": 4}])
    list(client.responses.create(model=MODEL, input="Hi", stream=True))
    span = one(sent)
    assert (span.status, span.message) == (2, "try again")
    assert span.attributes["error.type"] == "server_error"
    assert text(span) == ["Hel"]


def test_coroutines_and_their_streams_are_traced_alike(provider: Stub, sent: Receiver) -> None:
    provider.say(shapes.chat("a"), shapes.chat_chunks("b", usage=shapes.USAGE))
    provider.say(shapes.chat_chunks(*["x"] * 30), shapes.response_events("c"))

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="none", base_url=provider.url) as client:
            create: Any = client.chat.completions.create
            await create(model=MODEL, messages=ASKED)
            stream = await create(model=MODEL, messages=ASKED, stream=True)
            assert type(stream) is openai.AsyncStream
            assert len([chunk async for chunk in stream]) == 4
            async for _ in await create(model=MODEL, messages=ASKED, stream=True):
                break  # and forgotten
            gc.collect()
            async with client.responses.stream(model=MODEL, input="Hi") as response:
                assert (await response.get_final_response()).output_text == "c"

    asyncio.run(main())
    llmobs.flush(10)
    assert len(sent.spans) == 4
    assert {span.status for span in sent.spans} <= {0}
    assert faults(sent) == []


def test_a_call_that_is_cancelled_ends_and_calls_at_once_keep_their_parents(
    provider: Stub, sent: Receiver
) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="none", base_url=provider.url) as client:

            @llmobs.observe(kind="agent")
            async def agent() -> Any:
                return await client.chat.completions.create(model=MODEL, messages=ASKED)

            provider.say(shapes.chat("late"), delay_s=1.0)
            late = asyncio.ensure_future(agent())
            await asyncio.sleep(0.1)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            provider.say(*[shapes.chat("hello")] * 12)
            await asyncio.gather(*[agent() for _ in range(12)])

    asyncio.run(main())
    llmobs.flush(10)
    agents = {span.span_id for span in sent.spans if span.name == "invoke_agent agent"}
    chats = [span for span in sent.spans if span.name == f"chat {MODEL}"]
    assert {span.parent_id for span in chats} == agents
    assert len(agents) == 13
    errors = [span.attributes["error.type"] for span in chats if span.status]
    assert errors == ["asyncio.exceptions.CancelledError"]


@pytest.mark.parametrize("mode", ["metadata", "off", "redacted"])
def test_no_more_content_leaves_than_may(
    provider: Stub, client: openai.OpenAI, start: Start, mode: str
) -> None:
    otlp = start(capture_content=mode)
    llmobs.instrument("openai")
    provider.say(shapes.chat("ask jo@shop.example"), shapes.chat_chunks("ask jo@shop", ".example"))
    asked: Any = [{"role": "user", "content": "I am al@shop.example"}]
    client.chat.completions.create(model=MODEL, messages=asked)
    list(client.chat.completions.create(model=MODEL, messages=asked, stream=True))
    llmobs.flush(10)
    everything = b"".join(body for _, body, _ in otlp.requests)
    assert len(otlp.spans) == 2
    assert b"@shop" not in everything
    assert (b"[EMAIL]" in everything) is (mode == "redacted")
    assert otlp.spans[0].attributes["gen_ai.usage.input_tokens"] == 100


def test_a_picture_leaves_as_a_reference(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat("a cat"))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJDREVGR0g="}}
    asked: Any = [{"role": "user", "content": [{"type": "text", "text": "What?"}, picture]}]
    client.chat.completions.create(model=MODEL, messages=asked)
    one(sent)
    assert b"QUJDREVGR0g" not in b"".join(body for _, body, _ in sent.requests)


def test_a_chat_decorator_around_the_client_steps_back(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat("hello"))

    @llmobs.observe(kind="chat", model=MODEL)
    def ask(prompt: str) -> Any:
        return client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}]
        )

    ask("Hi")
    llmobs.flush(10)
    inner = sent.span(f"chat {MODEL}")
    assert inner.parent_id == sent.span("invoke_workflow ask").span_id
    assert sent.point("gen_ai.client.inference.usage.input_tokens").total == 100


def test_a_span_of_another_instrumentation_for_the_same_call_is_enough(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    provider.say(shapes.chat("hello"))
    facts = {"gen_ai.operation.name": "chat", "gen_ai.request.model": MODEL}
    with trace.get_tracer("other").start_as_current_span("theirs", attributes=facts):
        client.chat.completions.create(model=MODEL, messages=ASKED)
    llmobs.flush(10)
    assert [span.name for span in sent.spans] == ["theirs"]


def test_taken_back_all_is_as_before(provider: Stub, client: openai.OpenAI, start: Start) -> None:
    from openai._base_client import SyncAPIClient

    before = SyncAPIClient.request
    otlp = start(instrument=["openai"])
    assert SyncAPIClient.request is not before
    assert llmobs.uninstrument() == ["openai"]
    assert SyncAPIClient.request is before
    provider.say(shapes.chat("hello"))
    client.chat.completions.create(model=MODEL, messages=ASKED)
    llmobs.flush(10)
    assert otlp.spans == []


def test_whom_a_compatible_client_speaks_to_is_told_from_its_address(
    provider: Stub, sent: Receiver
) -> None:
    provider.say(shapes.chat("a"))
    with openai.AzureOpenAI(
        api_key="none", azure_endpoint=provider.url, api_version="2024-10-21"
    ) as client:
        client.chat.completions.create(model="my-deployment", messages=ASKED)
    span = one(sent)
    assert span.attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert span.attributes["gen_ai.request.model"] == "my-deployment"


@pytest.mark.parametrize("kind", ["chat", "workflow"])
def test_what_a_decorator_says_of_content_holds_for_the_clients_below(
    provider: Stub, client: openai.OpenAI, sent: Receiver, kind: Any
) -> None:
    @llmobs.observe
    def route() -> None:
        client.chat.completions.create(model=MODEL, messages=ASKED)

    @llmobs.observe(kind=kind, capture_content="off")
    def ask() -> None:
        route()

    provider.say(shapes.chat("the secret"))
    ask()
    llmobs.flush(10)
    span = sent.span(f"chat {MODEL}")
    assert span.attributes["llmobs.content"] == "off"
    assert "the secret" not in str(span.attributes)
    assert span.attributes["gen_ai.usage.input_tokens"] == 100


def test_pictures_that_a_model_draws_leave_as_references(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    picture = "QUJDREVGR0hJSktM" * 40
    drawn = {
        "id": "ig_1",
        "type": "image_generation_call",
        "status": "completed",
        "result": picture,
    }
    whole = shapes.response("here")
    whole["output"].insert(0, drawn)
    provider.say(whole)
    client.responses.create(model=MODEL, input="Draw a cat")
    one(sent)
    everything = b"".join(body for _, body, _ in sent.requests)
    assert picture[:100].encode() not in everything
    assert b"urn:sha256:" in everything


def test_a_subclass_of_a_client_speaks_to_the_same_provider(provider: Stub, sent: Receiver) -> None:
    class Ours(openai.AzureOpenAI):
        pass

    provider.say(shapes.chat("a"))
    with Ours(api_key="none", azure_endpoint=provider.url, api_version="2024-10-21") as client:
        client.chat.completions.create(model="d", messages=ASKED)
    assert one(sent).attributes["gen_ai.provider.name"] == "azure.ai.openai"


def test_a_packed_stream_is_cut_to_the_longest_text_that_may_leave(
    provider: Stub, client: openai.OpenAI, start: Start
) -> None:
    otlp = start(max_characters=2_000)
    llmobs.instrument("openai")
    events = [
        e if isinstance(e, str) else f"data: {json.dumps(e)}\n\n"
        for e in shapes.chat_chunks("x" * 30_000)
    ]
    packed = gzip.compress("".join(events).encode())
    headers = {"Content-Encoding": "gzip"}
    provider.say(Reply(packed, headers=headers))
    list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
    span = one(otlp)
    assert text(span) == ["x" * 2_000]
    assert span.attributes["llmobs.content.truncated"] is True


def test_a_stream_through_a_transport_of_the_applications_ends_its_span(
    provider: Stub, sent: Receiver
) -> None:
    class Theirs(httpx.Response):
        pass

    class Transport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            got = super().handle_request(request)
            return Theirs(
                got.status_code,
                headers=got.headers,
                stream=got.stream,
                extensions=got.extensions,
            )

    provider.say(shapes.chat_chunks("Hel", "lo."))
    http: Any = httpx.Client(transport=Transport())
    with openai.OpenAI(api_key="none", base_url=provider.url, http_client=http) as client:
        for _ in client.chat.completions.create(model=MODEL, messages=ASKED, stream=True):
            pass
        assert text(one(sent)) == ["Hello."]


def test_of_a_thousand_embeddings_little_is_kept_and_read(
    provider: Stub, client: openai.OpenAI, sent: Receiver
) -> None:
    vectors = [{"object": "embedding", "index": n, "embedding": [0.25] * 256} for n in range(1_000)]
    said = {"object": "list", "data": vectors, "model": "e-1", "usage": {"prompt_tokens": 8}}
    provider.say(said)
    client.embeddings.create(model="e", input="Hi", encoding_format="float")
    span = one(sent)
    assert span.attributes["gen_ai.usage.input_tokens"] == 8
    assert span.attributes["gen_ai.response.model"] == "e-1"
    assert span.attributes["gen_ai.embeddings.dimension.count"] == 256
    exchange = Exchange(Api("embeddings", "input"))
    exchange.keep(json.dumps(said).encode())
    assert exchange.size < 3_000

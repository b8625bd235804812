"""LiteLLM's real package against a provider in this process."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

import llmobs
from tests.sdk.conftest import Start
from tests.sdk.integrations import stub as shapes
from tests.sdk.integrations.stub import Stub
from tests.sdk.receiver import Receiver
from tests.sdk.test_conformance import faults

pytestmark = pytest.mark.filterwarnings("default")  # of its own, at import and at calls

ASKED: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def to(provider: Stub, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return {"api_base": provider.url, "api_key": "none"}


@pytest.fixture
def sent(start: Start) -> Receiver:
    otlp = start()
    assert llmobs.instrument("openai", "litellm") == ["openai", "litellm"]
    return otlp


def text(otlp: Receiver, number: int = 0) -> str:
    messages = json.loads(otlp.spans[number].attributes["gen_ai.output.messages"])
    return "".join(part["content"] for message in messages for part in message["parts"])


def test_a_completion_is_one_span_and_the_client_below_makes_none(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    provider.say(shapes.chat("hello"))
    answer = litellm.completion("openai/gpt-4o-mini", ASKED, temperature=0.5, **to)
    assert isinstance(answer, litellm.ModelResponse)
    llmobs.flush(10)
    (span,) = sent.spans
    facts = span.attributes
    assert span.name == "chat gpt-4o-mini"
    assert facts["gen_ai.provider.name"] == "openai"
    assert facts["gen_ai.request.temperature"] == 0.5
    assert facts["gen_ai.usage.input_tokens"] == 100
    assert facts["gen_ai.usage.cache_read.input_tokens"] == 60
    assert text(sent) == "hello"
    assert faults(sent) == []


def test_streams_and_coroutines_are_one_span_each(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    provider.say(
        shapes.chat_chunks("Hel", "lo.", usage=shapes.USAGE),
        shapes.chat("a"),
        shapes.chat_chunks("b", usage=shapes.USAGE),
    )
    more: Any = {"stream": True, "stream_options": {"include_usage": True}}
    stream = litellm.completion("openai/gpt-4o-mini", ASKED, **to, **more)
    assert isinstance(stream, litellm.CustomStreamWrapper)
    list(stream)

    async def main() -> None:
        await litellm.acompletion("openai/gpt-4o-mini", ASKED, **to)
        async for _ in await litellm.acompletion("openai/gpt-4o-mini", ASKED, **to, **more):
            pass

    asyncio.run(main())
    llmobs.flush(10)
    assert [text(sent, number) for number in range(3)] == ["Hello.", "a", "b"]
    assert sent.spans[0].attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert {span.attributes["gen_ai.usage.input_tokens"] for span in sent.spans} == {100}
    assert faults(sent) == []


def test_another_provider_is_told_by_its_name(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    provider.say(shapes.message({"type": "text", "text": "hey"}))
    litellm.completion("anthropic/claude-test", ASKED, max_tokens=9, **to)
    llmobs.flush(10)
    (span,) = sent.spans
    assert span.name == "chat claude-test"
    assert span.attributes["gen_ai.provider.name"] == "anthropic"
    assert span.attributes["gen_ai.usage.input_tokens"] == 100
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 60
    assert span.attributes["gen_ai.usage.cache_write.input_tokens"] == 30


def test_embeddings_and_errors_are_told(provider: Stub, to: dict[str, Any], sent: Receiver) -> None:
    import litellm

    vectors = [{"object": "embedding", "index": 0, "embedding": [0.25] * 16}]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    provider.say(
        {"object": "list", "data": vectors, "model": "text-embedding-3-small", "usage": usage}
    )
    litellm.embedding("openai/text-embedding-3-small", ["x"], **to)
    provider.say({"error": {"message": "bad", "type": "x", "code": "y"}}, status=400)
    with pytest.raises(litellm.exceptions.BadRequestError, match="bad"):
        litellm.completion("openai/gpt-4o-mini", ASKED, **to)
    llmobs.flush(10)
    embedding, failed = sent.spans
    assert embedding.name == "embeddings text-embedding-3-small"
    assert embedding.attributes["gen_ai.usage.input_tokens"] == 9
    assert failed.status == 2
    assert failed.attributes["error.type"].endswith("BadRequestError")


def test_a_rerank_shows_query_and_scores(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]
    provider.say({"id": "r", "results": results, "meta": {"billed_units": {"search_units": 1}}})
    litellm.rerank("cohere/rerank-v3.5", "What?", ["a", "b"], top_n=2, **to)
    llmobs.flush(10)
    (span,) = sent.spans
    assert span.attributes["llmobs.kind"] == "rerank"
    assert span.attributes["gen_ai.request.model"] == "rerank-v3.5"
    assert span.attributes["gen_ai.retrieval.query.text"] == "What?"
    documents = json.loads(span.attributes["gen_ai.retrieval.documents"])
    assert [document["score"] for document in documents] == [0.9, 0.2]


def test_names_that_were_imported_before_are_traced_and_given_back(
    provider: Stub, to: dict[str, Any], start: Start
) -> None:
    import litellm

    globals()["completion"] = before = litellm.completion
    otlp = start(instrument=["litellm"])
    provider.say(shapes.chat("hello"), shapes.chat("again"))
    globals()["completion"]("openai/gpt-4o-mini", ASKED, **to)
    llmobs.uninstrument()
    assert globals().pop("completion") is before is litellm.completion
    before("openai/gpt-4o-mini", ASKED, **to)
    llmobs.flush(10)
    assert len(otlp.spans) == 1


def test_a_span_of_another_instrumentation_for_the_same_call_is_enough(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    provider.say(shapes.chat("hello"), shapes.chat("hello"))
    facts = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
    with trace.get_tracer("other").start_as_current_span("theirs", attributes=facts):
        litellm.completion("openai/gpt-4o-mini", ASKED, **to)
    with suppress_instrumentation():
        litellm.completion("openai/gpt-4o-mini", ASKED, **to)
    llmobs.flush(10)
    assert [span.name for span in sent.spans] == ["theirs"]


def test_what_a_decorator_says_of_content_holds_below(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    @llmobs.observe(kind="chat", capture_content="off")
    def ask() -> Any:
        return litellm.completion("openai/gpt-4o-mini", ASKED, **to)

    provider.say(shapes.chat("the secret"))
    ask()
    llmobs.flush(10)
    span = sent.span("chat gpt-4o-mini")
    assert span.attributes["llmobs.content"] == "off"
    assert "the secret" not in str(span.attributes)


def test_one_name_at_two_addresses_is_two_providers(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    for base in ("https://api.groq.com/openai/v1", "https://api.deepseek.com/v1"):
        with suppress(Exception):
            litellm.completion(
                "some-model", ASKED, api_key="none", api_base=base, mock_response="hello"
            )
    llmobs.flush(10)
    providers = [span.attributes["gen_ai.provider.name"] for span in sent.spans]
    assert providers == ["groq", "deepseek"]


def test_a_stream_that_is_closed_ends_its_span_though_it_is_still_held(
    provider: Stub, to: dict[str, Any], sent: Receiver
) -> None:
    import litellm

    provider.say(shapes.chat_chunks(*["x"] * 20))

    async def main() -> None:
        stream: Any = await litellm.acompletion("openai/gpt-4o-mini", ASKED, stream=True, **to)
        await anext(stream)
        await stream.aclose()
        await asyncio.to_thread(llmobs.flush, 10)
        assert [span.name for span in sent.spans] == ["chat gpt-4o-mini"]

    asyncio.run(main())

"""Responses of the providers, as their clients return them."""

from __future__ import annotations

from typing import Any

import pytest

from llmobs.sdk.content import text_message
from llmobs.sdk.usage import Usage, estimate_usage, read_answer, read_stream, read_usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 60},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(100, 20, 60, None, 5),
        ),
        (
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "input_tokens_details": {"cached_tokens": 60},
                "output_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(100, 20, 60, None, 5),
        ),
        (  # Anthropic reports cached input apart
            {
                "input_tokens": 10,
                "output_tokens": 20,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 30,
            },
            Usage(100, 20, 60, 30),
        ),
        (  # so does Bedrock
            {"inputTokens": 40, "outputTokens": 2, "cacheReadInputTokens": 60},
            Usage(100, 2, 60, None),
        ),
        (  # Gemini reports thoughts apart
            {
                "prompt_token_count": 100,
                "candidates_token_count": 15,
                "thoughts_token_count": 5,
                "cached_content_token_count": 60,
            },
            Usage(100, 20, 60, None, 5),
        ),
        (  # LangChain's counts include both
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "input_token_details": {"cache_read": 60, "cache_creation": 30},
                "output_token_details": {"reasoning": 5},
            },
            Usage(100, 20, 60, 30, 5),
        ),
        (  # sound and pictures are parts too; OpenAI says 0 of what there is none of
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"audio_tokens": 30, "image_tokens": 50},
                "completion_tokens_details": {"audio_tokens": 0, "image_tokens": 12},
            },
            Usage(100, 20, audio_input_tokens=30, image_input_tokens=50, image_output_tokens=12),
        ),
        (  # LiteLLM says what was written to a cache beside Anthropic's own names
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 30},
                "cache_creation_input_tokens": 30,
                "cache_read_input_tokens": 60,
            },
            Usage(100, 20, 60, 30),
        ),
        ({"prompt_eval_count": 3, "eval_count": 4}, Usage(3, 4)),
        ({"tokens": {"input_tokens": 3, "output_tokens": 4}}, Usage(3, 4)),
        ({"input_tokens": 3, "cache_read_tokens": 2}, Usage(3, None, 2)),
        ({"total": 3, "input_tokens": True, "output_tokens": -1}, None),
    ],
)
def test_tokens_are_counted_as_the_conventions_do(
    reported: dict[str, Any], usage: Usage | None
) -> None:
    assert read_usage(reported) == usage


def text(answer: Any) -> str:
    return "".join(p.get("content", "") for m in answer.messages for p in m["parts"])


def test_a_chat_completion_is_read() -> None:
    answer = read_answer(
        {
            "id": "c1",
            "model": "gpt",
            "choices": [
                {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        }
    )
    assert text(answer) == "hi"
    assert (answer.response_id, answer.model, answer.finish_reasons) == ("c1", "gpt", ["stop"])
    assert answer.usage == Usage(1, 2)


def test_a_response_of_the_responses_api_is_read() -> None:
    answer = read_answer(
        {
            "id": "r1",
            "model": "gpt",
            "status": "completed",
            "output": [
                {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
                {"type": "function_call", "call_id": "t", "name": "f", "arguments": "{}"},
            ],
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    assert text(answer) == "hi"
    assert answer.messages[0]["parts"][1]["type"] == "tool_call"
    assert answer.finish_reasons == ["tool_call"]


def test_a_message_of_anthropic_is_read() -> None:
    answer = read_answer(
        {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [{"type": "text", "text": "hi"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    assert text(answer) == "hi"
    assert answer.finish_reasons == ["end_turn"]


@pytest.mark.parametrize(
    "response",
    [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}}]},
        {"output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}}},
        {"message": {"role": "assistant", "content": "hi"}},
        {"answer": "hi"},
        "hi",
    ],
)
def test_other_shapes_are_read(response: Any) -> None:
    assert text(read_answer(response)) == "hi"


def test_an_embedding_has_a_size() -> None:
    assert read_answer({"data": [{"embedding": {"n_dimensions": 1536}}]}).n_dimensions == 1536
    assert read_answer({"embeddings": [[1, 2, 3]]}).n_dimensions == 3


def test_a_stream_of_anthropic_is_joined() -> None:
    answer = read_stream(
        [
            {
                "type": "message_start",
                "message": {
                    "id": "m1",
                    "model": "claude",
                    "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1},
                },
            },
            {"type": "content_block_delta", "index": 0, "delta": {"text": "he"}},
            {"type": "content_block_delta", "index": 0, "delta": {"text": "llo"}},
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "tool_use", "id": "t", "name": "f"},
            },
            {"type": "content_block_delta", "index": 1, "delta": {"partial_json": '{"a"'}},
            {"type": "content_block_delta", "index": 1, "delta": {"partial_json": ": 1}"}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use"},
                "usage": {"output_tokens": 9},
            },
        ]
    )
    assert answer.messages[0]["parts"] == [
        {"type": "text", "content": "hello"},
        {"type": "tool_call", "id": "t", "name": "f", "arguments": {"a": 1}},
    ]
    assert answer.usage == Usage(7, 9, 2, None)
    assert answer.finish_reasons == ["tool_use"]


def test_a_stream_of_responses_events_takes_the_completed_response() -> None:
    whole = {
        "id": "r1",
        "model": "gpt",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}],
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    deltas = [{"type": "response.output_text.delta", "delta": piece} for piece in ("hel", "lo")]
    assert text(read_stream(deltas)) == "hello"
    answer = read_stream([*deltas, {"type": "response.completed", "response": whole}])
    assert text(answer) == "hello"
    assert answer.usage == Usage(1, 2)


def test_tool_calls_of_a_chat_stream_are_put_together() -> None:
    def delta(**call: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}

    answer = read_stream(
        [
            delta(id="t1", function={"name": "f", "arguments": '{"a'}),
            delta(function={"arguments": '": 1}'}),
        ]
    )
    (part,) = answer.messages[0]["parts"]
    assert part == {"type": "tool_call", "id": "t1", "name": "f", "arguments": {"a": 1}}


def test_tokens_are_reckoned_from_bytes_and_messages() -> None:
    asked = [text_message("system", "x" * 40), text_message("user", "ж" * 20)]
    call = {"type": "tool_call", "id": "t", "name": "find", "arguments": {"q": "x" * 12}}
    answered = [{"role": "assistant", "parts": [call]}]
    assert estimate_usage(asked, answered) == Usage(2 * 3 + 20, 3 + 7)
    assert estimate_usage([], []) == Usage(None, 0)


def test_a_response_that_breaks_off_shows_what_had_come() -> None:
    item = {"type": "function_call", "id": "i", "call_id": "t", "name": "f", "arguments": "{}"}
    answer = read_stream(
        [
            {"type": "response.created", "response": {"id": "r", "model": "m", "output": []}},
            {"type": "response.refusal.delta", "delta": "I can"},
            {"type": "response.refusal.delta", "delta": "'t."},
            {"type": "response.output_item.done", "item": item},
        ]
    )
    assert answer.response_id == "r"
    (message,) = answer.messages
    assert message["parts"] == [
        {"type": "text", "content": "I can't."},
        {"type": "tool_call", "name": "f", "id": "t", "arguments": {}},
    ]


def test_what_is_spoken_is_read_by_its_transcript() -> None:
    pieces = [{"audio": {"id": "a"}}, {"audio": {"transcript": "Hel"}}]
    pieces.append({"audio": {"transcript": "lo", "data": "AAAA"}})
    chunks = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    assert text(read_stream(chunks)) == "Hello"

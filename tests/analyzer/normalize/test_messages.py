from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs.analyzer.normalize import messages

texts = st.text(max_size=60)
names = st.sampled_from(
    [
        "role",
        "content",
        "parts",
        "messages",
        "type",
        "text",
        "tool_calls",
        "kwargs",
        "args",
        "id",
        "function",
        "name",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(anything)
def test_any_json_becomes_canonical_messages(value: Any) -> None:
    made = messages.canonical(json.dumps(value), "user")
    again = messages.read_canonical(messages.dumps(made))
    assert again is not None
    messages.input_texts(again)
    messages.output_text(again)


@pytest.mark.parametrize(
    ("sent", "user"),
    [
        ("hello", "hello"),
        ('"hello"', "hello"),
        ('[{"role":"user","content":"hello"}]', "hello"),
        ('[{"role":"user","content":[{"type":"text","text":"a"}, {"text":"b"}]}]', "a\nb"),
        ('{"messages":[{"role":"user","content":"x"},{"role":"user","content":"hello"}]}', "hello"),
        ('[{"role":"human","content":"hello"}]', "hello"),
        ('{"role":"user","parts":[{"text":"hello"}]}', "hello"),
        ('{"question":"hello"}', "hello"),
        ('{"a":1,"b":2}', '{"a":1,"b":2}'),
        ('["one","two"]', "two"),
        ("{broken", "{broken"),
        ('{"messages":[[{"type":"human","content":"hello"}]]}', "hello"),
    ],
)  # fmt: skip
def test_what_the_user_said_is_found_in_every_shape(sent: str, user: str) -> None:
    assert messages.input_texts(messages.canonical(sent, "user")).user == user


@pytest.mark.parametrize("depth", [70, 200, 330, 480, 900, 100_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"content":', "}"), ('{"a":[', "]}")])
def test_deep_json_is_taken_as_text(depth: int, begin: str, end: str) -> None:
    text = begin * depth + '"x"' + end * depth
    assert messages.read_canonical(text) is None
    assert messages.canonical(text, "user")[0]["parts"][0]["content"] == text


def test_many_messages_are_not_deep_ones() -> None:
    sent = json.dumps([{"role": "user", "content": "hi"}] * 200)
    assert len(messages.canonical(sent, "user")) == 200


BASE64 = "iVBORw0KGgo="
IMAGES = [
    {"type": "image", "source": {"type": "base64", "data": BASE64}},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
    {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"},
    {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
    {"type": "blob", "mime_type": "image/png", "content": BASE64},
    {"image": {"format": "png", "source": {"bytes": BASE64}}},
    {"inlineData": {"mimeType": "image/png", "data": BASE64}},
]


@pytest.mark.parametrize("image", IMAGES)
def test_images_are_kept_in_messages_and_are_no_text(image: dict[str, Any]) -> None:
    text = {"type": "text", "text": "what is it?"}
    shapes: list[Any] = [
        [{"role": "user", "content": [image, text]}],
        {"messages": [{"role": "user", "content": [text, image]}]},
        [{"role": "user", "parts": [{"text": "what is it?"}, image]}],
    ]
    if "type" in image:
        shapes.append([text, image])
    for shape in shapes:
        made = messages.canonical(json.dumps(shape), "user")
        assert messages.input_texts(made).user == "what is it?"
        assert BASE64 in messages.dumps(made)
        assert messages.read_canonical(messages.dumps(made)) == made
    tool = [{"role": "tool", "parts": [{"type": "tool_call_response", "response": [image, text]}]}]
    if "type" in image:
        assert messages.input_texts(tool).context == "what is it?"


def test_tool_calls_and_answers_are_found_whoever_wrote_them() -> None:
    call = {"type": "tool_call", "name": "f", "arguments": {"a": 1}}
    answer = {"type": "tool_call_response", "response": "42"}
    responses = [  # OpenAI
        {"role": "user", "content": "hi"},
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c",
            "name": "f",
            "arguments": '{"a":1}',
        },
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]
    gemini = [
        {"role": "user", "parts": [{"text": "hi"}]},
        {"role": "model", "parts": [{"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}}]},
        {"role": "tool", "parts": [{"functionResponse": {"id": "c", "response": "42"}}]},
    ]
    bedrock = [
        {"role": "user", "content": [{"text": "hi"}]},
        {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "c", "name": "f", "input": {"a": 1}}}],
        },
        {"role": "tool", "content": [{"toolResult": {"toolUseId": "c", "content": "42"}}]},
    ]
    for sent in (responses, gemini, bedrock):
        made = messages.canonical(json.dumps(sent), "user")
        assert [m["role"] for m in made] == ["user", "assistant", "tool"]
        assert made[1]["parts"] == [call | {"id": "c"}]
        assert made[2]["parts"] == [answer | {"id": "c"}]
        assert messages.input_texts(made) == ("hi", "", "42")


def test_system_instructions_are_parts_or_text() -> None:
    parts = [{"type": "text", "content": "a"}, {"type": "text", "content": "b"}]
    assert messages.instructions_text(json.dumps(parts)) == "a\nb"
    assert messages.instructions_text("plain") == "plain"

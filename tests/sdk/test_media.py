"""Pictures, sounds and files leave as references, whichever way they were given to a model."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import jsonschema
import pytest

import llmobs
from llmobs.sdk.content import to_messages
from llmobs.sdk.media import described_bytes, without_media
from tests.sdk.conftest import Start
from tests.sdk.test_conformance import RULES

PICTURE = bytes(range(256)) * 40
ENCODED = base64.b64encode(PICTURE).decode()
URN = f"urn:sha256:{hashlib.sha256(PICTURE).hexdigest()}"
PNG = {"type": "uri", "uri": URN, "size_bytes": len(PICTURE), "mime_type": "image/png"}
PNG |= {"modality": "image"}
DATA_URL = f"data:image/png;base64,{ENCODED}"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        pytest.param(
            {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}}, PNG, id="chat"
        ),
        pytest.param({"type": "input_image", "image_url": DATA_URL}, PNG, id="responses"),
        pytest.param(
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": ENCODED},
            },
            PNG,
            id="anthropic",
        ),
        pytest.param(
            {"inline_data": {"mime_type": "image/png", "data": ENCODED}}, PNG, id="gemini"
        ),
        pytest.param({"type": "image", "data": ENCODED, "mimeType": "image/png"}, PNG, id="mcp"),
        pytest.param(
            {"inlineData": {"mimeType": "image/png", "data": described_bytes(PICTURE)}},
            PNG,
            id="bytes",
        ),
        pytest.param(
            {"type": "blob", "modality": "image", "mime_type": "image/png", "content": ENCODED},
            PNG,
            id="conventions",
        ),
        pytest.param(
            {"image": {"format": "png", "source": {"bytes": described_bytes(PICTURE)}}},
            {k: v for k, v in PNG.items() if k != "mime_type"},
            id="bedrock",
        ),
        pytest.param(
            {"type": "input_audio", "input_audio": {"data": ENCODED, "format": "wav"}},
            {"type": "uri", "uri": URN, "size_bytes": len(PICTURE), "modality": "audio"},
            id="sound",
        ),
        pytest.param(
            {"type": "file", "file": {"file_id": "file-1"}},
            {"type": "file", "file_id": "file-1", "modality": "document"},
            id="file",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
            {"type": "uri", "uri": "https://x/a.pdf", "modality": "document"},
            id="url",
        ),
        pytest.param(
            {"file_data": {"file_uri": "gs://b/a.mp4", "mime_type": "video/mp4"}},
            {
                "type": "uri",
                "uri": "gs://b/a.mp4",
                "mime_type": "video/mp4",
                "modality": "video",
            },
            id="bucket",
        ),
    ],
)
def test_a_part_becomes_a_reference(part: dict[str, Any], expected: dict[str, Any]) -> None:
    messages = to_messages([{"role": "user", "content": [part]}])
    assert messages[0]["parts"] == [expected]
    schema = RULES["content_schemas"]["gen_ai.input.messages"]
    jsonschema.Draft202012Validator(schema).validate(messages)


def test_a_picture_that_a_tool_returns_is_a_reference_too(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="mcp", name="draw")
    def draw(size: int) -> dict[str, Any]:
        return {"content": [{"type": "image", "data": ENCODED, "mimeType": "image/png"}]}

    @llmobs.observe(kind="chat", model="m")
    def ask(messages: list[Any]) -> str:
        return "fine"

    result = {"type": "image", "source": {"type": "base64", "data": ENCODED}}
    draw(3)
    ask(
        [
            {"role": "user", "content": [{"type": "tool_result", "content": [result]}]},
            {"role": "user", "parts": [{"inline_data": {"mime_type": "a/b", "data": PICTURE}}]},
        ]
    )
    assert llmobs.flush(5)
    body = b"".join(otlp.bodies("/v1/traces"))
    assert ENCODED[:100].encode() not in body
    assert PICTURE[:100] not in body
    assert body.count(URN.encode()) == 3
    shown = otlp.span("tools/call draw").attributes["gen_ai.tool.call.result"]
    assert json.loads(shown)["content"][0]["data"] == URN


@pytest.mark.parametrize(
    "value",
    [
        {"data": "a plain sentence, said again and again. " * 20},
        {"data": "short"},
        {"data": {"data": 3}},
        "data:text/plain,hello",
        ["x", None, 1.5],
    ],
)
def test_what_is_no_file_stays(value: Any) -> None:
    assert without_media(value) == value


def test_what_is_no_base64_is_a_reference_still() -> None:
    (message,) = to_messages([{"content": [{"type": "image", "data": "!" * 999}]}])
    assert message["parts"][0]["uri"].startswith("urn:sha256:")


def test_a_picture_in_whatever_a_workflow_takes_and_gives_is_a_reference(start: Start) -> None:
    otlp = start()
    url = f"data:image/png;base64,{ENCODED}"

    @llmobs.observe
    def describe(question: str, picture: Any) -> str:
        return f"![it]({url})"

    @llmobs.observe(kind="chat", model="m")
    def ask(messages: list[Any]) -> str:
        return "fine"

    describe("What?", {"image_url": url})
    describe("What?", {"data": ENCODED})
    seen = [{"type": "image_url", "image_url": {"url": url}}]
    ask([{"role": "tool", "tool_call_id": "1", "content": seen}])
    ask([{"role": "tool", "tool_call_id": "1", "content": json.dumps({"shot": url})}])
    ask([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": seen[0]}}]}])
    assert llmobs.flush(5)
    assert len(otlp.spans) == 5
    assert ENCODED[:100].encode() not in b"".join(otlp.bodies("/v1/traces"))
    assert "![it](urn:sha256:" in otlp.spans[0].attributes["gen_ai.output.messages"]

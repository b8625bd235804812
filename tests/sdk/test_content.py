"""Snapshots, messages of all dialects, capture modes and redaction."""

from __future__ import annotations

import dataclasses
import enum
import json
import time
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

import llmobs
from llmobs.sdk.content import MAX_NODES, Redactor, dump, freeze, pack, to_messages, unpack
from tests.sdk.conftest import Start

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_a_snapshot_of_plain_data_equals_them(value: Any) -> None:
    assert freeze(value)[0] == value
    assert unpack(pack(value)[0]) == value


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    tags: list[str]


def test_objects_of_plain_data_become_dicts_and_others_leave_their_name() -> None:
    value = {
        "point": Point(1, ["a"]),
        "space": types.SimpleNamespace(y=2),
        "enum": Colour.RED,
        "bytes": b"1234",
        "other": threading_lock(),
        3: (1, 2),
    }
    assert freeze(value)[0] == {
        "point": {"x": 1, "tags": ["a"]},
        "space": {"y": 2},
        "enum": "red",
        "bytes": "<4 bytes>",
        "other": "<lock>",
        "3": [1, 2],
    }


def threading_lock() -> Any:
    import threading

    return threading.Lock()


def test_a_snapshot_is_bounded() -> None:
    frozen, size = freeze([[n] for n in range(10 * MAX_NODES)])
    assert len(frozen) <= MAX_NODES
    assert size < 200 * MAX_NODES
    assert freeze([0.5] * 1536)[0] == {"n_dimensions": 1536}


CALL = {"type": "tool_call", "id": "t1", "name": "f", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"role": "user", "content": "hi"}, [{"type": "text", "content": "hi"}]),
        (
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            [{"type": "text", "content": "hi"}],
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "t1", "function": {"name": "f", "arguments": '{"a": 1}'}}],
            },
            [{"type": "text", "content": "null"}, CALL],
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}],
            },
            [CALL],
        ),
        (
            {"role": "tool", "tool_call_id": "t1", "content": "42"},
            [{"type": "tool_call_response", "id": "t1", "response": "42"}],
        ),
        (
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}],
            },
            [{"type": "tool_call_response", "id": "t1", "response": "42"}],
        ),
        (
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}]},
            [{"type": "reasoning", "content": "hm"}],
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}],
            },
            [{"type": "uri", "modality": "image", "uri": "http://x/a.png"}],
        ),
        ({"role": "model", "parts": [{"text": "hi"}]}, [{"type": "text", "content": "hi"}]),
        ({"role": "user", "parts": [CALL]}, [CALL]),
    ],
)  # fmt: skip
def test_messages_of_all_dialects_come_to_one_shape(
    message: dict[str, Any], parts: list[dict[str, Any]]
) -> None:
    (found,) = to_messages([message])
    expected = [part for part in parts if part.get("content") != "null"]
    assert found["parts"] == expected


def test_a_picture_within_a_url_is_not_sent() -> None:
    url = {"url": "data:image/png;base64," + "A" * 10_000}
    (message,) = to_messages(
        [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
    )
    assert len(json.dumps(message)) < 200


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail jo.doe+x@shop.example.org now", "mail [EMAIL] now"),
        ("card 4111 1111 1111 1111.", "card [CARD]."),
        ("order 4111 1111 1111 1112", "order 4111 1111 1111 1112"),
        ("key sk-proj-abcdefghijklmnop1234", "key [KEY]"),
        ("AKIAIOSFODNN7EXAMPLE", "[KEY]"),
        ("nothing here", "nothing here"),
    ],
)
def test_well_known_secrets_are_masked(text: str, masked: str) -> None:
    assert Redactor(1000).mask(text) == masked


def test_a_hook_sees_the_masked_text_and_fails_closed() -> None:
    assert Redactor(1000, lambda text: text.replace("Jo", "X")).mask("Jo a@b.org") == "X [EMAIL]"
    assert Redactor(1000, lambda text: str(1 // 0)).mask("secret") == "[REDACTION FAILED]"


SECRET = "write to jo@shop.example"


def run_all_kinds() -> None:
    @llmobs.observe(kind="tool")
    def tool(secret: str) -> dict[str, str]:
        return {"echo": secret}

    @llmobs.observe(kind="retrieval", name="kb")
    def find(query: str) -> list[dict[str, str]]:
        return [{"content": query}]

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt: str, system: str = "") -> str:
        return prompt

    @llmobs.observe(kind="chat", model="bad")
    def fail(prompt: str) -> str:
        raise ValueError(prompt)

    @llmobs.observe
    def flow(text: str) -> str:
        llmobs.current().set(attributes={"note": text} if CONTENT_IN_ATTRIBUTES else {})
        tool(text)
        find(text)
        with pytest.raises(ValueError, match="write"):
            fail(text)
        return ask(text, system=text)

    flow(SECRET)
    llmobs.flush(10)


CONTENT_IN_ATTRIBUTES = False


@pytest.mark.parametrize("mode", ["redacted", "metadata", "off"])
@pytest.mark.parametrize("place", ["span", "event", "both"])
def test_no_byte_of_what_is_private_leaves(start: Start, mode: str, place: str) -> None:
    otlp = start(capture_content=mode, content_place=place)
    run_all_kinds()
    everything = b"".join(body for _, body, _ in otlp.requests)
    assert len(otlp.spans) == 5
    assert b"jo@shop" not in everything
    assert (b"write to [EMAIL]" in everything) is (mode == "redacted")
    assert (b"write to" in everything) is (mode == "redacted")


def test_full_content_is_sent_once_by_default(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt: str) -> str:
        return "y"

    ask("needle-in-a-haystack")
    llmobs.flush(10)
    everything = b"".join(body for _, body, _ in otlp.requests)
    assert everything.count(b"needle-in-a-haystack") == 1


def test_content_on_events_is_structured_and_not_on_the_span(start: Start) -> None:
    otlp = start(content_place="event")

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt: str) -> str:
        return "y"

    ask("x")
    llmobs.flush(10)
    (event,) = otlp.events
    assert event.name == "gen_ai.client.inference.operation.details"
    assert event.severity == 5
    assert event.span_id == otlp.spans[0].span_id
    parts = event.attributes["gen_ai.input.messages"][0]["parts"]
    assert parts == [{"type": "text", "content": "x"}]
    assert "gen_ai.input.messages" not in otlp.spans[0].attributes


def test_metadata_says_how_long_texts_were_and_off_does_not(start: Start) -> None:
    otlp = start(capture_content=None)

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt: str) -> str:
        return "four"

    @llmobs.observe(kind="chat", model="n", capture_content="off")
    def hide(prompt: str) -> dict[str, Any]:
        return {"text": "four", "usage": {"input_tokens": 2, "output_tokens": 1}}

    ask("sixsix")
    hide("sixsix")
    llmobs.flush(10)
    a = otlp.span("chat m").attributes
    assert a["llmobs.content"] == "metadata"
    assert (a["llmobs.input.characters"], a["llmobs.output.characters"]) == (6, 4)
    a = otlp.span("chat n").attributes
    assert a["llmobs.content"] == "off"
    assert "llmobs.input.characters" not in a
    assert a["gen_ai.usage.input_tokens"] == 2


def test_long_texts_are_cut_and_say_so(start: Start) -> None:
    otlp = start(max_characters=100)

    @llmobs.observe(kind="chat")
    def ask(prompt: str) -> str:
        return "y"

    ask("x" * 1000)
    llmobs.flush(10)
    a = otlp.spans[0].attributes
    assert a["llmobs.content.truncated"] is True
    assert "x" * 101 not in a["gen_ai.input.messages"]


def test_the_users_own_fields_are_masked_whatever_their_names(start: Start) -> None:
    otlp = start(capture_content="redacted", redact=lambda text: text.replace("Jo", "X"))

    @llmobs.observe(kind="tool")
    def find(id: str, by: dict[str, int]) -> dict[str, str]:  # noqa: A002
        return {"type": "Jo jo@shop.example", "role": "Jo"}

    @llmobs.observe(kind="chat", model="m")
    def ask(messages: list[dict[str, Any]]) -> dict[str, Any]:
        call = {"name": "find", "arguments": {"id": "Jo"}}
        return {"role": "assistant", "content": None, "tool_calls": [{"function": call}]}

    find("Jo jo@shop.example", {"jo@shop.example": 1})
    ask([{"role": "user", "content": "Jo"}])
    llmobs.flush(10)
    everything = b"".join(otlp.bodies("/v1/traces"))
    assert b"Jo" not in everything
    assert b"jo@shop" not in everything
    assert otlp.span("chat m").attributes["gen_ai.input.messages"].startswith('[{"role": "user"')


def test_a_secret_that_lies_across_the_cut_leaves_in_no_part() -> None:
    redactor = Redactor(20)
    assert redactor.mask("reach me at jo.doe.of.sales@shop.example") == "reach me at [EMAIL]"
    assert redactor.truncated
    assert len(Redactor(10, lambda text: text * 3).mask("abcdefgh")) == 10


@pytest.mark.parametrize("piece", ["-eyJ", "a.", "@a.-", "1 ", "-----BEGIN ", "sk-", "eyJa."])
def test_no_text_makes_masking_slow(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.process_time()
    Redactor(100_000).mask(text)
    assert time.process_time() - began < 0.5


def test_bytes_within_messages_are_not_sent(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m")
    def ask(messages: list[Any]) -> list[Any]:
        return messages

    ask([{"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": b"PIX"}}]}])
    ask([{"role": "user", "content": [{"blob": bytearray(b"PIX"), "odd": {1j, "a"}}]}])
    llmobs.flush(10)
    everything = b"".join(otlp.bodies("/v1/traces"))
    assert b"PIX" not in everything
    assert b"<3 bytes, sha256 " in everything
    assert len(otlp.spans) == 2


def test_numbers_that_json_cannot_say_become_texts() -> None:
    assert json.loads(dump({"a": [float("nan"), 10**5000, 1]})) == {"a": ["nan", "<int>", 1]}


def test_a_secret_across_the_cut_of_an_exceptions_message_leaves_in_no_part(start: Start) -> None:
    otlp = start(capture_content="redacted", max_characters=20)

    @llmobs.observe
    def fail() -> None:
        raise ValueError("reach me at jo.doe.of.sales@shop.example " + "x" * 100_000)

    with pytest.raises(ValueError, match="reach"):
        fail()
    llmobs.flush(10)
    assert otlp.spans[0].message == "reach me at [EMAIL] "


@pytest.mark.parametrize("mode", ["off", "metadata", "redacted"])
def test_what_is_private_leaves_in_no_event_of_a_span(start: Start, mode: str) -> None:
    otlp = start(capture_content=mode)

    @llmobs.observe
    def work() -> None:
        span: Any = trace.get_current_span()
        span.record_exception(ValueError("no jo@shop.example here"))
        span.add_event("gen_ai.user.message", {"who": "al@shop.example", "n": 1})
        span.add_link(span.get_span_context(), {"who": "al@shop.example"})

    work()
    assert llmobs.flush(5)
    everything = b"".join(body for _, body, _ in otlp.requests)
    assert b"@shop" not in everything
    assert (b"no [EMAIL] here" in everything) is (mode == "redacted")

"""All that is sent keeps the conventions' rules, as `data/semconv.json` states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import llmobs
from tests.sdk.conftest import Start
from tests.sdk.receiver import Receiver

RULES: dict[str, Any] = json.loads((Path(__file__).parent / "data/semconv.json").read_text())
KINDS = {1: "internal", 3: "client"}
# Attributes of other conventions and of our own that go on any span.
ELSEWHERE = ("llmobs.", "openai.", "session.id", "user.id")
TYPES: Mapping[str, Any] = {
    "string": str,
    "int": int,
    "double": float,
    "boolean": bool,
}

RESPONSE: dict[str, Any] = {
    "id": "c1",
    "model": "gpt-0613",
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": "hi",
                "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": '{"a": 1}'}}],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}


def has_type(value: Any, kind: str) -> bool:
    if kind == "any":
        return True
    if kind.endswith("[]"):
        return isinstance(value, list) and all(has_type(item, kind[:-2]) for item in value)
    return type(value) is TYPES[kind]


def faults_of_attributes(
    attributes: Mapping[str, Any], levels: Mapping[str, str], *, structured: bool
) -> list[str]:
    found = [f"{k} missing" for k, v in levels.items() if v == "required" and k not in attributes]
    for name, value in attributes.items():
        if name.startswith(ELSEWHERE):
            continue
        if name not in levels and not name.startswith("gen_ai.prompt.variable."):
            found.append(f"{name} is not of this signal")
            continue
        kind = RULES["attributes"].get(name) or "any"
        if not has_type(value, kind):
            found.append(f"{name} = {value!r} is no {kind}")
        schema = RULES["content_schemas"].get(name)
        if schema is not None:
            if isinstance(value, str) is structured:
                found.append(f"{name} structured: {not structured}")
            data = json.loads(value) if isinstance(value, str) else value
            checker = jsonschema.Draft202012Validator(schema)
            found += [f"{name}: {error.message}" for error in checker.iter_errors(data)]
    return found


def faults(otlp: Receiver) -> list[str]:
    found: list[str] = []
    by_operation = {op: rule for rule in RULES["spans"].values() for op in rule["operations"]}
    for span in otlp.spans:
        a = span.attributes
        is_mcp = "mcp.method.name" in a
        rule = RULES["spans"]["mcp.client"] if is_mcp else by_operation[a["gen_ai.operation.name"]]
        if KINDS[span.kind] not in rule["kinds"]:
            found.append(f"{span.name}: kind {span.kind}")
        target = rule["names"][0].rpartition("{")[2].rstrip("}")
        first = a["mcp.method.name"] if is_mcp else a["gen_ai.operation.name"]
        expected = f"{first} {a.get(target, '')}".strip()
        if span.name != expected:
            found.append(f"{span.name!r} is not {expected!r}")
        if (span.status, "error.type" in a) not in {(0, False), (2, True)}:
            found.append(f"{span.name}: status {span.status}")
        found += faults_of_attributes(a, rule["attributes"], structured=False)
    for event in otlp.events:
        rule = RULES["events"][event.name]
        if event.severity != (rule["severity"] or {"number": 0})["number"]:
            found.append(f"{event.name}: severity {event.severity}")
        found += faults_of_attributes(event.attributes, rule["attributes"], structured=True)
    for point in otlp.points:
        rule = RULES["metrics"][point.name]
        kind = {"histogram": "histogram", "counter": "sum"}[rule["instrument"]]
        if (point.kind, point.unit) != (kind, rule["unit"]):
            found.append(f"{point.name}: {point.kind} {point.unit}")
        if point.kind == "histogram" and point.bounds != rule["buckets"]:
            found.append(f"{point.name}: {point.bounds}")
        found += faults_of_attributes(point.attributes, rule["attributes"], structured=False)
    return found


@llmobs.observe(kind="retrieval", name="kb")
def find(query: str, top_k: int = 4) -> list[Any]:
    return ["doc", {"id": "d2", "score": 0.5, "unset": None}]


@llmobs.observe(kind="embeddings", model="e", provider="openai")
def embed(texts: list[str]) -> dict[str, Any]:
    return {"data": [{"embedding": [0.5] * 16}], "model": "e", "usage": {"prompt_tokens": 3}}


@llmobs.observe(kind="tool")
def search(query: str, limit: int = 3) -> list[str]:
    """Search the shelves."""
    return [query]


@llmobs.observe(kind="mcp", name="forecast")
def forecast(place: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": "no such place"}], "isError": True}


@llmobs.observe(kind="rerank", name="cross-encoder", provider="cohere")
def rerank(query: str, documents: list[str], model: str = "rerank-4", top_n: int = 1) -> Any:
    return {"results": [{"index": 1, "relevance_score": 0.9}]}


@llmobs.observe(kind="batch", provider="openai", model="gpt")
def fetch(batch_id: str) -> list[Any]:
    return [{"custom_id": "1", "response": {"body": RESPONSE}}] * 2


@llmobs.observe(kind="chat", provider="openai", prompt_name="p", prompt_version="2")
def ask(
    messages: list[dict[str, Any]],
    model: str = "gpt",
    temperature: float = 1,
    max_tokens: int = 9,
    n: int = 2,
    seed: int = 3,
    stop: str = "x",
    system: str = "Be brief.",
) -> dict[str, Any]:
    return RESPONSE


@llmobs.observe(kind="chat", model="gpt")
def stream(prompt: str) -> Any:
    yield from ("a", "b")


@llmobs.observe(kind="chat")
def fail(prompt: str) -> None:
    raise ValueError(prompt)


@llmobs.observe(kind="agent", name="planner")
def agent(text: str) -> Any:
    search(text, limit=1)
    forecast(text)
    find(text)
    rerank(text, ["a", "b"])
    fetch("b1")
    embed([text])
    list(stream(text))
    with pytest.raises(ValueError, match="y"):
        fail(text)
    return ask([{"role": "system", "content": "Be nice."}, {"role": "user", "content": text}])


@llmobs.observe
def flow(text: str) -> Any:
    return agent(text)


@pytest.mark.parametrize("mode", ["full", "redacted", "metadata", "off"])
@pytest.mark.parametrize("place", ["span", "both"])
@pytest.mark.parametrize("names", ["current", "released"])
def test_everything_that_is_sent_conforms(start: Start, mode: str, place: str, names: str) -> None:
    otlp = start(capture_content=mode, content_place=place, names=names)
    with llmobs.session("s", "u", feature="f"):
        flow("y")
        llmobs.feedback(True, "good", "thanks", response_id="c1")
    llmobs.flush(10)
    assert len(otlp.spans) == 11
    assert len({point.name for point in otlp.points}) == (16 if names == "current" else 10)
    n_details = 2 if mode in {"full", "redacted"} and place == "both" else 0
    assert len(otlp.events) == 2 + n_details + (1 if n_details else 0)
    assert faults(otlp) == []


def test_the_check_can_fail(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="tool", attributes={"gen_ai.tool.tool": 1, "gen_ai.tool.type": 3})
    def tool() -> None:
        llmobs.current().update_name("my tool")  # type: ignore[union-attr]

    tool()
    llmobs.flush(10)
    found = "\n".join(faults(otlp))
    assert "'my tool' is not 'execute_tool tool'" in found
    assert "gen_ai.tool.tool is not of this signal" in found
    assert "gen_ai.tool.type = 3 is no string" in found

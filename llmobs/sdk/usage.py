"""Read tokens, model, reason and text out of what providers answer. Pure functions over plain data.

`content.freeze` has turned every object into dicts, lists and scalars before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llmobs.sdk.content import Message, dump, from_json, text_message, to_messages
from llmobs.sdk.media import without_data_urls, without_media

__all__ = [
    "Answer",
    "Usage",
    "estimate_usage",
    "provider_of_module",
    "read_answer",
    "read_stream",
    "read_usage",
]

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the conventions count them; None is not known.

    Attributes:
        input_tokens: All of the input, cached tokens included.
        output_tokens: All of the output, reasoning included.
        cache_read_tokens: The part of the input that came from a cache.
        cache_write_tokens: The part of the input that was written to a cache.
        reasoning_tokens: The part of the output that was reasoning.
        audio_input_tokens: The part of the input that was sound.
        audio_output_tokens: The part of the output that was sound.
        image_input_tokens: The part of the input that was pictures.
        image_output_tokens: The part of the output that was pictures.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None


@dataclass(slots=True)
class Answer:
    """What one response says.

    Attributes:
        is_estimated: Whether the usage is reckoned from the texts' lengths.
    """

    messages: list[Message] = field(default_factory=list)
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    finish_reasons: list[str] = field(default_factory=list)
    n_dimensions: int | None = None
    is_estimated: bool = False


# First package of a response's class -> gen_ai.provider.name; clients of one provider alone.
_PROVIDERS: Final = {
    "anthropic": "anthropic",
    "cohere": "cohere",
    "groq": "groq",
    "mistralai": "mistral_ai",
    "openai": "openai",
}


def provider_of_module(module: str) -> str | None:
    """Return the provider whose client library a response's class comes from, None if unclear."""
    return _PROVIDERS.get(module.partition(".")[0])


def _count(data: Data, *names: str) -> int | None:
    if not data:  # most answers have no details
        return None
    for name in names:
        value = data.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if 0 <= value < math.inf:
            return int(value)
    return None


def _map(data: Data, *names: str) -> Data:
    for name in names:
        value = data.get(name)
        if isinstance(value, dict):
            return value
    return {}


def _text(data: Data, *names: str) -> str | None:
    for name in names:
        value = data.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _list(data: Data, name: str) -> Sequence[Any]:
    value = data.get(name)
    return value if isinstance(value, (list, tuple)) else ()


def read_usage(data: Data) -> Usage | None:
    """Return the tokens that a provider reports, in the conventions' counting.

    Anthropic and Bedrock report cached input apart from the input, so it is added; Gemini
    reports thoughts apart from the candidates, so they are added. OpenAI's counts include both.

    Args:
        data: A ``usage`` object, or a whole response that has the counts at its top.

    Returns:
        None where the data hold no count that is known.
    """
    if "tokens" in data and isinstance(data["tokens"], dict):  # Cohere
        data = data["tokens"]
    if "prompt_tokens" in data:  # OpenAI's, which many speak
        usage = _usage_inclusive(data)
    else:
        usage = _usage_of_separate_cache(data) or _usage_of_gemini(data) or _usage_inclusive(data)
    return usage if usage != Usage() else None


def _usage_of_separate_cache(data: Data) -> Usage | None:
    read = _count(data, "cache_read_input_tokens", "cacheReadInputTokens")
    write = _count(data, "cache_creation_input_tokens", "cacheWriteInputTokens")
    if read is None and write is None:
        return None
    plain = _count(data, "input_tokens", "inputTokens")
    total = None if plain is None else plain + (read or 0) + (write or 0)
    return Usage(total, _count(data, "output_tokens", "outputTokens"), read, write)


def _usage_of_gemini(data: Data) -> Usage | None:
    prompt = _count(data, "prompt_token_count", "promptTokenCount")
    candidates = _count(data, "candidates_token_count", "candidatesTokenCount")
    if prompt is None and candidates is None:
        return None
    thoughts = _count(data, "thoughts_token_count", "thoughtsTokenCount")
    tool_use = _count(data, "tool_use_prompt_token_count", "toolUsePromptTokenCount")
    return Usage(
        input_tokens=None if prompt is None else prompt + (tool_use or 0),
        output_tokens=None if candidates is None else candidates + (thoughts or 0),
        cache_read_tokens=_count(data, "cached_content_token_count", "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )


def _usage_inclusive(data: Data) -> Usage:
    # Of OpenAI's two interfaces, then of LangChain.
    of_input = _map(data, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    of_output = _map(
        data, "completion_tokens_details", "output_tokens_details", "output_token_details"
    )
    read = _count(data, "cache_read_tokens")
    write = _count(data, "cache_write_tokens")
    reasoning = _count(data, "reasoning_tokens")
    return Usage(
        _count(data, "input_tokens", "prompt_tokens", "inputTokens", "prompt_eval_count"),
        _count(data, "output_tokens", "completion_tokens", "outputTokens", "eval_count"),
        _count(of_input, "cached_tokens", "cache_read") if read is None else read,
        _count(of_input, *_WRITTEN) if write is None else write,
        _count(of_output, "reasoning_tokens", "reasoning") if reasoning is None else reasoning,
        _some(of_input, "audio_tokens"),
        _some(of_output, "audio_tokens"),
        _some(of_input, "image_tokens"),
        _some(of_output, "image_tokens"),
    )


# LangChain's name, LiteLLM's, and the conventions'.
_WRITTEN: Final = ("cache_creation", "cache_creation_tokens", "cache_write_tokens")


def _some(data: Data, name: str) -> int | None:
    """Return a count of what few calls have: OpenAI says 0 of sound in every answer."""
    return _count(data, name) or None


# OpenAI: "a token generally corresponds to about 4 characters of common English text". In bytes of
# UTF-8 the same ratio fits other scripts better than in characters.
_BYTES_PER_TOKEN: Final = 4
# What a message costs beside its text in OpenAI's chat format.
_TOKENS_PER_MESSAGE: Final = 3


def estimate_usage(asked: Sequence[Message], answered: Sequence[Message]) -> Usage:
    """Reckon the tokens of a call whose provider did not report them, from the texts' lengths.

    Within a factor of two for most texts, which is nearer to the truth than nothing at all.

    Args:
        asked: Messages of the request, system instructions among them; [] where not known.
        answered: Messages of the answer, as far as it came.
    """
    return Usage(_estimate(asked) if asked else None, _estimate(answered))


def _estimate(messages: Sequence[Message]) -> int:
    n_bytes = 0
    for message in messages:
        for part in message["parts"]:
            for name in ("content", "arguments", "response", "name"):
                if isinstance(value := part.get(name), str):
                    n_bytes += len(value.encode("utf-8", "replace"))
                elif value is not None:
                    n_bytes += len(dump(value).encode("utf-8", "replace"))
    return _TOKENS_PER_MESSAGE * len(messages) + math.ceil(n_bytes / _BYTES_PER_TOKEN)


def read_answer(data: Any) -> Answer:
    """Return what a response says: OpenAI, Anthropic, Gemini, Bedrock, Ollama, a dict or a text."""
    if isinstance(data, str):
        return Answer(messages=[text_message("assistant", data)] if data else [])
    if not isinstance(data, dict):
        return Answer(messages=to_messages(data, role="assistant"))
    answer = Answer(
        usage=_usage_in(data),
        model=_text(data, "model", "model_version", "modelVersion"),
        response_id=_text(data, "id", "response_id", "responseId"),
    )
    output = data.get("output")
    if _list(data, "choices"):
        _read_choices(data, answer)
    elif isinstance(output, (list, tuple)):
        _read_responses_api(data, answer)
    elif isinstance(output, dict) and isinstance(output.get("message"), dict):
        _read_whole(output["message"], data, answer)
    elif _list(data, "candidates"):
        _read_candidates(data, answer)
    elif isinstance(data.get("message"), dict):
        _read_whole(data["message"], data, answer)
    elif _is_embeddings(data):
        answer.n_dimensions = _dimensions(data)
    else:
        _read_whole(data, data, answer)
    return answer


def _usage_in(data: Data) -> Usage | None:
    inner = _map(data, "usage", "usage_metadata", "usageMetadata")
    if inner:
        return read_usage(inner)
    return read_usage(_map(data, "meta") or data)


def _read_choices(data: Data, answer: Answer) -> None:
    for choice in _list(data, "choices"):
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        if isinstance(message, dict):
            answer.messages += to_messages([message], role="assistant")
        elif text := _text(choice, "text"):
            answer.messages.append(text_message("assistant", text))
        if reason := _text(choice, "finish_reason"):
            answer.finish_reasons.append(reason)


def _read_responses_api(data: Data, answer: Answer) -> None:
    items = [item for item in _list(data, "output") if isinstance(item, dict)]
    parts = [part for message in to_messages(items, role="assistant") for part in message["parts"]]
    if parts:
        answer.messages = [{"role": "assistant", "parts": parts}]
    status = _text(data, "status")
    if status == "incomplete":
        status = _text(_map(data, "incomplete_details"), "reason") or status
    if status:
        calls = any(part["type"] == "tool_call" for part in parts)
        done = "tool_call" if calls else "stop"
        answer.finish_reasons = [done if status == "completed" else status]


def _read_candidates(data: Data, answer: Answer) -> None:
    for candidate in _list(data, "candidates"):
        if isinstance(candidate, dict):
            answer.messages += to_messages(candidate.get("content"), role="assistant")
            if reason := _text(candidate, "finish_reason", "finishReason"):
                answer.finish_reasons.append(reason)


def _read_whole(message: Data, data: Data, answer: Answer) -> None:
    """Read an answer of one message: Anthropic, Bedrock, Ollama, or a dict of one's own."""
    reason = _text(data, "stop_reason", "stopReason", "finish_reason", "done_reason")
    answer.finish_reasons = [reason] if reason else []
    if "content" in message or "parts" in message:
        answer.messages = to_messages({"role": "assistant", **message}, role="assistant")
    elif text := _text(message, "text", "answer", "output", "response", "completion", "result"):
        answer.messages = [text_message("assistant", text)]
    elif answer.usage is None:
        answer.messages = to_messages(message, role="assistant")


def _is_embeddings(data: Data) -> bool:
    first = next(iter(_list(data, "data")), None)
    return (
        "embedding" in data
        or "embeddings" in data
        or (isinstance(first, dict) and "embedding" in first)
    )


def _dimensions(data: Data) -> int | None:
    first = next(iter(_list(data, "data") or _list(data, "embeddings")), None)
    vector = first.get("embedding") if isinstance(first, dict) else first
    vector = data.get("embedding") if vector is None else vector
    if isinstance(vector, dict):  # as `freeze` leaves it
        return _count(vector, "n_dimensions")
    return len(vector) if isinstance(vector, (list, tuple)) else None


class _Choice:
    """What the chunks have said of one of the answers."""

    __slots__ = ("calls", "reason", "reasoning", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[Any, dict[str, Any]] = {}
        self.reason: str | None = None

    def text(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self.texts.append(text)

    def call(self, key: Any, call: Data, names: Data, arguments: str | None) -> None:
        made = self.calls.setdefault(key, {"arguments": []})
        made["id"] = _text(call, "call_id", "id") or made.get("id")
        made["name"] = _text(names, "name") or made.get("name")
        made["arguments"] += [arguments] if arguments else []

    def message(self) -> Message | None:
        """Return the answer as a message, None where nothing was said."""
        parts: list[dict[str, Any]] = []
        if self.texts:
            text = without_data_urls("".join(self.texts))
            parts.append({"type": "text", "content": text})
        if self.reasoning:
            parts.append({"type": "reasoning", "content": "".join(self.reasoning)})
        for call in self.calls.values():
            part = {"type": "tool_call", "name": call["name"] or "", "id": call["id"]}
            part["arguments"] = without_media(from_json("".join(call["arguments"])))
            parts.append(part)
        return {"role": "assistant", "parts": parts} if parts else None


# First words of the types of Anthropic's events.
_ANTHROPIC_KINDS: Final = ("message_", "content_block_")


class _Stream:
    """What the chunks of a stream have said so far."""

    def __init__(self) -> None:
        self.choices: dict[int, _Choice] = {}
        self.usage: dict[str, Any] = {}
        self.answer = Answer()
        self.others: list[Any] = []

    def choice(self, index: int) -> _Choice:
        found = self.choices.get(index)
        if found is None:
            found = self.choices[index] = _Choice()
        return found

    def add(self, chunk: Any) -> None:
        if isinstance(chunk, str):
            self.choice(0).text(chunk)
        elif not isinstance(chunk, dict):
            self.others.append(chunk)
        elif isinstance(kind := chunk.get("type"), str) and kind.startswith("response."):
            self._add_response_event(kind, chunk)
        elif isinstance(kind, str) and kind.startswith(_ANTHROPIC_KINDS):
            self._add_anthropic_event(kind, chunk)
        else:
            self._add_chunk(chunk)

    def _meta(self, data: Data) -> None:
        usage = data.get("usage") or data.get("usage_metadata") or data.get("usageMetadata")
        if isinstance(usage, dict):
            self.usage.update({name: count for name, count in usage.items() if count is not None})
        answer = self.answer
        if answer.model is None:
            answer.model = _text(data, "model", "model_version", "modelVersion")
        if answer.response_id is None:
            answer.response_id = _text(data, "id", "response_id", "responseId")

    def _add_chunk(self, chunk: Data) -> None:
        self._meta(chunk)
        choices = _list(chunk, "choices")
        for choice in choices:
            if isinstance(choice, dict):
                self._add_delta(choice)
        if choices:
            return
        if _list(chunk, "candidates"):
            part = read_answer(chunk)
            for number, message in enumerate(part.messages):
                for piece in message["parts"]:
                    self.choice(number).text(piece.get("content"))
            for number, reason in enumerate(part.finish_reasons):
                self.choice(number).reason = reason
        else:
            inner = _map(chunk, "message") or chunk
            piece = _text(inner, "delta", "text", "content", "response")
            said = _text(chunk, "finish_reason", "done_reason")
            if piece or said:
                self.choice(0).text(piece)
                self.choice(0).reason = said or self.choice(0).reason

    def _add_delta(self, said: Data) -> None:
        choice = self.choice(_count(said, "index") or 0)
        delta = said.get("delta")
        if isinstance(delta, dict):
            choice.text(delta.get("content") or delta.get("refusal"))
            if len(delta) > 1 or "content" not in delta:  # most carry a piece of text alone
                self._add_rest_of_delta(choice, delta)
        else:
            choice.text(said.get("text"))
        if reason := _text(said, "finish_reason"):
            choice.reason = reason

    @staticmethod
    def _add_rest_of_delta(choice: _Choice, delta: Data) -> None:
        if thought := _text(delta, "reasoning_content", "reasoning"):
            choice.reasoning.append(thought)
        choice.text(_map(delta, "audio").get("transcript"))
        for call in _list(delta, "tool_calls"):
            if isinstance(call, dict):
                function = _map(call, "function")
                choice.call(call.get("index", 0), call, function, _text(function, "arguments"))

    def _add_response_event(self, kind: str, event: Data) -> None:
        if kind in {"response.output_text.delta", "response.refusal.delta"}:
            self.choice(0).text(event.get("delta"))
        elif kind == "response.output_item.done":
            item = _map(event, "item")
            if item.get("type") == "function_call":
                self.choice(0).call(_text(item, "id"), item, item, _text(item, "arguments"))
        elif isinstance(response := event.get("response"), dict):
            whole = read_answer(response)
            self.answer = replace(whole, messages=whole.messages or self.answer.messages)

    def _add_anthropic_event(self, kind: str, event: Data) -> None:
        choice = self.choice(0)
        index = event.get("index", 0)
        delta = _map(event, "delta")
        if kind == "content_block_delta":
            choice.text(delta.get("text"))
            if thought := _text(delta, "thinking"):
                choice.reasoning.append(thought)
            if piece := _text(delta, "partial_json"):
                choice.call(index, {}, {}, piece)
        elif kind == "message_start":
            self._meta(_map(event, "message"))
        elif kind == "content_block_start":
            block = _map(event, "content_block")
            if block.get("type") == "tool_use":
                choice.call(index, block, block, None)
        elif kind == "message_delta":
            self._meta({"usage": event.get("usage")})
            if reason := _text(delta, "stop_reason"):
                choice.reason = reason

    def result(self) -> Answer:
        answer = self.answer
        choices = [choice for _, choice in sorted(self.choices.items())]
        answer.usage = read_usage(self.usage) or answer.usage
        answer.finish_reasons = [
            choice.reason for choice in choices if choice.reason
        ] or answer.finish_reasons
        if not answer.messages:
            said = [message for choice in choices if (message := choice.message()) is not None]
            if not said and self.others:
                text = json.dumps(self.others, ensure_ascii=False, default=str)
                said = [text_message("assistant", text)]
            answer.messages = said
        return answer


def read_stream(chunks: Sequence[Any]) -> Answer:
    """Return what a stream's chunks say together: text joined, usage from the last that has it.

    Args:
        chunks: Plain data in order: texts, OpenAI chat chunks or Responses events, Anthropic
            events, Gemini responses, or dicts with ``text``, ``content`` or ``delta``.
    """
    stream = _Stream()
    for chunk in chunks:
        stream.add(chunk)
    return stream.result()

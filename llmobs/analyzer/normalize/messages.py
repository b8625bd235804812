"""Messages of every shape to those of the conventions, and the texts that are in them.

The canonical message: ``{"role": …, "parts": [{"type": "text", "content": …}, …]}``. Others:
OpenAI's and Vercel's ``content`` (text or typed parts) with ``tool_calls``, ``{"messages": [...]}``
around them, LangChain's ``kwargs``, Gemini's ``parts`` with ``text``, or plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "Message",
    "Texts",
    "are_plain",
    "canonical",
    "document_text",
    "documents_text",
    "dumps",
    "flattened_message",
    "input_texts",
    "instructions_text",
    "loads",
    "messages_of",
    "output_text",
    "plain",
    "read_canonical",
    "regroup",
    "unquoted",
]

Message = dict[str, Any]

_SYSTEM: Final = frozenset({"system", "developer"})
_ROLES: Final = {
    "human": "user",
    "ai": "assistant",
    "model": "assistant",
    "function": "tool",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
}
# Whose words a typed item without a role is.
_SPEAKERS: Final = {
    "function_call": "assistant",
    "reasoning": "assistant",
    "tool_call": "assistant",
    "tool_use": "assistant",
    "function_call_output": "tool",
    "tool_call_response": "tool",
    "tool_result": "tool",
}
_WRAPPERS: Final = ("messages", "message", "choices", "generations", "input_messages", "output")
_PLAIN: Final = (
    "content",
    "text",
    "input",
    "query",
    "question",
    "prompt",
    "output",
    "result",
    "answer",
)
_decode = json.JSONDecoder().decode

MAX_DEPTH: Final = 64
"""Levels of lists and objects that are read; no producer sends a tenth of it. What is deeper
stays plain text, so that nothing which walks a value can run out of stack."""
_MAX_STEPS: Final = 32  # of the name of a flattened attribute, for the same reason
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


class Texts(NamedTuple):
    """What a call was given, as texts; "" for what was not there."""

    user: str = ""
    system: str = ""
    context: str = ""


def dumps(value: Any) -> str:
    """Write compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """Return what a text holds as JSON; None for anything else and for what is too deep."""
    try:
        value = _decode(text)
    except (ValueError, RecursionError):  # also an integer of more digits than Python reads
        return None
    return None if _is_too_deep(text, value) else value


def _is_too_deep(text: str, value: Any) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # nearly all
        return False
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            if isinstance(node, (list, dict))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return bool(level)


def plain(value: Any) -> str:
    """Return a value as a text for people: strings as they are, else JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else dumps(value)


def unquoted(text: str) -> str:
    """Return the string that a JSON string holds; any other text as it is."""
    value = _json(text) if text.startswith('"') else None
    return value if isinstance(value, str) else text


def are_plain(messages: list[Message], roles: tuple[str, ...]) -> bool:
    """Tell whether messages are one plain text of the last role, before it one of each other.

    The texts then say it all. No message at all is plain too.
    """
    said = [message["role"] for message in messages]
    return said in ([], list(roles[-1:]), list(roles)) and all(
        message.keys() <= _PLAIN_MEMBERS
        and len(message["parts"]) == 1
        and message["parts"][0].keys() == {"type", "content"}
        and message["parts"][0]["type"] == "text"
        and isinstance(message["parts"][0]["content"], str)
        and (not message.get("name"))
        for message in messages
    )


_PLAIN_MEMBERS: Final = frozenset({"role", "parts", "finish_reason", "name"})

# ── reading canonical messages ───────────────────────────────────────────────────────────


def input_texts(messages: list[Message]) -> Texts:
    """Return the last user message, the system messages and the tool results of an input."""
    user = ""
    system: list[str] = []
    context: list[str] = []
    for message in messages:
        role = message["role"]
        texts = []
        for part in message["parts"]:
            kind = part.get("type")
            if kind == "text":
                texts.append(plain(part.get("content")))
            elif kind == "tool_call_response":
                # "result" was the name before "response".
                context.append(_response_text(part.get("response", part.get("result"))))
        if not texts:
            continue
        if role == "user":
            user = "\n".join(texts)
        elif role in _SYSTEM:
            system += texts
        elif role == "tool":
            context += texts
    return Texts(user, "\n".join(system), "\n".join(context))


def _response_text(response: Any) -> str:
    """Return what a tool answered as text; of typed parts the texts alone, no image in base64."""
    if isinstance(response, dict) and response.keys() == {"type", "value"}:  # Vercel
        return plain(response["value"])
    if not response or not _are_parts(response):
        return plain(response)
    parts = _parts(response)
    return "\n".join(plain(part.get("content")) for part in parts if part["type"] == "text")


def output_text(messages: list[Message]) -> str:
    """Return the text parts of an answer, one under the other; not its reasoning."""
    return "\n".join(
        plain(part.get("content"))
        for message in messages
        for part in message["parts"]
        if part.get("type") == "text"
    )


def instructions_text(text: str) -> str:
    """Return the text of ``gen_ai.system_instructions``: parts as JSON, or plain text."""
    value = _json(text)
    if isinstance(value, str) or value is None:
        return text if value is None else value
    parts = _parts(value)
    return "\n".join(plain(part.get("content")) for part in parts if part.get("type") == "text")


def read_canonical(text: str) -> list[Message] | None:
    """Return messages that are canonical already; None for anything else."""
    value = _json(text)
    return value if _is_canonical(value) else None


def _is_canonical(messages: Any) -> bool:
    if not isinstance(messages, list):
        return False
    for message in messages:
        if not isinstance(message, dict):
            return False
        parts = message.get("parts")
        if not isinstance(message.get("role"), str) or not isinstance(parts, list):
            return False
        for part in parts:
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                return False
    return True


# ── making them ──────────────────────────────────────────────────────────────────────────


def canonical(text: str, role: str) -> list[Message]:
    """Read messages in anybody's shape.

    Args:
        text: JSON of messages, or a plain text.
        role: Whose text it is where that is not said.
    """
    value = _json(text)
    return messages_of(text if value is None else value, role)


def messages_of(value: Any, role: str) -> list[Message]:
    """Return a decoded value as canonical messages."""
    if isinstance(value, list):
        if all(
            isinstance(item, dict) and ("type" in item and "role" not in item) for item in value
        ):
            parts = _parts(value)
            if parts and all(part["type"] in _KNOWN_PARTS for part in parts):
                return [{"role": role, "parts": parts}]
        items = (unquoted(item) if isinstance(item, str) else item for item in value)
        return [message for item in items for message in messages_of(item, role)]
    if isinstance(value, dict):
        return _messages_of_dict(value, role)
    text = plain(value)
    return [{"role": role, "parts": [{"type": "text", "content": text}]}] if text else []


def _messages_of_dict(value: Mapping[str, Any], role: str) -> list[Message]:
    if "role" in value or "parts" in value:
        return [_message(value, role)]
    if said := _SPEAKERS.get(str(value.get("type"))):  # an item of OpenAI's Responses
        return [{"role": said, "parts": [_part(value)]}]
    if isinstance(value.get("args"), list) and isinstance(value.get("kwargs"), dict):
        # OpenLLMetry: the arguments of a decorated function.
        texts = [v for v in (*value["args"], *value["kwargs"].values()) if isinstance(v, str)]
        return messages_of(texts[0] if len(texts) == 1 else dumps(value), role)
    if isinstance(value.get("kwargs"), dict):  # LangChain, serialized
        kind = value["id"][-1] if isinstance(value.get("id"), list) and value["id"] else ""
        return [_message({"role": _ROLES.get(str(kind), role), **value["kwargs"]}, role)]
    if said := _ROLES.get(str(value.get("type"))):
        return [_message({"role": said, **value}, role)]
    for name in _WRAPPERS:
        if isinstance(value.get(name), (list, dict)):
            system = value.get("system")
            before = messages_of(system, "system") if system else []
            return before + messages_of(value[name], role)
    if isinstance(value.get("prompt"), str) and isinstance(value.get("system"), str):  # Vercel
        return messages_of(value["system"], "system") + messages_of(value["prompt"], role)
    texts = [value[name] for name in _PLAIN if isinstance(value.get(name), str)]
    return messages_of(texts[0] if len(texts) == 1 else dumps(value), role)


def _message(value: Mapping[str, Any], role: str) -> Message:
    said = str(value.get("role") or role)
    said = _ROLES.get(said, said)
    content = value.get("parts") if isinstance(value.get("parts"), list) else value.get("content")
    if said == "tool" and not _are_parts(content):
        answer: Message = {"type": "tool_call_response", "response": content}
        if call := value.get("tool_call_id") or value.get("id"):
            answer["id"] = call
        parts = [answer]
    else:
        parts = _parts(content)
    if reasoning := value.get("reasoning_content"):
        parts.insert(0, {"type": "reasoning", "content": plain(reasoning)})
    calls = value.get("tool_calls")
    if isinstance(calls, list):
        parts += [_tool_call(call) for call in calls if isinstance(call, dict)]
    message: Message = {"role": said, "parts": parts}
    if isinstance(value.get("name"), str):
        message["name"] = value["name"]
    return message


def _are_parts(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and ("type" in part or part.keys() & _NAMED_PARTS.keys())
        for part in content
    )


_MEDIA: Final = frozenset(
    {"blob", "file", "uri", "image", "image_url", "input_image", "audio", "input_audio", "video"}
)
_KNOWN_PARTS: Final = _MEDIA | {"text", "reasoning", "tool_call", "tool_call_response"}
# Parts of Gemini and of Bedrock's Converse have no type: the name of their field tells.
_NAMED_PARTS: Final = {
    "functionCall": "tool_call",
    "function_call": "tool_call",
    "toolUse": "tool_call",
    "functionResponse": "tool_result",
    "function_response": "tool_result",
    "toolResult": "tool_result",
}


def _parts(content: Any) -> list[Message]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        # Vercel and OpenLLMetry put the JSON of typed parts into a string.
        value = _json(content) if content.startswith('[{"') else None
        if not _are_parts(value):
            return [{"type": "text", "content": content}]
        content = value
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return [{"type": "text", "content": plain(content)}]
    return [_part(part) for part in content]


def _part(part: Any) -> Message:
    if not isinstance(part, dict):
        return {"type": "text", "content": plain(part)}
    if "type" not in part and not part.keys() & {"text", "content", "refusal"}:
        for name, kind in _NAMED_PARTS.items():
            if isinstance(part.get(name), dict):
                return _part({**part[name], "type": kind})
        return {"type": next(iter(part), "text"), **part}  # "image", "inlineData" …
    kind = str(part.get("type", "text")).replace("-", "_")
    match kind:
        case "text" | "input_text" | "output_text" | "refusal":
            content = part.get("content", part.get("text", part.get("refusal")))
            if isinstance(content, dict):  # OpenInference and Assistants: {"text": {"value": …}}
                content = content.get("value", content)
            return {"type": "text", "content": plain(content)}
        case "tool_call" | "tool_use" | "function_call":
            is_canonical = part["type"] == "tool_call" and "arguments" in part and "name" in part
            return part if is_canonical else _tool_call(part)
        case "tool_result" | "tool_call_response" | "function_call_output":
            answer = part.get(
                "response", part.get("result", part.get("output", part.get("content")))
            )
            id_ = _call_id(part)
            return {"type": "tool_call_response", "response": answer} | ({"id": id_} if id_ else {})
        case "thinking" | "reasoning":
            content = part.get("content", part.get("text", part.get("thinking")))
            return {"type": "reasoning", "content": plain(content)}
        case _:
            return {**part, "type": str(part.get("type", "text"))}


def _tool_call(call: Mapping[str, Any]) -> Message:
    function = call.get("function")
    inner = function if isinstance(function, dict) else call
    arguments = next(
        (inner[name] for name in ("arguments", "args", "input") if name in inner), None
    )
    if isinstance(arguments, str):
        read = _json(arguments)
        arguments = arguments if read is None else read
    name = inner.get("name") or call.get("toolName") or ""
    out: Message = {"type": "tool_call", "name": str(name), "arguments": arguments}
    if id_ := _call_id(call):
        out["id"] = id_
    return out


def _call_id(part: Mapping[str, Any]) -> Any:
    # OpenAI's Responses have an id of the item as well; what joins call and answer is call_id.
    names = ("call_id", "toolCallId", "tool_use_id", "toolUseId", "id")
    return next((part[name] for name in names if part.get(name)), None)


# ── numbered attributes ──────────────────────────────────────────────────────────────────


def regroup(fields: Iterable[tuple[str, str]], inner: str) -> list[Message]:
    """Build the objects that were flattened into numbered attributes.

    Args:
        fields: Names below the prefix with their values: ``("0.role", "user")``,
            ``("0.message.contents.1.message_content.text", "hi")``.
        inner: What stands between number and field, such as ``message.``; optional there.

    Returns:
        One object for each number, in their order; values are texts.
    """
    tree: dict[str, Any] = {}
    for path, text in fields:
        node = tree
        steps = path.replace(f".{inner}", ".", 1) if inner else path
        *above, last = steps.split(".", _MAX_STEPS)
        for step in above:
            below = node.setdefault(step, {})
            if not isinstance(below, dict):
                below = node[step] = {"": below}
            node = below
        node[last] = text
    return [
        value if isinstance(value, dict) else {"content": value}
        for _, value in sorted(_numbered(tree).items())
    ]


def flattened_message(fields: dict[str, Any], role: str) -> list[Message]:
    """Turn an object of `regroup` into a canonical message; [] when it says nothing."""
    said = fields.get("role")
    out: dict[str, Any] = {"role": said if isinstance(said, str) and said else role}
    if "content" in fields:
        out["content"] = fields["content"]
    elif isinstance(fields.get("contents"), dict):  # OpenInference: contents.N.message_content.*
        items = (item for _, item in sorted(_numbered(fields["contents"]).items()))
        out["content"] = [
            {name: _nested_text(value) for name, value in item.get("message_content", item).items()}
            for item in items
            if isinstance(item, dict)
        ]
    elif isinstance(fields.get("text"), str):
        out["content"] = fields["text"]
    if isinstance(fields.get("tool_calls"), dict):
        calls = (call for _, call in sorted(_numbered(fields["tool_calls"]).items()))
        out["tool_calls"] = [
            call.get("tool_call", call) for call in calls if isinstance(call, dict)
        ]
    for name in ("tool_call_id", "name", "reasoning_content"):
        if isinstance(fields.get(name), str):
            out[name] = fields[name]
    message = _message(out, role)
    return [message] if message["parts"] else []


def document_text(fields: dict[str, Any]) -> str:
    """Return the content of a retrieved document."""
    for name in ("content", "text", "page_content", "pageContent"):
        if fields.get(name):
            return plain(fields[name])
    return ""


def documents_text(text: str) -> str:
    """Return the contents of ``gen_ai.retrieval.documents``, one under the other."""
    value = _json(text)
    documents = value if isinstance(value, list) else []
    return "\n".join(filter(None, (document_text(d) for d in documents if isinstance(d, dict))))


def _numbered(node: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in node.items() if _NUMBER.fullmatch(key)}


def _nested_text(value: Any) -> Any:
    """Flatten ``image.image.url`` and its like to the innermost value."""
    while isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return value


def _json(text: str) -> Any:
    """Return what a text holds as JSON object, list or string; None when it is plain."""
    return loads(text) if text.startswith(("[", "{", '"')) else None

"""Content on its way out of the process: a snapshot, the conventions' shape, redaction.

Taking the snapshot is all that happens in the calling thread.
"""

from __future__ import annotations

import json
import marshal
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

from llmobs import semconv
from llmobs.sdk.media import described_bytes, media_part, without_data_urls, without_media

__all__ = [
    "CONTENT_MODES",
    "LONGEST_SECRET",
    "MESSAGE_ATTRIBUTES",
    "ContentMode",
    "Message",
    "Redactor",
    "characters",
    "dump",
    "freeze",
    "freeze_each",
    "from_json",
    "pack",
    "sendable",
    "text_message",
    "to_messages",
    "unpack",
    "word",
]

ContentMode: TypeAlias = Literal["full", "redacted", "metadata", "off"]
CONTENT_MODES: Final = ("full", "redacted", "metadata", "off")
Message: TypeAlias = dict[str, Any]
MESSAGE_ATTRIBUTES: Final = frozenset(
    {
        semconv.GEN_AI_INPUT_MESSAGES,
        semconv.GEN_AI_OUTPUT_MESSAGES,
        semconv.GEN_AI_SYSTEM_INSTRUCTIONS,
    }
)

# Dicts, lists and values of a snapshot, at most; a conversation of 500 messages has 2,000.
MAX_NODES: Final = 10_000
MAX_DEPTH: Final = 12
_PACKED_ITEMS: Final = 1_000
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_NODE_BYTES: Final = 64  # what a node weighs in memory beside its text, about


def freeze(value: Any) -> tuple[Any, int]:
    """Take a snapshot that no later change by the caller can reach.

    Containers are copied, texts are shared, and objects that are plain data (pydantic models,
    dataclasses, simple namespaces, classes with slots) become dicts of their fields. No code of the
    caller's runs: no ``repr``, no property. Any other object leaves its class's name.

    Args:
        value: Anything.

    Returns:
        The snapshot, of dicts, lists, texts, numbers, booleans and None; and about how many bytes
        it holds.
    """
    if type(value) is str:
        return value, len(value)
    copier = _Copier()
    return copier.copy(value, 0), copier.size


def freeze_each(value: Any) -> tuple[Any, int]:
    """Take a snapshot as `freeze` does, of a list whose items may each be as large as allowed."""
    if not isinstance(value, (list, tuple)):
        return freeze(value)
    kept = [freeze(item) for item in value]
    return [item for item, _ in kept], sum(size for _, size in kept)


def pack(value: Any) -> tuple[Any, int]:
    """Take a snapshot as `freeze` does, of what a model is sent or answers: mostly plain and small.

    The interpreter's own ``marshal`` copies plain data eight times as fast; `unpack` undoes it.
    Its format 2 knows no references, so what holds itself is refused as too deep.
    """
    kind = type(value)
    if (kind is dict or kind is list) and len(value) <= _PACKED_ITEMS:
        try:
            packed = marshal.dumps(value, 2)
        except ValueError:  # an object is in it, or it is too deep
            return freeze(value)
        return packed, len(packed)
    return freeze(value)


def unpack(value: Any) -> Any:
    """Return what `pack` was given, as plain data."""
    if type(value) is not bytes:
        return value
    # Bytes are nowhere else in a snapshot, and these never left the process.
    data = marshal.loads(value)  # noqa: S302
    # What marshal knows and JSON doesn't, such as a picture's bytes, is left to `freeze`.
    return data if _is_plain(data, 0) else _Copier(tells_bytes=True).copy(data, 0)


def _is_plain(container: Any, depth: int) -> bool:
    """Return whether a dict or list is plain all the way down; a third of the time of `freeze`."""
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                return False
        container = container.values()
    for item in container:
        kind = type(item)
        if kind in _SCALARS:
            continue
        is_container = kind is dict or kind is list
        if not is_container or depth >= MAX_DEPTH or not _is_plain(item, depth + 1):
            return False
    return True


class _Copier:
    __slots__ = ("_tells_bytes", "n_nodes", "size")

    def __init__(self, *, tells_bytes: bool = False) -> None:
        self._tells_bytes = tells_bytes  # by their hash: not in the application's threads
        self.n_nodes = 0
        self.size = 0

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        self.n_nodes += 1
        self.size += _NODE_BYTES
        if kind is str:
            self.size += len(value)
            return value
        if value is None or kind is int or kind is float or kind is bool:
            return value
        if depth > MAX_DEPTH or self.n_nodes > MAX_NODES:
            return "…"
        if kind is dict:
            return self._dict(value, depth)
        if kind is list or kind is tuple:
            return self._list(value, depth)
        try:
            return self._other(value, depth)
        except Exception:  # a class of the application's that answers for itself
            return f"<{kind.__name__}>"

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        out = {}
        size = 0
        for key, item in list(islice(value.items(), MAX_NODES)):  # atomic: others may write
            name = key if type(key) is str else _name(key)
            kind = type(item)
            if kind is str:  # most of what messages hold, without a call
                size += len(item)
                out[name] = item
            elif item is None or kind is int or kind is float or kind is bool:
                out[name] = item
            elif self.n_nodes > MAX_NODES:
                break
            else:
                out[name] = self.copy(item, depth + 1)
        self.n_nodes += len(out)
        self.size += size + len(out) * _NODE_BYTES
        return out

    def _list(self, value: Sequence[Any], depth: int) -> list[Any] | dict[str, Any]:
        if len(value) > 8 and type(value[0]) is float:  # an embedding: its length is what counts
            return {"n_dimensions": len(value)}
        out = []
        for item in value[:MAX_NODES]:
            out.append(self.copy(item, depth + 1))
            if self.n_nodes > MAX_NODES:
                break
        return out

    def _other(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):  # a subclass, such as an enum of texts
            text = str.__str__(value)
            self.size += len(text)
            return text
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, dict):
            return self._dict(dict(value), depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(list(value), depth)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return described_bytes(value) if self._tells_bytes else f"<{len(value)} bytes>"
        if (fields := _fields(value)) is not None:
            return self._dict(fields, depth)
        return f"<{type(value).__name__}>"


def _name(key: Any) -> str:
    return str.__str__(key) if isinstance(key, str) else f"{key}" if type(key) is int else "?"


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of an object that is plain data, None of any other."""
    kind = type(value)
    if hasattr(kind, "model_fields") or hasattr(kind, "__dataclass_fields__"):
        fields = _own(value) | (getattr(value, "__pydantic_extra__", None) or {})
    elif (
        (kind.__module__ == "types" and kind.__name__ == "SimpleNamespace")
        or ("__slots__" in kind.__dict__ and kind.__bases__ == (object,))
        or _is_value_class(kind)
    ):
        fields = _own(value)
    else:
        return None
    return {name: item for name, item in fields.items() if not name.startswith("_")}


def _is_value_class(kind: type) -> bool:
    """Return whether a class is a mere holder: nothing of its own beside data and ``__init__``."""
    return kind.__bases__ == (object,) and not any(
        callable(member) and name not in {"__init__", "__repr__", "__eq__", "__hash__"}
        for name, member in kind.__dict__.items()
    )


def _own(value: Any) -> dict[str, Any]:
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict) and own:
        return own.copy()
    slots = getattr(type(value), "__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


# --- the conventions' messages --------------------------------------------------------------------


def text_message(role: str, text: str) -> Message:
    """Return a message of one text part."""
    return {"role": role, "parts": [_text_part(text)]}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "content": without_data_urls(text)}


def to_messages(value: Any, *, role: str = "user") -> list[Message]:
    """Bring a prompt or an answer of any common shape to ``gen_ai.*.messages``.

    Args:
        value: Plain data from `freeze`: a text, messages of OpenAI (chat or Responses), Anthropic,
            Gemini or the conventions themselves, or anything else (sent as JSON in a text part).
        role: Role of what says none.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [text_message(role, value)] if value else []
    if isinstance(value, dict):
        return [_message(value, role)]
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (str, dict)) for item in value):
            return [
                text_message(role, item) if isinstance(item, str) else _message(item, role)
                for item in value
            ]
        return [text_message(role, dump(without_media(value)))] if value else []
    return [text_message(role, dump(value))]


def _message(value: Mapping[str, Any], role: str) -> Message:
    said = value.get("role")
    known = {"model": "assistant", "human": "user", "ai": "assistant"}
    role = known.get(said, said) if isinstance(said, str) and said else role
    parts: list[dict[str, Any]] = []
    if isinstance(thought := value.get("reasoning_content"), str) and thought:
        parts.append({"type": "reasoning", "content": thought})
    call_id = value.get("tool_call_id")
    content = value.get("parts", value.get("content"))
    if role == "tool" and isinstance(call_id, str):
        response = without_media(content)
        parts.append({"type": "tool_call_response", "id": call_id, "response": response})
    elif isinstance(content, str):
        parts += [_text_part(content)] if content else []
    elif isinstance(content, (list, tuple)):
        parts += [_part(item) for item in content]
    elif "content" not in value and "parts" not in value:
        parts.append(_part(value))
    if isinstance(refusal := value.get("refusal"), str) and refusal:
        parts.append(_text_part(refusal))
    calls = value.get("tool_calls")
    for call in calls if isinstance(calls, (list, tuple)) else ():
        if isinstance(call, dict):
            parts.append(_part({"type": "function_call", **call}))
    message: Message = {"role": role, "parts": parts}
    if isinstance(name := value.get("name"), str) and name:
        message["name"] = name
    return message


def _part(value: Any) -> dict[str, Any]:
    """Bring one part of a message to the conventions; what is not known goes as JSON in a text."""
    if isinstance(value, str):
        return _text_part(value)
    if not isinstance(value, dict):
        return _text_part(dump(value))
    kind = value.get("type")
    for name in ("text", "refusal"):
        if isinstance(text := value.get(name), str):
            return _text_part(text)
    if kind in {"text", "reasoning"} and isinstance(value.get("content"), str):
        return {"type": kind, "content": without_data_urls(value["content"])}
    if isinstance(thought := value.get("thinking"), str):
        return {"type": "reasoning", "content": thought}
    part = _tool_part(kind, value) or media_part(kind, value)
    return part or _text_part(dump(without_media(value)))


def _tool_part(kind: Any, value: Mapping[str, Any]) -> dict[str, Any] | None:
    call = value.get("function_call") or value.get("toolUse") or value.get("function") or value
    if kind in {"function_call", "function", "tool_use", "tool_call"} or call is not value:
        if not isinstance(call, dict):
            return None
        arguments = next((call[n] for n in ("arguments", "input", "args") if n in call), None)
        found = (
            call.get("call_id")
            or value.get("call_id")
            or value.get("id")
            or call.get("id")
            or call.get("toolUseId")
        )
        return {
            "type": "tool_call",
            "id": found if isinstance(found, str) else None,
            "name": call.get("name") if isinstance(call.get("name"), str) else "",
            "arguments": without_media(from_json(arguments)),
        }
    if kind in {"tool_result", "function_call_output", "tool_call_response"}:
        names = ("output", "content", "response")
        found = value.get("tool_use_id") or value.get("call_id") or value.get("id")
        return {
            "type": "tool_call_response",
            "id": found if isinstance(found, str) else None,
            "response": without_media(next((value[name] for name in names if name in value), None)),
        }
    return None


def from_json(value: Any) -> Any:
    """Return data that may come as JSON in a text, as tools' arguments do; else what is given."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else {}
    except ValueError:
        return value


def dump(value: Any) -> str:
    """Return plain data as JSON, as it is read by people; a text as it is."""
    if isinstance(value, str):
        return value
    try:
        return _to_json(value)
    except ValueError:
        return _to_json(_without_odd_numbers(value))


_to_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _without_odd_numbers(value: Any) -> Any:
    """Return plain data with a text for every number that JSON can't say or Python won't print."""
    if isinstance(value, dict):
        return {key: _without_odd_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_odd_numbers(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and value.bit_length() > 10_000:
        return "<int>"
    return value


def word(value: Any) -> str | None:
    """Return an id or a name as the text that it has to be; None stays None."""
    return None if value is None else str(value)


def characters(messages: Sequence[Message]) -> int:
    """Return how many characters of text the messages hold."""
    return sum(
        len(part["content"])
        for message in messages
        for part in message["parts"]
        if isinstance(part.get("content"), str)
    )


# --- limits and redaction -------------------------------------------------------------------------

_EMAIL: Final = re.compile(r"\b[\w.+%-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+\b")
_CARD: Final = re.compile(r"(?<!\d)(?<!\d\.)\d(?:[ -]?\d){12,18}(?!\.?\d)")
_KEY: Final = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, Stripe
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAKIA[A-Z0-9]{16}\b|\bAIza[\w-]{35}"
    # A JSON web token; it begins where a word does, or a text of "-eyJ" takes seconds.
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
LONGEST_SECRET: Final = 4_000  # characters; a large token
# Parts of a message that name things and hold no text of anybody's.
_NAMES: Final = frozenset({"type", "role", "id", "modality", "mime_type"})


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if place % 2 else 1)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def _mask_card(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match.group())
    return "[CARD]" if _luhn(digits) else match.group()


class Redactor:
    """Change texts before they leave: cut them to a length and, on request, mask what is private.

    The patterns here are a seat belt (e-mail addresses, payment cards that pass the Luhn check,
    well-known kinds of keys); the real measure of personal data is the analyzer's. A hook of the
    application's sees the text after them. A hook that fails costs the text, never lets it pass.
    """

    def __init__(self, max_characters: int, hook: Callable[[str], str] | None = None) -> None:
        self._max_characters = max_characters
        self._hook = hook
        self.truncated = False

    def cut(self, text: str) -> str:
        """Cut a text to the longest that is sent, and remember that it was."""
        if len(text) <= self._max_characters:
            return text
        self.truncated = True
        return text[: self._max_characters]

    def mask(self, text: str) -> str:
        """Cut a text and mask what is private in it."""
        if len(text) > self._max_characters:
            self.truncated = True
            # Cut for good at the end: half a secret is not recognized, and would leave.
            text = text[: self._max_characters + LONGEST_SECRET]
        text = _mask_known(text)
        if self._hook is not None:
            try:
                text = str(self._hook(text))
            except Exception:  # the application's code; fail closed
                text = "[REDACTION FAILED]"
        return text[: self._max_characters]

    def apply(self, value: Any, *, masked: bool, is_messages: bool = False) -> Any:
        """Return plain data with every text in it cut, and masked where asked.

        Args:
            value: Plain data.
            masked: Whether what is private is masked. Keys are masked too, but not shown to the
                hook: it knows texts, not the data's structure.
            is_messages: The data are messages or parts of messages, whose ``type``, ``role`` and
                the like stay as they are.
        """
        if not masked:
            return _each_text(value, self.cut, str, is_messages)
        return _each_text(value, self.mask, _mask_known, is_messages)


def _mask_known(text: str) -> str:
    if "@" in text:
        text = _EMAIL.sub("[EMAIL]", text)
    return _CARD.sub(_mask_card, _KEY.sub("[KEY]", text))


def sendable(value: Any) -> Any:
    """Return plain data for an encoder that takes Unicode alone: no surrogate without its other."""
    return _each_text(value, _to_unicode, _to_unicode, is_message=False)


def _to_unicode(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _each_text(
    value: Any, change: Callable[[str], str], name: Callable[[str], str], is_message: bool
) -> Any:
    if type(value) is str:
        return change(value)
    if isinstance(value, Mapping):
        return {
            name(key): item
            if is_message and key in _NAMES and isinstance(item, str)
            else _each_text(item, change, name, is_message and key == "parts")
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_each_text(item, change, name, is_message) for item in value]
    return value

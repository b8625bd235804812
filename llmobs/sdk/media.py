"""Pictures, sounds and files in what a model is sent: they leave as references, never as bytes.

A reference is the content's SHA-256, its size and its type: enough to tell which file it was, and
whether two calls had the same one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["described_bytes", "media_part", "without_data_urls", "without_media"]

_MODALITIES: Final = {
    "image": "image",
    "audio": "audio",
    "video": "video",
    "document": "document",
    "file": "document",
    "image_generation_call": "image",
}
# Keys below which providers put what is no text, and what it then is.
_HOLDERS: Final = {
    "image_url": "image",
    "image": "image",
    "input_audio": "audio",
    "video": "video",
    "document": "document",
    "inline_data": "",
    "inlineData": "",
    "file_data": "",
    "fileData": "",
}
_BYTES: Final = ("data", "bytes", "file_data", "b64_json", "result")
_URIS: Final = ("url", "uri", "image_url", "file_url", "file_uri", "fileUri")
_TYPES: Final = ("mime_type", "mimeType", "media_type")
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.=+-]+)*;base64,", re.ASCII)
_DATA_URL_WITHIN: Final = re.compile(_DATA_URL.pattern + r"[A-Za-z0-9+/_=-]*", re.ASCII)
_DESCRIBED: Final = re.compile(r"<(\d+) bytes(?:, sha256 ([0-9a-f]{64}))?>")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}\n?", re.ASCII)
# Shorter than any file that is worth a reference, and longer than an id.
_SHORTEST: Final = 200


def described_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return what stands for bytes in a snapshot."""
    return f"<{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}>"


def media_part(kind: Any, value: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the conventions' part for a picture, a sound or a file; None of any other part.

    Args:
        kind: The part's ``type``, if it has one.
        value: A part as OpenAI, Anthropic, Gemini, Bedrock, MCP or the conventions shape it.
    """
    bare = kind.removeprefix("input_") if isinstance(kind, str) else ""
    held = next((name for name in _HOLDERS if value.get(name)), None)
    if bare not in _MODALITIES and bare not in {"blob", "uri"} and held is None:
        return None
    places = list(_places(value))
    mime_type = _first(places, _TYPES)
    said = value.get("modality")
    modality = said if isinstance(said, str) else _MODALITIES.get(bare) or _HOLDERS.get(held or "")
    part: dict[str, Any] = {"type": "media"}
    uri = _first(places, _URIS)
    if (file_id := _first(places, ("file_id",))) is not None:
        part = {"type": "file", "file_id": file_id}
    elif uri is not None and not uri.startswith("data:"):
        part = {"type": "uri", "uri": uri}
    elif (data := uri or _first(places, (*_BYTES, "content"))) is not None:
        found, size_bytes = _reference(data)
        part = {"type": "uri", "uri": found, "size_bytes": size_bytes}
        url = _DATA_URL.match(data)
        mime_type = mime_type or (url[1] if url is not None else None)
    if mime_type is not None:
        part["mime_type"] = mime_type
        modality = modality or _MODALITIES.get(mime_type.partition("/")[0])
    part["modality"] = modality or "document"
    return part


def without_media(value: Any) -> Any:
    """Return plain data in which bytes that were written as base64 are references.

    Where a key says that it holds bytes, and where a data URL stands, be it amid a text.
    """
    if isinstance(value, dict):
        return {
            key: _reference(item)[0]
            if key in _BYTES and isinstance(item, str) and _is_base64(item)
            else without_media(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_media(item) for item in value]
    return without_data_urls(value) if isinstance(value, str) else value


def without_data_urls(text: str) -> str:
    """Return a text in which data URLs are references."""
    if ";base64," not in text:
        return text
    return _DATA_URL_WITHIN.sub(lambda url: _reference(url[0])[0], text)


def _places(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the part and what is nested in it, two deep: ``image.source``, ``file``."""
    yield value
    for item in value.values():
        if isinstance(item, dict):
            yield item
            yield from (inner for inner in item.values() if isinstance(inner, dict))


def _first(places: list[Mapping[str, Any]], names: tuple[str, ...]) -> str | None:
    for place in places:
        for name in names:
            if isinstance(found := place.get(name), str) and found:
                return found
    return None


def _reference(data: str) -> tuple[str, int]:
    """Return a URI that names the content, and its size in bytes."""
    if (known := _DESCRIBED.fullmatch(data)) is not None:
        return f"urn:sha256:{known[2]}" if known[2] else "urn:unknown", int(known[1])
    url = _DATA_URL.match(data)
    encoded = data[url.end() :] if url is not None else data
    try:
        content = base64.b64decode(encoded.translate(_URL_SAFE))
    except (binascii.Error, ValueError):  # no base64: a reference is better than the text still
        content = encoded.encode("utf-8", "replace")
    return f"urn:sha256:{hashlib.sha256(content).hexdigest()}", len(content)


_URL_SAFE: Final = str.maketrans("-_", "+/")


def _is_base64(text: str) -> bool:
    is_long = len(text) >= _SHORTEST
    return is_long and (_DATA_URL.match(text) or _BASE64.fullmatch(text)) is not None

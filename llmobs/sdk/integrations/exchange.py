"""What goes over the wire in one call of a client, kept as bytes and read when the span is sent."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from struct import Struct
from typing import Any, Final

from opentelemetry.util.types import AnyValue

from llmobs import semconv
from llmobs.sdk.span import Call, Failure, Kind, LiveSpan
from llmobs.sdk.usage import Answer, read_answer, read_stream

__all__ = ["Api", "Exchange"]

# What is kept of a streamed body; of a longer one the last pieces too: there the usage stands.
MAX_BYTES: Final = 4_000_000
TAIL_PIECES: Final = 8
MANY_EMBEDDINGS_BYTES: Final = 100_000
_PORTS: Final = {"https": 443, "http": 80}
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
_OUTPUT_TYPES: Final = {"text": "text", "json_object": "json", "json_schema": "json"}
# What the conventions have for OpenAI's own fields.
_TIERS: Final = {
    "service_tier": semconv.OPENAI_RESPONSE_SERVICE_TIER,
    "system_fingerprint": semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT,
}

_EVENT_STREAM: Final = "text/event-stream"
_AWS_STREAM: Final = "vnd.amazon.eventstream"
# A frame: lengths of itself and of its headers, their checksum; headers; payload; its checksum.
_AWS_HEAD: Final = Struct(">III")
_AWS_CRC_BYTES: Final = 4

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """One of a provider's interfaces.

    Attributes:
        kind: Of the spans.
        input_name: Field of the request that holds prompt or messages.
        system_name: Field of the request that holds system instructions apart from messages.
        openai_type: ``openai.api.type``.
        operation: ``gen_ai.operation.name``, where it is another than that of the kind.
    """

    kind: Kind
    input_name: str = "messages"
    system_name: str = "system"
    openai_type: str | None = None
    operation: str | None = None


class Exchange:
    """Request and response of one call; of a repeated one those of the last attempt.

    Attributes:
        n_attempts: Requests that were made.
        request: The body as it was sent.
        url: Where it went: an object of the client's that shows ``host``, ``port`` and ``scheme``.
        response: The body, where it came whole, as far as it is needed.
        pieces: The body as it came, and when, where it was streamed.
        tail: Its last pieces, where it is too long to be kept.
        content_type: Of a streamed body: server-sent events, AWS's frames, or one JSON object.
        encoding: ``content-encoding`` of a streamed body.
    """

    __slots__ = (
        "_size", "api", "content_type", "encoding", "n_attempts", "pieces", "request", "response",
        "tail", "url",
    )  # fmt: skip

    def __init__(self, api: Api) -> None:
        self.api = api
        self.n_attempts = 0
        self.request = b""
        self.url: Any = None
        self.response: bytes | None = None
        self.pieces: list[tuple[bytes, int]] | None = None
        self.tail: deque[tuple[bytes, int]] | None = None
        self.content_type = _EVENT_STREAM
        self.encoding = ""
        self._size = 0

    @property
    def size(self) -> int:
        """About how many bytes of memory are kept."""
        return len(self.request) + len(self.response or b"") + self._size

    def keep(self, body: bytes) -> None:
        """Keep a body that came whole; of many embeddings one, which is as long as the others."""
        self.response = _with_one_embedding(body) if self.api.kind == "embeddings" else body

    def note(self, data: bytes, at_ns: int) -> None:
        """Keep one piece of a streamed body."""
        if self.pieces is None:
            return
        if self._size < MAX_BYTES:
            self._size += len(data)
            self.pieces.append((data, at_ns))
            return
        if self.tail is None:
            self.tail = deque(maxlen=TAIL_PIECES)
        self.tail.append((data, at_ns))

    # --- on the background thread ---

    def read(self, span: LiveSpan) -> None:
        """Say on the span what the bytes hold."""
        asked = _object(self.request)
        request = {name: value for name, value in asked.items() if name != self.api.input_name}
        _rename(request, self.api)
        span.call = Call(input=asked.get(self.api.input_name), request=request)
        facts = self._facts(asked)
        if self.api.operation is not None:
            facts[semconv.GEN_AI_OPERATION_NAME] = self.api.operation
            span.other_name = span.other_name or f"{self.api.operation} {span.spec.name}"
        if self.response is not None:
            said = _object(self.response)
            span.answer = read_answer(said)
            _add_tiers(facts, said)
        elif self.pieces:
            self._read_stream(span, facts)
        elif span.answer is None:
            span.answer = Answer()
        span.facts = facts

    def _facts(self, asked: Data) -> dict[str, AnyValue]:
        facts: dict[str, AnyValue] = {}
        url = self.url
        if url is not None:
            facts[semconv.SERVER_ADDRESS] = url.host
            facts[semconv.SERVER_PORT] = url.port or _PORTS.get(url.scheme, 443)
        if self.n_attempts > 1:
            facts[semconv.LLMOBS_ATTEMPTS] = self.n_attempts
        if self.api.openai_type is not None:
            facts[semconv.OPENAI_API_TYPE] = self.api.openai_type
            if isinstance(tier := asked.get("service_tier"), str):
                facts[semconv.OPENAI_REQUEST_SERVICE_TIER] = tier
        if self.api.kind == "chat":
            if (output := _output_type(asked)) is not None:
                facts[semconv.GEN_AI_OUTPUT_TYPE] = output
        elif isinstance(encoding := asked.get("encoding_format"), str):
            facts[semconv.GEN_AI_REQUEST_ENCODING_FORMATS] = (encoding,)
        return facts

    def _read_stream(self, span: LiveSpan, facts: dict[str, AnyValue]) -> None:
        pieces = self.pieces or []
        if self.tail:
            # Where the gap is, an event is cut; the blank line keeps it from spoiling the next.
            pieces = [*pieces, (b"\n\n", pieces[-1][1]), *self.tail]
        body = b"".join([data for data, _ in pieces])
        if self.encoding:
            pieces, body = _decoded(pieces, self.encoding)
            span.size += len(body)  # by which it is told whether a text may be too long
        # Not every server that speaks OpenAI's language says what it sends.
        if _EVENT_STREAM in self.content_type or body.startswith((b"data:", b"event:")):
            events, ends = _events(body)
        elif _AWS_STREAM in self.content_type:
            events, ends = _aws_events(body)
        else:
            said = _object(body)
            span.answer = read_answer(said)
            _add_tiers(facts, said)
            return
        if span.call is not None:  # Bedrock's path says it, not its body
            span.call.request = {**span.call.request, "stream": True}
        span.chunk_ns = _arrivals(pieces, ends)
        span.answer = read_stream(events)
        for event in events:
            if isinstance(event, dict):
                _note_error(span, event)
                _add_tiers(facts, event.get("response") or event)


def _object(body: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        data = json.loads(body)
        if isinstance(data, dict):
            return data
    return {}


def _with_one_embedding(body: bytes) -> bytes:
    """Return a list of embeddings without those after the first.

    To read ten megabytes of them would hold the interpreter, and so the application's threads, for
    a tenth of a second.
    """
    if len(body) < MANY_EMBEDDINGS_BYTES:
        return body
    first = body.find(b"}", body.find(b'"embedding"')) + 1
    last = body.rfind(b"]")
    return body[:first] + body[last:] if 0 < first < last else body


def _rename(request: dict[str, Any], api: Api) -> None:
    """Bring a request's fields to the names that are described."""
    if (system := request.get(api.system_name)) is not None:
        request["system"] = system
    if "stop_sequences" in request:
        request["stop"] = request["stop_sequences"]
    reasoning = request.get("reasoning")
    if isinstance(reasoning, dict) and isinstance(effort := reasoning.get("effort"), str):
        request["reasoning_effort"] = effort


def _output_type(asked: Data) -> str | None:
    form = asked.get("response_format")
    if form is None and isinstance(text := asked.get("text"), dict):
        form = text.get("format")
    kind = form.get("type") if isinstance(form, dict) else None
    return _OUTPUT_TYPES.get(kind) if isinstance(kind, str) else None


def _add_tiers(facts: dict[str, AnyValue], said: Any) -> None:
    if semconv.OPENAI_API_TYPE in facts and isinstance(said, dict):
        for name, attribute in _TIERS.items():
            if isinstance(value := said.get(name), str):
                facts[attribute] = value


def _note_error(span: LiveSpan, event: Data) -> None:
    """Note an error that came as an event of the stream, after a status of success."""
    response = event.get("response")  # OpenAI's of a response that has failed
    error = event.get("error") or (response.get("error") if isinstance(response, dict) else None)
    if event.get("type") == "error":
        error = error or event
    if span.failure is None and isinstance(error, dict):
        kinds = [error[name] for name in ("type", "code") if isinstance(error.get(name), str)]
        kind = kinds[0] if kinds and kinds[0] != "error" else semconv.ERROR_TYPE_OTHER
        message = error.get("message")
        may_leave = span.content in {"full", "redacted"} and isinstance(message, str)
        span.failure = Failure(kind, str(message) if may_leave else "", ())


def _decoded(
    pieces: Sequence[tuple[bytes, int]], encoding: str
) -> tuple[list[tuple[bytes, int]], bytes]:
    """Unpack a streamed body; nothing is left of one whose packing is not known."""
    bits = _WINDOW_BITS.get(encoding.strip().lower())
    if bits is None:
        return [], b""
    unpacker = zlib.decompressobj(bits)
    plain = []
    with suppress(zlib.error):
        for data, at_ns in pieces:
            plain.append((unpacker.decompress(data), at_ns))
    return plain, b"".join([data for data, _ in plain])


def _events(body: bytes) -> tuple[list[Any], list[int]]:
    """Return the data of server-sent events as plain data, and where in the body each ends.

    References:
        https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    if b"\r" in body:  # which may end a line too
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    texts: list[bytes] = []
    ends: list[int] = []
    at = 0
    for block in body.split(b"\n\n"):
        at += len(block) + 2
        start = 0 if block.startswith(b"data:") else block.find(b"\ndata:") + 1
        if not start and not block.startswith(b"data:"):
            continue
        data = block[start + 5 :]
        if b"\n" in data:
            lines = data.split(b"\n")
            data = b"\n".join(
                [lines[0], *(line[5:] for line in lines[1:] if line.startswith(b"data:"))]
            )
        if data.strip() != b"[DONE]":
            texts.append(data)
            ends.append(min(at, len(body)))
    try:
        # All at once: a third of the time of one by one.
        return json.loads(b"[%b]" % b",".join(texts)), ends
    except ValueError:  # one is cut off
        kept = []
        for data, end in zip(texts, ends, strict=True):
            with suppress(ValueError):
                kept.append((json.loads(data), end))
        return [event for event, _ in kept], [end for _, end in kept]


def _aws_events(body: bytes) -> tuple[list[Any], list[int]]:
    """Return what `_events` does of Claude's answers on Bedrock.

    References:
        https://smithy.io/2.0/aws/amazon-eventstream.html
    """
    events: list[Any] = []
    ends: list[int] = []
    at = 0
    while at + _AWS_HEAD.size + _AWS_CRC_BYTES <= len(body):
        n_frame, n_headers, _ = _AWS_HEAD.unpack_from(body, at)
        begin, at = at + _AWS_HEAD.size + n_headers, at + n_frame
        if begin > at - _AWS_CRC_BYTES or at > len(body):
            break
        with suppress(ValueError):
            packed = _object(body[begin : at - _AWS_CRC_BYTES]).get("bytes")
            if isinstance(packed, str):
                events.append(json.loads(b64decode(packed)))
                ends.append(at)
    return events, ends


def _arrivals(pieces: Sequence[tuple[bytes, int]], ends: Sequence[int]) -> list[int]:
    """Return when each event had come wholly."""
    reached = list(accumulate(len(data) - data.count(b"\r\n") for data, _ in pieces))
    last = len(pieces) - 1
    return [pieces[min(bisect_left(reached, end), last)][1] for end in ends]

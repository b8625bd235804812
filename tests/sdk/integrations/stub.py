"""A provider on a free local port: answers what it is told to, shaped as recorded answers."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.listener import serving

__all__ = ["Reply", "Stub", "anthropic_events", "chat", "chat_chunks", "response_events", "stub"]


@dataclass
class Reply:
    """One answer. A list is sent as server-sent events, one write each."""

    body: Any
    status: int = 200
    delay_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False  # the connection breaks in mid-answer


@dataclass
class Stub:
    url: str = ""
    replies: deque[Reply] = field(default_factory=deque)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def say(self, *bodies: Any, **options: Any) -> None:
        self.replies.extend(
            body if isinstance(body, Reply) else Reply(body, **options) for body in bodies
        )


@contextmanager
def stub() -> Iterator[Stub]:
    """Run a provider; it ends with the block."""
    kept = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept.requests.append((self.path, json.loads(body or b"{}")))
            reply = kept.replies.popleft()
            if reply.delay_s:
                kept.ended.wait(reply.delay_s)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if isinstance(reply.body, list):
                self._stream(reply)
            else:
                data = (
                    reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                )
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data) + (9 if reply.is_cut else 0)))
                self.end_headers()
                self.wfile.write(data)
            if reply.is_cut:
                self.close_connection = True

        def _stream(self, reply: Reply) -> None:
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in reply.body:
                text = event if isinstance(event, str) else _event(event)
                data = text.encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.flush()
            if not reply.is_cut:
                self.wfile.write(b"0\r\n\r\n")

        def handle(self) -> None:
            with suppress(ConnectionError):  # a client that has gone
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with serving(Handler) as kept.url:
        try:
            yield kept
        finally:
            kept.ended.set()


def _event(event: dict[str, Any]) -> str:
    kind = event.get("type")
    named = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{named}data: {json.dumps(event)}\n\n"


DONE = "data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 3},
}


def chat(*texts: str, usage: Any = USAGE, **message: Any) -> dict[str, Any]:
    """Return a chat completion with a choice per text."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None, **message},
                "logprobs": None,
                "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
            }
            for index, text in enumerate(texts)
        ],
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }


def chunk(choices: list[dict[str, Any]], usage: Any = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": choices,
        "usage": usage,
    }


def chat_chunks(*texts: str, usage: Any = None, n: int = 1) -> list[Any]:
    """Return a streamed chat completion, each text as one chunk of each of n choices."""

    def each(delta: dict[str, Any], reason: str | None = None) -> list[dict[str, Any]]:
        return [
            chunk([{"index": i, "delta": delta, "logprobs": None, "finish_reason": reason}])
            for i in range(n)
        ]

    events = each({"role": "assistant", "content": "", "refusal": None})
    for text in texts:
        events += each({"content": text})
    events += each({}, "stop")
    if usage is not None:
        events.append(chunk([], usage))
    return [*events, DONE]


def response(text: str, status: str = "completed") -> dict[str, Any]:
    """Return a response of the Responses API."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_760_000_000,
        "status": status,
        "model": "gpt-4o-mini-2024-07-18",
        "output": [
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default",
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 60},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 5},
            "total_tokens": 120,
        },
    }


def response_events(*texts: str) -> list[Any]:
    whole = response("".join(texts))
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    item = {**whole["output"][0], "content": [], "status": "in_progress"}
    part = {"type": "output_text", "text": "", "annotations": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **at, "part": part},
        *({"type": "response.output_text.delta", **at, "delta": t, "logprobs": []} for t in texts),
        {"type": "response.output_text.done", **at, "text": "".join(texts), "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


ANTHROPIC_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 60,
    "output_tokens": 20,
    "service_tier": "standard",
}


def message(*content: dict[str, Any], usage: Any = ANTHROPIC_USAGE) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(content),
        "stop_reason": "tool_use" if any(c["type"] == "tool_use" for c in content) else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def anthropic_events(*texts: str) -> list[Any]:
    begun = message(usage={**ANTHROPIC_USAGE, "output_tokens": 1})
    return [
        {"type": "message_start", "message": {**begun, "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in texts
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 20},
        },
        {"type": "message_stop"},
    ]

"""Made-up spans with real prose, for whatever needs many of them.

- `agents`: those that the figures of other tools were measured on (STORAGE: 1.65 kB a span, 20
  attributes): traces of an agent, four chats, two tools and an embedding.
- `chats`: calls alone, each with its full length of text; harder on all that reads texts.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import time
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

__all__ = ["KINDS", "SPANS_A_REQUEST", "Prose", "chats", "make_request"]

SPANS_A_REQUEST: Final = 512
MODELS: Final = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4.1"),
    ("anthropic", "claude-3-5-haiku-latest"),
    ("anthropic", "claude-sonnet-4-5"),
    ("gcp.vertex_ai", "gemini-2.0-flash"),
    ("gcp.vertex_ai", "gemini-2.5-pro"),
    ("mistral_ai", "mistral-large-latest"),
)
TOOLS: Final = ("search_orders", "get_weather", "sql_query", "send_email", "calc_refund")
TRACE: Final = (
    "invoke_agent", "chat", "execute_tool", "chat", "chat", "execute_tool", "embeddings", "chat",
)  # fmt: skip


class Prose:
    """Endless prose: a Markov chain over the demo's real answers."""

    def __init__(self, chance: random.Random) -> None:
        packed = resources.files("llmobs.demo").joinpath("data", "texts.json.gz").read_bytes()
        answers = [answer for _, answer in json.loads(gzip.decompress(packed))["assistant"]]
        words = " ".join(answers).replace('"', "'").replace("\\", "/").split()
        self._after: dict[str, list[str]] = {}
        for word, following in itertools.pairwise(words):
            self._after.setdefault(word, []).append(following)
        self._chance, self._word = chance, words[0]

    def take(self, n_words: int) -> str:
        """Return the next words."""
        out = []
        for _ in range(n_words):
            self._word = self._chance.choice(self._after.get(self._word) or ["The"])
            out.append(self._word)
        return " ".join(out)

    def chars(self, n_chars: int) -> str:
        """Return so many characters."""
        return self.take(n_chars // 5 + 1)[:n_chars]


def make_request(
    chance: random.Random, prose: Prose, kind: str = "agents", n_words: int = 170
) -> bytes:
    """Build one gzipped export request of `SPANS_A_REQUEST` spans."""
    request = ExportTraceServiceRequest()
    KINDS[kind](request, chance, prose, SPANS_A_REQUEST, n_words)
    return gzip.compress(request.SerializeToString(), 1)


def _add(where: Any, facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        match value:
            case str():
                cell = AnyValue(string_value=value)
            case int():
                cell = AnyValue(int_value=value)
            case float():
                cell = AnyValue(double_value=value)
            case list():
                cell = AnyValue(
                    array_value=ArrayValue(values=[AnyValue(string_value=v) for v in value])
                )
        where.attributes.append(KeyValue(key=key, value=cell))


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def chats(
    request: ExportTraceServiceRequest,
    chance: random.Random,
    prose: Prose,
    n_spans: int,
    n_words: int,
) -> None:
    """Add calls, each with so many words of input and output together."""
    n_asked = n_words * 75 // 170
    resource = request.resource_spans.add()
    _add(resource.resource, {"service.name": "bench"})
    spans = resource.scope_spans.add().spans
    now = time.time_ns()
    for n in range(n_spans):
        span = spans.add(
            trace_id=chance.randbytes(16),
            span_id=chance.randbytes(8),
            name="chat",
            kind=3,
            start_time_unix_nano=now + n * 1000,
            end_time_unix_nano=now + n * 1000 + chance.randrange(10**8, 10**9),
        )
        message = '[{"role":"%s","parts":[{"type":"text","content":"%s"}]}]'
        provider, model = chance.choice(MODELS)
        session = chance.randrange(5000)  # of one user of one tenant, in one feature
        _add(
            span,
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
                "gen_ai.response.model": model,
                "gen_ai.response.id": f"chatcmpl-{chance.getrandbits(64):x}",
                "gen_ai.conversation.id": f"session-{session}",
                "user.id": f"user-{session % 800}",
                "llmobs.feature": ("search", "support", "writer")[session % 3],
                "gen_ai.input.messages": message % ("user", prose.take(n_asked)),
                "gen_ai.output.messages": message % ("assistant", prose.take(n_words - n_asked)),
                "server.address": "api.example.com",
                "openai.api.type": "chat_completions",
                "gen_ai.output.type": "text",
                "app.tenant": f"tenant-{session % 40}",
                "app.build": "2026.11.24",
                "gen_ai.usage.input_tokens": chance.randrange(50, 4000),
                "gen_ai.usage.output_tokens": chance.randrange(10, 900),
                "gen_ai.request.max_tokens": 1024,
                "server.port": 443,
            },
        )


def agents(
    request: ExportTraceServiceRequest,
    chance: random.Random,
    prose: Prose,
    n_spans: int,
    n_words: int,
) -> None:
    """Add traces of agents; `n_words` scales their texts, 170 are 600 + 400 characters a call."""
    scale = n_words / 170
    now = time.time_ns()
    resource = request.resource_spans.add()
    _add(
        resource.resource,
        {
            "service.name": chance.choice(("support-bot", "docs-rag", "copilot", "triage")),
            "service.version": f"1.{chance.randrange(7)}.0",
            "deployment.environment.name": chance.choice(("prod", "prod", "prod", "staging")),
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "service.instance.id": f"{chance.getrandbits(128):032x}",
            "host.name": f"node-{chance.randrange(9)}",
        },
    )
    spans = resource.scope_spans.add().spans
    systems = [prose.chars(180) for _ in range(3)]

    def text(low: int, high: int) -> str:
        return prose.chars(int(chance.randrange(low, high) * scale))

    def called(operation: str) -> dict[str, Any]:
        provider, model = chance.choice(MODELS)
        n_input = int(chance.lognormvariate(6.5, 0.7))
        asked = [_message("system", chance.choice(systems)), _message("user", text(180, 420))]
        return {
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "gen_ai.response.id": f"chatcmpl-{chance.getrandbits(96):024x}",
            "gen_ai.request.temperature": chance.choice((0.0, 0.2, 0.7, 1.0)),
            "gen_ai.request.max_tokens": 1024,
            "gen_ai.output.type": "text",
            "gen_ai.usage.input_tokens": n_input,
            "gen_ai.usage.output_tokens": int(chance.lognormvariate(5.2, 0.6)),
            "gen_ai.usage.cache_read.input_tokens": n_input // 3,
            "gen_ai.response.finish_reasons": ["stop" if chance.random() < 0.9 else "tool_calls"],
            "gen_ai.input.messages": json.dumps(asked),
            "gen_ai.output.messages": json.dumps([_message("assistant", text(180, 440))]),
            "server.address": "api.example.com",
            "server.port": 443,
            **({"gen_ai.agent.name": "planner"} if operation == "invoke_agent" else {}),
        }

    def tool() -> dict[str, Any]:
        name = chance.choice(TOOLS)
        rows = [text(79, 81) for _ in range(chance.randrange(2, 8))]
        return {
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": f"call_{chance.getrandbits(96):024x}",
            "gen_ai.tool.type": "function",
            "gen_ai.tool.description": systems[0][:80],
            "gen_ai.tool.call.arguments": json.dumps({"q": text(60, 300), "limit": 10}),
            "gen_ai.tool.call.result": json.dumps({"rows": rows}),
            "gen_ai.agent.name": "planner",
            "code.function.name": name,
            "code.file.path": "app/tools.py",
            "code.line.number": chance.randrange(400),
            **own(),
        }

    def embeddings() -> dict[str, Any]:
        return {
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "text-embedding-3-small",
            "gen_ai.response.model": "text-embedding-3-small",
            "gen_ai.usage.input_tokens": chance.randrange(20, 800),
            "gen_ai.embeddings.dimension.count": 1536,
            "gen_ai.request.encoding_formats": ["float"],
            "gen_ai.input.messages": json.dumps([_message("user", text(299, 301))]),
            "server.address": "api.example.com",
            "server.port": 443,
            "rag.collection": f"kb-{chance.randrange(5)}",
            **own(),
        }

    def own() -> dict[str, Any]:
        return {
            "app.tenant": f"tenant-{chance.randrange(40)}",
            "app.request.path": "/v1/chat",
            "app.release": f"2026.10.{chance.randrange(20)}",
            "app.region": "eu-west-1",
            "thread.id": chance.randrange(64),
        }

    shared: dict[str, Any] = {}
    trace_id = root = b""
    for n in range(n_spans):
        operation = TRACE[n % len(TRACE)]
        if n % len(TRACE) == 0:
            trace_id, root = chance.randbytes(16), chance.randbytes(8)
            shared = {
                "session.id": f"sess-{chance.randrange(1 << 16):06x}",
                "user.id": f"user-{int(chance.paretovariate(1.1) * 7 % 20000):05d}",
                "gen_ai.conversation.id": f"conv_{chance.getrandbits(64):016x}",
            }
        failed = chance.random() < 0.02
        span = spans.add(
            trace_id=trace_id,
            span_id=root if operation == "invoke_agent" else chance.randbytes(8),
            parent_span_id=b"" if operation == "invoke_agent" else root,
            name=operation,
            kind=1 if operation in ("invoke_agent", "execute_tool") else 3,
            flags=257,
            start_time_unix_nano=now + n * 300_000,
            end_time_unix_nano=now + n * 300_000 + int(chance.lognormvariate(20.3, 0.8)),
        )
        facts = {"execute_tool": tool, "embeddings": embeddings}.get(
            operation, lambda operation=operation: called(operation)
        )()
        _add(span, {"gen_ai.operation.name": operation, **shared, **facts})
        if failed:
            span.status.code, span.status.message = Status.STATUS_CODE_ERROR, "RateLimitError: 429"
            _add(span, {"error.type": "RateLimitError"})


KINDS: Final[
    dict[str, Callable[[ExportTraceServiceRequest, random.Random, Prose, int, int], None]]
] = {"agents": agents, "chats": chats}
"""Kinds of spans by name: each adds a number of them, with so many words, to a request."""

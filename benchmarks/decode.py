"""Spans a second on one core: decode alone, by the scan and by upb, and with normalize.

    python benchmarks/decode.py [--json] [--requests 16] [--seconds 2]

Spans look like those of a busy assistant: traces of 8 (an agent, four calls, two tools, an
embedding), about 20 attributes each, messages of about 600 + 400 characters. CPU time of the
process is what is divided, and the median round counts, so other work on the machine changes
the numbers little.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from llmobs.analyzer.decode import check, decode_spans, decode_spans_upb, warm
from llmobs.analyzer.normalize import normalize

SPANS = 512
OPERATIONS = ("invoke_agent", *("chat", "execute_tool", "chat") * 2, "embeddings")
MODELS = (("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-4-5"), ("aws.bedrock", "nova-pro"))
WORDS = ["the", "order", "of", "a", "refund", "is", "late", "when", "sent", "we", "cannot", "page"]


def requests(n: int, seed: int = 7) -> Iterator[bytes]:
    rnd = random.Random(seed)

    def text(size: int) -> str:
        return " ".join(rnd.choices(WORDS, k=size // 4))[:size]

    def message(role: str, size: int) -> dict[str, Any]:
        return {"role": role, "parts": [{"type": "text", "content": text(size)}]}

    for _ in range(n):
        request = ExportTraceServiceRequest()
        of_resource = request.resource_spans.add()
        resource = {"service.name": "support-bot", "service.version": "1.0.0"}
        resource |= {"deployment.environment.name": "prod", "telemetry.sdk.language": "python"}
        resource |= {"service.instance.id": f"{rnd.getrandbits(128):032x}", "host.name": "node-1"}
        put(of_resource.resource.attributes, resource)
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name = "llmobs"
        for i in range(SPANS):
            operation = OPERATIONS[i % 8]
            if i % 8 == 0:
                trace, session = rnd.randbytes(16), f"conv_{rnd.getrandbits(64):016x}"
            provider, model = rnd.choice(MODELS)
            start = 1_790_000_000_000_000_000 + i * 10**6
            span = of_scope.spans.add(
                trace_id=trace,
                span_id=rnd.randbytes(8),
                parent_span_id=b"" if i % 8 == 0 else rnd.randbytes(8),
                name=f"{operation} {model}",
                kind=3,
                flags=257,
                start_time_unix_nano=start,
                end_time_unix_nano=start + rnd.randrange(10**10),
            )
            attributes: dict[str, Any] = {
                "gen_ai.operation.name": operation,
                "gen_ai.conversation.id": session,
                "session.id": session,
                "user.id": f"user-{rnd.randrange(9999):05d}",
                "app.tenant": f"tenant-{rnd.randrange(40)}",
            }
            if operation == "execute_tool":
                attributes |= {
                    "gen_ai.tool.name": "search_orders",
                    "gen_ai.tool.call.id": f"call_{rnd.getrandbits(96):024x}",
                    "gen_ai.tool.type": "function",
                    "gen_ai.tool.call.arguments": json.dumps({"q": text(150), "limit": 10}),
                    "gen_ai.tool.call.result": json.dumps({"rows": [text(80) for _ in range(5)]}),
                    "gen_ai.agent.name": "support-agent",
                    "code.function.name": "search_orders",
                    "code.line.number": rnd.randrange(400),
                    "thread.id": rnd.randrange(64),
                    "app.request.path": "/v1/chat",
                }
            else:
                attributes |= {
                    "gen_ai.provider.name": provider,
                    "gen_ai.request.model": model,
                    "gen_ai.response.model": model + "-2026-08-06",
                    "gen_ai.response.id": f"chatcmpl-{rnd.getrandbits(96):024x}",
                    "gen_ai.request.temperature": 0.2,
                    "gen_ai.request.max_tokens": 1024,
                    "gen_ai.output.type": "text",
                    "gen_ai.usage.input_tokens": rnd.randrange(2000),
                    "gen_ai.usage.output_tokens": rnd.randrange(500),
                    "gen_ai.response.finish_reasons": ["stop"],
                    "gen_ai.input.messages": json.dumps(
                        [message("system", 180), message("user", 300)]
                    ),
                    "gen_ai.output.messages": json.dumps([message("assistant", 310)]),
                    "server.address": "api.example.com",
                    "server.port": 443,
                }
            put(span.attributes, attributes)
        yield request.SerializeToString()


def put(into: Any, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        pair = KeyValue(key=key)
        match value:
            case str():
                pair.value.string_value = value
            case int():
                pair.value.int_value = value
            case float():
                pair.value.double_value = value
            case _:
                for item in value:
                    pair.value.array_value.values.add(string_value=item)
        into.append(pair)


def spans_per_s(run: Callable[[], object], n_spans: int, seconds: float) -> int:
    run()
    rounds: list[float] = []
    while sum(rounds) < seconds or len(rounds) < 3:
        start = time.process_time()
        run()
        rounds.append(time.process_time() - start)
    return round(n_spans / statistics.median(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--requests", type=int, default=16, help="requests of 512 spans")
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time for each figure")
    options = parser.parse_args()
    bodies = list(requests(options.requests))
    n_spans = SPANS * len(bodies)
    start = time.process_time()
    warm()
    warm_s = time.process_time() - start
    now_ns = 1_790_000_000_000_000_000

    def rate(run: Callable[[], object]) -> int:
        return spans_per_s(run, n_spans, options.seconds)

    figures = {
        "check_spans_per_s": rate(lambda: [check("traces", body, False) for body in bodies]),
        "decode_scan_spans_per_s": rate(lambda: decode_spans(bodies)),
        "decode_upb_spans_per_s": rate(lambda: decode_spans_upb(bodies)),
        "decode_and_normalize_spans_per_s": rate(
            lambda: normalize(decode_spans(bodies), now_ns=now_ns)
        ),
        "warm_s": round(warm_s, 2),
        "bytes_per_span": round(sum(map(len, bodies)) / n_spans),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:36}{value:>12,}")


if __name__ == "__main__":
    main()

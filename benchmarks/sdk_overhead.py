"""What a decorated call costs the application, against a bare OpenTelemetry span in the same run.

Each measurement is a process of its own; the two systems take turns, round by round, so that a
neighbour's load falls on both. Both send over OTLP/HTTP, by the same exporter, to one local sink in
a process of its own. The bare span carries 15 attributes that the application writes by hand; the
decorated call gives the same facts as a span, with the content on an event, and as metrics.

- paced: one call every 2 ms, caches cold as in a service. p50 and p99 are wall time of the calling
  thread around the call; CPU is the whole process's, all threads, from the first call to the end of
  a flush, less that of the same loop without telemetry.
- burst: calls back to back; p50 of the calling thread.
- memory: what one call allocates that still stands when it is over, while it waits to be sent, in
  bytes and in blocks of the allocator.

Ratios are medians over the rounds. Run: ``python -m benchmarks.sdk_overhead [--json]``.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.rounds import serving, take_turns

COMMAND = [sys.executable, "-m", "benchmarks.sdk_overhead"]
MODEL = "gpt-4o-mini"
PROMPT = ("question lorem ipsum dolor sit amet consectetur " * 13)[:600]
ANSWER = ("answer tempor incididunt ut labore et dolore magna " * 9)[:400]
MESSAGES = [{"role": "user", "content": PROMPT}]
RESPONSE: dict[str, Any] = {
    "id": "chatcmpl-bench",
    "model": f"{MODEL}-2024-07-18",
    "choices": [
        {"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop", "index": 0}
    ],
    "usage": {"prompt_tokens": 150, "completion_tokens": 100},
}
RATE = 500.0
WARM_UP = 300
N_WAITING = 200


def sink() -> None:
    """Take any POST, and count the spans when asked, which is after the timed part."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    bodies: list[bytes] = []
    events: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write per answer: no wait for a delayed acknowledgement

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                bodies.append(body)
            if self.path == "/v1/logs":
                events.append(body)
            self.answer(b"")

        def do_GET(self) -> None:
            n_spans = sum(
                len(of_scope.spans)
                for body in bodies
                for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
                for of_scope in of_resource.scope_spans
            )
            n_events = sum(
                len(of_scope.log_records)
                for body in events
                for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs
                for of_scope in of_resource.scope_logs
            )
            bodies.clear()
            events.clear()
            self.answer(f"{n_spans} {n_events}".encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


Call = Callable[[], Any]
Flush = Callable[[], Any]


def nothing(endpoint: str) -> tuple[Call, Flush]:
    def ask(messages: list[dict[str, str]]) -> dict[str, Any]:
        return RESPONSE

    return lambda: ask(MESSAGES), lambda: None


def otel(endpoint: str) -> tuple[Call, Flush]:
    """A span of 15 attributes, as a careful developer writes it by hand."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind

    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=10_000))
    tracer = provider.get_tracer("bench")

    def ask(messages: list[dict[str, str]]) -> dict[str, Any]:
        with tracer.start_as_current_span(
            f"chat {MODEL}",
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": MODEL,
                "gen_ai.request.temperature": 0.2,
                "gen_ai.request.max_tokens": 256,
                "gen_ai.conversation.id": "conv-5f2c",
                "server.address": "127.0.0.1",
                "server.port": 443,
                "gen_ai.input.messages": json.dumps(
                    [
                        {"role": m["role"], "parts": [{"type": "text", "content": m["content"]}]}
                        for m in messages
                    ]
                ),
            },
        ) as span:
            response = RESPONSE
            choice = response["choices"][0]
            span.set_attributes(
                {
                    "gen_ai.response.model": response["model"],
                    "gen_ai.response.id": response["id"],
                    "gen_ai.response.finish_reasons": (choice["finish_reason"],),
                    "gen_ai.usage.input_tokens": response["usage"]["prompt_tokens"],
                    "gen_ai.usage.output_tokens": response["usage"]["completion_tokens"],
                    "gen_ai.output.messages": json.dumps(
                        [
                            {
                                "role": "assistant",
                                "parts": [
                                    {"type": "text", "content": choice["message"]["content"]}
                                ],
                            }
                        ]
                    ),
                }
            )
            return response

    return lambda: ask(MESSAGES), lambda: provider.force_flush(30_000)


def llmobs(endpoint: str) -> tuple[Call, Flush]:
    import llmobs as sdk

    sdk.init("bench", endpoint=endpoint, capture_content="full", content_place="event")
    sdk.session("conv-5f2c").__enter__()

    @sdk.observe(
        kind="chat",
        provider="openai",
        attributes={"server.address": "127.0.0.1", "server.port": 443},
    )
    def ask(
        messages: list[dict[str, str]],
        model: str = MODEL,
        temperature: float = 0.2,
        max_tokens: int = 256,
    ) -> dict[str, Any]:
        return RESPONSE

    return lambda: ask(MESSAGES), lambda: sdk.flush(30)


SYSTEMS = {"nothing": nothing, "otel": otel, "llmobs": llmobs}


def timed(call: Call, n_calls: int, rate: float) -> list[int]:
    """Return how long each call took, in ns; with a rate, one call per 1/rate s."""
    clock = time.perf_counter_ns
    step = int(1e9 / rate) if rate else 0
    due = clock()
    out = []
    for _ in range(n_calls):
        if step:
            due += step
            wait = due - clock()
            if wait > 0:
                time.sleep(wait / 1e9)
        began = clock()
        call()
        out.append(clock() - began)
    return out


def allocated(call: Call) -> tuple[float, float]:
    """Return bytes and blocks that a call leaves behind, of fewer calls than a batch takes."""
    gc.collect()
    tracemalloc.start()
    n_bytes, n_blocks = tracemalloc.get_traced_memory()[0], sys.getallocatedblocks()
    for _ in range(N_WAITING):
        call()
    n_bytes = tracemalloc.get_traced_memory()[0] - n_bytes
    n_blocks = sys.getallocatedblocks() - n_blocks
    tracemalloc.stop()
    return n_bytes / N_WAITING, n_blocks / N_WAITING


def quantile_us(durations_ns: list[int], share: float) -> float:
    ordered = sorted(durations_ns)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e3


def measure(system: str, endpoint: str, n_paced: int, n_burst: int) -> dict[str, float]:
    call, flush = SYSTEMS[system](endpoint)
    timed(call, WARM_UP, 0)
    flush()
    gc.collect()
    cpu_s = time.process_time()
    paced = timed(call, n_paced, RATE)
    flush()
    cpu_us = (time.process_time() - cpu_s) / n_paced * 1e6
    burst = timed(call, n_burst, 0)
    flush()
    n_bytes, n_blocks = allocated(call)
    flush()
    return {
        "alloc_bytes": n_bytes,
        "alloc_blocks": n_blocks,
        "p50_us": quantile_us(paced, 0.5),
        "p99_us": quantile_us(paced, 0.99),
        "cpu_us": cpu_us,
        "burst_p50_us": quantile_us(burst, 0.5),
        "burst_p99_us": quantile_us(burst, 0.99),
    }


def run_worker(system: str, endpoint: str, n_paced: int, n_burst: int) -> dict[str, float]:
    command = [*COMMAND, "--worker", system, "--endpoint", endpoint]
    command += ["--paced", str(n_paced), "--burst", str(n_burst)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(out.splitlines()[-1])
    with urllib.request.urlopen(endpoint, timeout=30) as answer:
        n_spans, n_events = map(int, answer.read().split())
    n_sent = 0 if system == "nothing" else WARM_UP + n_paced + n_burst + N_WAITING
    result["arrived_ratio"] = n_spans / n_sent if n_sent else 1.0
    result["events_ratio"] = n_events / n_sent if n_sent else 1.0
    return result


def compare(rounds: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return the medians over the rounds of each round's ratios."""

    def ratio(name: str) -> float:
        return statistics.median(r["llmobs"][name] / r["otel"][name] for r in rounds)

    def less_idle(of: dict[str, dict[str, float]], system: str) -> float:
        return of[system]["cpu_us"] - of["nothing"]["cpu_us"]

    cpu = statistics.median(less_idle(r, "llmobs") / less_idle(r, "otel") for r in rounds)
    out = {
        "p50_ratio": ratio("p50_us"),
        "p99_ratio": ratio("p99_us"),
        "cpu_ratio": cpu,
        "burst_p50_ratio": ratio("burst_p50_us"),
        "llmobs_p50_us": statistics.median(r["llmobs"]["p50_us"] for r in rounds),
        "llmobs_p99_us": statistics.median(r["llmobs"]["p99_us"] for r in rounds),
        "llmobs_cpu_us": statistics.median(less_idle(r, "llmobs") for r in rounds),
        "otel_p50_us": statistics.median(r["otel"]["p50_us"] for r in rounds),
        "otel_p99_us": statistics.median(r["otel"]["p99_us"] for r in rounds),
        "otel_cpu_us": statistics.median(less_idle(r, "otel") for r in rounds),
        "arrived_ratio": min(r["llmobs"]["arrived_ratio"] for r in rounds),
        "events_ratio": min(r["llmobs"]["events_ratio"] for r in rounds),
    }
    for system in ("llmobs", "otel"):
        for name in ("alloc_bytes", "alloc_blocks"):
            out[f"{system}_{name}"] = statistics.median(r[system][name] for r in rounds)
    return {name: round(value, 3) for name, value in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paced", type=int, default=2_000, help="calls at 500 a second")
    parser.add_argument("--burst", type=int, default=3_000, help="calls back to back")
    parser.add_argument("--worker", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.sink:
        sink()
    if chosen.worker:
        measured = measure(chosen.worker, chosen.endpoint, chosen.paced, chosen.burst)
        print(json.dumps(measured))
        return
    with serving([*COMMAND, "--sink"]) as endpoint:
        rounds = take_turns(
            SYSTEMS,
            chosen.rounds,
            lambda name: run_worker(name, endpoint, chosen.paced, chosen.burst),
        )
    result = compare(rounds)
    if chosen.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value:10.3f}")


if __name__ == "__main__":
    main()

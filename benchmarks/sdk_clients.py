"""What tracing OpenAI's real client costs the application, against the official instrumentation.

Each measurement is a process of its own, the systems take turns. All call one local stub provider,
a process of its own whose CPU does not count, by the real ``openai`` package; telemetry goes over
OTLP/HTTP to a local sink in the same process as the stub. CPU is the whole calling process's, all
threads, from the first call to the end of a flush, less that of the same calls without telemetry.
Of all blocks of calls the least counts: a neighbour's load on the machine only ever adds.

Both systems capture content on the span, and send spans and metrics; llmobs aggregates its own.

Run: ``python -m benchmarks.sdk_clients [--json]``, with ``openai`` and
``opentelemetry-instrumentation-genai-openai`` installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.rounds import serving, take_turns

COMMAND = [sys.executable, "-m", "benchmarks.sdk_clients"]
MODEL = "gpt-4o-mini"
MESSAGES: Any = [{"role": "user", "content": ("question lorem ipsum dolor sit amet " * 17)[:600]}]
ANSWER = ("answer tempor incididunt ut labore et dolore magna " * 9)[:400]
N_CHUNKS = 50
WARM_UP = 60
N_BLOCKS = 4
USAGE = {"prompt_tokens": 150, "completion_tokens": 100, "total_tokens": 250}
HEAD = {"id": "chatcmpl-bench", "created": 1_760_000_000, "model": f"{MODEL}-2024-07-18"}
Flush = Callable[[], Any]


def _chunk(choices: list[dict[str, Any]], usage: Any = None) -> bytes:
    body = {**HEAD, "object": "chat.completion.chunk", "choices": choices, "usage": usage}
    return b"data: %b\n\n" % json.dumps(body).encode()


def _delta(delta: dict[str, str], reason: str | None = None) -> bytes:
    return _chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}])


def serve() -> None:
    """Answer as OpenAI does, and take telemetry; GET tells how many spans came."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    said = {"role": "assistant", "content": ANSWER, "refusal": None}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}
    whole = {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    answer = json.dumps(whole).encode()
    events = [_delta({"role": "assistant", "content": ""})]
    events += [_delta({"content": f" word{number}"}) for number in range(N_CHUNKS - 3)]
    events += [_delta({}, "stop"), _chunk([], USAGE), b"data: [DONE]\n\n"]
    # One write for each event of the answer, as they come from a model.
    streamed = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def handle(self) -> None:
            with suppress(ConnectionError):  # a worker that has ended
                super().handle()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/chat/completions":
                if self.path == "/v1/traces":
                    bodies.append(body)
                self.answer(b"", "application/x-protobuf")
            elif json.loads(body).get("stream"):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for event in streamed:
                    self.wfile.write(event)
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.answer(answer, "application/json")

        def do_GET(self) -> None:
            n_spans = sum(
                len(of_scope.spans)
                for body in bodies
                for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
                for of_scope in of_resource.scope_spans
            )
            bodies.clear()
            self.answer(str(n_spans).encode(), "text/plain")

        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


def nothing(endpoint: str) -> Flush:
    return lambda: None


def official(endpoint: str) -> Flush:
    """The official instrumentation, on the SDK as its documentation sets it up."""
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.genai.openai import (  # type: ignore[import-not-found,unused-ignore]
        OpenAIInstrumentor,
    )
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracers = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
    tracers.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=10_000))
    trace.set_tracer_provider(tracers)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics"))
    meters = MeterProvider(metric_readers=[reader])
    metrics.set_meter_provider(meters)
    OpenAIInstrumentor().instrument()
    return lambda: (tracers.force_flush(30_000), meters.force_flush(30_000))


def llmobs(endpoint: str) -> Flush:
    import llmobs as sdk

    sdk.init("bench", endpoint=endpoint, capture_content="full")
    sdk.instrument("openai")
    return lambda: sdk.flush(30)


SYSTEMS = {"nothing": nothing, "official": official, "llmobs": llmobs}


def measure(system: str, endpoint: str, n_calls: int) -> dict[str, float]:
    """Return CPU per call in µs, of plain calls and of streams."""
    import openai

    flush = SYSTEMS[system](endpoint)
    client = openai.OpenAI(api_key="none", base_url=endpoint)

    def chat() -> None:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0.2)

    def stream() -> None:
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        for _ in client.chat.completions.create(model=MODEL, messages=MESSAGES, **options):
            pass

    out = {}
    for name, call, n in (("chat", chat, n_calls), ("stream", stream, n_calls // 2)):
        for _ in range(WARM_UP):
            call()
        flush()
        gc.collect()
        out[f"{name}_cpu_us"] = min(block(call, flush, n // N_BLOCKS) for _ in range(N_BLOCKS))
    return out


def block(call: Callable[[], None], flush: Flush, n_calls: int) -> float:
    cpu_s = time.process_time()
    for _ in range(n_calls):
        call()
    flush()
    return (time.process_time() - cpu_s) / n_calls * 1e6


def run_worker(system: str, endpoint: str, n_calls: int) -> dict[str, float]:
    command = [*COMMAND, "--worker", system]
    command += ["--endpoint", endpoint, "--calls", str(n_calls)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(out.splitlines()[-1])
    with urllib.request.urlopen(endpoint, timeout=30) as answer:
        n_arrived = int(answer.read())
    n_sent = 0 if system == "nothing" else 2 * WARM_UP + n_calls + n_calls // 2
    result["arrived_ratio"] = n_arrived / n_sent if n_sent else 1.0
    return result


def compare(rounds: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return added CPU per call, and ours to the official one's, by the least of all rounds."""
    out: dict[str, float] = {}
    for name in ("chat", "stream"):
        key = f"{name}_cpu_us"
        least = {system: min(of[system][key] for of in rounds) for system in SYSTEMS}
        ours, theirs = (least[system] - least["nothing"] for system in ("llmobs", "official"))
        out[f"{name}_ratio"] = ours / theirs
        out[f"{name}_client_cpu_us"] = least["nothing"]
        out[f"{name}_added_official_cpu_us"] = theirs
        out[f"{name}_added_llmobs_cpu_us"] = ours
    out["arrived_ratio"] = min(of["llmobs"]["arrived_ratio"] for of in rounds)
    return {name: round(value, 3) for name, value in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400, help="plain calls; half as many streams")
    parser.add_argument("--worker", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
    if chosen.worker:
        print(json.dumps(measure(chosen.worker, chosen.endpoint, chosen.calls)))
        return
    with serving([*COMMAND, "--serve"]) as endpoint:
        rounds = take_turns(
            SYSTEMS, chosen.rounds, lambda name: run_worker(name, endpoint, chosen.calls)
        )
    result = compare(rounds)
    if chosen.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:32} {value:10.3f}")


if __name__ == "__main__":
    main()

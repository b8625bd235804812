"""Measure ingest: acknowledged, queryable and scored, in CPU time a span.

    python benchmarks/ingest.py [--requests 200] [--json]

Starts the embedded server, sends it OTLP/HTTP requests of 512 distinct spans (gzip, about 20
attributes and 1,000 characters of text each) from this process, and reads the CPU time of
the server's two processes. CPU time, since machines are shared; the sender's is not counted.
The last line of `--json` is one object: acked_us_per_span, queryable_us_per_span,
scored_us_per_span, bytes_per_span, idle_mb, peak_mb, ack_p99_ms.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from llmobs.server import Server
from llmobs.settings import Settings
from llmobs.web.client import Api

SPANS_A_REQUEST = 512
CONNECTIONS = 4
MODELS = ("gpt-4o-mini", "gpt-4.1", "claude-3-5-haiku-latest", "gemini-2.0-flash")


def make_request(chance: random.Random, words: list[str], n_spans: int) -> bytes:
    """Build one gzipped export request."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(
        KeyValue(key="service.name", value=AnyValue(string_value="bench"))
    )
    spans = resource.scope_spans.add().spans
    now = time.time_ns()

    def text(n: int) -> str:
        # Zipf-like: short ranks are common, as in prose.
        return " ".join(words[int(len(words) * chance.random() ** 3)] for _ in range(n))

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
        model = chance.choice(MODELS)
        texts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "gen_ai.response.id": f"chatcmpl-{chance.getrandbits(64):x}",
            "gen_ai.conversation.id": f"session-{chance.randrange(5000)}",
            "user.id": f"user-{chance.randrange(800)}",
            "llmobs.feature": chance.choice(("search", "support", "writer")),
            "gen_ai.input.messages": message % ("user", text(70)),
            "gen_ai.output.messages": message % ("assistant", text(90)),
            "server.address": "api.example.com",
            "openai.api.type": "chat_completions",
            "gen_ai.output.type": "text",
            "app.tenant": f"tenant-{chance.randrange(40)}",
            "app.build": "2026.11.24",
        }
        numbers = {
            "gen_ai.usage.input_tokens": chance.randrange(50, 4000),
            "gen_ai.usage.output_tokens": chance.randrange(10, 900),
            "gen_ai.request.max_tokens": 1024,
            "server.port": 443,
        }
        for key, value in texts.items():
            span.attributes.append(KeyValue(key=key, value=AnyValue(string_value=value)))
        for key, number in numbers.items():
            span.attributes.append(KeyValue(key=key, value=AnyValue(int_value=number)))
    return gzip.compress(request.SerializeToString(), 1)


def vocabulary(chance: random.Random) -> list[str]:
    """Return 8,000 made-up words of natural lengths."""
    letters = "etaoinshrdlucmfwypvbgk"
    return [
        "".join(chance.choice(letters) for _ in range(chance.randrange(2, 10))) for _ in range(8000)
    ]


def cpu_s(pid: int) -> float:
    """Return user and system time of one process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: list[int], key: str) -> float:
    """Return VmRSS or VmHWM of all processes together, in MB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key):
                total += int(line.split()[1])
    return total / 1024


def send(port: int, bodies: list[bytes]) -> list[float]:
    """Send all bodies over a few connections; return the acknowledgement times, in ms."""
    queue, times, lock = list(bodies), [], threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        while True:
            with lock:
                if not queue:
                    break
                body = queue.pop()
            while True:
                begun = time.perf_counter()
                connection.request("POST", "/v1/traces", body, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    break
                time.sleep(0.2)  # the server asked to wait
            with lock:
                times.append((time.perf_counter() - begun) * 1000)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def wait_idle(pid: int, quiet_s: float = 1.0, timeout_s: float = 600.0) -> None:
    """Return when a process has used next to no CPU for a while."""
    deadline, last, since = time.monotonic() + timeout_s, cpu_s(pid), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.25)
        now = cpu_s(pid)
        if now - last > 0.05 * 0.25:
            since = time.monotonic()
        last = now
        if time.monotonic() - since > quiet_s:
            return


def measure(n_requests: int, scorers: tuple[str, ...]) -> dict[str, float]:
    """Run one server with these scorers and measure it."""
    chance = random.Random(42)
    words = vocabulary(chance)
    with tempfile.TemporaryDirectory(prefix="llmobs-bench-") as folder:
        settings = Settings(
            data=Path(folder), grpc_port=0, http_port=0, web_port=0, scorers=scorers
        )
        with Server(settings) as server:
            server.wait_ready()
            settings, pids = server.settings, server.pids()
            api = Api(settings.page_url)
            # Warm: the decoder compiles, the scorers load.
            send(settings.http_port, [make_request(chance, words, 64) for _ in range(4)])
            wait_idle(pids["engine"], quiet_s=3.0)
            idle_mb = memory_mb(list(pids.values()), "VmRSS")
            n_before = api.get("status")["sizes"]["spans"]
            bodies = [make_request(chance, words, SPANS_A_REQUEST) for _ in range(n_requests)]
            n_spans = n_requests * SPANS_A_REQUEST
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            begun = time.monotonic()
            times = send(settings.http_port, bodies)
            acked_s = time.monotonic() - begun
            receiver_s = cpu_s(pids["receiver"]) - before["receiver"]
            while api.get("status")["sizes"]["spans"] < n_before + n_spans:
                time.sleep(0.05)
            queryable_s = time.monotonic() - begun
            wait_idle(pids["engine"])
            engine_s = cpu_s(pids["engine"]) - before["engine"]
            sizes = api.get("status")["sizes"]
            times.sort()
            return {
                "spans": n_spans,
                "acked_per_s": round(n_spans / acked_s),
                "queryable_per_s": round(n_spans / queryable_s),
                "acked_us_per_span": round(receiver_s / n_spans * 1e6, 1),
                "engine_us_per_span": round(engine_s / n_spans * 1e6, 1),
                "bytes_per_span": round(sizes["bytes_a_span"], 1),
                "idle_mb": round(idle_mb),
                "peak_mb": round(memory_mb(list(pids.values()), "VmHWM")),
                "ack_p50_ms": round(statistics.median(times), 1),
                "ack_p99_ms": round(times[int(len(times) * 0.99)], 1),
            }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="of 512 spans each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plain = measure(options.requests, ())
    scored = measure(options.requests, ("all",))
    result = {
        "acked_us_per_span": plain["acked_us_per_span"],
        "queryable_us_per_span": round(plain["acked_us_per_span"] + plain["engine_us_per_span"], 1),
        "scored_us_per_span": round(scored["acked_us_per_span"] + scored["engine_us_per_span"], 1),
        "bytes_per_span": scored["bytes_per_span"],
        "idle_mb": scored["idle_mb"],
        "peak_mb": scored["peak_mb"],
        "ack_p99_ms": plain["ack_p99_ms"],
    }
    if not options.json:
        for name, run in (("without scorers", plain), ("with all scorers", scored)):
            print(name)
            for key, value in run.items():
                print(f"  {key:22} {value:>12,}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

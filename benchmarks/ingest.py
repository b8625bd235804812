"""Measure ingest: acknowledged, queryable and scored, in CPU time a span.

    python -m benchmarks.ingest [--requests 120] [--chars 1000] [--json]

Requests of 512 distinct spans (gzip, about 20 attributes and 1,000 characters of prose each)
go through the real parts, each in a process of its own, so that its CPU time can be told:

- the receiver takes them over OTLP/HTTP and writes the log (acknowledged);
- ingest takes the log to the store: decode, normalize, price, insert, merges (queryable);
- the analysis reads them back, scores, watches and counts them (scored).

CPU time, since machines are shared; the sender's is not counted. The acknowledgement times
are of the receiver alone, with four senders that never rest. The last line of `--json` is one
object: acked_us_per_span, queryable_us_per_span, scored_us_per_span (each with what comes
before it), bytes_per_span, idle_mb, peak_mb, ack_p99_ms.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import gzip
import http.client
import itertools
import json
import multiprocessing
import random
import socket
import statistics
import tempfile
import threading
import time
from importlib import resources
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from llmobs.analyzer.decode import warm
from llmobs.analyzer.log import SegmentReader
from llmobs.analyzer.monitor import MonitorSettings
from llmobs.analyzer.pipeline import Analysis, Ingest, Scoring
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.score import ScoreStage, load_scorers
from llmobs.analyzer.store import open_state, open_store
from llmobs.measures.cost import PriceBook
from llmobs.measures.text import warm as warm_texts
from llmobs.server import run_receiver
from llmobs.settings import Settings
from tests.ports import free_ports

SPANS_A_REQUEST = 512
CONNECTIONS = 4
MODELS = ("gpt-4o-mini", "gpt-4.1", "claude-3-5-haiku-latest", "gemini-2.0-flash")


def make_request(chance: random.Random, prose: Prose, n_spans: int, n_words: int = 170) -> bytes:
    """Build one gzipped export request."""
    request = ExportTraceServiceRequest()
    fill(request, chance, prose, n_spans, n_words=n_words)
    return gzip.compress(request.SerializeToString(), 1)


def fill(
    request: ExportTraceServiceRequest,
    chance: random.Random,
    prose: Prose,
    n_spans: int,
    *,
    n_words: int,
) -> None:
    """Add spans of chats, each with so many words of input and output together."""
    n_asked = n_words * 75 // 170
    resource = request.resource_spans.add()
    resource.resource.attributes.append(
        KeyValue(key="service.name", value=AnyValue(string_value="bench"))
    )
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
        model = chance.choice(MODELS)
        session = chance.randrange(5000)  # of one user of one tenant, in one feature
        texts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
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


def receive(folder: Path, bodies: list[bytes]) -> dict[str, float]:
    """Send all bodies to a receiver of its own and measure it."""
    settings = with_free_ports(Settings(data=folder, segment_max_age_s=60))
    process = multiprocessing.get_context("spawn").Process(target=run_receiver, args=(settings,))
    process.start()
    assert process.pid
    while not answers(settings.http_port):
        time.sleep(0.05)
    send(settings.http_port, bodies[:2])
    before, begun = cpu_s(process.pid), time.monotonic()
    times = sorted(send(settings.http_port, bodies[2:]))
    n_spans = len(times) * SPANS_A_REQUEST
    result = {
        "acked_us_per_span": (cpu_s(process.pid) - before) / n_spans * 1e6,
        "acked_per_s": n_spans / (time.monotonic() - begun),
        "ack_p50_ms": statistics.median(times),
        "ack_p99_ms": times[int(len(times) * 0.99)],
        "receiver_mb": memory_mb([process.pid], "VmRSS"),
    }
    process.terminate()
    process.join()
    return result


def engine(folder: Path, results: multiprocessing.Queue[dict[str, float]]) -> None:
    """Take the log to the store and analyze it; runs in a process of its own."""
    pid = os.getpid()
    metrics = Metrics()
    warm()
    warm_texts()
    store = open_store(f"chdb://{folder}/store")
    state = open_state(folder / "state.db")
    ingest = Ingest(SegmentReader(folder / "log", folder / "aside"), store, PriceBook(), metrics)
    scoring = ScoreStage(load_scorers(), time_box_s=600)
    analysis = Analysis(state, Scoring(store, scoring), MonitorSettings(), metrics)
    idle_mb = memory_mb([pid], "VmRSS")
    begun, before = time.monotonic(), time.process_time()
    while ingest.step():
        pass
    ingest_cpu_s, ingest_s = time.process_time() - before, time.monotonic() - begun
    n_spans = store.sizes()["spans"]
    before = time.process_time()
    while analysis.step():
        pass
    analysis_cpu_s = time.process_time() - before
    results.put(
        {
            "ingest_us_per_span": ingest_cpu_s / n_spans * 1e6,
            "queryable_per_s": n_spans / ingest_s,
            "analysis_us_per_span": analysis_cpu_s / n_spans * 1e6,
            "bytes_per_span": store.sizes()["bytes_a_span"],
            "engine_idle_mb": idle_mb,
            "engine_peak_mb": memory_mb([pid], "VmHWM"),
            "spans": n_spans,
        }
    )


def with_free_ports(settings: Settings) -> Settings:
    """Return the settings with ports that were free a moment ago."""
    names = ("grpc_port", "http_port", "web_port")
    return settings.model_copy(update=dict(zip(names, free_ports(len(names)), strict=True)))


def answers(port: int) -> bool:
    """Tell whether something listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=120, help="of 512 spans each")
    parser.add_argument("--chars", type=int, default=1000, help="of text in a span, about")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chance = random.Random(42)
    prose = Prose(chance)
    n_words = max(2, options.chars * 170 // 1000)
    bodies = [
        make_request(chance, prose, SPANS_A_REQUEST, n_words) for _ in range(options.requests + 2)
    ]
    with tempfile.TemporaryDirectory(prefix="llmobs-bench-") as name:
        run = receive(Path(name), bodies)
        context = multiprocessing.get_context("spawn")
        results: multiprocessing.Queue[dict[str, float]] = context.Queue()
        process = context.Process(target=engine, args=(Path(name), results))
        process.start()
        run |= results.get()
        process.join()
    queryable = run["acked_us_per_span"] + run["ingest_us_per_span"]
    if not options.json:
        for key, value in run.items():
            print(f"{key:24} {value:>12,.1f}")
    summary = {
        "acked_us_per_span": run["acked_us_per_span"],
        "queryable_us_per_span": queryable,
        "scored_us_per_span": queryable + run["analysis_us_per_span"],
        "bytes_per_span": run["bytes_per_span"],
        "idle_mb": run["receiver_mb"] + run["engine_idle_mb"],
        "peak_mb": run["receiver_mb"] + run["engine_peak_mb"],
        "ack_p99_ms": run["ack_p99_ms"],
    }
    print(json.dumps({key: round(value, 1) for key, value in summary.items()}))


if __name__ == "__main__":
    main()

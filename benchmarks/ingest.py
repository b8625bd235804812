"""Measure ingest: acknowledged, queryable and scored, in CPU time a span.

    python -m benchmarks.ingest [--requests 120] [--spans agents|chats] [--chars 1000] [--json]

Requests of 512 distinct spans (gzip; see `benchmarks.spans`) go through the real parts, each in
a process of its own, so that its CPU time can be told:

- the receiver takes them over OTLP/HTTP and writes the log (acknowledged);
- ingest takes the log to the store: decode, normalize, price, insert, merges (queryable);
- the analysis reads them back, scores, watches and counts them (scored).

CPU time, since machines are shared; the sender's is not counted. The acknowledgement times
are of the receiver alone, with four senders that never rest. The last line of `--json` is one
object: acked_us_per_span, queryable_us_per_span, scored_us_per_span (each with what comes
before it), bytes_per_span (right after the run, before most merges), idle_mb (resident, both
processes), idle_anonymous_mb (of it, what is no page of a mapped file, which the system takes
back when it needs the room), peak_mb, ack_p99_ms.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import http.client
import json
import multiprocessing
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.spans import KINDS, SPANS_A_REQUEST, Prose, make_request
from llmobs.analyzer.decode import warm
from llmobs.analyzer.log import SegmentReader
from llmobs.analyzer.monitor import MonitorSettings
from llmobs.analyzer.pipeline import Analysis, Ingest, Scoring
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.score import ScoreStage, load_scorers
from llmobs.analyzer.store import open_state, open_store
from llmobs.measures.cost import PriceBook
from llmobs.measures.text import warm as warm_texts
from llmobs.settings import Settings
from tests.ports import free_ports

CONNECTIONS = 4
_RECEIVER = """import sys
from llmobs.server import run_receiver
from llmobs.settings import Settings
run_receiver(Settings.model_validate_json(sys.argv[1]))"""


def cpu_s(pid: int) -> float:
    """Return user and system time of one process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: list[int], key: str) -> float:
    """Return VmRSS, RssAnon or VmHWM of all processes together, in MB."""
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
    # Not by multiprocessing, which would import all of this module there.
    process = subprocess.Popen([sys.executable, "-c", _RECEIVER, settings.model_dump_json()])
    while not answers(settings.http_port):
        time.sleep(0.05)
    idle_mb, idle_anonymous_mb = (memory_mb([process.pid], key) for key in ("VmRSS", "RssAnon"))
    send(settings.http_port, bodies[:2])
    before, begun = cpu_s(process.pid), time.monotonic()
    times = sorted(send(settings.http_port, bodies[2:]))
    n_spans = len(times) * SPANS_A_REQUEST
    result = {
        "acked_us_per_span": (cpu_s(process.pid) - before) / n_spans * 1e6,
        "acked_per_s": n_spans / (time.monotonic() - begun),
        "ack_p50_ms": statistics.median(times),
        "ack_p99_ms": times[int(len(times) * 0.99)],
        "receiver_idle_mb": idle_mb,
        "receiver_idle_anonymous_mb": idle_anonymous_mb,
        "receiver_peak_mb": memory_mb([process.pid], "VmHWM"),
    }
    process.terminate()
    process.wait()
    return result


def engine(folder: Path, results: multiprocessing.Queue[dict[str, float]]) -> None:
    """Take the log to the store and analyze it; runs in a process of its own."""
    pid = os.getpid()
    metrics = Metrics()
    warm()
    store = open_store(f"chdb://{folder}/store")
    state = open_state(folder / "state.db")
    ingest = Ingest(SegmentReader(folder / "log", folder / "aside"), store, PriceBook(), metrics)
    scoring = ScoreStage(load_scorers(), time_box_s=600)
    analysis = Analysis(state, Scoring(store, scoring), MonitorSettings(), metrics)
    idle_mb, idle_anonymous_mb = (memory_mb([pid], key) for key in ("VmRSS", "RssAnon"))
    warm_texts()  # as the server does with its first batch
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
            "engine_idle_anonymous_mb": idle_anonymous_mb,
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
    parser.add_argument("--spans", choices=KINDS, default="agents")
    parser.add_argument("--chars", type=int, default=1000, help="of text in a call, about")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chance = random.Random(42)
    prose = Prose(chance)
    n_words = max(2, options.chars * 170 // 1000)
    bodies = [
        make_request(chance, prose, options.spans, n_words) for _ in range(options.requests + 2)
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
        "idle_mb": run["receiver_idle_mb"] + run["engine_idle_mb"],
        "idle_anonymous_mb": run["receiver_idle_anonymous_mb"] + run["engine_idle_anonymous_mb"],
        "peak_mb": run["receiver_peak_mb"] + run["engine_peak_mb"],
        "ack_p99_ms": run["ack_p99_ms"],
    }
    print(json.dumps({key: round(value, 1) for key, value in summary.items()}))


if __name__ == "__main__":
    main()

"""Run the whole server for a time at a fixed rate and watch its memory and its answers.

    python benchmarks/soak.py [--rate 2000] [--minutes 60] [--chars 1000] [--json]

`llmobs up` in processes of its own takes `rate` spans a second (512 a request, each span with
ids and times of its own, about `chars` characters of prose) from one sender that keeps the
pace. Printed: acknowledgement times, CPU time a span of receiver and engine, memory at the
start, at the end and at its highest, and the slope of the second half in MB an hour, lag of the
log in segments. Memory is flat when the slope is small beside what the caches take.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.ingest import cpu_s, memory_mb
from benchmarks.spans import SPANS_A_REQUEST, Prose, chats
from llmobs.server import Server
from llmobs.settings import Settings
from llmobs.web.client import Api

_SENT_AT = 0x0102030405060708
_ENDED_AT = 0x1112131415161718


class Template:
    """A request whose ids and times can be set anew without building it again."""

    def __init__(self, chance: random.Random, prose: Prose, n_words: int) -> None:
        request = ExportTraceServiceRequest()
        chats(request, chance, prose, SPANS_A_REQUEST, n_words)
        ids = []
        for span in request.resource_spans[0].scope_spans[0].spans:
            span.start_time_unix_nano, span.end_time_unix_nano = _SENT_AT, _ENDED_AT
            ids.append((span.trace_id, span.span_id))
        body = request.SerializeToString()
        self._body = np.frombuffer(bytearray(body), np.uint8)
        self._traces = np.array([body.index(trace) for trace, _ in ids])
        self._spans = np.array([body.index(span) for _, span in ids])
        self._starts = _all(body, _SENT_AT.to_bytes(8, "little"))
        self._ends = _all(body, _ENDED_AT.to_bytes(8, "little"))

    def fresh(self, generator: np.random.Generator) -> bytes:
        """Return the request with new ids, of spans that have just ended."""
        now = time.time_ns()
        for places, width in ((self._traces, 16), (self._spans, 8)):
            cells = places[:, None] + np.arange(width)
            self._body[cells] = generator.integers(1, 256, cells.shape, dtype=np.uint8)
        for places, at in ((self._starts, now - 400_000_000), (self._ends, now)):
            cells = places[:, None] + np.arange(8)
            self._body[cells] = np.frombuffer(at.to_bytes(8, "little"), np.uint8)
        return self._body.tobytes()


def _all(body: bytes, wanted: bytes) -> np.ndarray:
    places, at = [], body.find(wanted)
    while at >= 0:
        places.append(at)
        at = body.find(wanted, at + 1)
    return np.array(places)


def n_waiting(data: Path) -> int:
    """Return how many sealed segments the engine has not stored yet."""
    return len(list((data / "log").glob("*.seg")))


def run(server: Server, rate: float, seconds: float, n_words: int) -> dict[str, float]:
    """Send at a rate for a time and return what was measured."""
    chance = random.Random(7)
    prose = Prose(chance)
    generator = np.random.default_rng(7)
    templates = [Template(chance, prose, n_words) for _ in range(16)]
    settings = server.settings
    pids = server.pids()
    connection = http.client.HTTPConnection("127.0.0.1", settings.http_port, timeout=60)
    headers = {"Content-Type": "application/x-protobuf"}
    acks_ms: list[float] = []
    memory: list[tuple[float, float]] = []
    most_waiting = n_refused = n_sent = 0
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    begun = sampled = time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        due = begun + n_sent * SPANS_A_REQUEST / rate
        if now < due:
            time.sleep(due - now)
        body = templates[n_sent % len(templates)].fresh(generator)
        asked = time.perf_counter()
        connection.request("POST", "/v1/traces", body, headers)
        answer = connection.getresponse()
        answer.read()
        acks_ms.append((time.perf_counter() - asked) * 1000)
        n_refused += answer.status != 200
        n_sent += 1
        if time.monotonic() - sampled > min(10.0, seconds / 20):
            sampled = time.monotonic()
            memory.append((sampled - begun, memory_mb(list(pids.values()), "VmRSS")))
            most_waiting = max(most_waiting, n_waiting(settings.data))
            print(
                f"\r{sampled - begun:6.0f} s  {n_sent * SPANS_A_REQUEST:>11,} spans  "
                f"{memory[-1][1]:7.0f} MB  {n_waiting(settings.data):3} segments wait",
                end="",
                file=sys.stderr,
            )
    lasted = time.monotonic() - begun
    print(file=sys.stderr)
    connection.close()
    n_spans = n_sent * SPANS_A_REQUEST
    used = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
    times = np.array([at for at, _ in memory])
    sizes = np.array([size for _, size in memory])
    late = times > times.max() / 2
    acks_ms.sort()
    return {
        "spans": n_spans,
        "spans_per_s": n_spans / lasted,
        "refused": n_refused,
        "ack_p50_ms": statistics.median(acks_ms),
        "ack_p99_ms": acks_ms[int(len(acks_ms) * 0.99)],
        "receiver_us_per_span": used["receiver"] / n_spans * 1e6,
        "engine_us_per_span": used["engine"] / n_spans * 1e6,
        "first_mb": sizes[0],
        "last_mb": sizes[-1],
        "highest_mb": memory_mb(list(pids.values()), "VmHWM"),
        "slope_mb_per_h": float(np.polyfit(times[late], sizes[late], 1)[0]) * 3600,
        "most_segments_waiting": most_waiting,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2000, help="spans a second")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--chars", type=int, default=1000, help="of text in a span, about")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmobs-soak-") as name:
        settings = Settings(data=Path(name), grpc_port=0, http_port=0, web_port=0)
        with Server(settings) as server:
            begun = time.monotonic()
            server.wait_ready()
            ready_s = time.monotonic() - begun
            time.sleep(5)
            idle_mb = memory_mb(list(server.pids().values()), "VmRSS")
            result = {"ready_s": ready_s, "idle_mb": idle_mb}
            # 170 words are about 1,000 characters.
            n_words = max(2, options.chars * 170 // 1000)
            result |= run(server, options.rate, options.minutes * 60, n_words)
            api = Api(server.settings.page_url)
            begun = time.monotonic()
            api.get("overview", since="24h")
            result["first_overview_ms"] = (time.monotonic() - begun) * 1000
    rounded = {key: round(value, 2) for key, value in result.items()}
    if options.json:
        print(json.dumps(rounded))
    else:
        for key, value in rounded.items():
            print(f"{key:24} {value:>14,.2f}")


if __name__ == "__main__":
    main()

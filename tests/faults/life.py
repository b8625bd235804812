"""One life of an analyzer, all loops in one process and one thread, so that it is the same
each time: it takes over what the last one left, checks that all is exact, works, checks again.

A life may end before any of its steps (`Steps`). What it was about to do is in journals
beside the data, which stand for the memory of senders and of people:

    sent            requests, written before they are given to the log
    acknowledged    requests, written when the log has said yes
    erasing         sessions that somebody wants to be forgotten, and
    erased          those for which the answer was yes
    inbox           messages that a channel took
    steps           what was done, by `Steps`
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import queue
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmobs.analyzer.erase import Eraser
from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.monitor import MonitorSettings
from llmobs.analyzer.notify import AlertBook, Announcer
from llmobs.analyzer.pipeline import Analysis, Ingest, ScoredElsewhere, Scoring, Worker
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.score import ScoreStage, load_scorers
from llmobs.analyzer.store import clickhouse, open_state, open_store
from llmobs.errors import StoreError
from llmobs.measures.cost import PriceBook
from llmobs.records import Alert, Finding, Signal
from tests.faults.accounts import account
from tests.faults.steps import Steps
from tests.otlp import chat_span, traces_request

__all__ = ["Life", "live"]

N_CALM, N_BAD, SESSIONS_A_REQUEST = 4, 2, 30
EVENTS_A_LIFE = METRICS_A_LIFE = 5
_BATCH = 100
_LOOKS_A_JUMP = 7
_PATIENCE = 50
_LIFE_NS = 86_400 * 10**9
_WORKED_NS = 3300 * 10**9  # when the last session is over
_SESSION_NS = 10 * 10**9


@dataclass(frozen=True)
class Life:
    """What a life is to be.

    Attributes:
        data: Folder of everything.
        number: Of the life; its traffic follows from it.
        survived: See `Steps`.
        among: See `Steps`.
        role: ``all``, or ``worker``: scoring apart from watching.
        fails: See `Steps`.
        erases: Whether somebody has a session of its traffic forgotten.
        jumps_s: What the clock of the wall is off by, in seconds; it goes from one to the
            next every few times somebody looks.
    """

    data: Path
    number: int
    survived: frozenset[str] | None = None
    among: str | None = None
    role: str = "all"
    fails: bool = False
    erases: bool = False
    jumps_s: tuple[int, ...] = (0,)


def requests_of(life: int, start_ns: int) -> list[tuple[Signal, bytes]]:
    """Return a life's requests: calm sessions, then failing ones, of a service of its own."""
    chance = random.Random(life)
    service, begin_ns = f"life-{life}", start_ns + life * _LIFE_NS
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    metrics = ExportMetricsServiceRequest()
    points = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="n").gauge
    for n in range(EVENTS_A_LIFE):
        records.add(time_unix_nano=begin_ns).body.string_value = f"{life}-{n}"
        points.data_points.add(time_unix_nano=begin_ns, as_int=life * EVENTS_A_LIFE + n)
    out: list[tuple[Signal, bytes]] = []
    places = itertools.count()
    for request in range(N_CALM + N_BAD):
        error = "timeout" if request >= N_CALM else ""
        spans = [
            chat_span(chance, at_ns=begin_ns + n * _SESSION_NS, session=f"{life}-{n}", error=error)
            for n in itertools.islice(places, SESSIONS_A_REQUEST)
        ]
        out.append(("traces", traces_request(spans, service)))
    out[1:1] = [("logs", logs.SerializeToString()), ("metrics", metrics.SerializeToString())]
    return out


def live(life: Life) -> None:
    """Run one life; ends normally unless it dies before.

    Raises:
        AssertionError: Something was lost, doubled or miscounted before this life or in it.
    """
    _Analyzer(life).run()


class _Analyzer:
    def __init__(self, life: Life) -> None:
        life.data.mkdir(exist_ok=True)
        self._life, self._data = life, life.data
        self._steps = Steps(life.data / "steps", life.survived, life.among, fails=life.fails)
        self._steps.install()
        self._start_ns = _start_ns(life.data)
        self._acknowledged = _Journal(life.data / "acknowledged")
        self._sent = _Journal(life.data / "sent")
        self._erasing = _Journal(life.data / "erasing")
        self._erased = _Journal(life.data / "erased")
        # Blocks of a few rows, so that a segment can be stored in part.
        vars(clickhouse)["_BLOCK_BYTES"] = 16 << 10
        self._writer = SegmentWriter(
            life.data / "log",
            segment_bytes=64 << 10,
            segment_age_s=0.05,
            sync=self._steps.sync,
        )
        self._store = open_store(f"chdb://{life.data / 'store'}")
        self._state = open_state(life.data / "state.db")
        self._log = SegmentReader(life.data / "log", life.data / "aside")
        metrics = Metrics()
        looks = _looks(self._start_ns + life.number * _LIFE_NS, life.jumps_s)
        self._clock = functools.partial(next, looks)
        self._ingest = Ingest(self._log, self._store, PriceBook(), metrics, clock=self._clock)
        stage = ScoreStage(load_scorers(("refusal",)), time_box_s=60)
        scoring = Scoring(self._store, stage)
        self._worker = Worker(self._store, scoring, metrics, batch=_BATCH)
        self._analysis = Analysis(
            self._state,
            scoring if life.role == "all" else ScoredElsewhere(self._store, stage),
            MonitorSettings(
                reference_s=600,
                min_reference_units=60,
                session_idle_s=60,
                session_cap_s=120,
                units_a_day=8640,
            ),
            metrics,
            counts_spans=life.role == "all",
            batch=_BATCH,
            clock=self._clock,
        )
        self._announcer = Announcer(
            self._state,
            AlertBook(page_url="http://127.0.0.1"),
            [_Inbox(life.data / "inbox", self._steps)],
            group_wait_s=0,
            group_interval_s=0,
        )

    def run(self) -> None:
        self._steps.phase = "mending"
        known = set(self._sent.lines())
        missing = known - set(self._acknowledged.lines())
        for name in sorted(missing):
            life, index = map(int, name.split("-"))
            self._send(name, requests_of(life, self._start_ns)[index])
        self._drain()
        for session in set(self._erasing.lines()) - set(self._erased.lines()):
            self._erase(session)
        self._check()
        self._steps.phase = "working"
        for place, request in enumerate(requests_of(self._life.number, self._start_ns)):
            name = f"{self._life.number}-{place}"
            self._sent.write(name)
            self._send(name, request)
        self._drain()
        if self._life.erases:
            self._erasing.write(f"{self._life.number}-0")
            self._erase(f"{self._life.number}-0")
        self._check()
        self._steps.phase = "closing"
        self._writer.close()
        self._analysis.close()
        self._state.close()
        self._store.close()

    def _send(self, name: str, request: tuple[Signal, bytes]) -> None:
        """Give a request to the log until it is acknowledged, as exporters do."""
        answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def done(error: Exception | None) -> None:
            if error is None:
                self._steps.take("log: answer")
                self._acknowledged.write(name)
            answers.put(error)

        for _ in range(_PATIENCE):
            self._writer.append(*request, done)
            if answers.get(timeout=30) is None:
                return
        raise AssertionError("the log goes on refusing")

    def _drain(self) -> None:
        """Run the loops until nothing is left to do."""
        deadline = time.monotonic() + 60
        while any(path.suffix in {".seg", ".open"} for path in (self._data / "log").iterdir()):
            assert time.monotonic() < deadline
            self._log.wait(0.05)
            self._do(self._ingest.step)
            self._watch()
        while self._watch():
            assert time.monotonic() < deadline

    def _watch(self) -> int:
        n_scored = self._do(self._worker.step) if self._life.role == "worker" else 0
        n_watched = self._do(self._analysis.step)
        return n_scored + n_watched + self._do(lambda: self._announcer.step(self._clock()))

    def _erase(self, session: str) -> None:
        """Have a session forgotten, which takes a turn of the analysis; again until it is."""
        eraser = Eraser(self._store, self._state, self._analysis.forget, self._data / "aside")
        for _ in range(_PATIENCE):
            with ThreadPoolExecutor(1) as other:
                answer = other.submit(eraser.erase, "session", session)
                while not wait([answer], timeout=0.05).done:
                    self._watch()
            error = answer.exception()
            if error is None:
                self._erased.write(session)
                return
            if not self._life.fails:
                raise error

    def _do(self, step: Callable[[], int]) -> int:
        """Do as `Loop` does: a step that raised is done again."""
        try:
            return step()
        except (OSError, StoreError):
            if not self._life.fails:
                raise
            return 1

    def _check(self) -> None:
        """Compare what is stored with what was acknowledged, and the inbox with the alerts."""
        done = set(self._acknowledged.lines())
        erased = set(self._erased.lines())
        wanted: set[str] = set()
        n_logs = n_metrics = 0
        for life in {int(name.split("-")[0]) for name in done}:
            for index, (signal, body) in enumerate(requests_of(life, self._start_ns)):
                if f"{life}-{index}" in done:
                    wanted |= _span_ids(body, erased) if signal == "traces" else set()
                    n_logs += EVENTS_A_LIFE * (signal == "logs")
                    n_metrics += METRICS_A_LIFE * (signal == "metrics")
        found = account(self._ask, wanted)
        assert found.is_exact, found
        assert found.n_unasked == 0, found
        assert self._counts("events", "body") == (n_logs, n_logs)
        assert self._counts("metric_points", "value") == (n_metrics, n_metrics)
        scored = self._counts("scores", "(trace_id, span_id, name, target)")
        assert scored == (len(wanted), len(wanted)), "a span without its score, or with two"
        assert self._ask("SELECT count() - uniqExact(seg) FROM segments") == [[0]]
        self._check_inbox()

    def _ask(self, sql: str) -> list[list[Any]]:
        return [list(row.values()) for row in self._store._clients.ask(sql)]

    def _counts(self, table: str, key: str) -> tuple[int, int]:
        ((n, n_distinct),) = self._ask(f"SELECT count(), uniqExact({key}) FROM {table}")
        return int(n), int(n_distinct)

    def _check_inbox(self) -> None:
        """Every alert was told; again only where a life ended between telling and noting it."""
        told = Counter(_Journal(self._data / "inbox").lines())
        steps = _Journal(self._data / "deaths").lines()
        n_between = sum(step.endswith("state: delivered") for step in steps)
        alerts = self._state.alerts(limit=10_000)
        keys = Counter((alert.key, alert.starts_at_ns) for alert in alerts)
        assert set(keys.values()) <= {1}, "an alert twice"
        assert self._state.waiting() == []
        assert sum(told.values()) - len(told) <= n_between
        firing = {alert.id for alert in alerts}
        assert {json.loads(line)["alert"] for line in told} <= firing


class _Inbox:
    """A channel that keeps what it is told in a file."""

    name = "inbox"

    def __init__(self, path: Path, steps: Steps) -> None:
        self._journal, self._steps = _Journal(path), steps

    def send(self, alert: Alert, finding: Finding | None) -> None:
        self._steps.take("inbox: send")
        self._journal.write(
            json.dumps({"alert": alert.id, "state": alert.state, "n": alert.n_findings})
        )


class _Journal:
    """Lines in a file; one is there when `write` has returned."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, line: str) -> None:
        os.write(self._descriptor, f"{line}\n".encode())

    def lines(self) -> list[str]:
        return self._path.read_text().splitlines()


def _start_ns(data: Path) -> int:
    """Return when the data of life 0 begins: long enough ago for all lives to be in the past."""
    path = data / "start"
    if not path.exists():
        path.write_text(str(time.time_ns() - 500 * _LIFE_NS))
    return int(path.read_text())


def _looks(begin_ns: int, jumps_s: Sequence[int]) -> Iterator[int]:
    """Tell times behind the life's traffic, each later by more than a commit, and then jumps."""
    for look in itertools.count():
        right_ns = begin_ns + _WORKED_NS + look * 2_500_000_000
        yield max(0, right_ns + jumps_s[look // _LOOKS_A_JUMP % len(jumps_s)] * 10**9)


def _span_ids(body: bytes, erased: Collection[str]) -> set[str]:
    request = ExportTraceServiceRequest.FromString(body)
    return {
        span.span_id.hex()
        for span in request.resource_spans[0].scope_spans[0].spans
        if not any(
            item.key == "gen_ai.conversation.id" and item.value.string_value in erased
            for item in span.attributes
        )
    }

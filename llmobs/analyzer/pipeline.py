"""The analyzer's table of contents: three loops over one log and one store.

    receive ─► log ─► [Ingest: decode ─► normalize ─► price ─► store]
                      [Analysis: score ─► monitor ─► publish]          reads the store
                      [Announcer: findings ─► alerts ─► channels]      reads the state

Ingest never waits for scoring, scoring never for a webhook. Each loop can be killed at any
line: what it had not finished it finds again on start, and does again with the same result.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from llmobs.analyzer.decode import decode_events, decode_metrics, decode_spans
from llmobs.analyzer.log.base import LogReader
from llmobs.analyzer.monitor import Monitors, MonitorSettings
from llmobs.analyzer.normalize import normalize
from llmobs.analyzer.price import price
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.score import ScoreStage
from llmobs.analyzer.store.base import State, Store
from llmobs.errors import ConfigurationError
from llmobs.measures.cost import PriceBook
from llmobs.records import EventBatch, Finding, MetricBatch, Rejected, Segment, Signal, SpanBatch

__all__ = ["Analysis", "Ingest", "Loop"]

logger = logging.getLogger(__name__)

Clock = Callable[[], int]
_Columns = tuple[SpanBatch, EventBatch, MetricBatch]
COMMIT_EVERY_NS: Final = 2_000_000_000
"""Analysis is written down this often when it finds nothing: a crash repeats this much of it."""


class Ingest:
    """Moves sealed segments from the log to the store, in order."""

    def __init__(
        self,
        log: LogReader,
        store: Store,
        prices: PriceBook,
        metrics: Metrics,
        *,
        clock: Clock = time.time_ns,
    ) -> None:
        self._log, self._store, self._prices = log, store, prices
        self._metrics, self._clock = metrics, clock
        # The segment that may be in the store in part. Segments are stored in order, one at a
        # time: what a former process was at when it died is the lowest that it left behind.
        self._doubtful = min(log.sealed(), default=None)

    def step(self) -> int:
        """Store the next sealed segment and return how many segments are left."""
        waiting = self._log.sealed()
        if not waiting:
            return 0
        number = waiting[0]
        spans, events, metrics = self._decode(self._log.read(number))
        replay = number == self._doubtful
        self._doubtful = number  # until the store says otherwise
        n_spans = self._store.append(number, spans, events, metrics, replay=replay)
        self._log.remove(number)
        self._metrics.record_ingest("traces", "accepted", n_spans)
        self._metrics.record_ingest("traces", "duplicate", len(spans) - n_spans)
        self._metrics.record_ingest("logs", "accepted", len(events))
        self._metrics.record_ingest("metrics", "accepted", len(metrics))
        return len(waiting) - 1

    def _decode(self, segment: Segment) -> _Columns:
        try:
            return self._columns(segment)
        except Exception:  # a fault of ours: it must not stop the log for what comes behind
            logger.exception("segment decoded by request", extra={"segment": segment.number})
        kept = []
        for index, request in enumerate(segment.requests):
            try:
                self._columns(Segment(segment.number, [request]))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                self._set_aside(segment, [index], [Rejected(0, reason)])
            else:
                kept.append(request)
        return self._columns(Segment(segment.number, kept))

    def _columns(self, segment: Segment) -> _Columns:
        repairs: Counter[str] = Counter()
        places, requests = _of(segment, "traces")
        raw = decode_spans(requests)
        self._set_aside(segment, places, raw.rejected)
        spans = normalize(raw, now_ns=self._clock(), repairs=repairs)
        spans = price(spans, self._prices)
        places, requests = _of(segment, "logs")
        events, rejected = decode_events(requests, repairs=repairs)
        self._set_aside(segment, places, rejected)
        places, requests = _of(segment, "metrics")
        metrics, rejected = decode_metrics(requests, repairs=repairs)
        self._set_aside(segment, places, rejected)
        self._metrics.record_repairs(repairs)
        return spans, events, metrics

    def _set_aside(
        self, segment: Segment, places: Sequence[int], rejected: Sequence[Rejected]
    ) -> None:
        for index, reason in rejected:
            signal, _ = segment.requests[places[index]]
            self._log.set_aside(segment.number, places[index], reason)
            self._metrics.record_ingest(signal, "rejected", 1)


def _of(segment: Segment, signal: Signal) -> tuple[list[int], list[bytes]]:
    """Return the requests of one signal, and which ones of the segment they are."""
    kept = [(i, body) for i, (kind, body) in enumerate(segment.requests) if kind == signal]
    return [i for i, _ in kept], [body for _, body in kept]


class Analysis:
    """Scores what was stored, watches it, and counts it."""

    def __init__(
        self,
        store: Store,
        state: State,
        scoring: ScoreStage,
        settings: MonitorSettings,
        metrics: Metrics,
        *,
        batch: int = 4096,
        clock: Clock = time.time_ns,
    ) -> None:
        self._store, self._state, self._clock, self._batch = store, state, clock, batch
        self._scoring, self._settings, self._metrics = scoring, settings, metrics
        self._commit_every_ns = COMMIT_EVERY_NS
        self._is_torn = False
        self._resume()

    def step(self) -> int:
        """Analyze the next spans and return how many there were.

        When it raises, the next step begins again where the analysis was last committed.
        """
        if self._is_torn:
            self._resume()
        self._is_torn = True
        n_spans = self._step()
        self._is_torn = False
        return n_spans

    def close(self) -> None:
        """Write down where the analysis stands."""
        if not self._is_torn:
            self._commit([], self._clock())

    def _resume(self) -> None:
        self._cursor = self._state.cursor()
        self._store.drop_scores(self._cursor)  # of an analysis that was not committed
        self._monitors = _restored(self._state.monitor_state(), self._settings)
        self._committed_ns = self._clock()
        self._is_torn = False

    def _step(self) -> int:
        spans, events, cursor = self._store.read(self._cursor, self._batch)
        scores = self._scoring.score(spans)
        if cursor > self._cursor:
            self._store.append_scores(cursor, spans, scores)
            self._store.append_evaluations(cursor, events)
        now_ns = self._clock()
        findings = self._monitors.observe(spans, scores, now_ns=now_ns)
        self._cursor = cursor
        if findings or now_ns - self._committed_ns > self._commit_every_ns:
            self._commit(findings, now_ns)
        self._metrics.record(spans, scores, events)
        return len(spans)

    def _commit(self, findings: Sequence[Finding], now_ns: int) -> None:
        statuses = self._monitors.statuses(now_ns)
        self._state.commit(self._cursor, self._monitors.to_state(), findings, statuses)
        self._metrics.record_monitors(statuses, findings)
        self._committed_ns = self._clock()
        # Many places make a large state: writing it never takes more than a small share.
        self._commit_every_ns = max(COMMIT_EVERY_NS, 20 * (self._committed_ns - now_ns))


def _restored(saved: bytes | None, settings: MonitorSettings) -> Monitors:
    if saved is None:
        return Monitors(settings)
    try:
        return Monitors.from_state(saved, settings)
    except ConfigurationError as error:  # of another version
        logger.warning("monitors start over", extra={"reason": str(error)})
        return Monitors(settings)


class Loop:
    """Runs one step again and again on a thread of its own.

    A step that raises is tried again, later and later: the loop stands still, loudly, and
    nothing is skipped. Other loops go on.
    """

    BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __init__(
        self, name: str, step: Callable[[], int], *, idle_s: float, heartbeat: Callable[[str], None]
    ) -> None:
        self.name = name
        self.error = ""
        self._step, self._idle_s, self._heartbeat = step, idle_s, heartbeat
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"llmobs-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish the step at hand and end the thread."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        n_failures = 0
        while not self._stopping.is_set():
            try:
                more = self._step()
            except Exception as error:  # disks, plugins: whatever fails, the loop stays
                self.error = f"{type(error).__name__}: {error}"
                logger.exception("step failed", extra={"loop": self.name, "n": n_failures + 1})
                self._stopping.wait(self.BACKOFF_S[min(n_failures, len(self.BACKOFF_S) - 1)])
                n_failures += 1
                continue
            n_failures, self.error = 0, ""
            self._heartbeat(self.name)
            if not more:
                self._stopping.wait(self._idle_s)

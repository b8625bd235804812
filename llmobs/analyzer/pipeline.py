"""The analyzer's table of contents: three loops over one log and one store.

    receive ─► log ─► [Ingest: decode ─► normalize ─► price ─► store]
                      [Analysis: score ─► monitor ─► publish]          reads the store
                      [Announcer: findings ─► alerts ─► channels]      reads the state

Past one machine the analysis is split: each `Worker` scores what it ingested, and one process
watches what all of them scored.

Ingest never waits for scoring, scoring never for a webhook. Each loop can be killed at any
line: what it had not finished it finds again on start, and does again with the same result.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from llmobs.analyzer.decode import decode_events, decode_metrics, decode_spans
from llmobs.analyzer.log.base import LogReader
from llmobs.analyzer.monitor import GRACE_S, Completeness, Monitors, MonitorSettings
from llmobs.analyzer.normalize import (
    CONTENT_EVENTS,
    content_of,
    join_content,
    join_responses,
    normalize,
    without_content,
)
from llmobs.analyzer.price import price
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.score import ScoreStage
from llmobs.analyzer.store.base import NOTHING, Erased, State, Store
from llmobs.errors import ConfigurationError, LlmobsError
from llmobs.measures.cost import PriceBook
from llmobs.records import (
    Cursor,
    EventBatch,
    Finding,
    MetricBatch,
    Rejected,
    Scores,
    Segment,
    Signal,
    SpanBatch,
    source_of,
)

__all__ = [
    "Analysis",
    "Ingest",
    "Loop",
    "ScoredBatches",
    "ScoredElsewhere",
    "Scoring",
    "Worker",
    "with_content",
]

logger = logging.getLogger(__name__)

Clock = Callable[[], int]
Publish = Callable[[SpanBatch, Scores], None]
_Columns = tuple[SpanBatch, EventBatch, MetricBatch]
FORGET_TIMEOUT_S: Final = 60.0
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
        store.hold(log.sources())

    def step(self) -> int:
        """Store the next sealed segment and return how many segments are left."""
        self._store.hold(self._log.sources())
        waiting = self._log.sealed()
        if not waiting:
            return 0
        try:
            segment = self._log.read(waiting[0])
        except FileNotFoundError:  # its partition went to another analyzer meanwhile
            return 0
        spans, events, metrics = self._decode(segment)
        n_spans = self._store.append(
            segment.number,
            spans,
            events,
            metrics,
            replay=segment.may_be_stored,
            until=segment.until,
        )
        self._log.remove(segment.number)
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
        kept = set()
        for index in range(len(segment.requests)):
            try:
                self._columns(segment, {index})
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                self._set_aside(segment, [index], [Rejected(0, reason)])
            else:
                kept.add(index)
        return self._columns(segment, kept)

    def _columns(self, segment: Segment, among: Container[int] | None = None) -> _Columns:
        """Decode the requests of a segment, or those `among` them."""
        repairs: Counter[str] = Counter()
        places, requests = _of(segment, "traces", among)
        raw = decode_spans(requests)
        self._set_aside(segment, places, raw.rejected)
        spans = normalize(raw, now_ns=self._clock(), repairs=repairs)
        spans = price(spans, self._prices)
        places, requests = _of(segment, "logs", among)
        events, rejected = decode_events(requests, repairs=repairs)
        self._set_aside(segment, places, rejected)
        spans, events = join_content(spans, events), join_responses(events, spans)
        places, requests = _of(segment, "metrics", among)
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


def _of(
    segment: Segment, signal: Signal, among: Container[int] | None
) -> tuple[list[int], list[bytes]]:
    """Return the requests of one signal, and which ones of the segment they are."""
    kept = [
        (i, body)
        for i, (kind, body) in enumerate(segment.requests)
        if kind == signal and (among is None or i in among)
    ]
    return [i for i, _ in kept], [body for _, body in kept]


@dataclass(frozen=True, slots=True)
class Scored:
    """Whole segments of one source, scored.

    Attributes:
        last: The last segment; `NOTHING` where there was none.
    """

    spans: SpanBatch
    events: EventBatch
    scores: Scores
    last: int


class ScoredBatches(Protocol):
    """Where the analysis gets what it watches."""

    def resume(self, cursor: Cursor) -> None:
        """Begin again behind `cursor`."""

    def read(self, after: Cursor, limit: int) -> Scored:
        """Return the next spans with their scores."""


def with_content(store: Store, spans: SpanBatch) -> SpanBatch:
    """Fill in the texts of calls whose content came as log records, in earlier segments, too."""
    bare = without_content(spans)
    if not len(bare):
        return spans
    return join_content(spans, store.events_of(set(bare.ids("trace_id")), CONTENT_EVENTS))


class Scoring:
    """Scores what this process stored.

    Args:
        store: Gives the spans and takes the scores.
        stage: All scorers.
        publish: Told of every batch once its scores are stored; it must neither wait nor raise.
    """

    def __init__(self, store: Store, stage: ScoreStage, publish: Publish | None = None) -> None:
        self._store, self._stage, self._publish = store, stage, publish

    def resume(self, cursor: Cursor) -> None:
        """Forget the scores of a pass that was not written down."""
        self._store.drop_scores(cursor)

    def read(self, after: Cursor, limit: int) -> Scored:
        """Score the next spans and store their scores."""
        spans, events, last = self._store.read(after, limit)
        if last == NOTHING:  # ten times a second: no scorer is asked about nothing
            return Scored(spans, events, self._stage.complete(spans, ()), last)
        spans = with_content(self._store, spans)
        scores = self._stage.score(spans)
        self._append(last, spans, scores)
        self._store.append_evaluations(last, events)
        self._score_late(spans, events, last)
        return Scored(spans, events, scores, last)

    def _score_late(self, spans: SpanBatch, events: EventBatch, last: int) -> None:
        """Score spans that were read before their content came; monitors don't see them again."""
        content = content_of(events)
        traces = set(content.ids("trace_id")) - set(spans.ids("trace_id"))
        if not traces:
            return
        bare = without_content(self._store.spans_of(traces, last))
        late = join_content(bare, content)
        self._append(last, late, self._stage.score(late))

    def _append(self, segment: int, spans: SpanBatch, scores: Scores) -> None:
        self._store.append_scores(segment, spans, scores)
        if self._publish is not None:
            self._publish(spans, scores)


class ScoredElsewhere:
    """Reads what workers stored and scored."""

    def __init__(self, store: Store, stage: ScoreStage) -> None:
        self._store, self._stage = store, stage

    def resume(self, cursor: Cursor) -> None:
        """Do nothing: the scores are the workers'."""

    def read(self, after: Cursor, limit: int) -> Scored:
        """Read the next spans and their scores; what a score does not hold is computed again."""
        spans, events, columns, last = self._store.read_scored(after, limit)
        spans = with_content(self._store, spans)
        return Scored(spans, events, self._stage.complete(spans, columns), last)


class Worker:
    """Scores what this process stored, one of many; how far it is stands in the store."""

    def __init__(
        self, store: Store, scoring: Scoring, metrics: Metrics, *, batch: int = 4096
    ) -> None:
        self._store, self._scoring, self._metrics = store, scoring, metrics
        self._batch = batch
        self._held: frozenset[int] = frozenset()
        self._cursor: Cursor = {}

    def step(self) -> int:
        """Score the next spans and return how many there were."""
        held = self._store.held
        if held != self._held:  # sources came or went
            self._cursor = self._store.scored()
            self._scoring.resume(self._cursor)
        self._held = frozenset()  # until this step is done
        scored = self._scoring.read(self._cursor, self._batch)
        if scored.last != NOTHING:
            self._store.mark_scored(scored.last, len(scored.spans), scored.spans.table.nbytes)
            self._cursor = {**self._cursor, source_of(scored.last): scored.last}
        self._held = held
        self._metrics.record(scored.spans, scored.scores, scored.events)
        return len(scored.spans)


class Analysis:
    """Watches what was scored, and writes down what it found.

    Args:
        state: Where the monitors, completeness, findings and the cursor move together.
        batches: `Scoring` on one machine, `ScoredElsewhere` beside workers.
        settings: Of the monitors.
        metrics: Told of findings.
        counts_spans: Whether it is told of every batch, too; workers count their own.
        grace_s: How late a span may come before it counts as missing.
        batch: Spans taken at once, about.
        clock: Nanoseconds since 1970.
    """

    def __init__(
        self,
        state: State,
        batches: ScoredBatches,
        settings: MonitorSettings,
        metrics: Metrics,
        *,
        counts_spans: bool = True,
        grace_s: float = GRACE_S,
        batch: int = 4096,
        clock: Clock = time.time_ns,
    ) -> None:
        self._state, self._batches, self._clock, self._batch = state, batches, clock, batch
        self._settings, self._metrics, self._counts_spans = settings, metrics, counts_spans
        self._grace_s = grace_s
        self._commit_every_ns = COMMIT_EVERY_NS
        self._to_forget: queue.SimpleQueue[tuple[Erased, threading.Event]] = queue.SimpleQueue()
        self._is_torn = False
        self._resume()

    def step(self) -> int:
        """Analyze the next spans and return how many there were.

        When it raises, the next step begins again where the analysis was last committed.
        """
        if self._is_torn:
            self._resume()
        self._is_torn = True
        self._forget()
        n_spans = self._step()
        self._is_torn = False
        return n_spans

    def forget(self, erased: Erased) -> None:
        """Have the monitors forget texts; return when that is written down. For other threads.

        Raises:
            LlmobsError: The analysis stands still.
        """
        done = threading.Event()
        self._to_forget.put((erased, done))
        if not done.wait(FORGET_TIMEOUT_S):
            raise LlmobsError(
                f"the analysis did not come to it within {FORGET_TIMEOUT_S:g} s; "
                "see why it stands still (`llmobs doctor`), then do it again"
            )

    def close(self) -> None:
        """Write down where the analysis stands."""
        if not self._is_torn:
            self._commit([], self._clock())

    def _resume(self) -> None:
        self._cursor = self._state.cursor()
        self._batches.resume(self._cursor)
        self._monitors = _restored(self._state.monitor_state(), self._settings)
        self._completeness = _restored_completeness(
            self._state.completeness_state(), self._grace_s, self._clock()
        )
        self._committed_ns = self._clock()
        self._is_torn = False

    def _forget(self) -> None:
        while not self._to_forget.empty():
            erased, done = self._to_forget.get()
            self._monitors.forget({bytes.fromhex(one) for one in erased.traces}, erased.texts)
            self._commit([], self._clock())
            done.set()

    def _step(self) -> int:
        scored = self._batches.read(self._cursor, self._batch)
        now_ns = self._clock()
        findings = self._monitors.observe(scored.spans, scored.scores, now_ns=now_ns)
        self._completeness.observe(scored.spans, now_ns=now_ns)
        if scored.last != NOTHING:
            self._cursor = {**self._cursor, source_of(scored.last): scored.last}
        else:
            self._completeness.settle(now_ns)
        # A clock that was set back is not waited for.
        if findings or not 0 <= now_ns - self._committed_ns <= self._commit_every_ns:
            self._commit(findings, now_ns)
        if self._counts_spans:
            self._metrics.record(scored.spans, scored.scores, scored.events)
        return len(scored.spans)

    def _commit(self, findings: Sequence[Finding], now_ns: int) -> None:
        started_ns = time.monotonic_ns()
        statuses = self._monitors.statuses(now_ns)
        self._state.commit(
            self._cursor,
            self._monitors.to_state(),
            findings,
            statuses,
            self._completeness.to_state(),
        )
        self._metrics.record_monitors(statuses, findings)
        self._metrics.record_completeness(self._completeness.by_service())
        self._committed_ns = self._clock()
        # Many places make a large state: writing it never takes more than a small share.
        self._commit_every_ns = max(COMMIT_EVERY_NS, 20 * (time.monotonic_ns() - started_ns))


def _restored(saved: bytes | None, settings: MonitorSettings) -> Monitors:
    if saved is None:
        return Monitors(settings)
    try:
        return Monitors.from_state(saved, settings)
    except ConfigurationError as error:  # of another version
        logger.warning("monitors start over", extra={"reason": str(error)})
        return Monitors(settings)


def _restored_completeness(saved: bytes | None, grace_s: float, now_ns: int) -> Completeness:
    if saved is None:
        return Completeness(grace_s=grace_s)
    try:
        return Completeness.from_state(saved, now_ns=now_ns, grace_s=grace_s)
    except ConfigurationError as error:  # of another version
        logger.warning("completeness starts over", extra={"reason": str(error)})
        return Completeness(grace_s=grace_s)


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

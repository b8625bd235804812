"""The analyzer's own metrics, derived from the spans of every producer.

`Metrics` is told of every batch and every cycle, keeps bounded families of series, and hands
out one snapshot that the Prometheus page (`exposition.py`) and OTLP (`otlp.py`) both publish.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.analyzer.publish import catalogue as cat
from llmobs.analyzer.publish import exposition
from llmobs.analyzer.publish.columns import Codes, Groups, Labels, SpanColumns, encode, group
from llmobs.analyzer.publish.families import Family, Series, Snapshot
from llmobs.analyzer.publish.sessions import SessionBoard
from llmobs.records import (
    Alert,
    EventBatch,
    Finding,
    FloatArray,
    MonitorStatus,
    ScoreColumn,
    Scores,
    Seen,
    SpanBatch,
)

__all__ = ["Metrics", "Observed"]

Observed: TypeAlias = Mapping[str, Mapping[Labels, float]]
"""Values by name of a metric and values of its labels."""

_SIGNALS: Final = ("traces", "logs", "metrics")
_OUTCOMES: Final = ("accepted", "rejected")
_TARGETS: Final = ("grafana", "notify", "otlp")
_LANGUAGE: Final = "language"
_VERDICTS: Final = ("pass", "fail")
# What producers write for a thumb down; a score below a half is one as well.
_THUMB_DOWN: Final = frozenset({"down", "fail", "bad", "negative", "thumbs_down", "dislike"})


class Metrics:
    """Counts what the analyzer sees; safe to call from several threads.

    Args:
        max_series: Label sets that one metric may have; more are folded into "(other)".
        clock: Gives the time in ns since 1970.
    """

    def __init__(self, *, max_series: int = 1000, clock: Callable[[], int] = time.time_ns) -> None:
        self._max_series = max_series
        self._clock = clock
        self._lock = threading.Lock()
        self._families = {
            spec.name: Family(spec, max_series=max_series, now_s=self._now_s)
            for spec in cat.METRICS
            if spec.kind != "gauge"
        }
        self._gauges: dict[str, dict[Labels, float]] = {
            spec.name: {} for spec in cat.METRICS if spec.kind == "gauge"
        }
        self._sessions = SessionBoard()
        self._watched: list[Callable[[], Observed]] = []
        self._totals: dict[tuple[str, Labels], float] = {}  # of watched counters
        self._start_known_series()

    def record(self, spans: SpanBatch, scores: Scores, events: EventBatch | None = None) -> None:
        """Count a batch: calls, steps, tokens, cost, sessions, scores, verdicts and feedback."""
        with self._lock:
            if len(spans):
                batch = SpanColumns.of(spans)
                self._record_calls(batch)
                self._record_steps(batch)
                self._record_usage(batch)
                self._record_sessions(batch)
                for column in scores.columns:
                    self._record_scores(batch, column)
                lag_s = max(0.0, self._now_s() - float(batch.end_s.max()))
                self._gauges[cat.SCORING_LAG.name] = {(): lag_s}
            for scorer in scores.failed:
                self._count(cat.SCORER_FAILURES, (scorer,), 1)
            if events is not None and len(events):
                self._record_events(events)

    def record_ingest(self, signal: str, outcome: str, n_items: int) -> None:
        """Count items taken from the log.

        Args:
            signal: ``traces``, ``logs`` or ``metrics``.
            outcome: ``accepted``, ``duplicate`` or ``rejected``.
            n_items: How many.
        """
        with self._lock:
            self._count(cat.INGEST_ITEMS, (signal, outcome), n_items)

    def record_repairs(self, repairs: Mapping[str, int]) -> None:
        """Count what was mended while decoding, by name."""
        with self._lock:
            for name, n_repairs in repairs.items():
                self._count(cat.REPAIRS, (name,), n_repairs)

    def record_monitors(
        self, statuses: Sequence[MonitorStatus], findings: Sequence[Finding]
    ) -> None:
        """Show how all monitors stand now, and count new findings."""
        evidence: dict[Labels, float] = {}
        threshold: dict[Labels, float] = {}
        alarm: dict[Labels, float] = {}
        # The labels hold no environment: of several, the one nearest to its alarm is shown.
        for status in sorted(statuses, key=_urgency):
            place = (status.monitor, status.kind, status.service, status.feature)
            alarm[place] = float(status.state == "alarm")
            if np.isfinite(status.log_e):  # -inf: the monitor has not judged anything yet
                evidence[place] = status.log_e
            if np.isfinite(status.log_threshold):
                threshold[place] = status.log_threshold
        with self._lock:
            self._gauges[cat.DRIFT_LOG_EVALUE.name] = evidence
            self._gauges[cat.DRIFT_LOG_THRESHOLD.name] = threshold
            self._gauges[cat.DRIFT_ALARM.name] = alarm
            for known in alarm:
                for level in ("page", "watch"):
                    self._count(cat.FINDINGS, (*known, level), 0)
            for found in findings:
                where = (found.monitor, found.kind, found.service, found.feature)
                self._count(cat.FINDINGS, (*where, found.level), 1)

    def record_completeness(self, by_service: Mapping[str, Seen]) -> None:
        """Show how much of each service came in."""
        ratios: dict[Labels, float] = {}
        missing: dict[Labels, float] = {}
        for service, seen in by_service.items():
            missing[service,] = seen.n_missing
            if not np.isnan(seen.ratio):
                ratios[service,] = seen.ratio
        with self._lock:
            self._publish_observed({cat.COMPLETENESS.name: ratios, cat.MISSING.name: missing})

    def record_alerts(self, firing: Iterable[Alert]) -> None:
        """Show how many alerts fire now."""
        counts: dict[Labels, float] = {("page",): 0.0, ("ticket",): 0.0}
        for alert in firing:
            counts[(alert.severity,)] += 1
        with self._lock:
            self._gauges[cat.ALERTS_FIRING.name] = counts

    def heartbeat(self, stage: str) -> None:
        """Note that a loop (``ingest``, ``analysis``, ``announcer``) finished a cycle."""
        with self._lock:
            self._gauges[cat.LAST_CYCLE.name][(stage,)] = self._now_s()

    def record_publish_failure(self, target: str) -> None:
        """Count a failed attempt to reach ``grafana``, ``otlp`` or ``notify``."""
        with self._lock:
            self._count(cat.PUBLISH_FAILURES, (target,), 1)

    def watch(self, ask: Callable[[], Observed]) -> None:
        """Have a part asked how it is whenever the metrics are wanted.

        Args:
            ask: Returns the values of gauges, and of counters since the start, by metric and
                labels; what it leaves out is not known now. A counter never falls: a lower
                value counts as nothing new.
        """
        self._watched.append(ask)

    def render(self, form: exposition.Format = "text") -> bytes:
        """Write every series for Prometheus; `exposition.CONTENT_TYPES` has the header."""
        return exposition.render(self.snapshot(), form)

    def snapshot(self) -> Snapshot:
        """Copy out every series as it stands now."""
        observed = [ask() for ask in self._watched]  # they may take a while: not under the lock
        with self._lock:
            for values in observed:
                self._publish_observed(values)
            self._publish_sessions()
            self._publish_folded()
            out: Snapshot = []
            for spec in cat.METRICS:
                if spec.kind == "gauge":
                    series = [Series(k, v, 0.0) for k, v in self._gauges[spec.name].items()]
                else:
                    series = list(self._families[spec.name].series())
                if series:
                    out.append((spec, series))
        return out

    def _now_s(self) -> float:
        return self._clock() / 1e9

    def _start_known_series(self) -> None:
        # A counter that first appears with 1 has an increase of 0: what is known starts at 0.
        for signal in _SIGNALS:
            for outcome in _OUTCOMES:
                self._count(cat.INGEST_ITEMS, (signal, outcome), 0)
        for target in _TARGETS:
            self._count(cat.PUBLISH_FAILURES, (target,), 0)
        self._gauges[cat.ALERTS_FIRING.name] = {("page",): 0.0, ("ticket",): 0.0}

    def _count(self, spec: cat.MetricSpec, labels: Labels, n: float) -> None:
        self._add(spec, Groups([labels], np.zeros(1, np.int64)), np.array([float(n)]))

    def _add(self, spec: cat.MetricSpec, groups: Groups, amounts: FloatArray) -> None:
        self._families[spec.name].add(groups, amounts)

    def _record_calls(self, batch: SpanColumns) -> None:
        calls = batch.where(batch.is_in(semconv.INFERENCE_OPERATIONS))
        if not len(calls):
            return
        by_error = group([*calls.call, calls.error])
        self._add(cat.CALLS, by_error, calls.weight)
        self._observe(cat.CALL_DURATION, by_error, calls, calls.duration_s)
        streamed = calls.where(~np.isnan(calls.ttft_s))
        if len(streamed):
            self._observe(cat.CALL_TTFT, group(streamed.call), streamed, streamed.ttft_s)
        for labels in group([calls.service, calls.feature]).labels:
            for rating in ("up", "down"):
                self._count(cat.FEEDBACK, (*labels, rating), 0)

    def _record_steps(self, batch: SpanColumns) -> None:
        operations = frozenset(batch.operation.values) - semconv.INFERENCE_OPERATIONS - {""}
        steps = batch.where(batch.is_in(operations))
        if not len(steps):
            return
        columns = [steps.service, steps.feature, steps.operation, steps.target, steps.error]
        self._observe(cat.OPERATION_DURATION, group(columns), steps, steps.duration_s)

    def _observe(
        self, spec: cat.MetricSpec, groups: Groups, batch: SpanColumns, values: FloatArray
    ) -> None:
        family = self._families[spec.name]
        cells = family.observe(groups, values, batch.weight)
        family.keep_exemplars(cells, values, batch)

    def _record_usage(self, batch: SpanColumns) -> None:
        billed = batch.where(batch.is_in(semconv.MODEL_OPERATIONS))
        if not len(billed):
            return
        groups = group(billed.call)
        for token_type, tokens in billed.tokens.items():
            typed = Groups([(*labels, token_type) for labels in groups.labels], groups.which)
            amounts = np.nan_to_num(tokens) * billed.weight
            self._add(cat.TOKENS, typed, amounts)
        costs = np.nan_to_num(billed.cost_usd) * billed.weight
        self._add(cat.COST, groups, costs)
        unpriced = np.isnan(billed.cost_usd) & ~billed.failed
        self._add(cat.UNPRICED, groups, unpriced * billed.weight)
        for token_type in ("input", "output"):
            known = billed.where(~np.isnan(billed.tokens[token_type]))
            if len(known):
                by_model = group([known.service, known.feature, known.model])
                typed = Groups([(*k, token_type) for k in by_model.labels], by_model.which)
                self._families[cat.CALL_TOKENS.name].observe(
                    typed, known.tokens[token_type], known.weight
                )

    def _record_sessions(self, batch: SpanColumns) -> None:
        billed = batch.is_in(semconv.MODEL_OPERATIONS)
        self._sessions.record(
            batch.service,
            batch.feature,
            batch.session,
            costs_usd=np.where(billed, np.nan_to_num(batch.cost_usd), 0.0) * batch.weight,
            n_calls=batch.is_in(semconv.INFERENCE_OPERATIONS) * batch.weight,
            now_s=self._now_s(),
        )

    def _record_scores(self, batch: SpanColumns, column: ScoreColumn) -> None:
        judged_rows = ~np.isnan(column.values)
        if not judged_rows.any():
            return
        judged = batch.where(judged_rows)
        label = encode(column.labels).where(judged_rows)
        place = [judged.service, judged.feature]
        if column.name == _LANGUAGE:
            if column.target == "input":
                self._add(cat.INPUT_LANGUAGE, group([*place, label]), judged.weight)
            return
        check = [_constant(column.name, len(judged)), _constant(column.target, len(judged))]
        verdicts = group([*place, judged.model, *check, label])
        family = self._families[cat.EVALUATIONS.name]
        for labels in {labels[:-1] for labels in verdicts.labels}:
            for verdict in _VERDICTS:
                family.touch((*labels, verdict))
        family.add(verdicts, judged.weight)
        self._families[cat.EVALUATION_SCORE.name].observe(
            group([*place, *check]), column.values[judged_rows], judged.weight
        )
        if column.target == "input":
            failed = np.array([v == "fail" for v in label.values], bool)[label.codes]
            self._add(cat.INPUT_FLAGS, group([*place, check[0]]), failed * judged.weight)

    def _record_events(self, events: EventBatch) -> None:
        named = pc.equal(events.table.column("event_name"), semconv.EVENT_GEN_AI_EVALUATION_RESULT)
        table = events.table.filter(named).select(["service", "attributes_s", "attributes_n"])
        for row in table.to_pylist():
            self._record_event(row["service"], dict(row["attributes_s"]), dict(row["attributes_n"]))

    def _record_event(self, service: str, texts: dict[str, str], numbers: dict[str, float]) -> None:
        if texts.get(semconv.LLMOBS_EVALUATION_SOURCE) == semconv.EVALUATION_SOURCE_ANALYZER:
            return  # a score that came back: it was counted with its batch
        feature = texts.get(semconv.LLMOBS_FEATURE, "")
        value = numbers.get(semconv.GEN_AI_EVALUATION_SCORE_VALUE, np.nan)
        label = texts.get(semconv.GEN_AI_EVALUATION_SCORE_LABEL, "").lower()
        if semconv.LLMOBS_FEEDBACK_SOURCE in texts:
            if label or not np.isnan(value):  # a comment alone is neither
                down = label in _THUMB_DOWN or value < 0.5
                self._count(cat.FEEDBACK, (service, feature, "down" if down else "up"), 1)
            return
        name = texts.get(semconv.GEN_AI_EVALUATION_NAME, "")
        model = texts.get(semconv.GEN_AI_REQUEST_MODEL, "")
        verdict = (service, feature, model, name, "output", label)
        self._count(cat.EVALUATIONS, verdict, 1)
        if not np.isnan(value):
            self._families[cat.EVALUATION_SCORE.name].observe(
                Groups([(service, feature, name, "output")], np.zeros(1, np.int64)),
                np.array([value]),
                np.ones(1),
            )

    def _publish_observed(self, observed: Observed) -> None:
        for name, series in observed.items():
            if name in self._gauges:
                self._gauges[name] = dict(series)
                continue
            for labels, total in series.items():
                known = self._totals.get((name, labels), 0.0)
                self._count(self._families[name].spec, labels, max(0.0, total - known))
                self._totals[name, labels] = total

    def _publish_sessions(self) -> None:
        ended = self._sessions.ended(self._now_s())
        if ended:
            places = Groups([(s.service, s.feature) for s in ended], np.arange(len(ended)))
            ones = np.ones(len(ended))
            costs = np.array([s.cost_usd for s in ended])
            calls = np.array([s.n_calls for s in ended])
            self._families[cat.SESSION_COST.name].observe(places, costs, ones)
            self._families[cat.SESSION_CALLS.name].observe(places, calls, ones)
        counts = self._sessions.active()
        counts.update(dict.fromkeys(self._gauges[cat.SESSIONS_ACTIVE.name], 0))  # fall to 0
        self._gauges[cat.SESSIONS_ACTIVE.name] = {
            place: float(n) for place, n in counts.most_common(self._max_series)
        }
        self._gauges[cat.SESSION_COST_TOP.name] = {
            (s.service, s.session_id): s.cost_usd for s in self._sessions.dearest()
        }

    def _publish_folded(self) -> None:
        for name, family in self._families.items():
            if family.n_folded:
                self._count(cat.SERIES_FOLDED, (name,), family.n_folded)
                family.n_folded = 0


def _urgency(status: MonitorStatus) -> tuple[bool, float]:
    return status.state == "alarm", status.log_e - status.log_threshold


def _constant(value: str, n: int) -> Codes:
    return Codes([value], np.zeros(n, np.int64))

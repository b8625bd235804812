"""Every score as the convention's ``gen_ai.evaluation.result`` event, pushed over OTLP.

An event names the span that it judges, and nothing of what was said there. It is marked as the
analyzer's own: should it come back to a receiver of llmobs it is kept as an event, and is no
score a second time.
"""

from __future__ import annotations

import gzip
import http.client
import logging
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, SeverityNumber

from llmobs import semconv
from llmobs.analyzer.publish import catalogue as cat
from llmobs.analyzer.publish.metrics import Metrics, Observed
from llmobs.errors import ConfigurationError
from llmobs.records import ScoreColumn, Scores, SpanBatch

__all__ = ["EvaluationPublisher"]

logger = logging.getLogger(__name__)

# About 20 s of scores at a thousand calls a second, in some 40 MB.
_MAX_WAITING: Final = 200_000
# About 0.5 MB before gzip: far below what receivers refuse.
_REQUEST_RESULTS: Final = 2_000
_TIMEOUT_S: Final = 10.0
# A receiver that restarts is back within a minute; what waits longer is lost, and counted.
_BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
# OTLP/HTTP names these as worth another try.
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_LAST_PUSH_S: Final = 5.0
_PLACE: Final = (
    "trace_id", "span_id", "ts_ns", "duration_ns", "service", "environment", "response_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Results of one batch.

    Attributes:
        spans: Narrow columns of the spans that have some.
        results: Column of scores, its row, and the row of `spans`.
    """

    spans: pa.Table
    results: Sequence[tuple[ScoreColumn, int, int]]


def _to_requests(waiting: _Waiting, now_ns: int) -> Iterator[tuple[bytes, int]]:
    """Turn results into OTLP export requests, each with the number of its log records."""
    spans = waiting.spans.to_pylist()
    common: dict[tuple[int, str], bytes] = {}  # of a column's results with one label
    for start in range(0, len(waiting.results), _REQUEST_RESULTS):
        part = waiting.results[start : start + _REQUEST_RESULTS]
        request = ExportLogsServiceRequest()
        resources: dict[tuple[str, str], ResourceLogs] = {}
        for column, row, span_row in part:
            span, label = spans[span_row], column.labels[row]
            place = span["service"], span["environment"]
            if place not in resources:
                resources[place] = _resource(request, *place)
            record = resources[place].scope_logs[0].log_records.add()
            key = id(column), label
            if key not in common:
                common[key] = _common(column, label, now_ns)
            record.MergeFromString(common[key])
            _complete(record, span, column.values[row], column.explanations[row])
        yield request.SerializeToString(), len(part)


def _resource(request: ExportLogsServiceRequest, service: str, environment: str) -> ResourceLogs:
    resource: ResourceLogs = request.resource_logs.add()
    names = {semconv.SERVICE_NAME: service, semconv.DEPLOYMENT_ENVIRONMENT_NAME: environment}
    resource.resource.attributes.extend(_text(key, text) for key, text in names.items() if text)
    resource.scope_logs.add().scope.name = "llmobs.analyzer"
    return resource


def _common(column: ScoreColumn, label: str, now_ns: int) -> bytes:
    """Return what is the same in many records, encoded: to build it is half of the work."""
    texts = {
        semconv.GEN_AI_EVALUATION_NAME: column.name,
        semconv.GEN_AI_EVALUATION_SCORE_LABEL: label,
        semconv.LLMOBS_EVALUATION_SOURCE: semconv.EVALUATION_SOURCE_ANALYZER,
        semconv.LLMOBS_EVALUATION_TARGET: column.target,
        semconv.LLMOBS_EVALUATION_VERSION: column.version,
    }
    record = LogRecord(
        event_name=semconv.EVENT_GEN_AI_EVALUATION_RESULT,
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        observed_time_unix_nano=now_ns,
        attributes=[_text(key, text) for key, text in texts.items() if text],
    )
    return record.SerializeToString()


def _complete(record: LogRecord, span: Mapping[str, Any], value: float, explanation: str) -> None:
    # What is judged is the finished call; a clock that is ahead has not finished it yet.
    ended_ns = span["ts_ns"] + span["duration_ns"]
    record.time_unix_nano = min(max(ended_ns, 0), record.observed_time_unix_nano)
    record.trace_id, record.span_id = span["trace_id"], span["span_id"]
    score = record.attributes.add(key=semconv.GEN_AI_EVALUATION_SCORE_VALUE)
    score.value.double_value = value
    if explanation:
        record.attributes.append(_text(semconv.GEN_AI_EVALUATION_EXPLANATION, explanation))
    if span["response_id"]:
        record.attributes.append(_text(semconv.GEN_AI_RESPONSE_ID, span["response_id"]))


def _text(key: str, text: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=text))


class EvaluationPublisher:
    """Pushes scores to an OTLP/HTTP receiver on a thread of its own.

    Whoever scores is never kept waiting: when too many results wait, the oldest are dropped.
    What is dropped, refused or not taken in about a minute of tries is lost, and counted. A
    crash loses what waits.

    Args:
        metrics: Told of what was sent, what was lost, and of failures.
        endpoint: Base URL of the receiver, such as ``http://collector:4318``.
        which: ``all`` results, or those with label ``fail`` alone.
        headers: Sent along, for a receiver that wants a key.
        max_waiting: Results that may wait.
        backoff_s: Waits between tries, in seconds; after the last one a request is lost.

    Raises:
        ConfigurationError: The endpoint is no http(s) URL.
    """

    def __init__(
        self,
        metrics: Metrics,
        endpoint: str,
        *,
        which: Literal["all", "fail"] = "all",
        headers: Mapping[str, str] | None = None,
        max_waiting: int = _MAX_WAITING,
        backoff_s: Sequence[float] = _BACKOFF_S,
    ) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"OTLP endpoint {endpoint!r} is no URL: write http://host:4318 or https://…"
            )
        self._metrics, self._which = metrics, which
        self._url = f"{endpoint.rstrip('/')}/v1/logs"
        self._headers = {
            **(headers or {}),
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
        }
        self._max_waiting, self._backoff_s = max_waiting, tuple(backoff_s)
        self._waiting: deque[_Waiting] = deque()
        self._n_waiting = self._n_sent = self._n_lost = 0
        self._changed = threading.Condition()  # guards the four above
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmobs-evaluations", daemon=True)
        metrics.watch(self._observed)

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def put(self, spans: SpanBatch, scores: Scores) -> None:
        """Take the scores of a batch; they are pushed later. For one thread or many."""
        results = [
            (column, row)
            for column in scores.columns
            for row in np.flatnonzero(~np.isnan(column.values)).tolist()
            if self._which == "all" or column.labels[row] == "fail"
        ][: self._max_waiting]
        if not results:
            return
        rows = sorted({row for _, row in results})
        place = {row: i for i, row in enumerate(rows)}
        # Copied: a slice would keep the batch with all its texts.
        narrow = spans.table.select(_PLACE).take(pa.array(rows, pa.int64()))
        batch = _Waiting(narrow, [(column, row, place[row]) for column, row in results])
        n_dropped = 0
        with self._changed:
            self._waiting.append(batch)
            self._n_waiting += len(results)
            while self._n_waiting > self._max_waiting:
                dropped = len(self._waiting.popleft().results)
                self._n_waiting -= dropped
                n_dropped += dropped
            self._n_lost += n_dropped
            self._changed.notify()
        if n_dropped:
            logger.warning("evaluations dropped", extra={"reason": "queue_full", "n": n_dropped})

    def stop(self) -> None:
        """Push what waits, for a few seconds at most, and end the thread."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_LAST_PUSH_S)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            n_sent = 0
            try:
                for body, n_results in _to_requests(batch, time.time_ns()):
                    n_sent += n_results if self._push(body) else 0
            except Exception:  # labels are anybody's, and this thread has to live
                logger.exception("evaluations push failed")
            with self._changed:
                self._n_sent += n_sent
                self._n_lost += len(batch.results) - n_sent

    def _next(self) -> _Waiting | None:
        with self._changed:
            while not self._waiting:
                if self._stopping.is_set():
                    return None
                self._changed.wait()
            batch = self._waiting.popleft()
            self._n_waiting -= len(batch.results)
            return batch

    def _push(self, body: bytes) -> bool:
        """Post a request, again and again while that may help; say whether it was taken."""
        request = urllib.request.Request(  # noqa: S310 - http(s), as checked above
            self._url, gzip.compress(body, 1), self._headers, method="POST"
        )
        for wait_s in (*self._backoff_s, None):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
                    return True
            except urllib.error.HTTPError as error:
                error.close()
                reason, may_help = f"HTTP {error.code}", error.code in _RETRYABLE
            except (OSError, http.client.HTTPException) as error:
                reason, may_help = type(error).__name__, True
            self._metrics.record_publish_failure("otlp")
            if wait_s is None or not may_help or self._stopping.wait(wait_s):
                break
        logger.warning("evaluations push failed", extra={"reason": reason})
        return False

    def _observed(self) -> Observed:
        with self._changed:
            outcomes = {"sent": self._n_sent, "lost": self._n_lost}
        return {cat.EVALUATIONS_PUSHED.name: {(name,): float(n) for name, n in outcomes.items()}}

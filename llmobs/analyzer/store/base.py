"""The seam of the store: appends in, named queries out, one SQL for every size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, Protocol, TypeAlias

from llmobs.records import (
    Alert,
    Cursor,
    EventBatch,
    Finding,
    MetricBatch,
    MonitorStatus,
    ScoreColumn,
    Scores,
    SpanBatch,
)

__all__ = [
    "EXPORTED",
    "NOTHING",
    "Erased",
    "ExportFile",
    "Exported",
    "Owner",
    "Row",
    "State",
    "Store",
]

NOTHING: Final = -1
"""No segment's number."""

Row: TypeAlias = dict[str, Any]
Owner: TypeAlias = Literal["user", "session"]
Exported: TypeAlias = Literal["spans", "scores", "events"]
EXPORTED: Final[tuple[Exported, ...]] = ("spans", "scores", "events")
"""What can be exported."""


@dataclass(frozen=True, slots=True)
class ExportFile:
    """What one file of an export holds: a table's rows of a day, or of the part of it asked for.

    Attributes:
        table: One of `EXPORTED`.
        day: In UTC, by the span's start or the event's time.
        n_rows: When it was asked for; more may come in.
        since_ns: Begin of its part of the window.
        until_ns: Its end, exclusive.
    """

    table: Exported
    day: date
    n_rows: int
    since_ns: int
    until_ns: int

    @property
    def name(self) -> str:
        """Return ``<table>-<day>.parquet``."""
        return f"{self.table}-{self.day}.parquet"


@dataclass(frozen=True, slots=True)
class Erased:
    """What the store holds of an owner who is to be forgotten, for whoever keeps a part of it.

    Attributes:
        traces: Ids in hex.
        texts: Beginnings of what was asked, of as many characters as were wanted.
    """

    traces: frozenset[str]
    texts: frozenset[str]


class Store(Protocol):
    """Spans, scores, events and metrics."""

    def append(
        self,
        segment: int,
        spans: SpanBatch,
        events: EventBatch,
        metrics: MetricBatch,
        *,
        replay: bool = False,
        until: int = 0,
    ) -> int:
        """Store one segment; when this returns it survives kill -9 and a power cut.

        A span that is stored already (trace id and span id, within the last minutes) is
        left out. With `replay` the segment may have been stored in part before: what is
        there is counted, completed or replaced, and the roll-up minutes are rebuilt. Segments
        of one source come in ascending order, from one thread of one process; a failed one is
        replayed before the next. `until` is that of `Segment`.

        Returns:
            Number of spans stored for this segment.

        Raises:
            StoreError: Nothing or only a part was stored; call again with `replay`.
        """

    def position(self, source: int) -> int:
        """Return the lowest number that the source's next segment can have.

        It stands with the data: what lies before it is stored, whole and once.
        """

    @property
    def held(self) -> frozenset[int]:
        """Return the sources that this process appends to."""

    def hold(self, sources: Collection[int]) -> None:
        """Become the one process that appends to these sources, and to no others.

        Finishes what the process that held one before had begun.
        """

    def read(self, after: Cursor, limit: int) -> tuple[SpanBatch, EventBatch, int]:
        """Read whole segments of one held source, in order, until about `limit` spans or 32 MiB.

        The source that is farthest behind comes first.

        Returns:
            The spans, the events, both by time, and the number of the last segment read
            (`NOTHING` when there is nothing new).
        """

    def events_of(self, traces: Collection[str], names: Collection[str]) -> EventBatch:
        """Return the events of those names that are stored of traces (ids in hex), by time."""

    def spans_of(self, traces: Collection[str], until: int) -> SpanBatch:
        """Return spans of traces, of the segments of one source up to `until`, by time."""

    def append_scores(self, segment: int, spans: SpanBatch, scores: Scores) -> None:
        """Store scores of the spans read up to `segment`; NaN is not stored.

        When this fails, some may be stored: `drop_scores` before trying again.
        """

    def history(
        self, since_ns: int, until_ns: int, after: int, scored: Cursor, limit: int
    ) -> tuple[SpanBatch, int, int]:
        """Read spans of held sources again that began in a window and were scored before.

        Args:
            since_ns: Begin of the window.
            until_ns: Its end, exclusive.
            after: The segment that the last call ended with; `NOTHING` at first.
            scored: How far scoring has come.
            limit: About how many spans, as in `read`.

        Returns:
            The spans, the last segment that was read (`NOTHING` when there is nothing more),
            and how many spans of the window lie behind it.
        """

    def scores_of(self, spans: SpanBatch, names: Collection[str]) -> Sequence[ScoreColumn]:
        """Return what is stored of spans: one column each name, target and version."""

    def score_samples(
        self, since_ns: int, until_ns: int, names: Collection[str], n_values: int
    ) -> Iterator[Row]:
        """Yield values of scores with a verdict (``pass`` or ``fail``), of the newest version.

        Of more than about a million texts in the window, whole traces are left out by chance.

        Args:
            since_ns: Begin of the window.
            until_ns: Its end, exclusive.
            names: Of scores.
            n_values: At most so many a row, chosen by chance.

        Yields:
            name, target, version, service, language ("": not known), n, n_fail, values (list),
            least_passing and most_failing (the lowest value that passes, the highest that fails;
            None: none); by name, target and service.
        """

    def append_evaluations(self, segment: int, events: EventBatch) -> None:
        """Store what others judged (``gen_ai.evaluation.result`` events) as scores.

        What an analyzer judged, and pushed, is a score already and left out.
        """

    def drop_scores(self, after: Cursor) -> None:
        """Forget scores of held sources above `after` (an analysis that was not finished)."""

    def scored(self) -> Cursor:
        """Return the last segment of each held source up to which scores were marked whole."""

    def mark_scored(self, segment: int, n_spans: int, n_bytes: int) -> None:
        """Note that scores up to a segment of its source are stored, of so many spans and bytes."""

    def read_scored(
        self, after: Cursor, limit: int
    ) -> tuple[SpanBatch, EventBatch, Sequence[ScoreColumn], int]:
        """Read what was marked as scored by whatever process; as `read`, with the scores.

        Scores that came as events are among them.
        """

    # Named queries. `since_ns`/`until_ns` bound the span's start. Filters are exact, None is any.
    # A filter: service, environment, feature, provider, operation, model, agent, session_id,
    # user_id, error ("1"), text (substring of input or output, capitals or not, with an index of
    # texts or without), flag (name of a failed score); another name is a ConfigurationError, and
    # so is an unknown `by` or `order`.
    # "calls" are spans of inference operations; "unpriced" are those that cost an unknown sum
    # (a failed call without usage costs none). Money and tokens are of spans that a provider
    # bills, None where no part of a sum is known. Money is USD, time is ms, ids are hex.
    # A query that takes too long or too much memory is a StoreError that says so.

    def overview(self, since_ns: int, until_ns: int, **filters: str | None) -> Row:
        """Return totals and breakdowns of a window.

        Returns:
            calls, errors, error_ratio, sessions, users, cost_usd, unpriced_calls,
            input_tokens, output_tokens, p50_ms, p95_ms, p99_ms, ttft_p95_ms (None: unknown);
            by_model, by_feature, by_service, by_error: lists of {name, calls, errors,
            cost_usd, p95_ms}, most calls first; scores: list of {name, target, n, mean,
            fail_ratio, n_fail}.
        """

    def series(self, since_ns: int, until_ns: int, step_s: int, **filters: str | None) -> list[Row]:
        """Return what happened over time.

        Where the bounds and the step are whole minutes and the filters no finer than the
        model, the minute roll-up answers.

        Returns:
            One row a step, also where nothing happened: ts_ms (start of the step, a multiple
            of it), calls, errors, cost_usd, p50_ms, p95_ms, input_tokens, output_tokens.
        """

    def sessions(
        self,
        since_ns: int,
        until_ns: int,
        limit: int = 100,
        order: Literal["last", "cost", "calls", "errors"] = "last",
        **filters: str | None,
    ) -> list[Row]:
        """Return sessions with a span in the window that fits the filters.

        Returns:
            session_id, user_id, service, features, models, first_ms, last_ms, traces, calls,
            errors, input_tokens, output_tokens, cost_usd, unpriced_calls, flags (names of
            scores with label "fail", sorted); totals are of all the session's spans in the
            window.
        """

    def session(self, session_id: str) -> Row | None:
        """Return one session as in `sessions` with traces, a list as in `traces`; None: unknown."""

    def traces(
        self, since_ns: int, until_ns: int, limit: int = 100, **filters: str | None
    ) -> list[Row]:
        """Return the newest traces with a span in the window that fits the filters.

        Returns:
            trace_id, ts_ms, name, service, feature, session_id, user_id, duration_ms, spans,
            calls, errors (spans that failed), cost_usd, unpriced_calls, input_tokens,
            output_tokens, models, input, output (shortened to 200 characters), flags (names of
            scores with label "fail", sorted); newest first.
        """

    def trace(self, trace_id: str) -> list[Row]:
        """Return the spans of a trace by start; [] where it is unknown.

        Returns:
            The columns of SPAN_SCHEMA with ts_ms, duration_ms and ttft_ms for those in ns,
            attributes (one dict) for the two maps, ids in hex (parent_id of a root: zeros),
            and scores (list of {name, target, value, label, explanation, version}), events
            (list of {ts_ms, event_name, body, attributes}).
        """

    def cost(self, since_ns: int, until_ns: int, by: str) -> list[Row]:
        """Return what a window cost by one dimension, dearest first.

        Args:
            since_ns: Begin of the window.
            until_ns: Its end, exclusive.
            by: service, environment, feature, provider, request_model, agent, session_id,
                user_id, prompt_name, prompt_version, day (``2026-11-24``) or hour
                (``2026-11-24T14:00Z``).

        Returns:
            key, calls, input_tokens, output_tokens, cost_usd, unpriced_calls.
        """

    def metric_series(self, name: str, since_ns: int, until_ns: int, step_s: int) -> list[Row]:
        """Return a stored OTLP metric over time.

        Returns:
            ts_ms, service, labels (dict), value (a gauge's mean, a sum's last, a histogram's
            last mean), for the steps that have points.
        """

    def dimensions(self, since_ns: int, until_ns: int) -> Mapping[str, Sequence[str]]:
        """Return the values of service, environment, feature and model in a window, for filters."""

    def sizes(self) -> Row:
        """Return spans, scores, events, bytes_on_disk, bytes_a_span, oldest_ms, newest_ms."""

    def health(self) -> Row:
        """Return how the engine is.

        Returns:
            parts (the most that one partition of a table has; merges bring them together),
            size_bytes on disk, merges and mutations (deletions) under way on the node asked.
        """

    def backlog(self, after: Cursor, sources: Collection[int] | None = None) -> Row:
        """Return how much was stored behind `after`, of some sources or of all.

        Returns:
            n_segments, n_spans, oldest_s (seconds since the first of them was stored).
        """

    def export_files(
        self, since_ns: int, until_ns: int, what: Sequence[Exported]
    ) -> Sequence[ExportFile]:
        """Return what an export of a window consists of: one file a table and day with rows."""

    def export_parts(self, file: ExportFile) -> Iterator[bytes]:
        """Return a file of an export as Parquet, piece by piece; it is whole with the last one."""

    def note_erasure(self, owner: Owner, name: str, n_characters: int) -> Erased:
        """Begin to forget a user or a session: from now on nothing of theirs comes in.

        What began before now is neither stored nor read, wherever it comes from. Call
        `delete_user` or `delete_session` next.

        Args:
            owner: What `name` is an id of.
            name: Not empty.
            n_characters: How much of a text counts.
        """

    def delete_user(self, user_id: str) -> int:
        """Delete the spans, scores and events of a user; return the number of spans.

        What names nobody in a trace of theirs goes with it. Only what is there is deleted;
        see `note_erasure`.
        """

    def delete_session(self, session_id: str) -> int:
        """Delete the spans, scores and events of a session; as `delete_user`."""

    def close(self) -> None:
        """Let go of the directory."""


class State(Protocol):
    """The small transactional part: cursor, monitors, findings, alerts, outbox (SQLite)."""

    def cursor(self) -> Cursor:
        """Return the last segment of each source whose analysis is committed."""

    def monitor_state(self) -> bytes | None:
        """Return the monitors' state as last committed."""

    def completeness_state(self) -> bytes | None:
        """Return what is known of numbers that came, as last committed."""

    def commit(
        self,
        cursor: Cursor,
        monitor_state: bytes | None,
        findings: Sequence[Finding],
        statuses: Sequence[MonitorStatus],
        completeness_state: bytes | None = None,
    ) -> None:
        """Move the cursor, the monitors, completeness and the findings in one transaction."""

    def unannounced(self, limit: int = 100) -> list[Finding]:
        """Return findings of level ``page`` that the announcer has not taken yet, oldest first."""

    def announce(
        self, finding_ids: Sequence[str], alerts: Sequence[Alert], channels: Sequence[str] = ()
    ) -> None:
        """Take findings: mark them, write their alerts and put them in the outbox, in one go.

        An alert is delivered to each channel once for each of its news (its state and its
        number of findings), also when it is announced again after a kill.
        """

    def outbox(self, now_ns: int, limit: int = 100) -> list[tuple[int, str, Alert, Finding | None]]:
        """Return due deliveries: (delivery id, channel, alert, its first finding)."""

    def delivered(self, delivery_id: int) -> None:
        """Forget a delivery that the channel took."""

    def retry(self, delivery_id: int, at_ns: int, reason: str) -> None:
        """Try a delivery again later; the reason is kept for `llmobs alerts`."""

    def waiting(self) -> list[Row]:
        """Return what the outbox still holds.

        Returns:
            delivery_id, channel, alert_id, event, due_ns, tries, reason, soonest first.
        """

    def alerts(self, state: str | None = None, limit: int = 200) -> list[Alert]:
        """Return alerts, newest first."""

    def findings(self, since_ns: int = 0, limit: int = 500) -> list[Finding]:
        """Return findings, newest first."""

    def finding(self, finding_id: str) -> Finding | None:
        """Return one finding."""

    def forget(self, traces: Collection[str], texts: Collection[str]) -> int:
        """Take these traces and texts out of findings; return how many findings had some."""

    def statuses(self) -> list[Row]:
        """Return the monitors' statuses as last committed (`MonitorStatus.to_json`)."""

    def close(self) -> None:
        """Close the file."""

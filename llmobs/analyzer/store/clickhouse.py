"""The store on ClickHouse, in process (chDB) or on a server: the same SQL for both."""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.analyzer.store import queries
from llmobs.analyzer.store.base import (
    NOTHING,
    Erased,
    Exported,
    ExportFile,
    Owner,
    Row,
)
from llmobs.analyzer.store.clients import Clients, as_record
from llmobs.analyzer.store.erasure import Erasures, belongs, names, says, unowned_beside
from llmobs.analyzer.store.export import export_files, parquet_parts
from llmobs.analyzer.store.health import backlog, health
from llmobs.analyzer.store.schema import (
    MINUTE_OF,
    OF_TRACES,
    ROLLUP_COLUMNS,
    ROLLUP_GROUPS,
    ROLLUP_SELECT,
    SCORE_SCHEMA,
    SOURCE_OF,
    WINDOW,
    Retention,
    migrate,
    unread,
)
from llmobs.analyzer.store.seen import Seen, span_keys
from llmobs.analyzer.store.texts import IndexedText, index_texts
from llmobs.errors import ConfigurationError
from llmobs.records import (
    EVENT_SCHEMA,
    SPAN_SCHEMA,
    Cursor,
    EventBatch,
    MetricBatch,
    ScoreColumn,
    Scores,
    SpanBatch,
    first_number,
    source_of,
)

__all__ = ["ClickHouseStore"]

logger = logging.getLogger(__name__)

# About a minute of spans at full speed; a sender gives up repeating a request before that.
_SEEN_CAPACITY: Final = 2_000_000
# The engine holds a block about three times over while it writes it.
_BLOCK_BYTES: Final = 64 << 20
_READ_SEGMENTS: Final = 1000
# Texts take some six times as much while they are scored.
_READ_BYTES: Final = 32 << 20
_COUNTED: Final = {"spans": "spans", "events": "events", "metrics": "metric_points"}
_TS: Final = pa.timestamp("ns", "UTC")
_IDS: Final = pa.schema([SPAN_SCHEMA.field("trace_id"), SPAN_SCHEMA.field("span_id")])
_OF_SEGMENTS: Final = "seg >= {begin:UInt64} AND seg <= {last:UInt64}"
_BEHIND: Final = "seg >= {begin:UInt64} AND seg < {end:UInt64}"
"""Condition: a segment of one source lies behind a cursor; `_behind` binds it."""
_NO_SPANS: Final = SPAN_SCHEMA.empty_table()
_NO_EVENTS: Final = EVENT_SCHEMA.empty_table()


class ClickHouseStore:
    """Spans, scores, events and metrics in ClickHouse; see `base.Store`.

    One thread appends, a source's segments in ascending order; any number of threads ask.

    Args:
        clients: Connections to a database of this store's own.
        retention: How long rows are kept.
        text_index: Whether texts have an index; see `texts`.
    """

    def __init__(self, clients: Clients, retention: Retention, *, text_index: bool = False) -> None:
        self._clients = clients
        migrate(clients, retention)
        index_texts(clients, text_index)
        self._text_index = text_index
        # Appends and rebuilds of the roll-up: one at a time, or a minute is counted twice.
        self._writing = threading.Lock()
        self._erasures = Erasures(clients)
        self._seen = Seen(_SEEN_CAPACITY)
        # By source that this process appends to:
        self._seen_until: dict[int, int] = {}  # spans of lower segments are in the window
        # A part of the segment behind the last whole one may be stored.
        self._doubtful: set[int] = set()
        # The last segment that is stored as a whole; replaced and never changed, for the readers.
        self._closed: Mapping[int, int] = {}

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
        """Store one segment; see `base.Store.append`."""
        until, source = until or segment + 1, source_of(segment)
        with self._writing:
            if segment < self._seen_until.get(source, 0):
                # This process stored it and could not remove it from the log. Its spans are all
                # known by now: counted again, it would be found to hold none.
                return 0
            # A power cut can bring back segments that were removed: they are counted again.
            is_behind = segment <= self._closed.get(source, NOTHING)
            replay = replay or is_behind or source in self._doubtful
            self._doubtful.add(source)  # until this one is stored as a whole
            if replay:
                self._finish_rebuild(source)
            self._erasures.refresh()
            spans, events = self._without_erased(spans, events)
            self._recall(segment)
            keys = span_keys(spans.table)
            new = self._seen.first_seen(keys)
            table = spans.table if new.all() else spans.table.filter(pa.array(new))
            rows = {"spans": table, "events": events.table, "metric_points": metrics.table}
            if replay:
                self._complete(segment, until, rows)
            else:
                for name, part in rows.items():
                    self._insert(name, segment, part)
                self._close_segment(segment, until, rows)
            if self._clients.is_shared:
                self._erase_late(segment, spans, events)
            self._seen.add(keys[new])
            self._seen_until[source] = until
            if not is_behind:
                self._doubtful.discard(source)
        n_repeated = len(spans) - table.num_rows
        if n_repeated:
            logger.info("repeated spans left out", extra={"segment": segment, "n": n_repeated})
        return int(table.num_rows)

    def position(self, source: int) -> int:
        """Return where a source goes on; see `base.Store.position`."""
        (row,) = self._clients.ask_everywhere(
            "segments",
            f"SELECT maxOrNull(until) AS until FROM {{table}} WHERE {_BEHIND}",
            _behind({}, source),
        )
        return first_number(source) if row["until"] is None else int(row["until"])

    @property
    def held(self) -> frozenset[int]:
        """Return the sources that this process appends to."""
        return frozenset(self._closed)

    def hold(self, sources: Collection[int]) -> None:
        """Become the one that appends to these sources alone; see `base.Store.hold`."""
        if self._closed.keys() == set(sources):
            return
        with self._writing:
            closed = {source: self._closed[source] for source in self._closed.keys() & set(sources)}
            for source in self._closed.keys() - closed.keys():
                self._seen_until.pop(source, None)
            for source in set(sources) - closed.keys():
                self._finish_rebuild(source)
                closed[source] = self._last("segments", source)
                if self._has_behind(source, closed[source]):
                    self._doubtful.add(source)
            self._closed = closed

    def read(self, after: Cursor, limit: int) -> tuple[SpanBatch, EventBatch, int]:
        """Read whole segments of one source; see `base.Store.read`."""
        behind = {
            source: last + 1 - _behind(after, source)["begin"]
            for source, last in self._closed.items()
        }
        for source in sorted(behind, key=behind.__getitem__, reverse=True):
            if behind[source] <= 0:
                break
            # A segment that was stored in part has no row here yet.
            segments = self._clients.ask_everywhere(
                "segments",
                f"""SELECT seg, max(n_spans) AS n_spans, max(n_bytes) AS n_bytes FROM {{table}}
                WHERE {_BEHIND} GROUP BY seg ORDER BY seg LIMIT {_READ_SEGMENTS}""",
                _behind(after, source),
            )
            if segments:  # else they are gone with their retention
                return self._read_to(_cut(segments, limit), after)
        return SpanBatch(_NO_SPANS), EventBatch(_NO_EVENTS), NOTHING

    def events_of(self, traces: Collection[str], names: Collection[str]) -> EventBatch:
        """Return events of traces; see `base.Store.events_of`."""
        where = "event_name IN ({names:Array(String)})"
        bound = {"ids": sorted(traces), "names": sorted(names)}
        return EventBatch(self._records("events", EVENT_SCHEMA, bound, f"{OF_TRACES} AND {where}"))

    def spans_of(self, traces: Collection[str], until: int) -> SpanBatch:
        """Return spans of traces; see `base.Store.spans_of`."""
        bound = {"ids": sorted(traces), "begin": first_number(source_of(until)), "last": until}
        where = f"{OF_TRACES} AND {_OF_SEGMENTS}"
        return SpanBatch(self._records("spans", SPAN_SCHEMA, bound, where))

    def read_scored(
        self, after: Cursor, limit: int
    ) -> tuple[SpanBatch, EventBatch, list[ScoreColumn], int]:
        """Read what was scored elsewhere; see `base.Store.read_scored`."""
        marks = self._clients.ask_everywhere(
            "scored",
            f"""SELECT seg, max(n_spans) AS n_spans, max(n_bytes) AS n_bytes FROM {{table}}
            WHERE {unread(after)} GROUP BY seg ORDER BY seg LIMIT {_READ_SEGMENTS}""",
        )
        waiting = Counter(source_of(row["seg"]) for row in marks)
        if not waiting:
            return SpanBatch(_NO_SPANS), EventBatch(_NO_EVENTS), [], NOTHING
        source, _ = waiting.most_common(1)[0]
        last = _cut([row for row in marks if source_of(row["seg"]) == source], limit)
        spans, events, last = self._read_to(last, after)
        self._clients.settle("scores")
        rows = self._clients.columns(
            f"""SELECT trace_id, span_id, name, target, version, value, label, explanation
            FROM scores WHERE {_OF_SEGMENTS}""",
            {"begin": _behind(after, source)["begin"], "last": last},
        )
        return spans, events, _score_columns(spans, rows), last

    def scored(self) -> dict[int, int]:
        """Return how far the scoring of held sources has come; see `base.Store.scored`."""
        lasts = {source: self._last("scored", source) for source in self._closed}
        return {source: last for source, last in lasts.items() if last >= first_number(source)}

    def mark_scored(self, segment: int, n_spans: int, n_bytes: int) -> None:
        """Note how far scoring has come; see `base.Store.mark_scored`."""
        row = _numbers({"seg": segment, "n_spans": n_spans, "n_bytes": n_bytes})
        self._clients.insert("scored", row, f"scored-{segment}-{secrets.token_hex(8)}")

    def append_scores(self, segment: int, spans: SpanBatch, scores: Scores) -> None:
        """Store scores; see `base.Store.append_scores`."""
        places = {
            name: spans.table.column(name)
            for name in ("trace_id", "span_id", "service", "environment", "feature", "session_id")
        }
        places["ts"] = _as_time(spans.table.column("ts_ns"))
        parts = []
        for column in scores.columns:
            said = np.flatnonzero(~np.isnan(column.values)).tolist()
            rows, n = pa.array(said, pa.int64()), len(said)
            cells = {
                **{name: place.take(rows).combine_chunks() for name, place in places.items()},
                "seg": pa.array(np.full(n, segment, dtype=np.uint64)),
                "name": pa.repeat(column.name, n),
                "target": pa.repeat(column.target, n),
                "version": pa.repeat(column.version, n),
                "value": pa.array(column.values[said]),
                "label": pa.array([column.labels[i] for i in said], pa.string()),
                "explanation": pa.array([column.explanations[i] for i in said], pa.string()),
            }
            parts.append(
                pa.Table.from_arrays([cells[f.name] for f in SCORE_SCHEMA], schema=SCORE_SCHEMA)
            )
        if parts and (table := pa.concat_tables(parts)).num_rows:
            self._clients.insert("scores", table, f"scores-{segment}-{secrets.token_hex(8)}")
            # Somebody may have been forgotten while this was scored, here or elsewhere.
            self._erasures.refresh()
            late = self._erasures.spans(spans.table)
            self._delete_rows("scores", spans.table.filter(pa.array(late)))

    def history(
        self, since_ns: int, until_ns: int, after: int, scored: Cursor, limit: int
    ) -> tuple[SpanBatch, int, int]:
        """Read scored spans of a window again; see `base.Store.history`."""
        window = {"since": max(since_ns, 0), "until": max(until_ns, 0)}
        is_scored = " OR ".join(
            f"seg >= {max(first_number(source), after + 1)} AND seg <= {scored[source]}"
            for source in sorted(self._closed.keys() & scored.keys())
        )
        # In the order of the segments, so that one of a batch is behind none that was read.
        segments = self._clients.ask(
            f"""SELECT seg, count() AS n_spans, sum(count()) OVER () AS n_all FROM spans
            WHERE {WINDOW} AND ({is_scored or "false"})
            GROUP BY seg ORDER BY seg LIMIT {_READ_SEGMENTS}""",
            window,
        )
        if not segments:
            return SpanBatch(_NO_SPANS), NOTHING, 0
        source = source_of(segments[0]["seg"])
        segments = self._with_bytes([row for row in segments if source_of(row["seg"]) == source])
        last = _cut(segments, limit)
        bound = {**window, "begin": segments[0]["seg"], "last": last}
        spans = self._records("spans", SPAN_SCHEMA, bound, f"{_OF_SEGMENTS} AND {WINDOW}")
        self._erasures.refresh()
        kept, _ = self._without_erased(SpanBatch(spans), EventBatch(_NO_EVENTS))
        n_read = sum(row["n_spans"] for row in segments if row["seg"] <= last)
        return kept, last, int(segments[0]["n_all"]) - n_read

    def _with_bytes(self, segments: Sequence[Row]) -> list[Row]:
        sizes = self._clients.ask_everywhere(
            "segments",
            f"SELECT seg, max(n_bytes) AS n FROM {{table}} WHERE {_OF_SEGMENTS} GROUP BY seg",
            {"begin": segments[0]["seg"], "last": segments[-1]["seg"]},
        )
        n_bytes = {row["seg"]: row["n"] for row in sizes}
        return [{**row, "n_bytes": n_bytes.get(row["seg"], 0)} for row in segments]

    def scores_of(self, spans: SpanBatch, names: Collection[str]) -> list[ScoreColumn]:
        """Return what is stored of spans; see `base.Store.scores_of`."""
        if not len(spans):
            return []
        self._clients.settle("scores")
        began_ns = spans.ints("ts_ns")
        rows = self._clients.columns(
            f"""SELECT trace_id, span_id, name, target, version, value, label, explanation
            FROM scores WHERE name IN {{names:Array(String)}} AND {WINDOW} AND {OF_TRACES}""",
            {
                "names": sorted(names),
                "since": int(began_ns.min()),
                "until": int(began_ns.max()) + 1,
                "ids": sorted(set(spans.ids("trace_id"))),
            },
        )
        return _score_columns(spans, rows)

    def score_samples(
        self, since_ns: int, until_ns: int, names: Collection[str], n_values: int
    ) -> Iterator[Row]:
        """Yield values of scores; see `base.Store.score_samples`."""
        return queries.score_samples(self._clients.ask, since_ns, until_ns, names, n_values)

    def append_evaluations(self, segment: int, events: EventBatch) -> None:
        """Store what others judged; see `base.Store.append_evaluations`."""
        judged = events.table.filter(
            pc.field("event_name") == semconv.EVENT_GEN_AI_EVALUATION_RESULT
        )
        if not judged.num_rows:
            return
        places = self._clients.ask(
            f"""SELECT lower(hex(span_id)) AS span, any(service) AS service,
              any(environment) AS environment, any(feature) AS feature,
              any(session_id) AS session_id
            FROM spans WHERE {OF_TRACES} GROUP BY span""",
            {"ids": sorted(set(EventBatch(judged).ids("trace_id")))},
        )
        place_of = {row["span"]: row for row in places}
        rows = [_evaluation(row, place_of) for row in judged.to_pylist() if not _is_our_own(row)]
        said = [{**row, "seg": segment} for row in rows if row["name"]]
        if said:
            table = pa.Table.from_pylist(said, schema=SCORE_SCHEMA)
            token = f"evaluations-{segment}-{secrets.token_hex(8)}"
            self._clients.insert("scores", table, token)

    def drop_scores(self, after: Cursor) -> None:
        """Forget scores of held sources above `after`; see `base.Store.drop_scores`."""
        for source in self._closed:
            self._delete("scores", _BEHIND, _behind(after, source))

    def note_erasure(self, owner: Owner, name: str, n_characters: int) -> Erased:
        """Begin to forget a user or a session; see `base.Store.note_erasure`."""
        if not name:
            raise ConfigurationError(f"the id of the {owner} is empty")
        with self._writing:
            self._erasures.note(owner, name, time.time_ns())
        rows = self._clients.ask(
            f"""SELECT DISTINCT lower(hex(trace_id)) AS trace,
              substringUTF8(input_text, 1, {{n:UInt32}}) AS text
            FROM spans WHERE {belongs(owner, "spans")}""",
            {"id": name, "n": n_characters},
        )
        texts = frozenset(row["text"] for row in rows)
        return Erased(frozenset(row["trace"] for row in rows), texts - {""})

    def delete_user(self, user_id: str) -> int:
        """Delete all that is stored of one user and return the number of spans.

        The minute roll-up is rebuilt: the user's calls no longer count.
        """
        return self._delete_spans("user", user_id)

    def delete_session(self, session_id: str) -> int:
        """Delete all that is stored of one session and return the number of spans."""
        return self._delete_spans("session", session_id)

    def overview(self, since_ns: int, until_ns: int, **filters: str | None) -> Row:
        """Return totals and breakdowns; see `base.Store.overview`."""
        return queries.overview(self._clients.ask, since_ns, until_ns, self._indexed(filters))

    def series(self, since_ns: int, until_ns: int, step_s: int, **filters: str | None) -> list[Row]:
        """Return one row a step; see `base.Store.series`."""
        filters = self._indexed(filters)
        return queries.series(self._clients.ask, since_ns, until_ns, step_s, filters)

    def sessions(
        self,
        since_ns: int,
        until_ns: int,
        limit: int = 100,
        order: Literal["last", "cost", "calls", "errors"] = "last",
        **filters: str | None,
    ) -> list[Row]:
        """Return sessions; see `base.Store.sessions`."""
        filters = self._indexed(filters)
        return queries.sessions(self._clients.ask, since_ns, until_ns, limit, order, filters)

    def session(self, session_id: str) -> Row | None:
        """Return one session; see `base.Store.session`."""
        return queries.session(self._clients.ask, session_id)

    def traces(
        self, since_ns: int, until_ns: int, limit: int = 100, **filters: str | None
    ) -> list[Row]:
        """Return the newest traces; see `base.Store.traces`."""
        filters = self._indexed(filters)
        return queries.traces(self._clients.ask, since_ns, until_ns, limit, filters)

    def trace(self, trace_id: str) -> list[Row]:
        """Return the spans of a trace; see `base.Store.trace`."""
        return queries.trace(self._clients.ask, trace_id)

    def cost(self, since_ns: int, until_ns: int, by: str) -> list[Row]:
        """Return what a window cost; see `base.Store.cost`."""
        return queries.cost(self._clients.ask, since_ns, until_ns, by)

    def metric_series(self, name: str, since_ns: int, until_ns: int, step_s: int) -> list[Row]:
        """Return a stored OTLP metric; see `base.Store.metric_series`."""
        return queries.metric_series(self._clients.ask, name, since_ns, until_ns, step_s)

    def dimensions(self, since_ns: int, until_ns: int) -> Mapping[str, Sequence[str]]:
        """Return the values to filter by; see `base.Store.dimensions`."""
        return queries.dimensions(self._clients.ask, since_ns, until_ns)

    def sizes(self) -> Row:
        """Return how much is stored; see `base.Store.sizes`."""
        return queries.sizes(self._clients.ask, self._clients.layout.parts)

    def health(self) -> Row:
        """Return how the engine is; see `base.Store.health`."""
        return health(self._clients)

    def backlog(self, after: Cursor, sources: Collection[int] | None = None) -> Row:
        """Return what waits behind a cursor; see `base.Store.backlog`."""
        return backlog(self._clients, after, sources)

    def export_files(
        self, since_ns: int, until_ns: int, what: Sequence[Exported]
    ) -> list[ExportFile]:
        """Return what an export consists of; see `base.Store.export_files`."""
        return export_files(self._clients, since_ns, until_ns, what)

    def export_parts(self, file: ExportFile) -> Iterator[bytes]:
        """Return a file of an export; see `base.Store.export_parts`."""
        return parquet_parts(self._clients, file)

    def close(self) -> None:
        """Let go of the engine and its directory."""
        with self._writing:
            self._clients.close()

    def _indexed(self, filters: Mapping[str, str | None]) -> dict[str, str | None]:
        text = filters.get("text")
        if text is None or not self._text_index:
            return dict(filters)
        return {**filters, "text": IndexedText(text)}

    def _insert(self, table: str, segment: int, rows: pa.Table) -> None:
        n_blocks = max(1, -(-rows.nbytes // _BLOCK_BYTES))
        n_rows = -(-rows.num_rows // n_blocks)
        # A token only guards against the client's own repetition. It never outlives a call:
        # after a kill the engine may know a token whose rows it lost.
        token = f"{table}-{segment}-{secrets.token_hex(8)}"
        for start in range(0, rows.num_rows, max(n_rows, 1)):
            block = rows.slice(start, n_rows)
            columns = [
                ("ts", _as_time(column)) if name == "ts_ns" else (name, column)
                for name, column in zip(block.column_names, block.columns, strict=True)
            ]
            columns.append(("seg", pa.array(np.full(len(block), segment, dtype=np.uint64))))
            self._clients.insert(table, pa.table(dict(columns)), f"{token}-{start}")

    def _last(self, table: str, source: int) -> int:
        """Return the last segment of a source in a table; below its first where there is none."""
        (row,) = self._clients.ask_everywhere(
            table,
            f"SELECT maxOrNull(seg) AS seg FROM {{table}} WHERE {_BEHIND}",
            _behind({}, source),
        )
        return first_number(source) - 1 if row["seg"] is None else int(row["seg"])

    def _has_behind(self, source: int, last: int) -> bool:
        """Return whether there are rows of segments behind the last whole one."""
        bound = _behind({source: last}, source)
        return any(
            self._clients.ask(f"SELECT seg FROM {table} WHERE {_BEHIND} LIMIT 1", bound)
            for table in ("spans", "events", "metric_points")
        )

    def _close_segment(self, segment: int, until: int, rows: Mapping[str, pa.Table]) -> None:
        """Note that a segment is stored as a whole: from now on it is read."""
        numbers = {"seg": segment, "until": until}
        numbers |= {f"n_{name}": rows[table].num_rows for name, table in _COUNTED.items()}
        numbers["n_bytes"] = sum(table.nbytes for table in rows.values())
        note = _numbers(numbers)
        self._clients.insert("segments", note, f"segment-{segment}-{secrets.token_hex(8)}")
        source = source_of(segment)
        self._closed = {**self._closed, source: max(self._closed.get(source, segment), segment)}

    def _complete(self, segment: int, until: int, rows: Mapping[str, pa.Table]) -> None:
        """Bring a segment that may have been stored in part to what it should hold."""
        (closed,) = self._clients.ask_everywhere(
            "segments",
            "SELECT count() > 0 AS yes FROM {table} WHERE seg = {seg:UInt64}",
            {"seg": segment},
        )
        self._clients.settle(*rows)
        stored = {name: self._n_stored(name, segment) for name in rows}
        complete = all(stored[name] == table.num_rows for name, table in rows.items())
        if complete and closed["yes"]:
            return
        if closed["yes"]:  # first, so that it is not taken for whole should this be cut off
            self._delete("segments", "seg = {seg:UInt64}", {"seg": segment})
        for name, table in rows.items():
            if stored[name] == table.num_rows:
                continue
            if stored[name]:
                self._delete(name, "seg = {seg:UInt64}", {"seg": segment})
            self._insert(name, segment, table)
        # The view may have counted a part of it, all of it, or some of it twice.
        self._rebuild(source_of(segment), _minutes(rows["spans"]))
        self._close_segment(segment, until, rows)
        if any(stored.values()):
            logger.warning("segment completed", extra={"segment": segment, "found": stored})

    def _n_stored(self, table: str, segment: int) -> int:
        (row,) = self._clients.ask(
            f"SELECT count() AS n FROM {table} WHERE seg = {{seg:UInt64}}", {"seg": segment}
        )
        return int(row["n"])

    def _recall(self, segment: int) -> None:
        """Learn the ids of spans that were stored before a segment, and not by this process."""
        source = source_of(segment)
        until = self._seen_until.get(source, first_number(source))
        if until >= segment:
            return
        bound = {"from": until, "to": segment}
        (start,) = self._clients.ask_everywhere(
            "segments",
            f"""SELECT minIf(seg, later < {_SEEN_CAPACITY}) AS seg FROM (
              SELECT seg, sum(n) OVER (ORDER BY seg DESC) - n AS later FROM (
                SELECT seg, max(n_spans) AS n FROM {{table}}
                WHERE seg >= {{from:UInt64}} AND seg < {{to:UInt64}}
                GROUP BY seg ORDER BY seg DESC LIMIT 1000000))""",
            bound,
        )
        ids = self._clients.columns(
            """SELECT trace_id, span_id FROM spans
            WHERE seg >= {start:UInt64} AND seg >= {from:UInt64} AND seg < {to:UInt64}""",
            {**bound, "start": start["seg"]},
        )
        self._seen.add(span_keys(as_record(ids, _IDS)))
        self._seen_until[source] = segment

    def _read_to(self, last: int, after: Cursor) -> tuple[SpanBatch, EventBatch, int]:
        bound = {"begin": _behind(after, source_of(last))["begin"], "last": last}
        spans, events = self._spans_and_events(bound)
        if self._clients.replicas_may_lag and self._lack_rows(spans, events, bound):
            self._clients.settle("spans", "events")
            # What lacks now was deleted.
            spans, events = self._spans_and_events(bound)
        # Who is to be forgotten is not scored and watched any more, deleted already or not.
        self._erasures.refresh()
        return *self._without_erased(SpanBatch(spans), EventBatch(events)), last

    def _spans_and_events(self, bound: Mapping[str, int]) -> tuple[pa.Table, pa.Table]:
        return (
            self._records("spans", SPAN_SCHEMA, bound),
            self._records("events", EVENT_SCHEMA, bound),
        )

    def _lack_rows(self, spans: pa.Table, events: pa.Table, bound: Mapping[str, int]) -> bool:
        """Return whether these are fewer than the segments had when they were stored."""
        (stored,) = self._clients.ask_everywhere(
            "segments",
            f"""SELECT sum(spans) AS n_spans, sum(events) AS n_events FROM (
              SELECT max(n_spans) AS spans, max(n_events) AS events FROM {{table}}
              WHERE {_OF_SEGMENTS} GROUP BY seg)""",
            bound,
        )
        n_spans, n_events = int(stored["n_spans"] or 0), int(stored["n_events"] or 0)
        return bool(spans.num_rows < n_spans or events.num_rows < n_events)

    def _records(
        self, table: str, schema: pa.Schema, bound: Mapping[str, Any], where: str = _OF_SEGMENTS
    ) -> pa.Table:
        names = ", ".join(field.name for field in schema if field.name != "ts_ns")
        rows = self._clients.columns(
            f"""SELECT toUnixTimestamp64Nano(ts) AS ts_ns, {names} FROM {table}
            WHERE {where} ORDER BY ts, span_id""",
            bound,
        )
        return as_record(rows, schema)

    def _delete(self, table: str, where: str, bound: Mapping[str, Any]) -> None:
        self._clients.command(self._clients.layout.delete(table, where), bound)

    def _delete_spans(self, owner: Owner, name: str) -> int:
        bound = {"id": name}
        if not name:
            return 0
        stored = self._clients.layout.stored("spans")
        with self._writing:
            found = self._clients.ask(
                f"""SELECT {SOURCE_OF} AS source, {MINUTE_OF} AS minute, count() AS n
                FROM spans WHERE {belongs(owner, "spans")} GROUP BY source, minute""",
                bound,
            )
            minutes: dict[int, list[int]] = {}
            for row in found:
                minutes.setdefault(row["source"], []).append(row["minute"])
            for source, of_source in minutes.items():
                self._note_stale(source, of_source)
            if found:
                of_them = f"SELECT trace_id, span_id FROM {stored} WHERE {belongs(owner, stored)}"
                for table in ("scores", "events"):
                    self._delete(table, f"(trace_id, span_id) IN ({of_them})", bound)
                # What names nobody first: it is found by the others.
                self._delete("spans", unowned_beside(owner, stored), bound)
                self._delete("spans", names(owner), bound)
            self._delete("events", says(owner), bound)
            if owner == "session":
                self._delete("scores", names(owner), bound)
            for source, of_source in minutes.items():
                self._rebuild(source, of_source)
        n_spans = sum(int(row["n"]) for row in found)
        logger.info("spans deleted on request", extra={"n_spans": n_spans})
        return n_spans

    def _without_erased(self, spans: SpanBatch, events: EventBatch) -> tuple[SpanBatch, EventBatch]:
        gone, gone_events = self._erasures.spans(spans.table), self._erasures.events(events.table)
        if not gone.any() and not gone_events.any():
            return spans, events
        logger.info(
            "erased before it was stored or read",
            extra={"n_spans": int(gone.sum()), "n_events": int(gone_events.sum())},
        )
        return (
            SpanBatch(spans.table.filter(pa.array(~gone))),
            EventBatch(events.table.filter(pa.array(~gone_events))),
        )

    def _erase_late(self, segment: int, spans: SpanBatch, events: EventBatch) -> None:
        """Delete what another process was told to forget while this one stored it."""
        self._erasures.refresh()
        gone = spans.table.filter(pa.array(self._erasures.spans(spans.table)))
        self._delete_rows("spans", gone)
        self._rebuild(source_of(segment), _minutes(gone))
        self._delete_rows(
            "events", events.table.filter(pa.array(self._erasures.events(events.table)))
        )

    def _delete_rows(self, table: str, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        columns = (rows.column(name).to_pylist() for name in ("trace_id", "span_id", "ts_ns"))
        keys = [f"{trace.hex()}{span.hex()}{ts}" for trace, span, ts in zip(*columns, strict=True)]
        key = (
            "concat(lower(hex(trace_id)), lower(hex(span_id)), toString(toUnixTimestamp64Nano(ts)))"
        )
        self._delete(table, f"{key} IN (SELECT arrayJoin({{keys:Array(String)}}))", {"keys": keys})

    def _rebuild(self, source: int, minutes: Sequence[int]) -> None:
        """Count the roll-up of a source's minutes again, from spans."""
        if not minutes:
            return
        self._note_stale(source, minutes)
        bound = {
            "source": source,
            "minutes": list(minutes),
            "first": min(minutes),
            "last": max(minutes),
        }
        stale = "(SELECT arrayJoin({minutes:Array(Int64)}))"
        self._delete(
            "minutes",
            f"""source = {{source:UInt16}}
            AND minute >= toDateTime64({{first:Int64}} * 60, 0, 'UTC')
            AND minute <= toDateTime64({{last:Int64}} * 60, 0, 'UTC')
            AND intDiv(toInt64(minute), 60) IN {stale}""",
            bound,
        )
        self._clients.settle("spans")
        self._clients.command(
            f"""INSERT INTO minutes ({ROLLUP_COLUMNS}) {ROLLUP_SELECT}
            WHERE {SOURCE_OF} = {{source:UInt16}}
              AND ts >= toDateTime64({{first:Int64}} * 60, 9, 'UTC')
              AND {MINUTE_OF} <= {{last:Int64}} AND {MINUTE_OF} IN {stale}
            {ROLLUP_GROUPS}""",
            bound,
            # Without one, a shard would leave out what it was sent before, deleted or not.
            token=secrets.token_hex(8),
        )
        self._delete("stale_minutes", "source = {source:UInt16}", bound)

    def _note_stale(self, source: int, minutes: Sequence[int]) -> None:
        table = pa.table(
            {
                "minute": pa.array(minutes, pa.int64()),
                "source": pa.array([source] * len(minutes), pa.uint16()),
            }
        )
        self._clients.insert("stale_minutes", table, secrets.token_hex(8))

    def _finish_rebuild(self, source: int) -> None:
        rows = self._clients.ask_everywhere(
            "stale_minutes",
            "SELECT DISTINCT minute FROM {table} WHERE source = {source:UInt16}",
            {"source": source},
        )
        if rows:
            # The engine goes on by itself with a deletion that was cut off, and rows are there
            # until it has: one of nothing waits for those before it.
            self._delete("spans", "0", {})
        self._rebuild(source, [row["minute"] for row in rows])


def _behind(after: Cursor, source: int) -> dict[str, int]:
    """Return what `_BEHIND` is bound to: the numbers that a source's next segments can have."""
    begin = after[source] + 1 if source in after else first_number(source)
    return {"begin": begin, "end": first_number(source + 1)}


def _cut(segments: Sequence[Row], limit: int) -> int:
    """Return the last of the segments that together hold about `limit` spans, or `_READ_BYTES`."""
    n_spans = n_bytes = 0
    for row in segments:
        n_spans, n_bytes = n_spans + row["n_spans"], n_bytes + row["n_bytes"]
        if n_spans >= limit or n_bytes >= _READ_BYTES:
            return int(row["seg"])
    return int(segments[-1]["seg"])


def _numbers(row: Mapping[str, int]) -> pa.Table:
    return pa.table({name: pa.array([value], pa.uint64()) for name, value in row.items()})


def _score_columns(spans: SpanBatch, rows: pa.Table) -> list[ScoreColumn]:
    """Lay scores beside the spans that they are of."""
    columns: list[ScoreColumn] = []
    keys = span_keys(spans.table)
    order = np.argsort(keys)
    for place in (
        rows.select(["name", "target", "version"])
        .group_by(["name", "target", "version"])
        .aggregate([])
        .to_pylist()
    ):
        part = rows.filter(
            (pc.field("name") == place["name"])
            & (pc.field("target") == place["target"])
            & (pc.field("version") == place["version"])
        )
        wanted = span_keys(as_record(part.select(["trace_id", "span_id"]), _IDS))
        at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        found = keys[order[at]] == wanted
        where = order[at][found]
        values = np.full(len(spans), np.nan)
        values[where] = part.column("value").to_numpy()[found]
        texts = {}
        for name in ("label", "explanation"):
            texts[name] = np.full(len(spans), "", dtype=object)
            texts[name][where] = np.array(part.column(name).to_pylist(), dtype=object)[found]
        columns.append(
            ScoreColumn(
                **place,
                values=values,
                labels=texts["label"].tolist(),
                explanations=texts["explanation"].tolist(),
            )
        )
    return columns


def _is_our_own(event: Row) -> bool:
    """Return whether an evaluation event is a score of an analyzer that came back to one."""
    source = dict(event["attributes_s"]).get(semconv.LLMOBS_EVALUATION_SOURCE)
    return bool(source == semconv.EVALUATION_SOURCE_ANALYZER)


def _evaluation(event: Row, place_of: Mapping[str, Row]) -> Row:
    """Return the score that an evaluation event tells, with the place of its span.

    A web page that gives feedback knows ids and perhaps no more; and where it comes before its
    span, what it says of the place is all there is.
    """
    texts, numbers = dict(event["attributes_s"]), dict(event["attributes_n"])
    place = place_of.get(event["span_id"].hex(), {})
    return {
        "ts": event["ts_ns"],
        "trace_id": event["trace_id"],
        "span_id": event["span_id"],
        "service": event["service"] or place.get("service", ""),
        "environment": event["environment"] or place.get("environment", ""),
        "feature": place.get("feature") or texts.get(semconv.LLMOBS_FEATURE, ""),
        "session_id": place.get("session_id") or texts.get(semconv.SESSION_ID, ""),
        "name": texts.get(semconv.GEN_AI_EVALUATION_NAME, ""),
        "target": "output",
        "version": texts.get(semconv.LLMOBS_EVALUATION_VERSION, ""),
        # An evaluation may have a label alone.
        "value": numbers.get(semconv.GEN_AI_EVALUATION_SCORE_VALUE, math.nan),
        "label": texts.get(semconv.GEN_AI_EVALUATION_SCORE_LABEL, ""),
        "explanation": texts.get(semconv.GEN_AI_EVALUATION_EXPLANATION, ""),
    }


def _as_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(_TS)  # an int64 would be read as seconds


def _minutes(spans: pa.Table) -> list[int]:
    minutes = pc.divide(spans.column("ts_ns"), pa.scalar(60_000_000_000, pa.int64()))
    return sorted(pc.unique(minutes).to_pylist())

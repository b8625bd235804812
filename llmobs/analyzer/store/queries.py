"""Every question that the store answers, as SQL with bound parameters.

A function here is the query of the same name in `base.Store`. What users send is a bound
parameter, always; names of columns come from the tables below, never from outside.
Money and tokens are weighted by how many calls a sampled span stands for.
"""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from llmobs.analyzer.store.base import Row
from llmobs.analyzer.store.schema import (
    FAILURE,
    HOUR_OF,
    INFERENCE,
    MINUTE_OF,
    MODEL,
    MODEL_CALL,
    OF_TRACES,
    QUANTILES,
    ROLLUP_COLUMNS,
    ROLLUP_GROUPS,
    ROLLUP_SELECT,
    UNPRICED,
    WINDOW,
)
from llmobs.analyzer.store.texts import NEAR, IndexedText
from llmobs.errors import ConfigurationError
from llmobs.records import SPAN_SCHEMA

__all__ = [
    "Ask",
    "cost",
    "dimensions",
    "metric_series",
    "overview",
    "score_samples",
    "series",
    "session",
    "sessions",
    "sizes",
    "trace",
    "traces",
]

Ask: TypeAlias = Callable[[str, Mapping[str, Any]], list[Row]]
"""Runs SQL with bound parameters and returns its rows."""

_MINUTE_NS: Final = 60_000_000_000
_DAY_NS: Final = 86_400_000_000_000
_MAX_NS: Final = 2**63 - 1
# An evaluation carries the clock of whoever judged; an hour is more than clocks differ.
_CLOCK_SKEW_NS: Final = 3_600_000_000_000
_MAX_LIMIT: Final = 10_000
_MAX_STEPS: Final = 20_000
_TEXT_LENGTH: Final = 200
# The newest are looked for in the last 512th of the window first, then in the last 64th …
_NARROWER: Final = (512, 64, 8, 1)

_NEWEST: Final = "argMax(version, stored_at)"
"""Version that was stored last: a span that was scored again has several."""
_FAILS_NOW: Final = f"has(groupArrayIf(version, label = 'fail'), {_NEWEST})"
"""Condition on the scores of one span, name and target: one of the newest version failed."""
_FLAGGED: Final = "name = {flag:String} AND {window}"

_FILTERS: Final = {
    "service": "service = {service:String}",
    "environment": "environment = {environment:String}",
    "feature": "feature = {feature:String}",
    "provider": "provider = {provider:String}",
    "operation": "operation = {operation:String}",
    "model": f"{MODEL} = {{model:String}}",
    "agent": "agent = {agent:String}",
    "session_id": "session_id = {session_id:String}",
    "user_id": "user_id = {user_id:String}",
    "error": "status = 2",
    "text": "(positionCaseInsensitiveUTF8(input_text, {text:String}) > 0"
    " OR positionCaseInsensitiveUTF8(output_text, {text:String}) > 0)",
    # Of one version, as it mostly is, no other row than those that fail is read.
    "flag": f"""(trace_id, span_id) IN (
      SELECT trace_id, span_id FROM scores WHERE {_FLAGGED} AND label = 'fail' AND (
        (SELECT uniqExact(version) FROM scores WHERE {_FLAGGED}) = 1
        OR (trace_id, span_id) IN (
          SELECT trace_id, span_id FROM scores
          WHERE {_FLAGGED} AND (trace_id, span_id) IN (
            SELECT trace_id, span_id FROM scores WHERE {_FLAGGED} AND label = 'fail')
          GROUP BY trace_id, span_id, target HAVING {_FAILS_NOW})))""",
}
_IN_MINUTES: Final = frozenset(
    {"service", "environment", "feature", "provider", "operation", "model", "error"}
)
"""Filters that the minute roll-up can answer."""
_IN_HOURS: Final = frozenset({"service", "environment", "feature", "session_id", "user_id"})
"""Filters that the hours of sessions can answer; each is the name of a column."""
_SUMMED_BY: Final = {"spans": (HOUR_OF, 3600), "scores": (MINUTE_OF, 60)}
"""What the projections of a table group by, and its length in s."""
_IN_SCORES: Final = frozenset({"service", "environment", "feature", "session_id"})
_IN_SCORE_MINUTES: Final = frozenset({"service", "environment", "feature"})

_GROUPS: Final = {
    "service": "service",
    "environment": "environment",
    "feature": "feature",
    "provider": "provider",
    "request_model": MODEL,
    "agent": "agent",
    "session_id": "session_id",
    "user_id": "user_id",
    "prompt_name": "prompt_name",
    "prompt_version": "prompt_version",
    "day": "formatDateTime(ts, '%Y-%m-%d', 'UTC')",
    "hour": "formatDateTime(ts, '%Y-%m-%dT%H:00Z', 'UTC')",
}

_FINER_GROUPS: Final = frozenset(
    {"agent", "session_id", "user_id", "prompt_name", "prompt_version"}
)
"""Groups that the minute roll-up does not tell apart."""

# The same totals, from spans and from their roll-up.
_TOTALS: Final = f"""
  sumIf(weight, {INFERENCE}) AS calls,
  sumIf(weight, {INFERENCE} AND status = 2) AS errors,
  sumIf(weight * cost_usd, {MODEL_CALL}) AS cost_usd,
  sumIf(weight, {UNPRICED}) AS unpriced_calls,
  sumIf(weight * input_tokens, {MODEL_CALL}) AS input_tokens,
  sumIf(weight * output_tokens, {MODEL_CALL}) AS output_tokens,
  sumIf(weight * cost_usd, {MODEL_CALL}) AS sum_cost"""
_TOTALS_OF_MINUTES: Final = f"""
  sumIf(n_spans, {INFERENCE}) AS calls,
  sumIf(n_spans, {INFERENCE} AND failure != '') AS errors,
  sumIf(cost, {MODEL_CALL}) AS cost_usd,
  sum(n_unpriced) AS unpriced_calls,
  sumIf(n_input, {MODEL_CALL}) AS input_tokens,
  sumIf(n_output, {MODEL_CALL}) AS output_tokens,
  sumIf(cost, {MODEL_CALL}) AS sum_cost"""
# {state}: nothing for the quantiles, "State" for what can be merged again.
_DURATIONS: Final = (
    f"quantilesTDigestWeighted{{state}}If{QUANTILES}"
    f"(duration_ns, toUInt64(round(weight)), {INFERENCE}) AS durations"
)
_DURATIONS_OF_MINUTES: Final = (
    f"quantilesTDigestWeightedMerge{{state}}If{QUANTILES}(duration, {INFERENCE}) AS durations"
)
_TTFTS: Final = (
    f"quantilesTDigestWeighted{{state}}If{QUANTILES}(ifNull(ttft_ns, 0), "
    f"toUInt64(round(weight)), {INFERENCE} AND isNotNull(ttft_ns)) AS ttfts"
)
_TTFTS_OF_MINUTES: Final = (
    f"quantilesTDigestWeightedMerge{{state}}If{QUANTILES}(ttft, {INFERENCE}) AS ttfts"
)

# Whole minutes from the roll-up, what is left at both ends of the window from spans.
_MINUTES: Final = f"""(
  SELECT {ROLLUP_COLUMNS} FROM minutes
  WHERE minute >= toDateTime64({{first:Int64}} * 60, 0, 'UTC')
    AND minute < toDateTime64({{last:Int64}} * 60, 0, 'UTC')
  UNION ALL
  {ROLLUP_SELECT}
  WHERE {{window}}
    AND (ts < toDateTime64({{first:Int64}} * 60, 9, 'UTC')
      OR ts >= toDateTime64({{last:Int64}} * 60, 9, 'UTC'))
  {ROLLUP_GROUPS})"""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where totals come from: spans or the roll-up, which give the same.

    Attributes:
        rolled: Whether it is the roll-up.
        rows: What stands after FROM, with the condition.
        bound: Parameters of `rows`.
    """

    rolled: bool
    rows: str
    bound: dict[str, Any]

    @property
    def totals(self) -> str:
        return _TOTALS_OF_MINUTES if self.rolled else _TOTALS

    @property
    def durations(self) -> str:
        return (_DURATIONS_OF_MINUTES if self.rolled else _DURATIONS).format(state="")

    @property
    def states(self) -> str:
        """Durations and times to the first chunk, to be merged."""
        both = (_DURATIONS_OF_MINUTES, _TTFTS_OF_MINUTES) if self.rolled else (_DURATIONS, _TTFTS)
        return ", ".join(each.format(state="State") for each in both)

    def column(self, expression: str) -> str:
        """Say in the source's columns what is said in those of spans."""
        return _of_minutes(expression) if self.rolled else expression


def _of_minutes(expression: str) -> str:
    """Say in the columns of `minutes` what is said in those of spans."""
    for of_spans, of_minutes in (
        (MODEL, "request_model"),
        (FAILURE, "failure"),
        ("status = 2", "failure != ''"),
        ("(ts,", "(minute,"),
    ):
        expression = expression.replace(of_spans, of_minutes)
    return expression


def _source(
    since_ns: int, until_ns: int, filters: Mapping[str, str | None], *, rollup: bool = True
) -> _Source:
    """Choose the roll-up, unless the caller needs more than it knows or a filter does."""
    where, bound = _where(since_ns, until_ns, filters)
    given = {name for name, value in filters.items() if value is not None}
    first, last = -(-bound["since"] // _MINUTE_NS), bound["until"] // _MINUTE_NS
    if not rollup or first >= last or not given <= _IN_MINUTES:
        return _Source(False, f"spans WHERE {where}", bound)
    condition = _of_minutes(_conditions(filters)[0])
    minutes = _MINUTES.replace("{window}", WINDOW)
    return _Source(True, f"{minutes} WHERE {condition}", {**bound, "first": first, "last": last})


def overview(ask: Ask, since_ns: int, until_ns: int, filters: Mapping[str, str | None]) -> Row:
    """Return totals and breakdowns of a window; see `base.Store.overview`."""
    row, *groups = _breakdowns(ask, _source(since_ns, until_ns, filters))
    p50_ms, p95_ms, p99_ms = _ms_of_quantiles(row["durations"])
    totals = _totals(row)
    calls = totals["calls"]
    by = {
        name: [_group(each) for each in groups if each["dimension"] == name] for name in _DIMENSIONS
    }
    return {
        **totals,
        **_people(ask, since_ns, until_ns, filters),
        "error_ratio": totals["errors"] / calls if calls else None,
        "p50_ms": p50_ms,
        "p95_ms": p95_ms,
        "p99_ms": p99_ms,
        "ttft_p95_ms": _ms_of_quantiles(row["ttfts"])[1],
        "by_model": by["model"],
        "by_feature": by["feature"],
        "by_service": by["service"],
        "by_error": [each for each in by["failure"] if each["name"] and each["errors"]],
        "scores": _score_totals(ask, since_ns, until_ns, filters),
    }


def series(
    ask: Ask, since_ns: int, until_ns: int, step_s: int, filters: Mapping[str, str | None]
) -> list[Row]:
    """Return one row a step; see `base.Store.series`."""
    step_ns = _step_ns(since_ns, until_ns, step_s)
    source = _source(since_ns, until_ns, filters, rollup=step_s % 60 == 0)
    bucket = (
        "intDiv(toInt64(minute) * 1000000000, {step:Int64})"
        if source.rolled
        else "intDiv(toUnixTimestamp64Nano(ts), {step:Int64})"
    )
    rows = ask(
        f"""SELECT {bucket} AS bucket, {source.totals}, {source.durations}
        FROM {source.rows} GROUP BY bucket""",
        {**source.bound, "step": step_ns},
    )
    by_bucket = {row["bucket"]: row for row in rows}
    first, last = since_ns // step_ns, (until_ns - 1) // step_ns
    return [
        _step(bucket * step_ns, by_bucket.get(bucket, _NO_CALLS))
        for bucket in range(first, last + 1)
    ]


def _step(start_ns: int, row: Row) -> Row:
    p50_ms, p95_ms, _ = _ms_of_quantiles(row["durations"])
    totals = _totals(row)
    return {
        "ts_ms": start_ns // 10**6,
        "calls": totals["calls"],
        "errors": totals["errors"],
        "cost_usd": totals["cost_usd"],
        "p50_ms": p50_ms,
        "p95_ms": p95_ms,
        "input_tokens": totals["input_tokens"],
        "output_tokens": totals["output_tokens"],
    }


_NO_CALLS: Final[Row] = {
    "calls": 0,
    "errors": 0,
    "unpriced_calls": 0,
    "cost_usd": None,
    "input_tokens": None,
    "output_tokens": None,
    "durations": (None, None, None),
}
# Every sum of `session_hours`; the engine reads those alone that are used.
_HOUR_SUMS: Final = f"""min(ts) AS first, max(ts) AS last,
  sumIf(weight, {INFERENCE}) AS calls,
  sumIf(weight, {INFERENCE} AND status = 2) AS errors,
  countIf({MODEL_CALL}) AS n_billed,
  sumIf(weight * cost_usd, {MODEL_CALL}) AS cost_usd,
  sumIf(weight, {UNPRICED}) AS unpriced_calls,
  sumIf(weight * input_tokens, {MODEL_CALL}) AS input_tokens,
  sumIf(weight * output_tokens, {MODEL_CALL}) AS output_tokens"""
_SESSION_ORDERS: Final = {
    "last": "max(last)",
    "cost": "ifNull(sum(cost_usd), -1)",
    "calls": "sum(calls)",
    "errors": "sum(errors)",
}


def sessions(
    ask: Ask,
    since_ns: int,
    until_ns: int,
    limit: int,
    order: str,
    filters: Mapping[str, str | None],
) -> list[Row]:
    """Return sessions of a window; see `base.Store.sessions`.

    Which ones is told by a few narrow columns; only those sessions are then grouped.
    """
    if order not in _SESSION_ORDERS:
        raise ConfigurationError(
            f"sessions have no order {order!r}; use one of {', '.join(_SESSION_ORDERS)}"
        )
    limit = _limit(limit)
    found: list[Row] = []
    is_narrowed = order == "last" and all(value is None for value in filters.values())
    for narrower in _NARROWER if is_narrowed else (1,):
        start_ns = until_ns - (until_ns - since_ns) // narrower
        found = _find_sessions(ask, (start_ns, until_ns), limit, order, filters)
        if len(found) >= limit:
            break
    if not found:
        return []
    ids = [row["id"] for row in found]
    where, bound = _where(_first_ns(ask, ids, since_ns, until_ns), until_ns, {})
    where += " AND session_id IN {ids:Array(String)}"
    rows = _sessions(ask, where, {**bound, "ids": ids})
    row_of = {row["session_id"]: row for row in rows}
    # A session that was deleted between the two questions is left out.
    return [row_of[row["id"]] for row in found if row["id"] in row_of]


def _find_sessions(
    ask: Ask, window: tuple[int, int], limit: int, order: str, filters: Mapping[str, str | None]
) -> list[Row]:
    """Return the ids of sessions, first things first."""
    keys = "session_id AS id"
    rows, bound = _summed("spans", keys, _HOUR_SUMS, window, {}, _IN_HOURS)
    chosen = ""
    if any(value is not None for value in filters.values()):
        # A filter chooses sessions; their totals are of the whole session all the same.
        fitting, of_filters = _summed("spans", keys, "", window, filters, _IN_HOURS)
        chosen = f"AND id IN (SELECT id FROM {fitting})"
        bound |= of_filters
    return ask(
        f"""SELECT id FROM {rows} WHERE id != '' {chosen}
        GROUP BY id ORDER BY {_SESSION_ORDERS[order]} DESC, id LIMIT {{limit:UInt32}}""",
        {**bound, "limit": limit},
    )


def _first_ns(ask: Ask, ids: Sequence[str], since_ns: int, until_ns: int) -> int:
    """Return when the first of some sessions began within a window."""
    rows, bound = _summed(
        "spans", "session_id AS id", _HOUR_SUMS, (since_ns, until_ns), {}, _IN_HOURS
    )
    (row,) = ask(
        f"""SELECT toUnixTimestamp64Nano(min(first)) AS first_ns
        FROM {rows} WHERE id IN {{ids:Array(String)}}""",
        {**bound, "ids": ids},
    )
    return int(row["first_ns"])


def session(ask: Ask, session_id: str) -> Row | None:
    """Return one session with its traces; see `base.Store.session`."""
    bound = {"session_id": session_id}
    found = _sessions(ask, _FILTERS["session_id"], bound) if session_id else []
    if not found:
        return None
    ids = ask(
        """SELECT lower(hex(trace_id)) AS id, min(toUnixTimestamp64Nano(ts)) AS first_ns
        FROM spans WHERE session_id = {session_id:String}
        GROUP BY trace_id ORDER BY first_ns DESC LIMIT 1000""",
        bound,
    )
    first_ns, last_ns = ids[-1]["first_ns"], ids[0]["first_ns"]
    return {**found[0], "traces": _traces(ask, [row["id"] for row in ids], first_ns, last_ns)}


def _sessions(ask: Ask, where: str, bound: Mapping[str, Any]) -> list[Row]:
    """Sum up each session that a condition leaves, in no order."""
    rows = ask(
        f"""SELECT session_id,
          anyIf(user_id, user_id != '') AS user_id,
          argMin(service, ts) AS service,
          arraySort(groupUniqArrayIf(50)(feature, feature != '')) AS features,
          arraySort(groupUniqArrayIf(50)({MODEL}, {MODEL} != '')) AS models,
          min(toUnixTimestamp64Nano(ts)) AS first_ns,
          max(toUnixTimestamp64Nano(ts) + duration_ns) AS last_ns,
          uniqExact(trace_id) AS traces,
          {_TOTALS}
        FROM spans WHERE {where} GROUP BY session_id""",
        bound,
    )
    flags = _flags(ask, "session_id", {row["session_id"]: row["first_ns"] for row in rows})
    return [
        {
            "session_id": row["session_id"],
            "user_id": row["user_id"],
            "service": row["service"],
            "features": row["features"],
            "models": row["models"],
            "first_ms": _ms(row["first_ns"]),
            "last_ms": _ms(row["last_ns"]),
            "traces": row["traces"],
            **_totals(row),
            "flags": flags.get(row["session_id"], []),
        }
        for row in rows
    ]


def traces(
    ask: Ask, since_ns: int, until_ns: int, limit: int, filters: Mapping[str, str | None]
) -> list[Row]:
    """Return the newest traces; see `base.Store.traces`.

    Their ids are looked for from the end of the window backwards, so that a page of a
    hundred does not read a day; only those traces are then grouped.
    """
    limit = _limit(limit)
    found: list[Row] = []
    for narrower in _NARROWER:
        start_ns = until_ns - (until_ns - since_ns) // narrower
        where, bound = _where(start_ns, until_ns, filters)
        found = ask(
            f"""SELECT lower(hex(trace_id)) AS id, min(toUnixTimestamp64Nano(ts)) AS first_ns,
              max(toUnixTimestamp64Nano(ts)) AS last_ns
            FROM spans WHERE {where}
            GROUP BY trace_id ORDER BY last_ns DESC, id LIMIT {{limit:UInt32}}""",
            {**bound, "limit": limit},
        )
        if len(found) >= limit:
            break
    if not found:
        return []
    first_ns = min(row["first_ns"] for row in found)
    last_ns = max(row["last_ns"] for row in found)
    return _traces(ask, [row["id"] for row in found], first_ns, last_ns)


def _traces(ask: Ask, ids: Sequence[str], first_ns: int, last_ns: int) -> list[Row]:
    """Group whole traces, newest first; a trace that runs for more than a day is cut."""
    root_first = "(parent_id != toFixedString('', 8), ts)"
    rows = ask(
        f"""SELECT lower(hex(trace_id)) AS id,
          min(toUnixTimestamp64Nano(ts)) AS first_ns,
          max(toUnixTimestamp64Nano(ts) + duration_ns) AS last_ns,
          argMin(name, {root_first}) AS name,
          argMin(service, {root_first}) AS service,
          argMinIf(feature, {root_first}, feature != '') AS feature,
          argMinIf(session_id, {root_first}, session_id != '') AS session_id,
          argMinIf(user_id, {root_first}, user_id != '') AS user_id,
          count() AS spans,
          countIf(status = 2) AS failed_spans,
          {_TOTALS},
          arraySort(groupUniqArrayIf(50)({MODEL}, {MODEL} != '')) AS models,
          argMinIf(substringUTF8(input_text, 1, {_TEXT_LENGTH}), {root_first},
            input_text != '') AS input,
          argMaxIf(substringUTF8(output_text, 1, {_TEXT_LENGTH}),
            (parent_id = toFixedString('', 8), ts), output_text != '') AS output
        FROM spans
        WHERE {OF_TRACES}
          AND ts >= fromUnixTimestamp64Nano({{first:Int64}}, 'UTC')
          AND ts <= fromUnixTimestamp64Nano({{last:Int64}}, 'UTC')
        GROUP BY trace_id ORDER BY first_ns DESC, id""",
        {
            "ids": list(ids),
            "first": max(first_ns - _DAY_NS, 0),
            "last": min(last_ns + _DAY_NS, _MAX_NS),
        },
    )
    flags = _flags(ask, "trace_id", {row["id"]: row["first_ns"] for row in rows})
    return [
        {
            "trace_id": row["id"],
            "ts_ms": _ms(row["first_ns"]),
            "name": row["name"],
            "service": row["service"],
            "feature": row["feature"],
            "session_id": row["session_id"],
            "user_id": row["user_id"],
            "duration_ms": _ms(row["last_ns"] - row["first_ns"]),
            "spans": row["spans"],
            **_totals(row),
            "errors": row["failed_spans"],
            "models": row["models"],
            "input": row["input"],
            "output": row["output"],
            "flags": flags.get(row["id"], []),
        }
        for row in rows
    ]


def trace(ask: Ask, trace_id: str) -> list[Row]:
    """Return the spans of a trace; see `base.Store.trace`."""
    bound = {"id": trace_id}
    where = "trace_id = toFixedString(unhex({id:String}), 16)"
    if not _is_hex(trace_id, 32):
        return []
    names = [
        f.name for f in SPAN_SCHEMA if f.name not in {"ts_ns", "trace_id", "span_id", "parent_id"}
    ]
    spans = ask(
        f"""SELECT toUnixTimestamp64Nano(ts) AS ts_ns, lower(hex(trace_id)) AS trace,
          lower(hex(span_id)) AS span, lower(hex(parent_id)) AS parent, {", ".join(names)}
        FROM spans WHERE {where} ORDER BY ts, span LIMIT {_MAX_LIMIT}""",
        bound,
    )
    scores = ask(
        f"""SELECT lower(hex(span_id)) AS span, name, target, value, label, explanation, version
        FROM (SELECT *, {_NEWEST} OVER (PARTITION BY span_id, name, target) AS newest
          FROM scores WHERE {where})
        WHERE version = newest ORDER BY name, target LIMIT {_MAX_LIMIT}""",
        bound,
    )
    events = ask(
        f"""SELECT lower(hex(span_id)) AS span, toUnixTimestamp64Nano(ts) AS ts_ns, event_name,
          body, attributes_s, attributes_n
        FROM events WHERE {where} ORDER BY ts LIMIT {_MAX_LIMIT}""",
        bound,
    )
    for row in (*spans, *events):
        row["attributes"] = {**row.pop("attributes_s"), **row.pop("attributes_n")}
        row["ts_ms"] = _ms(row.pop("ts_ns"))
    scores_of, events_of = _by_span(scores), _by_span(events)
    return [
        {
            "trace_id": row.pop("trace"),
            "span_id": (span := row.pop("span")),
            "parent_id": row.pop("parent"),
            "duration_ms": _ms(row.pop("duration_ns")),
            "ttft_ms": _ms(row.pop("ttft_ns")),
            **row,
            "scores": scores_of.get(span, []),
            "events": events_of.get(span, []),
        }
        for row in spans
    ]


def _by_span(rows: Sequence[Row]) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(row.pop("span"), []).append(row)
    return out


# A trace in so many is read, so that about so many texts are joined to their language.
_SAMPLED_TEXTS: Final = 1_000_000


def score_samples(
    ask: Ask, since_ns: int, until_ns: int, names: Collection[str], n_values: int
) -> Iterator[Row]:
    """Yield values of scores by service and language; see `base.Store.score_samples`."""
    bound = {**_bounds(since_ns, until_ns), "names": sorted(names)}
    (texts,) = ask(
        f"SELECT count() AS n FROM scores WHERE name IN {{names:Array(String)}} AND {WINDOW}", bound
    )
    bound["every"] = max(1, texts["n"] // (_SAMPLED_TEXTS * max(len(names), 1)))
    sampled = f"{WINDOW} AND cityHash64(trace_id) % {{every:UInt64}} = 0"
    yield from ask(
        f"""SELECT name, target, version, service, language, count() AS n,
          countIf(label = 'fail') AS n_fail,
          minOrNullIf(value, label = 'pass') AS least_passing,
          maxOrNullIf(value, label = 'fail') AS most_failing,
          groupArraySample({int(n_values)}, 1)(value) AS values
        FROM (
          SELECT trace_id, span_id, name, target, version, service, label, value FROM scores
          WHERE name IN {{names:Array(String)}} AND {sampled}
            AND label IN ('pass', 'fail') AND NOT isNaN(value)
            AND (name, target, version) IN (
              SELECT name, target, {_NEWEST} FROM scores
              WHERE name IN {{names:Array(String)}} AND {WINDOW} GROUP BY name, target)) AS said
        LEFT JOIN (
          SELECT trace_id, span_id, argMax(label, stored_at) AS language FROM scores
          WHERE name = 'language' AND {sampled} GROUP BY trace_id, span_id) AS spoken
        USING (trace_id, span_id)
        GROUP BY name, target, version, service, language
        ORDER BY name, target, service, n DESC, language LIMIT {_MAX_LIMIT}""",
        bound,
    )


def cost(ask: Ask, since_ns: int, until_ns: int, by: str) -> list[Row]:
    """Return what a window cost by one dimension; see `base.Store.cost`."""
    if by not in _GROUPS:
        raise ConfigurationError(f"cost can't be asked by {by!r}; use one of {', '.join(_GROUPS)}")
    if by in _IN_HOURS & _FINER_GROUPS:
        return _cost_in_hours(ask, since_ns, until_ns, by)
    source = _source(since_ns, until_ns, {}, rollup=by not in _FINER_GROUPS)
    rows = ask(
        f"""SELECT {source.column(_GROUPS[by])} AS key, {source.totals}
        FROM {source.rows} AND {MODEL_CALL}
        GROUP BY key ORDER BY ifNull(sum_cost, -1) DESC, key LIMIT {_MAX_LIMIT}""",
        source.bound,
    )
    return [_cost(row) for row in rows]


def _cost_in_hours(ask: Ask, since_ns: int, until_ns: int, by: str) -> list[Row]:
    window = (since_ns, until_ns)
    rows, bound = _summed("spans", f"{by} AS key", _HOUR_SUMS, window, {}, _IN_HOURS)
    sums = ("calls", "errors", "cost_usd", "unpriced_calls", "input_tokens", "output_tokens")
    found = ask(
        f"""SELECT key, {", ".join(f"sum({name}) AS {name}" for name in sums)}, sum(n_billed) AS n
        FROM {rows} GROUP BY key HAVING n > 0
        ORDER BY ifNull(sum(cost_usd), -1) DESC, key LIMIT {_MAX_LIMIT}""",
        bound,
    )
    return [_cost(row) for row in found]


def _cost(row: Row) -> Row:
    wanted = ("calls", "input_tokens", "output_tokens", "cost_usd", "unpriced_calls")
    totals = _totals(row)
    return {"key": row["key"], **{name: totals[name] for name in wanted}}


def metric_series(ask: Ask, name: str, since_ns: int, until_ns: int, step_s: int) -> list[Row]:
    """Return a stored OTLP metric; see `base.Store.metric_series`."""
    rows = ask(
        """SELECT intDiv(toUnixTimestamp64Nano(ts), {step:Int64}) AS bucket, service,
          toJSONString(mapSort(attributes_s)) AS labels,
          if(any(kind) = 'gauge', avg(value),
            argMax(if(isNull(value), sum / nullIf(count, 0), value), ts)) AS value
        FROM metric_points
        WHERE name = {name:String} AND """
        + WINDOW
        + f""" GROUP BY bucket, service, labels ORDER BY bucket, service, labels
        LIMIT {_MAX_STEPS}""",
        {
            "name": name,
            "step": (step_ns := _step_ns(since_ns, until_ns, step_s)),
            **_bounds(since_ns, until_ns),
        },
    )
    return [
        {
            "ts_ms": row["bucket"] * step_ns // 10**6,
            "service": row["service"],
            "labels": json.loads(row["labels"]),
            "value": row["value"],
        }
        for row in rows
    ]


def dimensions(ask: Ask, since_ns: int, until_ns: int) -> dict[str, list[str]]:
    """Return the values to filter by; see `base.Store.dimensions`."""
    names = {
        "service": "service",
        "environment": "environment",
        "feature": "feature",
        "model": "request_model",
    }
    columns = ", ".join(
        f"arraySort(groupUniqArrayIf(1000)({column}, {column} != '')) AS values_of_{name}"
        for name, column in names.items()
    )
    (row,) = ask(
        f"""SELECT {columns} FROM minutes
        WHERE minute >= toDateTime64({{since:Int64}}, 0, 'UTC')
          AND minute < toDateTime64({{until:Int64}}, 0, 'UTC')""",
        {
            "since": max(since_ns, 0) // _MINUTE_NS * 60,
            "until": min(until_ns, _MAX_NS) // 10**9 + 1,
        },
    )
    return {name: row[f"values_of_{name}"] for name in names}


def sizes(ask: Ask, parts: str) -> Row:
    """Return how much is stored; see `base.Store.sizes` and `cluster.Layout.parts`."""
    (counts,) = ask(
        """SELECT (SELECT count() FROM spans) AS spans, (SELECT count() FROM scores) AS scores,
          (SELECT count() FROM events) AS events""",
        {},
    )
    (ends,) = ask(
        """SELECT count() AS n, min(toUnixTimestamp64Nano(ts)) AS oldest,
          max(toUnixTimestamp64Nano(ts)) AS newest FROM spans""",
        {},
    )
    (disk,) = ask(
        f"""SELECT sum(bytes_on_disk) AS total,
          sumIf(bytes_on_disk, table IN ('spans', 'spans_local')) AS spans
        FROM {parts} WHERE active AND database = currentDatabase()""",
        {},
    )
    return {
        **counts,
        "bytes_on_disk": disk["total"],
        "bytes_a_span": disk["spans"] / counts["spans"] if counts["spans"] else None,
        "oldest_ms": _ms(ends["oldest"]) if ends["n"] else None,
        "newest_ms": _ms(ends["newest"]) if ends["n"] else None,
    }


_DIMENSIONS: Final = ("model", "feature", "service", "failure")


def _breakdowns(ask: Ask, source: _Source) -> list[Row]:
    """Return the totals of a window and of each model, feature and service in it.

    Merging digests is what costs: they are merged once, by all three dimensions, and then
    the few that are left by each of them.

    Returns:
        The totals of all with `dimension` "", then at most 100 of each dimension, most calls
        first, with their `dimension` and `key`.
    """
    model, failure = source.column(MODEL), source.column(FAILURE)
    # Of spans that are no model calls every total is 0.
    return ask(
        f"""SELECT
          multiIf(grouping(model) = 0, 'model', grouping(feature) = 0, 'feature',
            grouping(service) = 0, 'service', grouping(failure) = 0, 'failure', '') AS dimension,
          concat(model, feature, service, failure) AS key,
          sum(calls) AS calls, sum(errors) AS errors, sum(cost_usd) AS cost_usd,
          sum(unpriced_calls) AS unpriced_calls,
          sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
          quantilesTDigestWeightedMerge{QUANTILES}(durations) AS durations,
          quantilesTDigestWeightedMerge{QUANTILES}(ttfts) AS ttfts
        FROM (
          SELECT {model} AS model, feature, service, {failure} AS failure,
            {source.totals}, {source.states}
          FROM {source.rows} AND {MODEL_CALL} GROUP BY {model}, feature, service, {failure})
        GROUP BY GROUPING SETS ((), (model), (feature), (service), (failure))
        ORDER BY dimension, sum(calls) DESC, ifNull(sum(cost_usd), 0) DESC, key
        LIMIT 100 BY dimension""",
        source.bound,
    )


def _summed(
    table: Literal["spans", "scores"],
    keys: str,
    sums: str,
    window: tuple[int, int],
    filters: Mapping[str, str | None],
    known: frozenset[str],
) -> tuple[str, dict[str, Any]]:
    """Return rows of `keys` and `sums`: what is whole from a projection, the ends from the table.

    The engine takes the projection by itself, part by part, where all of a question's
    expressions stand in it as they stand here; where it has none it reads the table. A key can
    come twice: it is for the caller to group again.

    Args:
        table: ``spans`` are summed up by the hour, ``scores`` by the minute: of these there are
            many times more, and few kinds.
        keys: Expressions of the projection's keys, with the names they get.
        sums: Sums of the projection, with the names they get; "" for none.
        window: Begin and end.
        filters: Any. Another than the `known` ones makes all come from the table.
        known: Filters by keys of the projection.

    Returns:
        What stands after FROM, and the parameters that it is bound to.
    """
    where, bound = _where(*window, filters)
    columns = ", ".join(filter(None, (keys, sums)))
    groups = ", ".join(key.rpartition(" AS ")[0] or key for key in keys.split(", "))
    given = {name for name, value in filters.items() if value is not None}
    unit, unit_s = _SUMMED_BY[table]
    unit_ns = unit_s * 10**9
    first, last = -(-bound["since"] // unit_ns), bound["until"] // unit_ns
    if first >= last or not given <= known:
        return f"(SELECT {columns} FROM {table} WHERE {where} GROUP BY {groups})", bound
    condition, _ = _conditions(filters)
    return (
        f"""(
          SELECT {columns} FROM {table}
          WHERE {unit} >= {{first_whole:Int64}} AND {unit} < {{last_whole:Int64}}
            AND {condition}
          GROUP BY {groups}
          UNION ALL
          SELECT {columns} FROM {table}
          WHERE {where} AND (ts < toDateTime64({{first_whole:Int64}} * {unit_s}, 9, 'UTC')
            OR ts >= toDateTime64({{last_whole:Int64}} * {unit_s}, 9, 'UTC'))
          GROUP BY {groups})""",
        {**bound, "first_whole": first, "last_whole": last},
    )


def _people(ask: Ask, since_ns: int, until_ns: int, filters: Mapping[str, str | None]) -> Row:
    """Count sessions and users by hashes: half as dear as by texts.

    Among 10 million, two share a hash with a chance of one in 10^5.
    """
    found = {}
    for name, column in (("sessions", "session_id"), ("users", "user_id")):
        rows, bound = _summed(
            "spans", f"cityHash64({column}) AS id", "", (since_ns, until_ns), filters, _IN_HOURS
        )
        (row,) = ask(
            f"""SELECT uniqExactIf(id, id != cityHash64('')) AS n FROM {rows}""",
            bound,
        )
        found[name] = row["n"]
    return found


def _group(row: Row) -> Row:
    totals = _totals(row)
    return {
        "name": row["key"],
        "calls": totals["calls"],
        "errors": totals["errors"],
        "cost_usd": totals["cost_usd"],
        "p95_ms": _ms_of_quantiles(row["durations"])[1],
    }


def _score_totals(
    ask: Ask, since_ns: int, until_ns: int, filters: Mapping[str, str | None]
) -> list[Row]:
    """Sum up each score over the version that was stored last: versions are never mixed."""
    given = {name: value for name, value in filters.items() if value is not None}
    window = (since_ns, until_ns)
    keys = "name, target, version"
    sums = (
        "count() AS n, countIf(isNaN(value)) AS n_nan, "
        "sumIf(value, NOT isNaN(value)) AS total, countIf(label = 'fail') AS n_fail"
    )
    if set(given) <= _IN_SCORES:
        rows, bound = _summed("scores", keys, sums, window, given, _IN_SCORE_MINUTES)
    else:
        here, bound = _where(*window, {name: given[name] for name in given if name in _IN_SCORES})
        spans, of_spans = _where(*window, given)
        bound |= of_spans
        rows = f"""(SELECT {keys}, {sums} FROM scores
          WHERE {here} AND (trace_id, span_id) IN (
            SELECT trace_id, span_id FROM spans WHERE {spans})
          GROUP BY {keys})"""
    totals = ask(
        f"""SELECT {keys}, sum(n) AS n, sum(total) / (sum(n) - sum(n_nan)) AS mean,
          sum(n_fail) / sum(n) AS fail_ratio, sum(n_fail) AS n_fail
        FROM {rows}
        GROUP BY {keys} ORDER BY {keys}""",
        bound,
    )
    return _newest(ask, totals, window)


def _newest(ask: Ask, totals: Sequence[Row], window: tuple[int, int]) -> list[Row]:
    """Keep of each name and target one version, and leave out which.

    The projection does not know when a score was stored; where nothing was scored again there
    is no need to.
    """
    versions: dict[tuple[str, str], list[Row]] = {}
    for row in totals:
        versions.setdefault((row["name"], row["target"]), []).append(row)
    several = sorted({name for (name, _), rows in versions.items() if len(rows) > 1})
    stored: dict[tuple[str, ...], int] = {}
    if several:
        keys = ("name", "target", "version")
        found = ask(
            f"""SELECT {", ".join(keys)}, toUnixTimestamp(max(stored_at)) AS at FROM scores
            WHERE name IN {{names:Array(String)}} AND {WINDOW} GROUP BY {", ".join(keys)}""",
            {"names": several, **_bounds(*window)},
        )
        stored = {tuple(row[key] for key in keys): row["at"] for row in found}
    newest = [
        max(rows, key=lambda row: stored.get((row["name"], row["target"], row["version"]), 0))
        for rows in versions.values()
    ]
    return [{key: value for key, value in row.items() if key != "version"} for row in newest]


def _flags(ask: Ask, key: str, starts: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the names of failed scores by session or trace.

    Args:
        ask: Runs SQL.
        key: ``session_id`` or ``trace_id``.
        starts: When each of them began, in ns; a score is never older.
    """
    if not starts:
        return {}
    is_wanted = OF_TRACES if key == "trace_id" else f"{key} IN {{ids:Array(String)}}"
    shown = f"lower(hex({key}))" if key == "trace_id" else key
    rows = ask(
        f"""SELECT {shown} AS id, arraySort(groupUniqArray(name)) AS flags FROM (
          SELECT {key}, name FROM scores
          WHERE ts >= fromUnixTimestamp64Nano({{first:Int64}}, 'UTC') AND {is_wanted}
          GROUP BY {key}, trace_id, span_id, name, target HAVING {_FAILS_NOW})
        GROUP BY {key}""",
        {"ids": list(starts), "first": max(min(starts.values()) - _CLOCK_SKEW_NS, 0)},
    )
    return {row["id"]: row["flags"] for row in rows}


def _bounds(since_ns: int, until_ns: int) -> dict[str, int]:
    return {"since": min(max(since_ns, 0), _MAX_NS), "until": min(max(until_ns, 0), _MAX_NS)}


def _where(
    since_ns: int, until_ns: int, filters: Mapping[str, str | None]
) -> tuple[str, dict[str, Any]]:
    """Return a condition on spans and the parameters that it is bound to."""
    condition, bound = _conditions(filters)
    return f"{WINDOW} AND {condition}", {**_bounds(since_ns, until_ns), **bound}


def _conditions(filters: Mapping[str, str | None]) -> tuple[str, dict[str, Any]]:
    given = {name: value for name, value in filters.items() if value is not None}
    unknown = sorted(set(given) - set(_FILTERS))
    if unknown:
        raise ConfigurationError(
            f"unknown filter {unknown[0]!r}; use one of {', '.join(sorted(_FILTERS))}"
        )
    conditions = [_FILTERS[name].replace("{window}", WINDOW) for name in sorted(given)]
    bound = {name: value for name, value in given.items() if name != "error"}
    text = given.get("text")
    if isinstance(text, IndexedText) and text.near:
        conditions.append(NEAR)
        bound["near"] = text.near
    return " AND ".join(conditions) or "true", bound


def _limit(limit: int) -> int:
    return min(max(limit, 1), _MAX_LIMIT)


def _step_ns(since_ns: int, until_ns: int, step_s: int) -> int:
    if step_s < 1 or (until_ns - since_ns) / (step_s * 10**9) > _MAX_STEPS:
        raise ConfigurationError(
            f"a step of {step_s} s makes more than {_MAX_STEPS} points; use a longer step"
        )
    return step_s * 10**9


def _totals(row: Row) -> Row:
    """Return counts as whole numbers, and None for a sum of which no part is known."""
    calls, unpriced = round(row["calls"]), round(row["unpriced_calls"])
    cost_usd = row["cost_usd"]
    return {
        "calls": calls,
        "errors": round(row["errors"]),
        "cost_usd": 0.0 if cost_usd is None and not unpriced else cost_usd,
        "unpriced_calls": unpriced,
        "input_tokens": _tokens(row["input_tokens"], calls),
        "output_tokens": _tokens(row["output_tokens"], calls),
    }


def _tokens(value: float | None, calls: int) -> int | None:
    if value is None:
        return None if calls else 0
    return round(value)


def _ms(value_ns: float | None) -> float | None:
    if value_ns is None:
        return None
    # A time since 1970 in ns is more than a float holds; whole ms and the rest are not.
    return value_ns // 10**6 + value_ns % 10**6 / 1e6


def _ms_of_quantiles(values: Sequence[float | None]) -> list[float | None]:
    # A quantile of no spans is NaN, also inside an array.
    return [None if value is None or math.isnan(value) else value / 1e6 for value in values]


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and all(digit in "0123456789abcdefABCDEF" for digit in text)

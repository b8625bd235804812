"""A small app's day with answers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.analyzer.store.base import Row
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import SPAN_SCHEMA
from tests.analyzer.store.rows import (
    NO_METRICS,
    T0_NS,
    events,
    generated,
    metrics,
    scores,
    span_id,
    spans,
    trace_id,
)

S: Final = 1_000_000_000
MS: Final = 1_000_000
T0_MS: Final = T0_NS // MS
SINCE, UNTIL = T0_NS - 3600 * S, T0_NS + 3600 * S

# Trace 1: a question of anna's with a tool and two calls. Trace 2: bert's call, which fails.
# Trace 3: bert again, half a minute later: an unpriced model, sampled one in four. Trace 4:
# another service's embedding, without session or user, and a span that is no GenAI span.
ANNA: Final = {"session_id": "sa", "user_id": "anna", "service": "app", "environment": "prod"}
BERT: Final = {"session_id": "sb", "user_id": "bert", "service": "app", "environment": "prod"}
ROWS: Final[tuple[dict[str, Any], ...]] = (
    {
        **ANNA,
        "trace_id": trace_id(1),
        "span_id": span_id(10),
        "name": "answer",
        "operation": "invoke_agent",
        "feature": "help",
        "duration_ns": 900 * MS,
        "input_tokens": 999_999,
        "input_text": "Wie groß ist der MOND?",
        "output_text": "Sehr groß. " + "x" * 300,
    },
    {
        **ANNA,
        "trace_id": trace_id(1),
        "span_id": span_id(11),
        "parent_id": span_id(10),
        "ts_ns": T0_NS + 10 * MS,
        "name": "chat gpt-4o",
        "operation": "chat",
        "feature": "help",
        "request_model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "duration_ns": 100 * MS,
        "ttft_ns": 40 * MS,
        "input_tokens": 1000,
        "output_tokens": 10,
        "cost_usd": 0.01,
        "prompt_name": "p",
        "prompt_version": "1",
        "attributes_s": [("k", "v")],
        "attributes_n": [("n", 2.0)],
    },
    {
        **ANNA,
        "trace_id": trace_id(1),
        "span_id": span_id(12),
        "parent_id": span_id(10),
        "ts_ns": T0_NS + 200 * MS,
        "name": "execute_tool moon",
        "operation": "execute_tool",
        "tool": "moon",
        "feature": "help",
        "status": 2,
        "duration_ns": 50 * MS,
    },
    {
        **ANNA,
        "trace_id": trace_id(1),
        "span_id": span_id(13),
        "parent_id": span_id(10),
        "ts_ns": T0_NS + 300 * MS,
        "name": "chat gpt-4o",
        "operation": "chat",
        "feature": "help",
        "request_model": "gpt-4o",
        "duration_ns": 300 * MS,
        "ttft_ns": 60 * MS,
        "input_tokens": 2000,
        "output_tokens": 20,
        "cost_usd": 0.02,
    },
    {
        **BERT,
        "trace_id": trace_id(2),
        "span_id": span_id(20),
        "ts_ns": T0_NS + 10 * S,
        "name": "chat",
        "operation": "chat",
        "feature": "draft",
        "request_model": "gpt-4o",
        "status": 2,
        "error_type": "rate_limit",
        "duration_ns": 200 * MS,
        "input_text": "Write a poem about '; DROP TABLE spans; --",
    },
    {
        **BERT,
        "trace_id": trace_id(3),
        "span_id": span_id(30),
        "ts_ns": T0_NS + 70 * S,
        "name": "chat",
        "operation": "chat",
        "feature": "draft",
        "response_model": "home-made",
        "duration_ns": 1000 * MS,
        "input_tokens": 50,
        "output_tokens": 5,
        "output_text": "100%",
        "weight": 4.0,
    },
    {
        "trace_id": trace_id(4),
        "span_id": span_id(40),
        "ts_ns": T0_NS + 80 * S,
        "name": "embeddings",
        "service": "indexer",
        "environment": "test",
        "operation": "embeddings",
        "request_model": "embed",
        "duration_ns": 5 * MS,
        "input_tokens": 100,
        "cost_usd": 0.5,
    },
    {
        "trace_id": trace_id(4),
        "span_id": span_id(41),
        "ts_ns": T0_NS + 81 * S,
        "name": "GET /",
        "service": "indexer",
        "environment": "test",
    },
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = open_store(f"chdb://{tmp_path_factory.mktemp('store')}")
    fill(opened)
    yield opened
    opened.close()


def fill(store: ClickHouseStore) -> None:
    batch = spans(*ROWS)
    said = events(
        {
            "trace_id": trace_id(1),
            "span_id": span_id(11),
            "ts_ns": T0_NS + 20 * MS,
            "event_name": "feedback",
            "body": "fine",
            "attributes_s": [("who", "anna")],
            "attributes_n": [("stars", 5.0)],
        }
    )
    measured = metrics(
        {"name": "gpu", "service": "app", "value": 1.0, "attributes_s": [("gpu", "0")]},
        {"name": "gpu", "service": "app", "value": 3.0, "attributes_s": [("gpu", "0")]},
        {"name": "gpu", "service": "app", "value": 7.0, "attributes_s": [("gpu", "1")]},
        {"name": "gpu", "service": "app", "value": 9.0, "ts_ns": T0_NS + 60 * S},
        {"name": "done", "kind": "sum", "value": 5.0, "ts_ns": T0_NS + 1},
        {"name": "done", "kind": "sum", "value": 4.0},
        {"name": "wait", "kind": "histogram", "count": 4, "sum": 10.0, "bounds": [1.0]},
    )
    store.append(0, batch, said, measured)
    judged = [float("nan")] * len(ROWS)
    store.append_scores(
        0,
        batch,
        scores(
            batch,
            toxicity=[*judged[:1], 0.2, *judged[2:3], -1.0, *judged[4:5], 0.6, *judged[6:]],
            injection=[*judged[:4], -1.0, *judged[5:]],
        ),
    )


def test_an_overview_counts_what_the_conventions_call_a_call(store: ClickHouseStore) -> None:
    overview = store.overview(SINCE, UNTIL)
    assert {k: v for k, v in overview.items() if not isinstance(v, list) and "_ms" not in k} == {
        "calls": 7,  # three of weight 1, one of weight 4; agents, tools, embeddings are none
        "errors": 1,
        "error_ratio": pytest.approx(1 / 7),
        "cost_usd": pytest.approx(0.53),
        "unpriced_calls": 4,  # bert's failed call without usage cost nothing
        "input_tokens": 1000 + 2000 + 4 * 50 + 100,  # not the agent's 999,999
        "output_tokens": 10 + 20 + 4 * 5,
        "sessions": 2,
        "users": 2,
    }
    # Durations with their weights: 100, 200, 300, 1000 four times.
    # A t-digest of so few interpolates; without the weights the median would be below 300.
    assert 300 < overview["p50_ms"] <= 1000
    assert overview["p95_ms"] == overview["p99_ms"] == pytest.approx(1000, rel=0.01)
    assert 40 <= overview["ttft_p95_ms"] <= 60
    assert overview["by_model"] == [
        {
            "name": "home-made",
            "calls": 4,
            "errors": 0,
            "cost_usd": None,
            "p95_ms": pytest.approx(1000),
        },
        {
            "name": "gpt-4o",
            "calls": 3,
            "errors": 1,
            "cost_usd": pytest.approx(0.03),
            "p95_ms": pytest.approx(300, rel=0.1),
        },
        {"name": "embed", "calls": 0, "errors": 0, "cost_usd": 0.5, "p95_ms": None},
    ]
    assert [(row["name"], row["calls"]) for row in overview["by_feature"]] == [
        ("draft", 5),
        ("help", 2),
        ("", 0),
    ]
    assert [(row["name"], row["calls"]) for row in overview["by_service"]] == [
        ("app", 7),
        ("indexer", 0),
    ]
    assert overview["by_error"] == [
        {
            "name": "rate_limit",
            "calls": 1,
            "errors": 1,
            "cost_usd": 0.0,
            "p95_ms": pytest.approx(200),
        }
    ]
    assert overview["scores"] == [
        {
            "name": "injection",
            "target": "output",
            "n": 1,
            "mean": -1.0,
            "fail_ratio": 1.0,
            "n_fail": 1,
        },
        {
            "name": "toxicity",
            "target": "output",
            "n": 3,
            "mean": pytest.approx(-0.2 / 3),
            "fail_ratio": pytest.approx(1 / 3),
            "n_fail": 1,
        },
    ]


def test_an_overview_of_nothing_knows_nothing(store: ClickHouseStore) -> None:
    overview = store.overview(0, 10)
    assert overview == {
        "calls": 0,
        "errors": 0,
        "error_ratio": None,
        "cost_usd": 0.0,
        "unpriced_calls": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "sessions": 0,
        "users": 0,
        "p50_ms": None,
        "p95_ms": None,
        "p99_ms": None,
        "ttft_p95_ms": None,
        "by_model": [],
        "by_feature": [],
        "by_service": [],
        "by_error": [],
        "scores": [],
    }


@pytest.mark.parametrize(
    ("filters", "calls", "n_scored"),
    [
        ({"service": "app"}, 7, 4),
        ({"service": "indexer"}, 0, 0),
        ({"environment": "test"}, 0, 0),
        ({"feature": "help"}, 2, 2),
        ({"model": "gpt-4o"}, 3, 3),
        ({"model": "home-made"}, 4, 1),
        ({"operation": "chat"}, 7, 4),
        ({"session_id": "sb"}, 5, 2),
        ({"user_id": "anna"}, 2, 2),
        ({"error": "1"}, 1, 1),
        ({"text": "poem"}, 1, 1),
        ({"flag": "toxicity"}, 1, 1),
        ({"feature": "help", "user_id": "bert"}, 0, 0),
        ({"service": None}, 7, 4),
    ],
)
def test_a_filter_chooses_calls_and_their_scores(
    store: ClickHouseStore, filters: dict[str, str | None], calls: int, n_scored: int
) -> None:
    overview = store.overview(SINCE, UNTIL, **filters)
    assert overview["calls"] == calls
    assert sum(row["n"] for row in overview["scores"]) == n_scored


def test_a_series_has_a_row_for_every_step(store: ClickHouseStore) -> None:
    rows = store.series(T0_NS, T0_NS + 180 * S, 60)
    assert rows == [
        {
            "ts_ms": T0_MS,
            "calls": 3,
            "errors": 1,
            "cost_usd": pytest.approx(0.03),
            "p50_ms": pytest.approx(200, rel=0.01),
            "p95_ms": pytest.approx(300, rel=0.1),
            "input_tokens": 3000,
            "output_tokens": 30,
        },
        {
            "ts_ms": T0_MS + 60_000,
            "calls": 4,
            "errors": 0,
            "cost_usd": 0.5,
            "p50_ms": pytest.approx(1000),
            "p95_ms": pytest.approx(1000),
            "input_tokens": 300,
            "output_tokens": 20,
        },
        {
            "ts_ms": T0_MS + 120_000,
            "calls": 0,
            "errors": 0,
            "cost_usd": 0.0,
            "p50_ms": None,
            "p95_ms": None,
            "input_tokens": 0,
            "output_tokens": 0,
        },
    ]


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"service": "app"},
        {"feature": "draft"},
        {"model": "home-made"},
        {"model": "gpt-4o", "environment": "prod"},
    ],
)
def test_the_rollup_answers_as_the_spans_do(
    store: ClickHouseStore, filters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whole minutes, and windows that begin and end within one.
    for since_ns, until_ns in (
        (T0_NS, T0_NS + 120 * S),
        (T0_NS - 1, T0_NS + 75 * S),
        (T0_NS + 11 * MS, T0_NS + 125 * S),
        (T0_NS + 11 * S, T0_NS + 81 * S),
    ):
        rolled = store.series(since_ns, until_ns, 60, **filters, operation="chat")
        with monkeypatch.context() as patch:
            patch.setattr("llmobs.analyzer.store.queries._IN_MINUTES", frozenset())
            counted = store.series(since_ns, until_ns, 60, **filters, operation="chat")
        assert_alike(rolled, counted)


def assert_alike(rows: list[Row], others: list[Row]) -> None:
    assert len(rows) == len(others)
    for one, other in zip(rows, others, strict=True):
        for name, value in one.items():
            expected = other[name]
            assert value == (expected if expected is None else pytest.approx(expected, rel=1e-6))


def test_a_series_of_seconds_and_of_a_session_is_counted_from_spans(
    store: ClickHouseStore,
) -> None:
    rows = store.series(T0_NS + 9 * S, T0_NS + 12 * S, 1, session_id="sb")
    assert [row["calls"] for row in rows] == [0, 1, 0]
    assert rows[1]["cost_usd"] == 0.0
    assert rows[1]["input_tokens"] is None


def test_sessions_come_with_their_totals(store: ClickHouseStore) -> None:
    last, first = store.sessions(SINCE, UNTIL)
    assert first == {
        "session_id": "sa",
        "user_id": "anna",
        "service": "app",
        "features": ["help"],
        "models": ["gpt-4o"],
        "first_ms": T0_MS,
        "last_ms": T0_MS + 900,
        "traces": 1,
        "calls": 2,
        "errors": 0,
        "input_tokens": 3000,
        "output_tokens": 30,
        "cost_usd": pytest.approx(0.03),
        "unpriced_calls": 0,
        "flags": ["toxicity"],
    }
    assert last["session_id"] == "sb"
    assert (last["models"], last["flags"]) == (["gpt-4o", "home-made"], ["injection"])
    assert (last["calls"], last["cost_usd"], last["unpriced_calls"]) == (5, None, 4)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("last", ["sb", "sa"]),
        ("cost", ["sa", "sb"]),
        ("calls", ["sb", "sa"]),
        ("errors", ["sb", "sa"]),
    ],
)
def test_sessions_are_ordered(store: ClickHouseStore, order: Any, expected: list[str]) -> None:
    assert [row["session_id"] for row in store.sessions(SINCE, UNTIL, order=order)] == expected


def test_a_filter_chooses_sessions_but_not_their_totals(store: ClickHouseStore) -> None:
    (row,) = store.sessions(SINCE, UNTIL, error="1", feature="draft")
    assert (row["session_id"], row["calls"]) == ("sb", 5)
    assert store.sessions(SINCE, UNTIL, 1, flag="toxicity")[0]["session_id"] == "sa"


def test_a_session_is_shown_with_its_traces(store: ClickHouseStore) -> None:
    session = store.session("sb")
    assert session is not None
    assert session["calls"] == 5
    assert [row["trace_id"] for row in session["traces"]] == [trace_id(3).hex(), trace_id(2).hex()]
    assert store.session("nobody") is None
    assert store.session("") is None


def test_traces_are_told_by_their_root(store: ClickHouseStore) -> None:
    traces = store.traces(SINCE, UNTIL)
    assert [row["trace_id"] for row in traces] == [trace_id(i).hex() for i in (4, 3, 2, 1)]
    assert (
        traces[3]
        == {
            "trace_id": trace_id(1).hex(),
            "ts_ms": T0_MS,
            "name": "answer",
            "service": "app",
            "feature": "help",
            "session_id": "sa",
            "user_id": "anna",
            "duration_ms": 900.0,
            "spans": 4,
            "calls": 2,
            "errors": 1,  # the tool's
            "cost_usd": pytest.approx(0.03),
            "unpriced_calls": 0,
            "input_tokens": 3000,
            "output_tokens": 30,
            "models": ["gpt-4o"],
            "input": "Wie groß ist der MOND?",
            "output": ("Sehr groß. " + "x" * 300)[:200],
            "flags": ["toxicity"],
        }
    )


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"text": "mond"}, [1]),
        ({"text": "GROSS"}, []),
        ({"text": "GROẞ IST".lower()}, [1]),
        ({"text": "sehr groß"}, [1]),
        ({"text": "%"}, [3]),
        ({"text": "_"}, []),
        ({"flag": "toxicity"}, [1]),
        ({"flag": "injection"}, [2]),
        ({"flag": "nothing"}, []),
        ({"error": "1"}, [2, 1]),
        ({"model": "gpt-4o"}, [2, 1]),
        ({"session_id": "sb"}, [3, 2]),
        ({"user_id": "bert", "error": "1"}, [2]),
    ],
)
def test_traces_are_found_by_any_of_their_spans(
    store: ClickHouseStore, filters: dict[str, Any], found: list[int]
) -> None:
    traces = store.traces(SINCE, UNTIL, **filters)
    assert [int(row["trace_id"], 16) for row in traces] == found


def test_the_newest_traces_come_first_however_narrow_the_page(store: ClickHouseStore) -> None:
    for limit in (1, 2, 3):
        found = [int(row["trace_id"], 16) for row in store.traces(0, UNTIL, limit)]
        assert found == [4, 3, 2, 1][:limit]
    assert len(store.traces(SINCE, UNTIL, 10**9)) == 4
    assert len(store.traces(SINCE, UNTIL, -5)) == 1


def test_a_trace_has_every_column_its_scores_and_its_events(store: ClickHouseStore) -> None:
    rows = store.trace(trace_id(1).hex())
    assert [row["span_id"] for row in rows] == [span_id(i).hex() for i in (10, 11, 12, 13)]
    renamed = {"ts_ns": "ts_ms", "duration_ns": "duration_ms", "ttft_ns": "ttft_ms"}
    expected = {renamed.get(name, name) for name in SPAN_SCHEMA.names if "attributes" not in name}
    assert set(rows[0]) == expected | {"attributes", "scores", "events"}
    root, call = rows[0], rows[1]
    assert (root["parent_id"], root["ttft_ms"], root["output_tokens"]) == ("0" * 16, None, None)
    assert call["parent_id"] == span_id(10).hex()
    assert (call["ts_ms"], call["duration_ms"], call["ttft_ms"]) == (T0_MS + 10, 100.0, 40.0)
    assert call["attributes"] == {"k": "v", "n": 2.0}
    assert [(s["name"], s["value"], s["label"]) for s in call["scores"]] == [
        ("toxicity", 0.2, "pass")
    ]
    assert call["events"] == [
        {
            "ts_ms": T0_MS + 20,
            "event_name": "feedback",
            "body": "fine",
            "attributes": {"who": "anna", "stars": 5.0},
        }
    ]
    assert store.trace(trace_id(1).hex().upper()) == rows


@pytest.mark.parametrize("unknown", ["", "zz", "0" * 31, "0" * 32, "g" * 32, "0' OR '1' = '1"])
def test_a_trace_that_is_not_there_has_no_spans(store: ClickHouseStore, unknown: str) -> None:
    assert store.trace(unknown) == []


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("service", [("indexer", 0.5), ("app", 0.03)]),
        ("environment", [("test", 0.5), ("prod", 0.03)]),
        ("feature", [("", 0.5), ("help", 0.03), ("draft", None)]),
        ("provider", [("", 0.53)]),
        ("request_model", [("embed", 0.5), ("gpt-4o", 0.03), ("home-made", None)]),
        ("agent", [("", 0.53)]),
        ("session_id", [("", 0.5), ("sa", 0.03), ("sb", None)]),
        ("user_id", [("", 0.5), ("anna", 0.03), ("bert", None)]),
        ("prompt_name", [("", 0.52), ("p", 0.01)]),
        ("prompt_version", [("", 0.52), ("1", 0.01)]),
        ("day", [("2025-11-24", 0.53)]),
        ("hour", [("2025-11-24T12:00Z", 0.53)]),
    ],
)
def test_costs_are_told_by_what_caused_them(
    store: ClickHouseStore, by: str, expected: list[tuple[str, float | None]]
) -> None:
    rows = store.cost(SINCE, UNTIL, by)
    assert [(row["key"], row["cost_usd"]) for row in rows] == [
        (key, cost if cost is None else pytest.approx(cost)) for key, cost in expected
    ]
    assert sum(row["calls"] for row in rows) == 7
    assert sum(row["unpriced_calls"] for row in rows) == 4
    names = {"key", "calls", "input_tokens", "output_tokens", "cost_usd", "unpriced_calls"}
    assert set(rows[0]) == names


def test_a_gauge_is_averaged_and_a_sum_is_its_last(store: ClickHouseStore) -> None:
    gauge = store.metric_series("gpu", T0_NS, T0_NS + 120 * S, 60)
    assert gauge == [
        {"ts_ms": T0_MS, "service": "app", "labels": {"gpu": "0"}, "value": 2.0},
        {"ts_ms": T0_MS, "service": "app", "labels": {"gpu": "1"}, "value": 7.0},
        {"ts_ms": T0_MS + 60_000, "service": "app", "labels": {}, "value": 9.0},
    ]
    assert [r["value"] for r in store.metric_series("done", SINCE, UNTIL, 3600)] == [5.0]
    assert [r["value"] for r in store.metric_series("wait", SINCE, UNTIL, 3600)] == [2.5]
    assert store.metric_series("nothing", SINCE, UNTIL, 60) == []


def test_dimensions_are_what_a_window_can_be_filtered_by(store: ClickHouseStore) -> None:
    assert store.dimensions(SINCE, UNTIL) == {
        "service": ["app", "indexer"],
        "environment": ["prod", "test"],
        "feature": ["draft", "help"],
        "model": ["embed", "gpt-4o", "home-made"],
    }
    assert store.dimensions(0, 10)["service"] == []


def test_sizes_are_counted(store: ClickHouseStore) -> None:
    sizes = store.sizes()
    assert (sizes["spans"], sizes["scores"], sizes["events"]) == (8, 4, 1)
    assert sizes["bytes_on_disk"] > sizes["bytes_a_span"] * 8 > 0
    assert (sizes["oldest_ms"], sizes["newest_ms"]) == (T0_MS, T0_MS + 81_000)


def test_a_window_includes_its_begin_and_excludes_its_end(store: ClickHouseStore) -> None:
    at = T0_NS + 10 * S
    assert store.overview(at, at + 1)["calls"] == 1
    assert store.overview(at - 1, at)["calls"] == 0


def test_every_answer_is_made_of_json_values(store: ClickHouseStore) -> None:
    answers = [
        store.overview(SINCE, UNTIL),
        store.series(SINCE, UNTIL, 60),
        store.sessions(SINCE, UNTIL),
        store.session("sa"),
        store.traces(SINCE, UNTIL),
        store.trace(trace_id(1).hex()),
        store.cost(SINCE, UNTIL, "day"),
        store.metric_series("gpu", SINCE, UNTIL, 60),
        store.dimensions(SINCE, UNTIL),
        store.sizes(),
    ]
    json.dumps(answers, allow_nan=False)


EVIL: Final = (
    "'; DROP TABLE spans; --",
    "' OR 1 = 1 --",
    "\\' OR 1 = 1 --",
    "{since:Int64}",
    "%(x)s",
    "\\N",
    "a\tb\nc\r",
    "\x00",
    "`spans`",
    "🎉'\"\\",
)


@pytest.mark.parametrize("evil", EVIL)
def test_what_a_user_sends_is_a_value_and_never_sql(store: ClickHouseStore, evil: str) -> None:
    for name in ("service", "environment", "feature", "model", "session_id", "user_id", "flag"):
        asked: dict[str, Any] = {name: evil}
        assert store.traces(SINCE, UNTIL, **asked) == []
        assert store.overview(SINCE, UNTIL, **asked)["calls"] == 0
    found = store.traces(SINCE, UNTIL, text=evil)
    assert [int(row["trace_id"], 16) for row in found] == ([2] if evil == EVIL[0] else [])
    assert store.session(evil) is None
    assert store.trace(evil) == []
    assert store.metric_series(evil, SINCE, UNTIL, 60) == []
    assert store.delete_user(evil) == 0
    with pytest.raises(ConfigurationError):
        store.cost(SINCE, UNTIL, evil)
    with pytest.raises(ConfigurationError):
        store.sessions(SINCE, UNTIL, order=evil)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        store.overview(SINCE, UNTIL, **{evil: "x"})
    assert store.sizes()["spans"] == 8


@pytest.mark.parametrize("step_s", [0, -1])
def test_a_step_that_is_none_is_refused(store: ClickHouseStore, step_s: int) -> None:
    with pytest.raises(ConfigurationError, match="step"):
        store.series(SINCE, UNTIL, step_s)


def test_a_step_that_makes_millions_of_points_is_refused(store: ClickHouseStore) -> None:
    with pytest.raises(ConfigurationError, match="longer step"):
        store.series(0, UNTIL, 60)


def test_a_question_that_takes_too_long_or_too_much_says_what_to_do(
    store: ClickHouseStore,
) -> None:
    with pytest.raises(StoreError, match="shorter window"):
        store._clients.ask("SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_execution_time = 1")
    with pytest.raises(StoreError, match="memory"):
        store._clients.ask(
            "SELECT groupArray(number) FROM numbers(1e9) SETTINGS max_memory_usage = 1e7"
        )


def test_an_error_never_repeats_what_was_searched_for(store: ClickHouseStore) -> None:
    with pytest.raises(StoreError) as caught:
        store._clients.ask("SELECT {text:String}, nothing FROM spans", {"text": "my secret"})
    assert "nothing" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_later_segments_do_not_disturb_earlier_windows(store: ClickHouseStore) -> None:
    before = store.overview(SINCE, UNTIL)
    store.append(1, generated(1, start_ns=UNTIL), events(), NO_METRICS)
    assert store.overview(SINCE, UNTIL) == before

"""What hours sum up is what spans say, for windows that cut hours at both ends."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pytest

from llmobs.analyzer.store import ClickHouseStore, open_store
from tests.analyzer.store.rows import (
    NO_EVENTS,
    NO_METRICS,
    T0_NS,
    scores,
    span_id,
    spans,
    trace_id,
)

_HOUR_NS: Final = 3_600_000_000_000
_SERVICES: Final = ("shop", "desk")
_FEATURES: Final = ("search", "write")


def _rows() -> list[dict[str, Any]]:
    chance = np.random.default_rng(7)
    return [
        {
            "trace_id": trace_id(1 + n // 2),
            "span_id": span_id(1 + n),
            # Six hours; some starts are whole hours, some the last ns before one.
            "ts_ns": T0_NS
            + int(chance.integers(0, 6)) * _HOUR_NS
            + (0, -1, int(chance.integers(1, _HOUR_NS)))[int(chance.integers(0, 3))],
            "duration_ns": int(chance.integers(1, 10**9)),
            "service": _SERVICES[int(chance.integers(0, 2))],
            "feature": _FEATURES[int(chance.integers(0, 2))],
            "operation": ("chat", "invoke_agent", "embeddings")[int(chance.integers(0, 3))],
            "request_model": f"model-{int(chance.integers(0, 3))}",
            "status": 2 if chance.random() < 0.3 else 0,
            "error_type": ("", "timeout")[int(chance.integers(0, 2))],
            "session_id": ("", *(f"session-{i}" for i in range(9)))[int(chance.integers(0, 10))],
            "user_id": ("", "ann", "bob", "eve")[int(chance.integers(0, 4))],
            "cost_usd": None if chance.random() < 0.2 else int(chance.integers(1, 100)) / 64,
            "input_tokens": int(chance.integers(1, 1000)),
            "output_tokens": int(chance.integers(1, 1000)),
        }
        for n in range(400)
    ]


ROWS: Final = _rows()
JUDGED: Final = [n / 64 - 1 for n in range(len(ROWS))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = open_store(f"chdb://{tmp_path_factory.mktemp('store')}")
    for segment, start in enumerate(range(0, len(ROWS), 50)):
        batch = spans(*ROWS[start : start + 50])
        opened.append(segment, batch, NO_EVENTS, NO_METRICS)
        opened.append_scores(segment, batch, scores(batch, tone=JUDGED[start : start + 50]))
    yield opened
    opened.close()


WINDOWS: Final = (
    (T0_NS, T0_NS + 6 * _HOUR_NS),
    (T0_NS + 7, T0_NS + 5 * _HOUR_NS - 7),
    (T0_NS + _HOUR_NS // 2, T0_NS + 3 * _HOUR_NS // 2),  # no whole hour
    (T0_NS - 30 * _HOUR_NS, T0_NS + 30 * _HOUR_NS),
    (0, 2**63 - 1),
)


@pytest.fixture(params=WINDOWS, ids=("hours", "ragged", "no hour", "wide", "ever"))
def window(request: pytest.FixtureRequest) -> tuple[int, int]:
    since_ns, until_ns = request.param
    return since_ns, until_ns


def _within(window: tuple[int, int], **filters: str) -> list[dict[str, Any]]:
    return [
        row
        for row in ROWS
        if window[0] <= row["ts_ns"] < window[1]
        and all(row[name] == value for name, value in filters.items())
    ]


def _cost(rows: list[dict[str, Any]]) -> float:
    return sum(row["cost_usd"] or 0.0 for row in rows if row["operation"] != "invoke_agent")


FILTERS: Final[tuple[Mapping[str, str], ...]] = (
    {},
    {"service": "shop"},
    {"service": "desk", "feature": "write"},
    {"user_id": "ann"},
)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_sessions_and_users_are_counted_once(
    store: ClickHouseStore, window: tuple[int, int], filters: Mapping[str, str]
) -> None:
    totals = store.overview(window[0], window[1], **filters)
    rows = _within(window, **filters)
    assert totals["sessions"] == len({row["session_id"] for row in rows} - {""})
    assert totals["users"] == len({row["user_id"] for row in rows} - {""})


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_sessions_come_in_order_with_the_totals_of_the_window(
    store: ClickHouseStore, window: tuple[int, int], filters: Mapping[str, str]
) -> None:
    fitting = {row["session_id"] for row in _within(window, **filters)} - {""}
    sessions = defaultdict(list)
    for row in _within(window):
        if row["session_id"] in fitting:
            sessions[row["session_id"]].append(row)
    dearest = sorted(sessions, key=lambda one: (-_cost(sessions[one]), one))
    found = store.sessions(window[0], window[1], 5, "cost", **filters)
    assert [row["session_id"] for row in found] == dearest[:5]
    assert [row["cost_usd"] for row in found] == [_cost(sessions[one]) for one in dearest[:5]]

    newest = sorted(sessions, key=lambda one: -max(row["ts_ns"] for row in sessions[one]))
    found = store.sessions(window[0], window[1], 5, "last", **filters)
    assert [row["session_id"] for row in found] == newest[:5]
    assert [row["traces"] for row in found] == [
        len({row["trace_id"] for row in sessions[one]}) for one in newest[:5]
    ]


@pytest.mark.parametrize("by", ["user_id", "session_id"])
def test_cost_is_split_without_a_remainder(
    store: ClickHouseStore, window: tuple[int, int], by: str
) -> None:
    billed = [row for row in _within(window) if row["operation"] != "invoke_agent"]
    found = store.cost(*window, by)
    assert {row["key"] for row in found} == {row[by] for row in billed}
    for row in found:
        own = [span for span in billed if span[by] == row["key"]]
        assert row["calls"] == sum(span["operation"] == "chat" for span in own)
        assert row["cost_usd"] == pytest.approx(_cost(own))
        assert row["input_tokens"] == sum(span["input_tokens"] for span in own)


@pytest.mark.parametrize("filters", [{}, {"service": "shop"}, {"session_id": "session-1"}], ids=str)
def test_scores_are_summed_up(
    store: ClickHouseStore, window: tuple[int, int], filters: Mapping[str, str]
) -> None:
    values = [
        value
        for row, value in zip(ROWS, JUDGED, strict=True)
        if window[0] <= row["ts_ns"] < window[1]
        and all(row[name] == wanted for name, wanted in filters.items())
    ]
    (tone,) = store.overview(window[0], window[1], **filters)["scores"]
    assert (tone["n"], tone["n_fail"]) == (len(values), sum(value < 0 for value in values))
    assert tone["mean"] == pytest.approx(np.mean(values))


@pytest.mark.parametrize("error", [None, "1"])
def test_failures_are_told_apart_by_their_reason(
    store: ClickHouseStore, window: tuple[int, int], error: str | None
) -> None:
    failed = [row for row in _within(window) if row["status"] == 2 and row["operation"] == "chat"]
    totals = store.overview(*window, error=error)
    assert totals["errors"] == len(failed)
    assert {row["name"]: row["errors"] for row in totals["by_error"]} == Counter(
        row["error_type"] or "_OTHER" for row in failed
    )
    if error:
        assert totals["calls"] == len(failed)


def test_what_is_whole_is_read_from_its_sums(store: ClickHouseStore) -> None:
    asked: list[tuple[str, Mapping[str, Any]]] = []
    ask = store._clients.ask

    def noted(sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        asked.append((sql, parameters or {}))
        return ask(sql, parameters)

    store._clients.ask = noted  # type: ignore[method-assign]
    try:
        store.overview(*WINDOWS[1], service="shop")
        store.sessions(*WINDOWS[1], 5, "cost")
        store.cost(*WINDOWS[1], "user_id")
    finally:
        store._clients.ask = ask  # type: ignore[method-assign]
    summed = [(sql, bound) for sql, bound in asked if "first_whole" in sql]
    assert len(summed) == 6  # sessions, users, scores; which sessions, their begin; users' cost
    for sql, bound in summed:
        plan = " ".join(row["explain"] for row in ask(f"EXPLAIN {sql}", bound))
        assert "(session_hours)" in plan or "(score_minutes)" in plan, sql

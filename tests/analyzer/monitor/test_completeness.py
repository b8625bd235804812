"""Which numbers have come: gaps, latecomers, repetitions, restarts, and what is not a number."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs import semconv
from llmobs.analyzer.monitor import completeness as module
from llmobs.analyzer.monitor.completeness import OTHER_SERVICE, Completeness
from llmobs.errors import ConfigurationError
from llmobs.records import SPAN_SCHEMA, Seen, SpanBatch

S = 1_000_000_000
HOUR = 3600 * S
START = 500_000 * HOUR
GRACE_S = 300.0
AFTER_GRACE = START + 301 * S


def spans(
    numbers: Iterable[float | None],
    *,
    service: str = "shop",
    process: str | None = "a0b1c2d3",
    at_ns: int = START,
) -> SpanBatch:
    """Return spans as they come from the store: the number is one attribute of several."""
    said = list(numbers)
    texts = [
        ("llmobs.content", "off"),
        *([] if process is None else [("llmobs.process.id", process)]),
    ]
    columns = {
        "ts_ns": [at_ns] * len(said),
        "duration_ns": [1] * len(said),
        "service": [service] * len(said),
        "attributes_s": [texts] * len(said),
        "attributes_n": [
            [
                ("a.b", 1.0),
                *([] if n is None else [(semconv.LLMOBS_SEQUENCE, float(n))]),
                ("c", 2.0),
            ]
            for n in said
        ],
    }
    schema = pa.schema([SPAN_SCHEMA.field(name) for name in columns])
    return SpanBatch(pa.table(columns, schema=schema))


def joined(*batches: SpanBatch) -> SpanBatch:
    return SpanBatch(pa.concat_tables([batch.table for batch in batches]).combine_chunks())


@pytest.fixture
def counted() -> Completeness:
    """Return what has been running for long."""
    counted = Completeness(grace_s=GRACE_S)
    counted.observe(spans([]), now_ns=START - 24 * HOUR)
    return counted


def shop(completeness: Completeness) -> Seen:
    return completeness.by_service()["shop"]


def test_a_calm_process_is_seen_exactly_whole(counted: Completeness) -> None:
    for begin in range(0, 1000, 100):
        counted.observe(spans(range(begin, begin + 100)), now_ns=START)
        counted.settle(START + begin * S)
    counted.settle(START + HOUR)
    assert shop(counted) == Seen(1.0, 0)


def test_a_gap_counts_after_the_time_of_grace_and_not_before(counted: Completeness) -> None:
    counted.observe(spans([0, 1, 2, 5, 6, 7, 8, 9]), now_ns=START)
    counted.settle(START + 299 * S)
    assert shop(counted) == Seen(1.0, 0)
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(0.8, 2)


def test_a_gap_at_the_begin_of_a_process_counts(counted: Completeness) -> None:
    counted.observe(spans([25, 26, 27]), now_ns=START)
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(3 / 28, 25)


def test_what_a_process_sent_before_the_analyzer_was_there_is_not_missing() -> None:
    fresh = Completeness(grace_s=GRACE_S)
    fresh.observe(spans([100, 101, 103]), now_ns=START)
    fresh.observe(spans([99]), now_ns=START + S)  # in the same second, by another way
    fresh.settle(AFTER_GRACE)
    assert shop(fresh) == Seen(0.8, 1)


def test_a_span_that_comes_within_the_time_of_grace_is_not_missing(counted: Completeness) -> None:
    counted.observe(spans([0, 3]), now_ns=START)
    counted.observe(spans([2, 1]), now_ns=START + 200 * S)
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(1.0, 0)


def test_a_span_that_comes_later_mends_the_ratio_and_leaves_the_counter(
    counted: Completeness,
) -> None:
    counted.observe(spans([0, 3]), now_ns=START)
    counted.settle(AFTER_GRACE)
    counted.observe(spans([1]), now_ns=AFTER_GRACE + S)
    assert shop(counted) == Seen(0.75, 2)
    counted.observe(spans([2, 4]), now_ns=AFTER_GRACE + S)
    assert shop(counted) == Seen(1.0, 2)


def test_a_span_that_comes_twice_is_seen_once(counted: Completeness) -> None:
    counted.observe(spans([0, 0, 1, 3, 3]), now_ns=START)
    counted.observe(spans([0, 1, 3]), now_ns=START + S)
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(0.75, 1)


def test_processes_and_services_are_counted_apart(counted: Completeness) -> None:
    batch = joined(
        spans([0, 1, 2], process="one"),
        spans([0, 2], process="two"),
        spans([0, 1, 2, 3], process="one", service="desk"),
    )
    counted.observe(batch, now_ns=START)
    counted.settle(AFTER_GRACE)
    assert counted.by_service() == {"shop": Seen(5 / 6, 1), "desk": Seen(1.0, 0)}


def test_a_producer_without_numbers_has_no_completeness(counted: Completeness) -> None:
    counted.observe(spans([None, None]), now_ns=START)
    counted.observe(spans([0, 1], process=None), now_ns=START)
    counted.settle(AFTER_GRACE)
    assert counted.by_service() == {}


@pytest.mark.parametrize("number", [-1.0, 0.5, math.nan, math.inf, 1e18])
def test_what_is_no_number_of_a_span_is_left_out(counted: Completeness, number: float) -> None:
    counted.observe(spans([0, 1, number]), now_ns=START)
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(1.0, 0)


def test_a_number_that_is_made_up_is_no_loss(counted: Completeness) -> None:
    counted.observe(spans([0, 1, 2**52]), now_ns=START)
    counted.observe(spans([2, 3]), now_ns=START)
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(1.0, 0)


def test_spans_of_last_week_that_are_sent_again_say_nothing_about_today(
    counted: Completeness,
) -> None:
    counted.observe(spans([5, 9], at_ns=START - 7 * 24 * HOUR), now_ns=START)
    counted.settle(AFTER_GRACE)
    assert counted.by_service() == {}


def test_the_ratio_is_of_the_last_day_and_not_known_without_traffic(counted: Completeness) -> None:
    counted.observe(spans([0, 2]), now_ns=START)
    counted.settle(AFTER_GRACE)
    counted.observe(spans([3, 4], at_ns=START + 23 * HOUR), now_ns=START + 23 * HOUR)
    assert shop(counted) == Seen(0.8, 1)
    counted.settle(START + 24 * HOUR)
    assert shop(counted) == Seen(1.0, 1)
    counted.settle(START + 48 * HOUR)
    ratio, n_missing = shop(counted)
    assert math.isnan(ratio)
    assert n_missing == 1


def test_after_a_restart_open_gaps_have_their_time_of_grace_again(counted: Completeness) -> None:
    counted.observe(spans([0, 3]), now_ns=START)
    much_later = START + HOUR  # what came meanwhile waits to be read
    restored = Completeness.from_state(counted.to_state(), now_ns=much_later, grace_s=GRACE_S)
    restored.settle(much_later + S)
    assert shop(restored) == Seen(1.0, 0)
    restored.observe(spans([1]), now_ns=much_later + 2 * S)
    restored.settle(much_later + 301 * S)
    assert shop(restored) == Seen(0.75, 1)


def test_a_clock_that_was_set_back_holds_no_gap_open_for_long(counted: Completeness) -> None:
    counted.observe(spans([0, 2]), now_ns=START + 12 * HOUR)
    counted.settle(START)
    counted.settle(AFTER_GRACE)
    assert shop(counted).n_missing == 1


@pytest.mark.parametrize("state", [b"", b"no state", Completeness().to_state()[:-1]])
def test_a_damaged_state_is_an_error_that_says_so(state: bytes) -> None:
    with pytest.raises(ConfigurationError, match="state of completeness"):
        Completeness.from_state(state, now_ns=START)


def test_processes_beyond_the_bound_are_forgotten_the_silent_ones_first(
    counted: Completeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PROCESSES", 2)
    counted.observe(spans([0, 2], process="one"), now_ns=START)
    counted.observe(spans([0], process="two"), now_ns=START + S)
    counted.observe(spans([3], process="one"), now_ns=START + 2 * S)
    counted.observe(spans([0], process="three"), now_ns=START + 3 * S)
    counted.observe(spans([4], process="one"), now_ns=START + 4 * S)
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(6 / 7, 1)


def test_a_forgotten_process_leaves_what_it_missed(
    counted: Completeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PROCESSES", 1)
    counted.observe(spans([0, 2], process="one"), now_ns=START)
    counted.observe(spans([0], process="two"), now_ns=START + S)
    assert shop(counted) == Seen(0.75, 1)


def test_services_beyond_the_bound_are_counted_together(
    counted: Completeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SERVICES", 1)
    counted.observe(spans([0, 1]), now_ns=START)
    counted.observe(spans([0, 2], service="desk"), now_ns=START)
    counted.observe(spans([0, 1], service="blog"), now_ns=START)
    counted.settle(AFTER_GRACE)
    assert counted.by_service() == {"shop": Seen(1.0, 0), OTHER_SERVICE: Seen(0.8, 1)}


def test_gaps_beyond_the_bound_count_at_once(
    counted: Completeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GAPS", 10)
    counted.observe(spans(range(0, 40, 2)), now_ns=START)  # 19 gaps
    assert shop(counted).n_missing == 9
    counted.settle(AFTER_GRACE)
    assert shop(counted) == Seen(20 / 39, 19)


def test_what_fell_silent_for_a_week_is_forgotten(counted: Completeness) -> None:
    size = len(counted.to_state())
    for n in range(100):
        counted.observe(spans([0, 2], process=f"p-{n}", service=f"s-{n}"), now_ns=START)
    counted.settle(AFTER_GRACE)
    counted.settle(START + 2 * 24 * HOUR)
    assert len(counted.by_service()) == 100
    counted.settle(START + 8 * 24 * HOUR)
    assert counted.by_service() == {}
    assert len(counted.to_state()) == size


@given(
    sent=st.lists(st.integers(0, 60), min_size=1, max_size=120),
    cuts=st.lists(st.tuples(st.integers(0, 120), st.booleans()), max_size=8),
)
def test_any_order_repetition_and_restart_gives_the_numbers_that_came(
    sent: Sequence[int], cuts: Sequence[tuple[int, bool]]
) -> None:
    counted = Completeness(grace_s=GRACE_S)
    counted.observe(spans([]), now_ns=START - HOUR)
    begin = 0
    for cut, restarts in [*sorted(cuts), (len(sent), False)]:
        counted.observe(spans(sent[begin:cut]), now_ns=START)
        begin = max(begin, cut)
        if restarts:
            counted = Completeness.from_state(counted.to_state(), now_ns=START, grace_s=GRACE_S)
    counted.settle(AFTER_GRACE)
    n_missing = max(sent) + 1 - len(set(sent))
    assert shop(counted) == Seen(len(set(sent)) / (max(sent) + 1), n_missing)
    restored = Completeness.from_state(counted.to_state(), now_ns=AFTER_GRACE)
    assert restored.to_state() == counted.to_state()
    assert restored.by_service() == counted.by_service()


def test_a_span_costs_less_than_a_microsecond(counted: Completeness) -> None:
    batches = [
        joined(*(spans(range(begin, begin + 1024), process=f"p-{n}") for n in range(4)))
        for begin in range(0, 8 * 1024, 1024)
    ]
    began = time.thread_time()
    for batch in batches:
        counted.observe(batch, now_ns=START)
    cost_us = (time.thread_time() - began) / (len(batches) * 4096) * 1e6
    assert shop(counted) == Seen(1.0, 0)
    assert cost_us < 1, f"{cost_us:.2f} µs a span"

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from llmobs.measures.drift.reference import (
    CELLS_PER_ROUTE,
    Blocks,
    Sample,
    hour_cells,
    reference_error,
    shrunk_profile,
)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))
def test_a_cell_is_the_hour_and_whether_it_is_weekend(when: datetime) -> None:
    when = when.replace(tzinfo=UTC)
    at_ns = np.array([int(when.timestamp()) * 10**9])
    assert hour_cells(at_ns)[0] == when.hour + (24 if when.weekday() >= 5 else 0)


def test_a_cell_without_units_has_its_routes_mean() -> None:
    n, sums = np.zeros(2 * CELLS_PER_ROUTE), np.zeros(2 * CELLS_PER_ROUTE)
    n[3], sums[3] = 50, 500.0
    n[CELLS_PER_ROUTE + 3], sums[CELLS_PER_ROUTE + 3] = 50, 50.0
    profile = shrunk_profile(n, sums, seasonal=True)
    assert profile[20] == approx(10.0)
    assert profile[CELLS_PER_ROUTE + 20] == approx(1.0)


def test_an_hour_of_many_units_has_a_mean_of_its_own() -> None:
    n = np.full(CELLS_PER_ROUTE, 10_000.0)
    level = np.where(np.arange(CELLS_PER_ROUTE) < 24, 1.0, 3.0)
    profile = shrunk_profile(n, n * level, seasonal=True)
    assert profile[5] == approx(1.0, abs=0.02)
    assert profile[30] == approx(3.0, abs=0.02)
    assert shrunk_profile(n, n * level, seasonal=False)[5] == approx(2.0)


def test_a_larger_reference_is_known_better() -> None:
    assert reference_error(400, 0.0) == approx(3.0 / 20)
    assert reference_error(400, 0.01) > reference_error(400, 0.0) > reference_error(4000, 0.0)


@given(st.lists(st.integers(0, 30), max_size=30), st.sampled_from([2, 8, 16]))
def test_a_sample_is_spread_evenly_however_the_stream_is_cut(
    sizes: list[int], capacity: int
) -> None:
    stream = np.arange(sum(sizes))
    sample = Sample(np.zeros(capacity, np.int64))
    for part in np.split(stream, np.cumsum(sizes)[:-1]) if sizes else []:
        sample.add(part)
    whole = Sample(np.zeros(capacity, np.int64))
    whole.add(stream)
    assert sample.filled.tolist() == whole.filled.tolist() == stream[:: sample.stride].tolist()


def test_a_sample_of_odd_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Sample(np.zeros(3))


def wander_of(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    blocks = Blocks.of(1, n_blocks=32)
    for part in np.array_split(values, 50):
        blocks.add(np.zeros(len(part), np.int64), part[:, None])
    return blocks.wander(np.array([[values.mean()]]), float(values.var()))


def test_independent_units_do_not_wander_and_a_slow_wave_does() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    noise = rng.normal(size=(50, n))
    wave = 0.5 * np.sin(np.arange(n) / n * 4 * np.pi)
    assert np.mean([wander_of(x) > 0 for x in noise]) <= 0.1
    assert wander_of(noise[0] + wave) == approx(0.125 / 1.125, rel=0.3)


def test_joined_blocks_keep_every_unit() -> None:
    blocks = Blocks.of(2, n_blocks=4)
    values = np.arange(1000.0)
    for part in np.array_split(values, 33):
        blocks.add((part % 2).astype(np.int64), part[:, None])
    assert blocks.n.sum(0).tolist() == [500, 500]
    assert blocks.sums.sum() == values.sum()

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs.measures.text.thresholds import Threshold, threshold_for


def test_of_ten_values_the_second_and_the_ninth_hold_the_median() -> None:
    """P(2 <= Bin(10, 1/2) <= 8) = 1 - 22/1024 = 97.9 %; the next narrower pair has 89 %."""
    found = threshold_for(np.arange(1.0, 11.0), 0.5)
    assert (found.low, found.high) == (2, 9)


def test_a_hundredth_of_a_thousand_values_fails() -> None:
    assert threshold_for(np.arange(1000.0), 0.01) == Threshold(990, 982, 996, 0.01)


def test_low_values_may_be_the_ones_that_fail() -> None:
    assert threshold_for(np.arange(1000.0), 0.01, fails_below=True) == Threshold(10, 3, 17, 0.01)


def test_a_small_sample_bounds_nothing_above_and_says_so() -> None:
    found = threshold_for(np.arange(300.0), 0.01)
    assert found.value == 297
    assert found.high is None
    assert threshold_for(np.arange(99.0), 0.01).value is None
    assert threshold_for(np.empty(0), 0.01) == Threshold(None, None, None, 0.0)


def test_values_that_many_share_can_not_be_told_apart() -> None:
    counts = np.repeat([0.0, 1.0, 2.0], [950, 45, 5])
    assert threshold_for(counts, 0.01)[::3] == (2, 0.005)
    assert threshold_for(counts[:995], 0.01)[::3] == (None, 0)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300),
    st.floats(0.001, 0.999),
    st.booleans(),
)
def test_never_more_than_the_share_fails_and_the_next_value_would_be_too_many(
    numbers: list[float], share: float, fails_below: bool
) -> None:
    values = np.array(numbers)
    found = threshold_for(values, share, fails_below=fails_below)
    signed = -values if fails_below else values
    if found.value is None:
        assert found.share == 0
        assert np.count_nonzero(signed == signed.max()) > share * len(values) - 1e-6
        return
    fails = values < found.value if fails_below else values >= found.value
    assert found.share == np.count_nonzero(fails) / len(values)
    assert found.share <= share + 1e-9
    passing = signed[~fails]
    assert np.count_nonzero(signed >= passing.max()) > share * len(values) - 1e-6


def test_the_interval_holds_the_true_threshold_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = threshold_for(chance.random(2000), 0.01)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.99 <= found.high
    assert 0.93 <= held / 400 <= 0.99


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold_for(np.arange(3.0), share)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        threshold_for(np.array([np.nan]), 0.1)

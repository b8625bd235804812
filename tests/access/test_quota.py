from __future__ import annotations

import pytest

from llmobs.access import Quota
from llmobs.errors import ConfigurationError


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_passes_and_a_debt_is_waited_for(clock: Clock) -> None:
    quota = Quota(spans_per_s=10, burst_s=2, clock=clock)
    quota.charge(20, 0)
    assert quota.wait_s() == 0
    quota.charge(5, 0)
    assert quota.wait_s() == pytest.approx(0.5)
    clock.now_s += 0.5
    assert quota.wait_s() == 0


def test_over_time_the_rate_is_what_passes(clock: Clock) -> None:
    quota = Quota(spans_per_s=100, burst_s=1, clock=clock)
    passed = 0
    for _ in range(1000):
        if quota.wait_s() == 0:
            quota.charge(7, 0)
            passed += 7
        clock.now_s += 0.01
    assert passed == pytest.approx(100 * 10 + 100, abs=7)


def test_silence_saves_no_more_than_the_burst(clock: Clock) -> None:
    quota = Quota(spans_per_s=10, burst_s=2, clock=clock)
    clock.now_s += 1000
    quota.charge(30, 0)
    assert quota.wait_s() == pytest.approx(1)


def test_the_tighter_of_spans_and_bytes_counts(clock: Clock) -> None:
    quota = Quota(spans_per_s=10, bytes_per_s=1000, burst_s=1, clock=clock)
    quota.charge(1, 3000)
    assert quota.wait_s() == pytest.approx(2)
    quota.charge(49, 0)
    assert quota.wait_s() == pytest.approx(4)


def test_without_rates_nothing_is_limited(clock: Clock) -> None:
    quota = Quota(clock=clock)
    quota.charge(10**9, 10**12)
    assert quota.wait_s() == 0


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_limits_nothing_or_everything_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="above 0"):
        Quota(spans_per_s=rate)

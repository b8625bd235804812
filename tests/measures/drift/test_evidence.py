from __future__ import annotations

import math

import numpy as np
import pytest
from pytest import approx

from llmobs.measures.drift.evidence import Evidence, log_threshold, step


def test_twenty_monitors_at_a_thousand_sessions_share_one_false_page_in_thirty_days() -> None:
    assert log_threshold(20, 1000, 1.0, 30.0) == approx(math.log(6e5))


def test_half_the_budget_costs_log_two() -> None:
    assert log_threshold(10, 500, 0.5) - log_threshold(10, 500, 1.0) == approx(math.log(2))


def test_a_budget_without_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        log_threshold(1, 100, 0.0)


def test_the_sum_is_that_of_shiryaev_and_roberts() -> None:
    evidence = Evidence.of(1)
    ratios = [0.5, 2.0, 3.0, 0.1]
    for i, ratio in enumerate(ratios):
        step(0, ratio, i, 0.0, 0.0, evidence.arrays)
    # One product for every possible onset.
    expected = sum(math.prod(ratios[start:]) for start in range(len(ratios)))
    assert math.exp(evidence.log_e) == approx(expected)


def test_the_onset_is_where_the_product_was_last_at_most_one() -> None:
    evidence = Evidence.of(1)
    for at_ns, ratio in [(10, 2.0), (20, 0.25), (30, 2.0), (40, 2.0)]:
        step(0, ratio, at_ns, 1.0, 0.5, evidence.arrays)
    assert evidence.onset_ns.tolist() == [20]
    assert (evidence.n[0], evidence.observed[0], evidence.expected[0]) == (2, 2.0, 1.0)


def test_evidence_is_capped_where_it_would_overflow() -> None:
    evidence = Evidence.of(1)
    for _ in range(10):
        step(0, 1e100, 0, 0.0, 0.0, evidence.arrays)
    assert np.isfinite(evidence.log_e)


def test_without_units_there_is_no_evidence_and_after_a_reset_neither() -> None:
    evidence = Evidence.of(3)
    assert evidence.log_e == -math.inf
    step(1, 5.0, 1, 1.0, 1.0, evidence.arrays)
    evidence.reset()
    fresh = Evidence.of(3)
    assert all((a == b).all() for a, b in zip(evidence.arrays, fresh.arrays, strict=True))

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytest import approx
from scipy.spatial.distance import jensenshannon
from scipy.stats import beta, entropy, wasserstein_distance

from llmobs.measures.drift import (
    histogram_wasserstein,
    jeffreys_interval,
    jensen_shannon,
    mean_shift_sd,
    population_stability_index,
    rate_ratio,
)

Counts = npt.NDArray[np.int64]
histograms = hnp.arrays(np.int64, 6, elements=st.integers(0, 1000)).filter(lambda h: h.sum() > 0)


@given(histograms, histograms)
def test_stability_index_does_not_care_which_sample_is_the_reference(a: Counts, b: Counts) -> None:
    assert population_stability_index(a, b) == approx(population_stability_index(b, a))


@given(histograms, histograms)
def test_stability_index_is_the_sum_of_both_relative_entropies(a: Counts, b: Counts) -> None:
    expected = entropy(a + 0.5, b + 0.5) + entropy(b + 0.5, a + 0.5)
    assert population_stability_index(a, b) == approx(expected, abs=1e-9)


def test_a_bin_that_is_empty_in_one_alone_is_infinitely_far_without_pseudo_counts() -> None:
    index = population_stability_index(np.array([1, 1]), np.array([2, 0]), pseudo_count=0.0)
    assert index == math.inf
    assert population_stability_index(np.array([1, 0]), np.array([2, 0]), pseudo_count=0.0) == 0.0


@given(histograms, histograms)
def test_jensen_shannon_is_scipys_in_base_two(a: Counts, b: Counts) -> None:
    expected = jensenshannon(a, b, base=2) if (a / a.sum() != b / b.sum()).any() else 0.0
    assert jensen_shannon(a, b) == approx(np.nan_to_num(expected), abs=1e-6)
    assert 0.0 <= jensen_shannon(a, b) <= 1.0 + 1e-12


@given(histograms, histograms)
def test_wasserstein_is_scipys(a: Counts, b: Counts) -> None:
    positions = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0])
    expected = wasserstein_distance(positions, positions, a, b)
    assert histogram_wasserstein(positions, a, b) == approx(expected)


@pytest.mark.parametrize("measure", [population_stability_index, jensen_shannon])
def test_histograms_of_other_shape_or_without_observation_are_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match="shape"):
        measure(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="no observation"):
        measure(np.ones(3), np.zeros(3))


@given(st.integers(1, 500), st.data())
def test_jeffreys_interval_is_the_posteriors(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    low, high = jeffreys_interval(hits, n)
    posterior = beta(hits + 0.5, n - hits + 0.5)
    assert low == approx(0.0 if hits == 0 else posterior.ppf(0.025))
    assert high == approx(1.0 if hits == n else posterior.ppf(0.975))
    assert low <= hits / n <= high


def test_more_hits_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hits of 2"):
        jeffreys_interval(3, 2)


def test_a_rate_ratio_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        reference, current = int(rng.binomial(2000, 0.02)), int(rng.binomial(500, 0.06))
        _, low, high = rate_ratio((reference, 2000), (current, 500))
        covered += low <= 3.0 <= high
    assert covered / 200 == approx(0.95, abs=0.04)


def test_a_rate_ratio_is_finite_where_the_reference_has_no_hit() -> None:
    ratio, low, high = rate_ratio((0, 1000), (10, 100))
    assert 10 < low < ratio < high < math.inf


def test_a_shift_without_spread_has_no_size() -> None:
    assert mean_shift_sd(1.0, 2.0, 0.5) == 2.0
    assert math.isnan(mean_shift_sd(1.0, 2.0, 0.0))

"""False alarms, delay and exactness of the four detectors, on streams whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pytest import approx

from llmobs.measures.drift import (
    CategoryE,
    CategoryReference,
    MeanE,
    MeanReference,
    RateE,
    RateReference,
    WitnessE,
    WitnessReference,
    log_threshold,
    pack,
    unpack,
)

# One monitor of 200 sessions a day, one false page in 50 days: A = 10,000 units.
THRESHOLD = log_threshold(1, 200, 1.0, 50.0)
N_STREAMS = 200
N_UNITS = 3000
# With mean time to a false alarm >= 10,000 units a stream alarms within 3,000 with probability
# below about 0.26; the gates leave far less.
MOST_FALSE_ALARMS = 10


def zeros(n: int) -> npt.NDArray[np.int64]:
    return np.zeros(n, np.int64)


def delays(run: Callable[[np.random.Generator], int | None], n: int = 40) -> list[float]:
    """Units until the alarm for each of n seeds; infinite where it never came."""
    found = [run(np.random.default_rng([5, seed])) for seed in range(n)]
    return [np.inf if delay is None else delay for delay in found]


def mean_delay(rng: np.random.Generator, *, shift_sd: float, n_reference: int = 400) -> int | None:
    reference = MeanReference.of()
    reference.learn(zeros(n_reference), rng.gamma(2.0, size=n_reference))  # skewed, as tokens are
    detector = reference.detector(gate=0.1, seasonal=False)
    values = rng.gamma(2.0, size=N_UNITS) + shift_sd * np.sqrt(2.0)
    n, _ = detector.update(np.arange(N_UNITS), zeros(N_UNITS), values, THRESHOLD)
    return n if detector.log_e >= THRESHOLD else None


def rate_delay(
    rng: np.random.Generator,
    *,
    rate: float,
    before: float,
    n_reference: int = 400,
    most_late: int = 1,
) -> int | None:
    """Up to `most_late` - 1 other sessions open before a positive one turns."""
    reference = RateReference(n_reference, int(rng.binomial(n_reference, before)))
    detector = reference.detector(lift=0.2, floor=0.005)
    positive = np.flatnonzero(rng.random(N_UNITS) < rate)
    turns = positive + rng.integers(0, most_late, len(positive))
    turns = turns[turns < N_UNITS]
    events = np.repeat([0, 1], [N_UNITS, len(turns)])
    events = events[np.argsort(np.concatenate([np.arange(N_UNITS), turns]), kind="stable")]
    detector.update(np.arange(len(events)), events, THRESHOLD)
    return detector.n_units if detector.log_e >= THRESHOLD else None


def category_delay(
    rng: np.random.Generator, *, mixed: float, n_reference: int = 400, n_categories: int = 20
) -> int | None:
    shares = np.append(rng.dirichlet(np.ones(n_categories - 1)), 0.0)
    reference = CategoryReference.of(n_categories)
    reference.learn(zeros(n_reference), rng.choice(n_categories, n_reference, p=shares))
    detector = reference.detector(lift=0.25, floor=0.004, seasonal=False)
    shares = shares * (1 - mixed)
    shares[-1] += mixed
    codes = rng.choice(n_categories, N_UNITS, p=shares)
    n = detector.update(np.arange(N_UNITS), zeros(N_UNITS), codes, THRESHOLD)
    if detector.log_e < THRESHOLD:
        return None
    if mixed:
        assert detector.top(1) == [n_categories - 1]
    return n


def witness_delay(
    rng: np.random.Generator, *, shift_sd: float, n_reference: int = 400, n_dimensions: int = 17
) -> int | None:
    scale = 1.0 / np.sqrt(1.0 + np.arange(n_dimensions))
    reference = WitnessReference.of(n_dimensions)
    reference.learn(rng.normal(size=(n_reference, n_dimensions)) * scale)
    detector = reference.detector(gate=0.1)
    direction = rng.normal(size=n_dimensions)
    direction /= np.sqrt((direction**2 / scale**2).sum())
    units = rng.normal(size=(N_UNITS, n_dimensions)) * scale + shift_sd * direction
    n, _ = detector.update(np.arange(N_UNITS), units, THRESHOLD)
    return n if detector.log_e >= THRESHOLD else None


@pytest.mark.parametrize(
    "null",
    [
        lambda rng: mean_delay(rng, shift_sd=0.0),
        lambda rng: mean_delay(rng, shift_sd=0.0, n_reference=100),
        lambda rng: rate_delay(rng, rate=0.0, before=0.0),
        lambda rng: rate_delay(rng, rate=0.002, before=0.002),
        lambda rng: rate_delay(rng, rate=0.05, before=0.05),
        lambda rng: rate_delay(rng, rate=0.02, before=0.02, n_reference=4000, most_late=60),
        lambda rng: rate_delay(rng, rate=0.2, before=0.2, n_reference=4000, most_late=60),
        lambda rng: category_delay(rng, mixed=0.0),
        lambda rng: category_delay(rng, mixed=0.0, n_reference=100),
        lambda rng: witness_delay(rng, shift_sd=0.0),
        lambda rng: witness_delay(rng, shift_sd=0.0, n_reference=100),
    ],
    ids=[
        "mean",
        "mean-short",
        "rate-zero",
        "rate-rare",
        "rate",
        "rate-late",
        "rate-frequent-late",
        "category",
        "category-short",
        "witness",
        "w-short",
    ],
)
def test_streams_like_their_reference_stay_within_the_budget(
    null: Callable[[np.random.Generator], int | None],
) -> None:
    found = delays(null, N_STREAMS)
    assert np.isfinite(found).sum() <= MOST_FALSE_ALARMS


@pytest.mark.parametrize(
    ("change", "most_units"),
    [
        (lambda rng: mean_delay(rng, shift_sd=1.0), 100),
        (lambda rng: mean_delay(rng, shift_sd=-1.0), 100),
        (lambda rng: mean_delay(rng, shift_sd=0.5), 350),
        (lambda rng: rate_delay(rng, rate=0.1, before=0.002), 130),
        (lambda rng: rate_delay(rng, rate=0.3, before=0.05), 75),
        (lambda rng: category_delay(rng, mixed=0.2), 80),
        (lambda rng: category_delay(rng, mixed=0.5), 40),
        (lambda rng: witness_delay(rng, shift_sd=2.0), 100),
    ],
    ids=[
        "mean-up",
        "mean-down",
        "mean-half",
        "rate-rare",
        "rate",
        "category-20%",
        "category-50%",
        "witness",
    ],
)
def test_changes_are_found_soon(
    change: Callable[[np.random.Generator], int | None], most_units: int
) -> None:
    assert np.median(delays(change)) <= most_units


def mean_detector() -> MeanE:
    rng = np.random.default_rng(1)
    reference = MeanReference.of()
    reference.learn(rng.integers(0, 48, 500), rng.normal(size=500))
    return reference.detector(gate=0.1, seasonal=True)


def feed_mean(detector: Any, rows: slice) -> None:
    values = np.random.default_rng(2).normal(0.3, size=300)
    cells = np.arange(300) % 48
    detector.update(np.arange(300)[rows], cells[rows], values[rows])


def rate_detector() -> RateE:
    return RateReference(500, 5).detector(lift=0.2, floor=0.005)


def feed_rate(detector: Any, rows: slice) -> None:
    detector.update(np.arange(300)[rows], (np.arange(300) % 17 == 3).astype(np.int64)[rows])


def category_detector() -> CategoryE:
    rng = np.random.default_rng(1)
    reference = CategoryReference.of(5)
    reference.learn(rng.integers(0, 48, 500), rng.integers(0, 4, 500))
    return reference.detector(lift=0.25, floor=0.004, seasonal=True)


def feed_category(detector: Any, rows: slice) -> None:
    codes = np.random.default_rng(2).integers(0, 5, 300)
    detector.update(np.arange(300)[rows], (np.arange(300) % 48)[rows], codes[rows])


def witness_detector() -> WitnessE:
    reference = WitnessReference.of(7)
    reference.learn(np.random.default_rng(1).normal(size=(500, 7)))
    return reference.detector(gate=0.1)


def feed_witness(detector: Any, rows: slice) -> None:
    units = np.random.default_rng(2).normal(0.4, size=(300, 7))
    detector.update(np.arange(300)[rows], units[rows])


DETECTORS = pytest.mark.parametrize(
    ("make", "feed"),
    [
        (mean_detector, feed_mean),
        (rate_detector, feed_rate),
        (category_detector, feed_category),
        (witness_detector, feed_witness),
    ],
    ids=["mean", "rate", "category", "witness"],
)


@DETECTORS
def test_the_cut_into_batches_changes_nothing(
    make: Callable[[], Any], feed: Callable[[Any, slice], None]
) -> None:
    whole, cut = make(), make()
    feed(whole, slice(0, 300))
    for start, stop in [(0, 1), (1, 18), (18, 18), (18, 200), (200, 300)]:
        feed(cut, slice(start, stop))
    assert pack(whole.to_tree()) == pack(cut.to_tree())


@DETECTORS
def test_a_restart_in_the_middle_changes_no_bit(
    make: Callable[[], Any], feed: Callable[[Any, slice], None]
) -> None:
    whole = make()
    feed(whole, slice(0, 300))
    before = make()
    feed(before, slice(0, 130))
    after = type(before).from_tree(unpack(pack(before.to_tree())))
    feed(after, slice(130, 300))
    assert pack(whole.to_tree()) == pack(after.to_tree())


@DETECTORS
def test_a_reset_forgets_the_evidence_and_keeps_the_reference(
    make: Callable[[], Any], feed: Callable[[Any, slice], None]
) -> None:
    detector, fresh = make(), make()
    feed(detector, slice(0, 300))
    detector.reset()
    assert detector.log_e == -np.inf
    detector.n_units = 0
    assert pack(detector.to_tree()) == pack(fresh.to_tree())


def test_update_stops_at_the_unit_that_reaches_the_threshold() -> None:
    detector, by_hand = mean_detector(), mean_detector()
    values = np.full(500, 2.0)
    n, payoffs = detector.update(np.arange(500), zeros(500), values, 8.0)
    assert n < 500
    assert (payoffs[:n] > 0).all()
    by_hand.update(np.arange(n - 1), zeros(n - 1), values[: n - 1])
    assert by_hand.log_e < 8.0 <= detector.log_e


def test_onset_and_size_of_a_shift_are_told() -> None:
    onsets, means = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        detector = mean_detector()
        values = np.concatenate([rng.normal(size=200), rng.normal(2.0, size=60)])
        detector.update(np.arange(260), zeros(260), values)
        assert detector.is_rise
        onsets.append(detector.onset_ns)
        means.append(detector.since_onset[0])
    assert np.median(onsets) == approx(199, abs=4)
    assert np.median(means) == approx(2.0, abs=0.25)


def test_one_odd_session_after_a_spotless_reference_does_not_page() -> None:
    detector = RateReference(400, 0).detector(lift=0.2, floor=0.005)
    detector.update(np.arange(2), np.array([0, 1]))
    assert detector.log_e < 3.0


def test_a_session_that_turns_later_counts_as_one() -> None:
    at_once = RateReference(400, 4).detector(lift=0.2, floor=0.005)
    later = RateReference(400, 4).detector(lift=0.2, floor=0.005)
    at_once.update(np.arange(3), np.array([0, 1, 0]))
    later.update(np.arange(3), np.array([0, 0, 1]))
    assert at_once.since_onset[0] == later.since_onset[0] == 1
    assert at_once.n_units == later.n_units == 2


def test_a_season_is_no_change_once_hours_are_known() -> None:
    rng = np.random.default_rng(4)
    hours = np.arange(6000) // 20 % 24
    level = 2.0 * np.sin(2 * np.pi * hours / 24)
    reference = MeanReference.of()
    reference.learn(hours, level + rng.normal(size=6000))
    detector = reference.detector(gate=0.1, seasonal=True)
    detector.update(np.arange(6000), hours, level + rng.normal(size=6000), THRESHOLD)
    assert detector.log_e < THRESHOLD
    assert detector.sd == approx(1.0, rel=0.25)


def test_references_learn_the_same_in_one_piece_or_many() -> None:
    rng = np.random.default_rng(5)
    cells, values = rng.integers(0, 48, 3000), rng.integers(0, 9, 3000).astype(np.float64)
    whole, parts = MeanReference.of(), MeanReference.of()
    whole.learn(cells, values)
    for rows in np.array_split(np.arange(3000), 37):
        parts.learn(cells[rows], values[rows])
    assert pack(whole.to_tree()) == pack(parts.to_tree())


def test_a_statistic_that_never_varied_does_not_break_the_detector() -> None:
    reference = MeanReference.of()
    reference.learn(zeros(100), np.full(100, 5.0))
    detector = reference.detector(gate=0.1, seasonal=False)
    detector.update(np.arange(100), zeros(100), np.full(100, 5.0), THRESHOLD)
    assert detector.log_e < THRESHOLD
    detector.update(np.arange(100), zeros(100), np.full(100, 6.0), THRESHOLD)
    assert detector.log_e >= THRESHOLD


def test_a_reference_goes_to_bytes_and_back() -> None:
    rng = np.random.default_rng(6)
    mean = MeanReference.of()
    mean.learn(zeros(50), rng.normal(size=50))
    witness = WitnessReference.of(3)
    witness.learn(rng.normal(size=(50, 3)))
    category = CategoryReference.of(3)
    category.learn(zeros(50), rng.integers(0, 3, 50))
    references: list[Any] = [mean, witness, category, RateReference(7, 2)]
    for reference in references:
        back = type(reference).from_tree(unpack(pack(reference.to_tree())))
        assert pack(back.to_tree()) == pack(reference.to_tree())
        assert back.n_units == reference.n_units


def test_a_rate_stays_a_rate_where_more_sessions_turned_than_were_seen_to_open() -> None:
    reference = RateReference()
    reference.learn(np.repeat([0, 1], [3, 5]))
    assert reference.detector(lift=0.2, floor=0.005).reference_rate == 1.0

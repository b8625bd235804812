"""How large a change is, in numbers that people know. They are shown; nothing pages on them."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.special import betaincinv

from llmobs.records import FloatArray

__all__ = [
    "Counts",
    "histogram_wasserstein",
    "jeffreys_interval",
    "jensen_shannon",
    "mean_shift_sd",
    "population_stability_index",
    "rate_ratio",
]

Counts: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]


def _checked(reference: Counts, current: Counts) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"histograms need one and the same shape (n,), not {a.shape}, {b.shape}")
    if a.sum() <= 0 or b.sum() <= 0:
        raise ValueError("a histogram has no observation")
    return a, b


def population_stability_index(
    reference: Counts, current: Counts, *, pseudo_count: float = 0.5
) -> float:
    """Measure how far apart two histograms over the same bins lie.

    Symmetric in its arguments; 0 when both have the same shares.

    Args:
        reference: Counts of shape (n_bins,), in observations.
        current: Counts of shape (n_bins,), over the same bins.
        pseudo_count: Observations added to every bin of both. With 0, a bin
            that is empty in one of them alone makes the result infinite.

    Returns:
        The index in nats, in [0, inf].

    Raises:
        ValueError: The shapes differ, or a histogram has no observation.

    References:
        Jeffreys, H. (1946). An invariant form for the prior probability in
        estimation problems. Proc. R. Soc. A 186, 453-461.
    """
    a, b = _checked(reference, current)
    p = (a + pseudo_count) / (a + pseudo_count).sum()
    q = (b + pseudo_count) / (b + pseudo_count).sum()
    filled = (p > 0) | (q > 0)
    p, q = p[filled], q[filled]
    with np.errstate(divide="ignore"):
        return float(((q - p) * (np.log(q) - np.log(p))).sum())


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Return the Jensen-Shannon distance of two histograms, base 2, in [0, 1].

    Args:
        reference: Counts of shape (n_bins,).
        current: Counts of shape (n_bins,), over the same bins.

    Raises:
        ValueError: The shapes differ, or a histogram has no observation.
    """
    a, b = _checked(reference, current)
    # Of equal shares scipy takes the root of a tiny negative number.
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(jensenshannon(a, b, base=2)))


def histogram_wasserstein(positions: FloatArray, reference: Counts, current: Counts) -> float:
    """Return the Wasserstein-1 distance of two histograms, in the unit of `positions`.

    Args:
        positions: Where each bin lies, such as its middle; shape (n_bins,).
        reference: Counts of shape (n_bins,).
        current: Counts of shape (n_bins,), over the same bins.

    Raises:
        ValueError: The shapes differ, or a histogram has no observation.
    """
    from scipy.stats import wasserstein_distance  # half of what it takes to import the measures

    a, b = _checked(reference, current)
    return float(wasserstein_distance(positions, positions, a, b))


def mean_shift_sd(reference: float, current: float, sd: float) -> float:
    """Return the shift of a mean in standard deviations; NaN where nothing varies."""
    return (current - reference) / sd if sd > 0 else math.nan


def jeffreys_interval(n_hits: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Jeffreys interval of a share.

    Args:
        n_hits: Hits, at least 0.
        n: Trials, at least `n_hits`.
        confidence: Posterior probability inside the interval.

    Raises:
        ValueError: There are more hits than trials, or fewer than 0.

    References:
        Brown, L. D., Cai, T. T., DasGupta, A. (2001). Interval estimation for a binomial
        proportion. Statistical Science 16, 101-133.
    """
    if not 0 <= n_hits <= n:
        raise ValueError(f"{n_hits} hits of {n} trials")
    tail = (1.0 - confidence) / 2.0
    a, b = n_hits + 0.5, n - n_hits + 0.5
    low = 0.0 if n_hits == 0 else float(betaincinv(a, b, tail))
    high = 1.0 if n_hits == n else float(betaincinv(a, b, 1.0 - tail))
    return low, high


def rate_ratio(
    reference: tuple[int, int], current: tuple[int, int], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return how many times the reference's rate the current one is, with an interval.

    The interval comes from 4,096 quantile pairs of the two Jeffreys posteriors, spread by a
    rank-1 lattice: no dice, the same answer each time.

    Args:
        reference: Hits and trials.
        current: Hits and trials.
        confidence: Posterior probability inside the interval.

    Returns:
        The ratio of the posterior medians, and the interval's ends.
    """
    n_points = 4096
    grid = (np.arange(n_points) + 0.5) / n_points
    # Fibonacci lattice: the second coordinate steps by the golden ratio.
    other = (grid * n_points * 0.6180339887498949) % 1.0
    shares = [
        betaincinv(hits + 0.5, n - hits + 0.5, points)
        for (hits, n), points in ((reference, other), (current, grid))
    ]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(shares[1] / shares[0], [tail, 1.0 - tail])
    return float(np.median(shares[1]) / np.median(shares[0])), float(low), float(high)

"""Thresholds from what a score says of the user's own traffic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import bdtr

from llmobs.records import FloatArray

__all__ = ["Threshold", "threshold_for"]


class Threshold(NamedTuple):
    """Where a score begins to fail, so that at most a chosen share of a sample does.

    Attributes:
        value: Fails from here on, or below; None: no value has so small a share, since the
            sample is too small or too many share its most extreme value.
        low: Lower end of the interval in which the threshold of all traffic lies; None: the
            sample is too small to bound it.
        high: Its upper end, likewise.
        share: Of the sample that fails, in [0, 1].
    """

    value: float | None
    low: float | None
    high: float | None
    share: float


def threshold_for(
    values: FloatArray, share: float, *, fails_below: bool = False, confidence: float = 0.95
) -> Threshold:
    """Find the threshold that a share of all values crosses.

    The interval is exact for independent values of any distribution: how many of n lie below the
    quantile is binomial, so the order statistics at that law's own quantiles enclose it. Calls
    of one session depend on each other, and then the interval is too short.

    Args:
        values: Shape (n,), without NaN, in any order.
        share: In (0, 1).
        fails_below: Whether low values fail.
        confidence: That the interval holds the threshold of all traffic, in (0, 1).

    Raises:
        ValueError: A share or confidence out of bounds, or a NaN.

    References:
        David, H. A. and Nagaraja, H. N. (2003). Order Statistics, 3rd ed., section 7.1.
    """
    if not 0 < share < 1 or not 0 < confidence < 1:
        raise ValueError(f"share {share} and confidence {confidence} must lie between 0 and 1")
    if np.isnan(values).any():
        raise ValueError("a value is NaN")
    ranked = np.sort(-values if fails_below else values)  # the last ones fail first
    low, high = _interval(ranked, share, confidence)
    if fails_below:
        low, high = _negative(high), _negative(low)
    n_over = int(np.floor(len(ranked) * share + 1e-9))  # 0.07 * 100 is a little more than 7
    if n_over == 0:
        return Threshold(None, low, high, 0.0)
    last_passing = ranked[len(ranked) - n_over - 1]
    failing = ranked[ranked > last_passing]
    if not failing.size:
        return Threshold(None, low, high, 0.0)
    value = -last_passing if fails_below else failing[0]
    value = float(value) + 0.0  # and not -0
    return Threshold(value, low, high, failing.size / len(ranked))


def _negative(number: float | None) -> float | None:
    return None if number is None else -number


def _interval(
    ranked: FloatArray, share: float, confidence: float
) -> tuple[float | None, float | None]:
    """Return the order statistics around the quantile of 1 - `share`; None past an end."""
    n = len(ranked)
    if n == 0:
        return None, None
    tail = (1 - confidence) / 2
    # Of how many lie below the quantile; not of scipy.stats, which takes 40 MB to load.
    law = bdtr(np.arange(n + 1.0), n, 1 - share)
    # Ranks from 1: P(low <= how many lie below <= high - 1) >= confidence.
    low, high = int(np.searchsorted(law, tail)), int(np.searchsorted(law, 1 - tail)) + 1
    return (
        float(ranked[low - 1]) if low >= 1 else None,
        float(ranked[high - 1]) if high <= n else None,
    )

"""Quotas: how much one key may send."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from llmobs.errors import ConfigurationError

__all__ = ["Quota"]


class _Bucket:
    """A token bucket that may go into debt."""

    def __init__(self, rate_per_s: float, burst_s: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._capacity = rate_per_s * burst_s
        self._level = self._capacity
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return how long until it is out of debt; a full second's tokens are not needed."""
        self._refill(now)
        return max(0.0, -self._level / self._rate_per_s)

    def charge(self, amount: float, now: float) -> None:
        self._refill(now)
        self._level -= amount

    def _refill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate_per_s)
        self._at = now


class Quota:
    """Spans and bytes per second, averaged over `burst_s`. Any thread may call it.

    A request is let in as long as the key owes nothing, and charged when it was kept; so a
    refusal costs no parsing, and a request larger than the burst is still possible.
    """

    def __init__(
        self,
        *,
        spans_per_s: float | None = None,
        bytes_per_s: float | None = None,
        burst_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with full buckets.

        Args:
            spans_per_s: Spans, log records or data points per second; None: no limit.
            bytes_per_s: Unpacked bytes per second; None: no limit.
            burst_s: How many seconds' worth may come at once.
            clock: Monotonic time in seconds.

        Raises:
            ConfigurationError: A rate or the burst isn't a positive number.
        """
        for name, value in (
            ("spans_per_s", spans_per_s),
            ("bytes_per_s", bytes_per_s),
            ("burst_s", burst_s),
        ):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigurationError(f"{name} is {value}; a quota takes a number above 0")
        self._clock = clock
        self._lock = threading.Lock()
        now = clock()
        self._spans = _Bucket(spans_per_s, burst_s, now) if spans_per_s else None
        self._bytes = _Bucket(bytes_per_s, burst_s, now) if bytes_per_s else None

    def wait_s(self) -> float:
        """Return how many seconds the key has to wait; 0 when it may send now."""
        with self._lock:
            now = self._clock()
            return max((b.wait_s(now) for b in (self._spans, self._bytes) if b), default=0.0)

    def charge(self, n_spans: int, n_bytes: int) -> None:
        """Count a request that was kept."""
        with self._lock:
            now = self._clock()
            if self._spans:
                self._spans.charge(n_spans, now)
            if self._bytes:
                self._bytes.charge(n_bytes, now)

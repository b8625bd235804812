"""Has a rare event become frequent? Errors, refusals, toxic answers, attacks, PII."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import betaincinv

from llmobs.measures.drift.evidence import (
    CAP,
    Evidence,
    IntArray,
    Sequential,
    Stateful,
    compiled,
    step,
)
from llmobs.records import FloatArray

__all__ = ["OPENED", "TURNED", "RateE", "RateReference"]

OPENED: Final = 0
"""Event of `RateE`: the first call of a session was judged."""
TURNED: Final = 1
"""Event of `RateE`: the first positive call of a session that was opened before."""

# The alternatives: this many times the gated reference rate.
_FACTORS: Final = np.array([1.5, 2.0, 4.0, 10.0])
_MAX_RATE: Final = 0.9
# The reference rate is known no better than this upper quantile of its posterior.
_UPPER: Final = 0.99


@compiled
def _judge(
    at_ns: IntArray,
    events: IntArray,
    null_rate: float,
    rates: FloatArray,
    threshold: float,
    evidence: tuple[Any, ...],
) -> int:
    """Charge each session when it opens, pay back when it turns; return the events judged."""
    sums, peaks, _, _, observed, _ = evidence
    for i in range(len(events)):
        mean = 0.0
        for k in range(len(rates)):
            if events[i] == OPENED:
                charge = 1.0 - (rates[k] - null_rate)
                step(k, charge, at_ns[i], 0.0, null_rate, evidence)
            else:
                yes = rates[k] / null_rate
                sums[k] = min(sums[k] * yes, CAP)
                peaks[k] = min(peaks[k] * yes, CAP)
                observed[k] += 1.0
            mean += sums[k]
        if mean >= threshold * len(rates):
            return i + 1
    return len(events)


@dataclass
class RateE(Sequential):
    """E-detector for the share of sessions with at least one positive call.

    A session is charged when its first call is judged, and pays back when its first positive
    call arrives: nothing waits for a session to end. Against the alternative rate q > p an
    opened session multiplies a product by 1 - (q - p), a turned one by q / p. Whether sessions
    turn at once (mean ratio 1 - (q - p)^2) or long after, among others (as many turn as once
    opened: mean ratio 1), no product grows on average while the rate is at most p.

    Attributes:
        reference_rate: Share of positive sessions in the reference.
        null_rate: Shares up to this are no change.
        evidence: One alternative for each factor.
        n_units: Sessions judged.
    """

    reference_rate: float
    null_rate: float
    evidence: Evidence
    n_units: int = 0

    @property
    def since_onset(self) -> tuple[int, int]:
        """Positive sessions and all sessions since the onset."""
        k = self.evidence.strongest
        n_positive = int(self.evidence.observed[k])
        return n_positive, max(int(self.evidence.n[k]), n_positive, 1)

    def update(self, at_ns: IntArray, events: IntArray, log_threshold: float = np.inf) -> int:
        """Judge events in time order until the evidence reaches the threshold.

        Args:
            at_ns: Shape (n,), times in ns since 1970.
            events: Shape (n,), `OPENED` or `TURNED`.
            log_threshold: Where to stop.

        Returns:
            How many events were judged.
        """
        rates = np.minimum(self.null_rate * _FACTORS, _MAX_RATE)
        threshold = float(np.exp(log_threshold))
        arrays = self.evidence.arrays
        n = int(_judge(at_ns, events, self.null_rate, rates, threshold, arrays))
        self.n_units += int((events[:n] == OPENED).sum())
        return n


@dataclass
class RateReference(Stateful):
    """Counts sessions and positive sessions."""

    n_units: int = 0
    n_positive: int = 0

    def learn(self, events: IntArray) -> None:
        """Add events of shape (n,), `OPENED` or `TURNED`."""
        n_turned = int(events.sum())
        self.n_units += len(events) - n_turned
        self.n_positive += n_turned

    def detector(self, *, lift: float, floor: float) -> RateE:
        """Pin the reference.

        Args:
            lift: Shares up to (1 + lift) times the reference are no change.
            floor: A reference share below this counts as this: after a reference without a
                single event the first one must not page.
        """
        n_negative = max(self.n_units - self.n_positive, 0)
        upper = float(betaincinv(self.n_positive + 0.5, n_negative + 0.5, _UPPER))
        null_rate = min(max(upper, floor) * (1.0 + lift), 0.8)
        # A session that opened while nothing was learned may have turned later.
        rate = min(1.0, self.n_positive / max(self.n_units, 1))
        return RateE(rate, null_rate, Evidence.of(len(_FACTORS)))

"""Has a rare event become frequent? Errors, refusals, toxic answers, attacks, PII."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from scipy.special import betaincinv

from llmobs.measures.drift.evidence import Evidence, IntArray, Stateful, compiled, step
from llmobs.measures.drift.state import Tree
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
    """Charge each session as negative when it opens, put it right when it turns."""
    sums, peaks, _, _, observed, _ = evidence
    for i in range(len(events)):
        mean = 0.0
        for k in range(len(rates)):
            no = (1.0 - rates[k]) / (1.0 - null_rate)
            if events[i] == 0:
                step(k, no, at_ns[i], 0.0, null_rate, evidence)
            else:
                yes = rates[k] / null_rate / no
                sums[k] = min(sums[k] * yes, 1e200)
                peaks[k] = min(peaks[k] * yes, 1e200)
                observed[k] += 1.0
            mean += sums[k]
        if mean >= threshold * len(rates):
            return i + 1
    return len(events)


@dataclass
class RateE(Stateful):
    """E-detector for the share of sessions with at least one positive call.

    A session is charged as negative when its first call is judged, and turned into a positive
    when the first positive call arrives: nothing waits for a session to end. At any moment the
    product of ratios is at most the likelihood ratio of what was seen so far (a session that
    may still turn is charged in full), so the early positives that come before the negatives
    have closed can't raise false evidence.

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
    def log_e(self) -> float:
        """Natural log of the evidence; -inf before any."""
        return self.evidence.log_e

    @property
    def onset_ns(self) -> int:
        """Time of the last unit that spoke for the reference; -1 before any."""
        return int(self.evidence.onset_ns[self.evidence.strongest])

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

    def reset(self) -> None:
        """Forget the evidence; the reference stays."""
        self.evidence.reset()

    @classmethod
    def from_tree(cls, tree: Tree) -> Self:
        """Return the detector that `to_tree` was called on."""
        return cls(**tree | {"evidence": Evidence.from_tree(tree["evidence"])})


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
        rate = self.n_positive / max(self.n_units, 1)
        return RateE(rate, null_rate, Evidence.of(len(_FACTORS)))

"""Shiryaev-Roberts sums: evidence that may be looked at as often as one likes.

A detector compares its reference with a set of *alternatives*. For each it multiplies, unit
by unit, a ratio whose mean under the reference is at most 1, and restarts at every unit:

    sum <- (sum + 1) * ratio

The mean of these sums over the alternatives is an e-detector: with the threshold A the mean
number of units until a false alarm is at least A, however often one looks.

References:
    Shin, J., Ramdas, A., Rinaldo, A. (2022). E-detectors: a nonparametric framework for
    sequential change detection. arXiv:2203.03532.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from llmobs.measures.compiled import compiler
from llmobs.measures.drift.state import Tree
from llmobs.records import FloatArray

__all__ = [
    "CAP",
    "Evidence",
    "IntArray",
    "Sequential",
    "Stateful",
    "compiled",
    "log_threshold",
    "step",
]

IntArray: TypeAlias = npt.NDArray[np.int64]

# Far above any threshold, far below overflow: a sum that stands here has long alarmed.
CAP: Final = 1e200


# A loop means what Python would.
compiled: Final = compiler(error_model="numpy")


def log_threshold(
    n_monitors: int, units_a_day: float, false_pages: float = 1.0, days: float = 30.0
) -> float:
    """Turn a budget of false pages into the threshold of one monitor.

    Args:
        n_monitors: Monitors that share the budget.
        units_a_day: Units (sessions) that this monitor judges in a day.
        false_pages: Pages without cause that all monitors together may send …
        days: … in so many days.

    Returns:
        Natural log of the evidence at which to alarm; never below log 100.

    Raises:
        ValueError: An argument is not above 0.
    """
    if min(n_monitors, units_a_day, false_pages, days) <= 0:
        raise ValueError("a budget needs monitors, units, pages and days above 0")
    return math.log(max(100.0, n_monitors * units_a_day * days / false_pages))


class Stateful:
    """A dataclass of arrays and plain values, nested or not, that goes to a tree and back."""

    def to_tree(self) -> Tree:
        """Return the fields by name."""
        values = {f.name: getattr(self, f.name) for f in fields(cast(Any, self))}
        return {k: v.to_tree() if isinstance(v, Stateful) else v for k, v in values.items()}

    @classmethod
    def from_tree(cls, tree: Tree) -> Self:
        """Return the object that `to_tree` was called on."""
        return cls(**tree)


@dataclass
class Evidence(Stateful):
    """Sums of one detector, and since when each speaks.

    Next to its sum an alternative keeps the product of its ratios since the product was last
    at most 1: the unit where that was is the likeliest onset (Page's CUSUM), and what came
    after it tells the size of the change.

    Attributes:
        sums: Shape (n_alternatives,).
        peaks: The products, shape as `sums`, at least 1.
        onset_ns: Time of the last unit that spoke for the reference, shape as `sums`.
        n: Units since the onset.
        observed: Sum of what was observed since the onset.
        expected: Sum of what the reference expected of the same units.
    """

    sums: FloatArray
    peaks: FloatArray
    onset_ns: IntArray
    n: FloatArray
    observed: FloatArray
    expected: FloatArray

    @classmethod
    def of(cls, n_alternatives: int) -> Evidence:
        """Return no evidence for any of so many alternatives."""
        zeros = np.zeros(n_alternatives)
        return cls(
            zeros,
            zeros + 1,
            np.full(n_alternatives, -1, np.int64),
            zeros.copy(),
            zeros.copy(),
            zeros.copy(),
        )

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The arrays in the order in which the compiled loops take them."""
        return (self.sums, self.peaks, self.onset_ns, self.n, self.observed, self.expected)

    @property
    def log_e(self) -> float:
        """Natural log of the mean of the sums; -inf before the first unit."""
        mean = float(self.sums.sum()) / len(self.sums)
        return math.log(mean) if mean > 0 else -math.inf

    @property
    def strongest(self) -> int:
        """Index of the alternative with the largest sum."""
        return int(np.argmax(self.sums))

    def reset(self) -> None:
        """Forget all evidence."""
        self.sums[:] = 0
        self.peaks[:] = 1
        self.onset_ns[:] = -1
        self.n[:] = 0
        self.observed[:] = 0
        self.expected[:] = 0


class Sequential(Stateful):
    """What the four detectors share: their evidence, and how it is read."""

    evidence: Evidence
    n_units: int

    @property
    def log_e(self) -> float:
        """Natural log of the evidence against "as in the reference"; -inf before any."""
        return self.evidence.log_e

    @property
    def onset_ns(self) -> int:
        """Time of the last unit that spoke for the reference; -1 before any."""
        return int(self.evidence.onset_ns[self.evidence.strongest])

    @property
    def n_since_onset(self) -> int:
        """Units since the onset."""
        return int(self.evidence.n[self.evidence.strongest])

    def reset(self) -> None:
        """Forget the evidence; the reference stays."""
        self.evidence.reset()

    @classmethod
    def from_tree(cls, tree: Tree) -> Self:
        """Return the detector that `to_tree` was called on."""
        return super().from_tree(tree | {"evidence": Evidence.from_tree(tree["evidence"])})


@compiled
def step(
    k: int,
    ratio: float,
    at_ns: int,
    value: float,
    reference: float,
    evidence: tuple[Any, ...],
) -> None:
    """Multiply one unit's ratio into alternative `k` (compiled; `Evidence.arrays`)."""
    sums, peaks, onset_ns, n, observed, expected = evidence
    sums[k] = min((sums[k] + 1.0) * ratio, CAP)
    peaks[k] = min(peaks[k] * ratio, CAP)
    if onset_ns[k] < 0:
        onset_ns[k] = at_ns
    if peaks[k] <= 1.0:
        peaks[k] = 1.0
        onset_ns[k] = at_ns
        n[k] = 0.0
        observed[k] = 0.0
        expected[k] = 0.0
    else:
        n[k] += 1.0
        observed[k] += value
        expected[k] += reference

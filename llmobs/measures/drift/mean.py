"""Has a mean moved, up or down? Log tokens, cost, latency, scores: one unit a session."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from llmobs.measures.drift.evidence import Evidence, IntArray, Sequential, Stateful, compiled, step
from llmobs.measures.drift.reference import (
    CELLS_PER_ROUTE,
    Blocks,
    Sample,
    reference_error,
    shrunk_profile,
)
from llmobs.measures.drift.state import Tree
from llmobs.records import FloatArray

__all__ = ["MeanE", "MeanReference"]

# Shares of the capital that are staked on each unit: small ones find small shifts.
STAKES: Final = np.array([0.1, 0.25, 0.5, 0.9])
# A unit counts at most as if it lay this many standard deviations off: one odd session in a
# thousand can't page, and the payoff is bounded, as betting needs it.
CLIP_SD: Final = 3.0
_SAMPLE_ROWS: Final = 1024


@compiled
def _judge(
    at_ns: IntArray,
    cells: IntArray,
    values: FloatArray,
    profile: FloatArray,
    scale: float,
    centre: float,
    gate: float,
    threshold: float,
    stakes: FloatArray,
    payoffs: FloatArray,
    evidence: tuple[Any, ...],
) -> int:
    """Bet on up and on down, unit by unit; return how many units were judged."""
    n_stakes = len(stakes)
    # The stake may not exceed the capital: the worst payoff is -(1 + gate + |centre|).
    worst = 1.0 + gate + abs(centre)
    for i in range(len(values)):
        expected = profile[cells[i]]
        payoff = min(1.0, max(-1.0, (values[i] - expected) / scale)) - centre
        payoffs[i] = payoff
        mean = 0.0
        for k in range(2 * n_stakes):
            side = 1.0 if k < n_stakes else -1.0
            ratio = 1.0 + stakes[k % n_stakes] * (side * payoff - gate) / worst
            step(k, ratio, at_ns[i], values[i], expected, evidence)
            mean += evidence[0][k]
        if mean >= threshold * 2 * n_stakes:
            return i + 1
    return len(values)


@dataclass
class MeanE(Sequential):
    """Two-sided e-detector for a mean, with the smallest change that matters in its null.

    Attributes:
        profile: Expected value by cell, shape (n_routes * 48,).
        sd: Standard deviation of a unit around it.
        centre: Mean of the clipped payoff in the reference (not 0 where units are skewed).
        gate: Shifts up to this many standard deviations are no change.
        evidence: Four stakes on "up", then four on "down".
        n_units: Units judged.
    """

    profile: FloatArray
    sd: float
    centre: float
    gate: float
    evidence: Evidence
    n_units: int = 0

    @property
    def since_onset(self) -> tuple[float, float, int]:
        """Mean since the onset, what the reference expected of these units, and their number."""
        k = self.evidence.strongest
        n = max(float(self.evidence.n[k]), 1.0)
        return float(self.evidence.observed[k]) / n, float(self.evidence.expected[k]) / n, int(n)

    @property
    def is_rise(self) -> bool:
        """Whether the evidence speaks for a rise rather than a fall."""
        return self.evidence.strongest < len(STAKES)

    def update(
        self,
        at_ns: IntArray,
        cells: IntArray,
        values: FloatArray,
        log_threshold: float = np.inf,
    ) -> tuple[int, FloatArray]:
        """Judge units in time order until the evidence reaches the threshold.

        Args:
            at_ns: Shape (n,), times in ns since 1970.
            cells: Shape (n,), cell of the profile.
            values: Shape (n,), finite.
            log_threshold: Where to stop.

        Returns:
            How many units were judged, and their payoffs in [-1, 1], shape (n,): above 0
            where a unit lies above the reference.
        """
        payoffs = np.zeros(len(values))
        n = int(
            _judge(
                at_ns,
                cells,
                values,
                self.profile,
                CLIP_SD * self.sd,
                self.centre,
                self.gate / CLIP_SD,
                float(np.exp(log_threshold)),
                STAKES,
                payoffs,
                self.evidence.arrays,
            )
        )
        self.n_units += n
        return n, payoffs


@dataclass
class MeanReference(Stateful):
    """Learns what `MeanE` compares with; sums add up, so its size never grows.

    Attributes:
        n: Units by cell, shape (n_routes * 48,).
        sums: Their sums.
        squares: Sums of their squares.
        sample: (cell, value) of some units, for what sums can't tell.
        blocks: Sums by block of time, for slow benign changes.
    """

    n: FloatArray
    sums: FloatArray
    squares: FloatArray
    sample: Sample
    blocks: Blocks

    @classmethod
    def of(cls, n_routes: int = 1) -> MeanReference:
        """Return an empty reference."""
        n_cells = n_routes * CELLS_PER_ROUTE
        zeros = np.zeros(n_cells)
        sample = Sample(np.zeros((_SAMPLE_ROWS, 2)))
        return cls(zeros, zeros.copy(), zeros.copy(), sample, Blocks.of(n_cells))

    @property
    def n_units(self) -> int:
        """Units learned."""
        return self.sample.n_seen

    def learn(self, cells: IntArray, values: FloatArray) -> None:
        """Add units in time order: cells and finite values of shape (n,)."""
        if not len(values):
            return
        np.add.at(self.n, cells, 1.0)
        np.add.at(self.sums, cells, values)
        np.add.at(self.squares, cells, values * values)
        self.sample.add(np.stack([cells, values], axis=1))
        self.blocks.add(cells, values[:, None])

    def detector(self, *, gate: float, seasonal: bool) -> MeanE:
        """Pin the reference.

        Args:
            gate: Smallest shift that matters, in standard deviations of a unit.
                What the reference itself can't tell for sure is added, as independent.
            seasonal: Compare with the hour, not only with the route.
        """
        profile = shrunk_profile(self.n, self.sums, seasonal=seasonal)
        n = float(self.n.sum())
        squares = (self.squares - 2 * profile * self.sums + self.n * profile * profile).sum()
        # A statistic that never varied has no scale: 1e-3 of its size stands in for it.
        floor = 1e-3 * max(1.0, float(np.abs(profile).max()))
        sd = max(float(np.sqrt(max(squares, 0.0) / max(n - 1.0, 1.0))), floor)
        rows = np.asarray(self.sample.filled, dtype=np.float64)
        residuals = rows[:, 1] - profile[rows[:, 0].astype(np.int64)]
        centre = float(np.clip(residuals / (CLIP_SD * sd), -1, 1).mean())
        wander = self.blocks.wander(profile[:, None], sd * sd)
        return MeanE(
            profile,
            sd,
            centre,
            math.hypot(gate, reference_error(n, wander)),
            Evidence.of(2 * len(STAKES)),
        )

    @classmethod
    def from_tree(cls, tree: Tree) -> Self:
        """Return the reference that `to_tree` was called on."""
        parts = {
            "sample": Sample.from_tree(tree["sample"]),
            "blocks": Blocks.from_tree(tree["blocks"]),
        }
        return cls(**tree | parts)

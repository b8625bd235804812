"""Have embeddings moved, in whatever direction? A bet along a direction that is learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from llmobs.measures.drift.evidence import Evidence, IntArray, Sequential, Stateful, compiled, step
from llmobs.measures.drift.reference import Blocks, reference_error
from llmobs.measures.drift.state import Tree
from llmobs.records import FloatArray

__all__ = ["Basis", "WitnessE", "WitnessReference"]

STAKES: Final = np.array([0.1, 0.25, 0.5, 0.9])
# How long a witness remembers, in units: a fast one for large changes, a slow one for small.
HALF_LIVES: Final = np.array([25.0, 100.0, 400.0])
CLIP_SD: Final = 3.0
_WARM_UP: Final = 10  # units before the first bet
_RENEW_EVERY: Final = 5  # units for which a direction stands; looking anew costs d x d


@dataclass
class Basis(Stateful):
    """Principal directions of a sample, and the length of what they leave out.

    Attributes:
        mean: Shape (n_dimensions,), float32.
        directions: Shape (n_dimensions, n_directions), float32, orthonormal columns.
    """

    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, rows: npt.NDArray[np.float32], n_directions: int = 32) -> Basis:
        """Fit to rows of shape (n, n_dimensions), all finite, at least one."""
        mean = rows.mean(0)
        _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
        kept = np.ascontiguousarray(directions[:n_directions].T, dtype=np.float32)
        return cls(np.asarray(mean, dtype=np.float32), kept)

    def project(self, rows: npt.NDArray[np.float32]) -> FloatArray:
        """Return shape (n, n_directions + 1); the last is the length of the rest.

        A direction that the reference never used shows in the last one.
        """
        centred = rows - self.mean
        along = centred @ self.directions
        rest = np.sqrt(np.maximum((centred * centred).sum(1) - (along * along).sum(1), 0.0))
        return np.concatenate([along, rest[:, None]], axis=1).astype(np.float64)


@compiled
def _judge(
    at_ns: IntArray,
    units: FloatArray,
    covariance: FloatArray,
    clip_sd: float,
    gate: float,
    threshold: float,
    half_lives: FloatArray,
    stakes: FloatArray,
    n_before: int,
    witness: FloatArray,
    direction: FloatArray,
    payoffs: FloatArray,
    evidence: tuple[Any, ...],
) -> int:
    """Bet along the mean of the units before; return how many units were judged."""
    n_halves, n_dimensions = witness.shape
    n_stakes = len(stakes)
    worst = 1.0 + gate
    for i in range(len(units)):
        age = n_before + i
        mean = 0.0
        for h in range(n_halves):
            if age >= _WARM_UP and age % _RENEW_EVERY == 0:
                variance = 0.0
                for a in range(n_dimensions):
                    row = 0.0
                    for b in range(n_dimensions):
                        row += covariance[a, b] * witness[h, b]
                    variance += witness[h, a] * row
                scale = 1.0 / math.sqrt(max(variance, 1e-24))
                for a in range(n_dimensions):
                    direction[h, a] = witness[h, a] * scale
            along = 0.0
            for a in range(n_dimensions):
                along += direction[h, a] * units[i, a]
            if age >= _WARM_UP:
                payoff = (min(1.0, max(-1.0, along / clip_sd)) - gate) / worst
                for j in range(n_stakes):
                    ratio = 1.0 + stakes[j] * payoff
                    step(h * n_stakes + j, ratio, at_ns[i], along, 0.0, evidence)
            payoffs[i] = along if h == 0 else max(payoffs[i], along)
            for a in range(n_dimensions):
                witness[h, a] += (units[i, a] - witness[h, a]) / half_lives[h]
            for j in range(n_stakes):
                mean += evidence[0][h * n_stakes + j]
        if mean >= threshold * n_halves * n_stakes:
            return i + 1
    return len(units)


@dataclass
class WitnessE(Sequential):
    """E-detector for the mean of vectors, with a learned witness and no whitening.

    The witness is an average of the units before; the next unit is bet to lie along it. What
    is bet on was chosen before the unit came, so the bet is fair under the reference. Without
    whitening a change along directions of high variance (another model) is found sooner.

    Attributes:
        centre: Mean of units in the reference, shape (n_dimensions,).
        covariance: Covariance of units, shape (n_dimensions, n_dimensions).
        gate: Shifts up to this many standard deviations along the witness are no change.
        evidence: Four stakes for each half-life.
        witness: Shape (n_half_lives, n_dimensions).
        direction: The witness, scaled so that a unit's standard deviation along it is 1.
        n_units: Units judged.
        n_since_reset: Units since the witness began.

    References:
        Shekhar, S., Ramdas, A. (2021). Nonparametric two-sample testing by betting.
        arXiv:2112.09162.
    """

    centre: FloatArray
    covariance: FloatArray
    gate: float
    evidence: Evidence
    witness: FloatArray
    direction: FloatArray
    n_units: int = 0
    n_since_reset: int = 0

    @property
    def since_onset(self) -> tuple[float, int]:
        """Mean shift along the witness since the onset, in standard deviations; units."""
        k = self.evidence.strongest
        n = max(float(self.evidence.n[k]), 1.0)
        return float(self.evidence.observed[k]) / n, int(n)

    def update(
        self, at_ns: IntArray, units: FloatArray, log_threshold: float = np.inf
    ) -> tuple[int, FloatArray]:
        """Judge units in time order until the evidence reaches the threshold.

        Args:
            at_ns: Shape (n,), times in ns since 1970.
            units: Shape (n, n_dimensions), finite.
            log_threshold: Where to stop.

        Returns:
            How many units were judged, and how far each lies along the witness, in standard
            deviations, shape (n,).
        """
        payoffs = np.zeros(len(units))
        n = int(
            _judge(
                at_ns,
                np.ascontiguousarray(units - self.centre),
                self.covariance,
                CLIP_SD,
                self.gate / CLIP_SD,
                float(np.exp(log_threshold)),
                HALF_LIVES,
                STAKES,
                self.n_since_reset,
                self.witness,
                self.direction,
                payoffs,
                self.evidence.arrays,
            )
        )
        self.n_units += n
        self.n_since_reset += n
        return n, payoffs

    def reset(self) -> None:
        """Forget the evidence and the witness; the reference stays."""
        super().reset()
        self.witness[:] = 0
        self.direction[:] = 0
        self.n_since_reset = 0


@dataclass
class WitnessReference(Stateful):
    """Learns mean and covariance of units.

    Attributes:
        sums: Shape (n_dimensions,).
        products: Sum of outer products, shape (n_dimensions, n_dimensions).
        blocks: Sums by block of time, for slow benign changes.
    """

    sums: FloatArray
    products: FloatArray
    blocks: Blocks

    @classmethod
    def of(cls, n_dimensions: int) -> WitnessReference:
        """Return an empty reference."""
        d = n_dimensions
        return cls(np.zeros(d), np.zeros((d, d)), Blocks.of(1, d))

    @property
    def n_units(self) -> int:
        """Units learned."""
        return self.blocks.n_seen

    def learn(self, units: FloatArray) -> None:
        """Add units in time order, shape (n, n_dimensions), finite."""
        if not len(units):
            return
        self.sums += units.sum(0)
        self.products += units.T @ units
        self.blocks.add(np.zeros(len(units), np.int64), units)

    def detector(self, *, gate: float) -> WitnessE:
        """Pin the reference.

        Args:
            gate: Smallest shift that matters, in standard deviations along the shift.
                What the reference itself can't tell for sure is added, as independent.
        """
        n = float(max(self.n_units, 2))
        centre = self.sums / n
        covariance = (self.products - n * np.outer(centre, centre)) / (n - 1.0)
        variance = float(np.trace(covariance))
        # Dimensions that count: 1 when all variance lies along one, d when it is spread evenly.
        d_effective = variance**2 / max(float((covariance * covariance).sum()), 1e-24)
        d_effective = max(d_effective, 1.0)
        wander = self.blocks.wander(centre[None], variance, d_effective)
        shape = (len(HALF_LIVES), len(centre))
        return WitnessE(
            centre,
            np.ascontiguousarray(covariance),
            math.hypot(gate, reference_error(n, wander, d_effective)),
            Evidence.of(len(HALF_LIVES) * len(STAKES)),
            np.zeros(shape),
            np.zeros(shape),
        )

    @classmethod
    def from_tree(cls, tree: Tree) -> Self:
        """Return the reference that `to_tree` was called on."""
        return cls(**tree | {"blocks": Blocks.from_tree(tree["blocks"])})

"""What the reference holds: sums by hour, samples and blocks, all of a bounded size.

The reference of a monitor is *this hour, this route*: 48 cells (24 hours of a working day,
24 of a weekend) for each route, each shrunk to the mean of its route.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from llmobs.measures.drift.evidence import IntArray, Stateful
from llmobs.records import FloatArray

__all__ = [
    "CELLS_PER_ROUTE",
    "Blocks",
    "Sample",
    "hour_cells",
    "reference_error",
    "shrunk_profile",
]

CELLS_PER_ROUTE: Final = 48
_HOUR_NS: Final = 3_600_000_000_000
_DAY_NS: Final = 24 * _HOUR_NS
# 1970-01-01 was a Thursday; counted from Monday that is day 3.
_EPOCH_WEEKDAY: Final = 3
# An hour's own mean counts as much as its route's when it holds this many units.
PSEUDO_COUNT: Final = 100.0


def hour_cells(at_ns: IntArray) -> IntArray:
    """Return the cell of each time: the hour (UTC), plus 24 on Saturdays and Sundays.

    Args:
        at_ns: Shape (n,), ns since 1970.
    """
    weekend = (at_ns // _DAY_NS + _EPOCH_WEEKDAY) % 7 >= 5
    return np.asarray(at_ns // _HOUR_NS % 24 + 24 * weekend, dtype=np.int64)


def shrunk_profile(n: FloatArray, sums: FloatArray, *, seasonal: bool) -> FloatArray:
    """Estimate the mean of every cell, shrunk to the mean of its route.

    A cell borrows half the weight of the hours beside it. With 100 pseudo-units at the mean
    of its route a cell without units equals that mean.

    Args:
        n: Units, shape (n_routes * 48,).
        sums: Sums, shape (n_routes * 48,) or (n_routes * 48, n_dimensions).
        seasonal: False: every cell is its route's mean (the reference is too short for hours).

    Returns:
        Shape as `sums`; a route without units has the mean of all.
    """
    shape = sums.shape
    n4 = n.reshape(-1, 2, 24, 1)
    s4 = sums.reshape(n4.shape[0], 2, 24, -1)
    overall = s4.sum((0, 1, 2)) / max(float(n.sum()), 1.0)
    n_route = n4.sum((1, 2), keepdims=True)
    route = np.where(n_route > 0, s4.sum((1, 2), keepdims=True) / np.maximum(n_route, 1), overall)
    if not seasonal:
        return np.asarray(np.broadcast_to(route, s4.shape).reshape(shape).copy())

    def smooth(x: FloatArray) -> FloatArray:
        return x + 0.5 * (np.roll(x, 1, axis=2) + np.roll(x, -1, axis=2))

    cells = (smooth(s4) + PSEUDO_COUNT * route) / (smooth(n4) + PSEUDO_COUNT)
    return np.asarray(cells.reshape(shape))


def reference_error(n: float, wander: float, n_dimensions: float = 1.0) -> float:
    """Bound how far the estimated reference may lie from the true one.

    The length of a normal error in d dimensions rarely exceeds sqrt(d) + 2 of its standard
    deviations; in one dimension that is the usual three.

    Args:
        n: Units in the reference.
        wander: Variance of slow benign changes, in units of a unit's variance (`Blocks`).
        n_dimensions: Effective dimensions of what was estimated.

    Returns:
        The bound, in standard deviations of one unit.
    """
    return (math.sqrt(n_dimensions) + 2.0) * math.sqrt(1.0 / max(n, 1.0) + wander)


@dataclass
class Sample(Stateful):
    """Every `stride`-th row of a stream; when full, every second is dropped.

    It spreads evenly over the whole stream, has a bounded size and needs no dice.

    Attributes:
        rows: Shape (capacity, ...).
        n_rows: Rows that are filled.
        stride: One of so many rows is kept.
        n_seen: Rows seen so far.
    """

    rows: npt.NDArray[np.generic]
    n_rows: int = 0
    stride: int = 1
    n_seen: int = 0

    def __post_init__(self) -> None:
        if len(self.rows) % 2:
            raise ValueError(f"the capacity must be even, not {len(self.rows)}")

    @property
    def filled(self) -> npt.NDArray[np.generic]:
        """The rows kept so far, oldest first."""
        return self.rows[: self.n_rows]

    def add(self, rows: npt.NDArray[np.generic]) -> None:
        """Show further rows, shape (n, ...)."""
        start = self.n_seen
        self.n_seen += len(rows)
        index = -(-start // self.stride) * self.stride
        while index < self.n_seen:
            if self.n_rows == len(self.rows):
                self._thin()  # the capacity is even, so `index` stays a multiple of the stride
            self.rows[self.n_rows] = rows[index - start]
            self.n_rows += 1
            index += self.stride

    def _thin(self) -> None:
        kept = self.rows[::2].copy()
        self.rows[: len(kept)] = kept
        self.n_rows = len(kept)
        self.stride *= 2


@dataclass
class Blocks(Stateful):
    """Sums over successive blocks of units; their spread shows slow benign changes.

    When all blocks are full, neighbours are joined and blocks become twice as long.

    Attributes:
        n: Units by block and cell, shape (n_blocks, n_cells).
        sums: Sums by block, shape (n_blocks, n_dimensions).
        length: Units in a full block.
        n_seen: Units so far.
    """

    n: FloatArray
    sums: FloatArray
    length: int = 8
    n_seen: int = 0

    @classmethod
    def of(cls, n_cells: int, n_dimensions: int = 1, n_blocks: int = 32) -> Blocks:
        """Return empty blocks; `n_blocks` must be even."""
        return cls(np.zeros((n_blocks, n_cells)), np.zeros((n_blocks, n_dimensions)))

    def add(self, cells: IntArray, values: FloatArray) -> None:
        """Add units in time order: cells of shape (n,), values of shape (n, n_dimensions)."""
        while (self.n_seen + len(cells) - 1) // self.length >= len(self.n):
            self._join()
        block = (self.n_seen + np.arange(len(cells))) // self.length
        np.add.at(self.n, (block, cells), 1.0)
        np.add.at(self.sums, block, values)
        self.n_seen += len(cells)

    def _join(self) -> None:
        half = len(self.n) // 2
        for array in (self.n, self.sums):
            array[:half] = array[::2] + array[1::2]
            array[half:] = 0
        self.length *= 2

    def wander(self, profile: FloatArray, variance: float, n_dimensions: float = 1.0) -> float:
        """Measure how much block means differ beyond chance, once the profile is taken off.

        Args:
            profile: Mean by cell, shape (n_cells, n_dimensions).
            variance: Variance of a unit around its profile, summed over dimensions.
            n_dimensions: Effective dimensions, for how well chance is known.

        Returns:
            The excess variance of a block's mean, in units of `variance`; 0 with fewer than
            four full blocks, or where chance suffices to explain the spread.
        """
        full = self.n.sum(1) == self.length
        n_full = int(full.sum())
        if n_full < 4 or variance <= 0:
            return 0.0
        residual = (self.sums[full] - self.n[full] @ profile) / self.length
        spread = float(residual.var(0, ddof=1).sum()) / variance
        chance = 1.0 / self.length
        doubt = 2.0 * math.sqrt(2.0 / ((n_full - 1) * n_dimensions))
        return max(0.0, spread - chance * (1.0 + doubt))

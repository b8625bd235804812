"""The seam of the monitors: units in time order go in, evidence comes out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["DriftDetector"]


class DriftDetector(Protocol):
    """A sequential test of one statistic: looking at it at any time costs nothing.

    It lives through two phases. While the reference fills, `learn` is called; `pin` ends
    that phase; from then on `update`. All of it is deterministic, and its state survives
    `to_state` and `from_state` to the bit.
    """

    @property
    def log_e(self) -> float:
        """Natural log of the evidence against "as in the reference"; -inf before any."""

    @property
    def n_units(self) -> int:
        """Units judged since the reference was pinned (or since the last alarm)."""

    def update(self, cells: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        """Judge units in time order.

        Args:
            cells: Shape (n,): which cell of the reference (hour of the week, route) each is in.
            values: Shape (n,) or (n, n_dimensions).
        """

    def reset(self) -> None:
        """Start anew after an alarm; the reference stays."""

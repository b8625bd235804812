"""The seam of the monitors: units in time order go in, evidence comes out."""

from __future__ import annotations

from typing import Any, Protocol

from llmobs.measures.drift import Tree

__all__ = ["DriftDetector"]


class DriftDetector(Protocol):
    """A sequential test of one statistic: looking at it at any time costs nothing.

    It is made from a pinned reference and judges what comes after. It is deterministic, and
    its state survives `to_tree` and back to the bit. `update` takes the times of the units,
    what the detector judges of them, and the threshold; it stops at the unit that reaches the
    threshold and tells how many units it judged, so that no evidence is lost in a batch.
    """

    n_units: int

    @property
    def log_e(self) -> float:
        """Natural log of the evidence against "as in the reference"; -inf before any."""

    @property
    def onset_ns(self) -> int:
        """Time of the last unit that spoke for the reference; -1 before any."""

    @property
    def n_since_onset(self) -> int:
        """Units since the onset."""

    def reset(self) -> None:
        """Start anew after an alarm; the reference stays."""

    def to_tree(self) -> Tree:
        """Return the state as a tree of arrays and plain values."""

    @classmethod
    def from_tree(cls, tree: Tree) -> Any:
        """Return the detector that `to_tree` was called on."""

"""Have the shares of categories moved? Topics, languages, models, tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import betaincinv

from llmobs.measures.drift.evidence import Evidence, IntArray, Sequential, Stateful, compiled, step
from llmobs.measures.drift.reference import CELLS_PER_ROUTE, shrunk_profile
from llmobs.records import FloatArray

__all__ = ["CategoryE", "CategoryReference"]

# The alternatives: of all that is not this category, so much became this category.
_DELTAS: Final = np.array([0.03, 0.08, 0.25])
_MAX_NULL: Final = 0.97
_UPPER: Final = 0.99


@compiled
def _judge(
    at_ns: IntArray,
    cells: IntArray,
    codes: IntArray,
    null_shares: FloatArray,
    deltas: FloatArray,
    threshold: float,
    evidence: tuple[Any, ...],
) -> int:
    """Multiply Bernoulli likelihood ratios; return how many units were judged."""
    n_categories = null_shares.shape[1]
    n_deltas = len(deltas)
    for i in range(len(codes)):
        mean = 0.0
        for category in range(n_categories):
            hit = codes[i] == category
            share = null_shares[cells[i], category]
            for j in range(n_deltas):
                # (1 - q) / (1 - p) with q = p + delta (1 - p), and q / p.
                ratio = 1.0 - deltas[j]
                if hit:
                    ratio += deltas[j] / share
                k = category * n_deltas + j
                step(k, ratio, at_ns[i], 1.0 if hit else 0.0, share, evidence)
                mean += evidence[0][k]
        if mean >= threshold * n_categories * n_deltas:
            return i + 1
    return len(codes)


@dataclass
class CategoryE(Sequential):
    """E-detector for "some category has a larger share than in the reference".

    The unit is the first call of a session: no waiting for its end, and no correlation within
    sessions. For every set of true shares inside the gate each sum is an e-detector, so their
    mean is one.

    Attributes:
        shares: Expected shares by cell, shape (n_routes * 48, n_categories).
        null_shares: Shares up to these are no change; shape as `shares`, above 0.
        evidence: Three alternatives for each category.
        n_units: Units judged.
    """

    shares: FloatArray
    null_shares: FloatArray
    evidence: Evidence
    n_units: int = 0

    def top(self, n: int = 5) -> list[int]:
        """Return the categories with the most evidence, strongest first."""
        by_category = self.evidence.sums.reshape(-1, len(_DELTAS)).sum(1)
        return [int(k) for k in np.argsort(-by_category, kind="stable")[:n]]

    def update(
        self,
        at_ns: IntArray,
        cells: IntArray,
        codes: IntArray,
        log_threshold: float = np.inf,
    ) -> int:
        """Judge units in time order until the evidence reaches the threshold.

        Args:
            at_ns: Shape (n,), times in ns since 1970.
            cells: Shape (n,), cell of the profile.
            codes: Shape (n,), categories in [0, n_categories).
            log_threshold: Where to stop.

        Returns:
            How many units were judged.
        """
        threshold = float(np.exp(log_threshold))
        arrays = self.evidence.arrays
        n = int(_judge(at_ns, cells, codes, self.null_shares, _DELTAS, threshold, arrays))
        self.n_units += n
        return n


@dataclass
class CategoryReference(Stateful):
    """Counts first calls by cell and category.

    Attributes:
        counts: Shape (n_routes * 48, n_categories).
    """

    counts: FloatArray

    @classmethod
    def of(cls, n_categories: int, n_routes: int = 1) -> CategoryReference:
        """Return an empty reference."""
        return cls(np.zeros((n_routes * CELLS_PER_ROUTE, n_categories)))

    @property
    def n_units(self) -> int:
        """Units learned."""
        return int(self.counts.sum())

    def learn(self, cells: IntArray, codes: IntArray) -> None:
        """Add units: cells and categories of shape (n,)."""
        np.add.at(self.counts, (cells, codes), 1.0)

    def detector(self, *, lift: float, floor: float, seasonal: bool) -> CategoryE:
        """Pin the reference.

        Args:
            lift: Shares up to (1 + lift) times the reference are no change …
            floor: … and so much more of all units on top.
            seasonal: Compare with the hour, not only with the route.
        """
        n_cells, n_categories = self.counts.shape
        shares = shrunk_profile(self.counts.sum(1), self.counts, seasonal=seasonal)
        by_route = self.counts.reshape(-1, CELLS_PER_ROUTE, n_categories).sum(1)
        n_route = by_route.sum(1, keepdims=True)
        upper = betaincinv(by_route + 0.5, n_route - by_route + 0.5, _UPPER)
        # How much more a category may have than the reference happened to show.
        doubt = np.maximum(upper - by_route / np.maximum(n_route, 1.0), 0.0)
        null = (shares + np.repeat(doubt, CELLS_PER_ROUTE, axis=0)) * (1.0 + lift) + floor
        null_shares = np.ascontiguousarray(np.clip(null, 1e-6, _MAX_NULL))
        evidence = Evidence.of(n_categories * len(_DELTAS))
        assert shares.shape == (n_cells, n_categories)
        return CategoryE(np.ascontiguousarray(shares), null_shares, evidence)

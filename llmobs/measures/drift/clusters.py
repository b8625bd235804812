"""A codebook of topics: k-means on embeddings, frozen, plus "far" for what it never saw."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2

from llmobs.measures.drift.evidence import IntArray, Stateful
from llmobs.records import FloatArray

__all__ = ["Codebook"]

_SEED: Final = 6  # any: the same sample gives the same clusters
_ITERATIONS: Final = 15
# A cluster needs about this many rows of the sample to have a centre.
_ROWS_PER_CLUSTER: Final = 12
# Of a squared distance, relative to the squared length of a row.
_ROUNDING: Final = 1e-5


@dataclass
class Codebook(Stateful):
    """Frozen centroids and the distance beyond which a row belongs to none of them.

    Attributes:
        centroids: Shape (n_clusters, n_dimensions), float32.
        far: Squared distance beyond which a row is "far".
    """

    centroids: npt.NDArray[np.float32]
    far: float

    @property
    def n_codes(self) -> int:
        """Clusters, and "far"."""
        return len(self.centroids) + 1

    @classmethod
    def fit(
        cls,
        rows: npt.NDArray[np.float32],
        *,
        max_clusters: int = 32,
        far_quantile: float = 0.99,
    ) -> Codebook:
        """Cluster a sample of the reference.

        Every fifth row is held out: its distances say what is far, since rows that moved the
        centroids lie too close to them.

        Args:
            rows: Shape (n, n_dimensions), at least 10 rows, all finite.
            max_clusters: Upper bound; a small sample gets fewer.
            far_quantile: Share of the held-out rows that are not far.

        Raises:
            ValueError: There are fewer than 10 rows.
        """
        if len(rows) < 10:
            raise ValueError(f"a codebook needs at least 10 rows, got {len(rows)}")
        held_out = np.arange(len(rows)) % 5 == 0
        train = np.unique(np.asarray(rows[~held_out], dtype=np.float64), axis=0)
        k = int(np.clip(len(train) // _ROWS_PER_CLUSTER, 1, max_clusters))
        with warnings.catch_warnings():
            # A cluster that lost all its rows is no fault: it is left out below.
            warnings.simplefilter("ignore", UserWarning)
            centroids, labels = kmeans2(train, k, iter=_ITERATIONS, minit="++", seed=_SEED)
        used = np.bincount(labels, minlength=k) > 0
        book = cls(np.asarray(centroids[used], dtype=np.float32), np.inf)
        _, distances = book.nearest(rows[held_out])
        # Above the rounding of float32, or rows that are all the same would be far by turns.
        rounding = _ROUNDING * float((train * train).sum(1).mean())
        book.far = max(float(np.quantile(distances, far_quantile)), rounding)
        return book

    def nearest(self, rows: npt.NDArray[np.float32]) -> tuple[IntArray, FloatArray]:
        """Return the nearest centroid of each row and the squared distance, both shape (n,)."""
        norms = (self.centroids * self.centroids).sum(1)
        closeness = rows @ self.centroids.T - norms / 2
        codes = closeness.argmax(1)
        best = closeness[np.arange(len(rows)), codes]
        distances = (rows * rows).sum(1) - 2 * best
        return codes.astype(np.int64), distances.astype(np.float64)

    def assign(self, rows: npt.NDArray[np.float32]) -> IntArray:
        """Return the code of each row of shape (n, n_dimensions): a cluster, or the last for far.

        A row of NaN has no code: -1.
        """
        known = np.isfinite(rows[:, 0]) if len(rows) else np.zeros(0, dtype=bool)
        codes, distances = self.nearest(np.where(known[:, None], rows, np.float32(0)))
        codes[distances > self.far] = len(self.centroids)
        codes[~known] = -1
        return codes

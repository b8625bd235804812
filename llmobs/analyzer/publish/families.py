"""Bounded families of series, filled from columns without a Python step per span."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from llmobs.analyzer.publish.catalogue import CLOSED_LABELS, MetricSpec
from llmobs.analyzer.publish.columns import Groups, IntArray, Labels, SpanColumns
from llmobs.records import FloatArray

__all__ = ["OTHER", "Exemplar", "Family", "Series", "Snapshot"]

OTHER: Final = "(other)"
"""Value of a label that stands for all label sets beyond a family's bound."""

# Names of models, tools and error classes are shorter; a longer one is a text somebody put there.
_MAX_LABEL_LENGTH: Final = 120
# Our own code has fewer.
_MAX_CLOSED_VALUES: Final = 32


class Exemplar(NamedTuple):
    """A call that stands behind a bucket; ids in hex."""

    trace_id: str
    span_id: str
    value: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Series:
    """One series as it stands now.

    Attributes:
        labels: Values in the order of the metric's labels.
        value: A counter's or gauge's value; a histogram's sum.
        buckets: A histogram's counts by bucket, not cumulative, the last one unbounded.
        created_s: When the series began, in seconds since 1970.
        exemplars: By bucket.
    """

    labels: Labels
    value: float
    created_s: float
    buckets: tuple[float, ...] = ()
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)


Snapshot: TypeAlias = list[tuple[MetricSpec, list[Series]]]
"""Every metric that has series, in the catalogue's order."""


class Family:
    """All series of one counter or histogram.

    Counts are floats: a sampled span stands for more than one call. The number of series
    is bounded; label sets beyond the bound share series in which every open label that is
    not empty reads "(other)", so that totals, error ratios and checks stay right. A closed
    label keeps the first values it had: evaluators elsewhere may send any word as a verdict.
    """

    def __init__(self, spec: MetricSpec, *, max_series: int, now_s: Callable[[], float]) -> None:
        self.spec = spec
        self.n_folded = 0
        self._max_series = max_series
        self._now_s = now_s
        self._bounds = np.asarray(spec.bounds, np.float64)
        width = len(spec.bounds) + 2 if spec.kind == "histogram" else 1  # buckets, +Inf, sum
        self._table = np.zeros((16, width))
        self._rows: dict[Labels, int] = {}
        self._created_s: list[float] = []
        self._exemplars: dict[int, dict[int, Exemplar]] = {}
        self._closed: dict[str, set[str]] = {
            name: set() for name in spec.labels if name in CLOSED_LABELS
        }

    def touch(self, labels: Labels) -> int:
        """Return the row of a label set; a new series starts at 0."""
        row = self._rows.get(labels)
        if row is None:
            labels = self._bounded(labels)
            row = self._rows.setdefault(labels, len(self._rows))
        if row == len(self._created_s):
            self._created_s.append(self._now_s())
            if row == len(self._table):
                self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        return row

    def _bounded(self, labels: Labels) -> Labels:
        cut = tuple(v if len(v) <= _MAX_LABEL_LENGTH else OTHER for v in labels)
        named = list(zip(self.spec.labels, cut, strict=True))
        for name, known in self._closed.items():
            if len(known) < _MAX_CLOSED_VALUES:
                known.add(dict(named)[name])
        if len(self._rows) < self._max_series or cut in self._rows:
            return cut
        self.n_folded += 1
        return tuple(
            value if not value or value in self._closed.get(name, ()) else OTHER
            for name, value in named
        )

    def add(self, groups: Groups, amounts: FloatArray) -> None:
        """Add to a counter, one amount a row."""
        totals = np.bincount(groups.which, amounts, len(groups.labels))
        for labels, total in zip(groups.labels, totals, strict=True):
            row = self.touch(labels)
            self._table[row, 0] += total

    def observe(self, groups: Groups, values: FloatArray, weights: FloatArray) -> IntArray:
        """Put values into a histogram, each as often as its weight says.

        Returns:
            The cell (row and bucket) of each value, for `keep_exemplars`.
        """
        rows = np.array([self.touch(labels) for labels in groups.labels], np.int64)
        width = self._table.shape[1]
        # "le" means at most: the first bound that is not below the value.
        cells = rows[groups.which] * width + np.searchsorted(self._bounds, values, side="left")
        flat = self._table.reshape(-1)
        np.add.at(flat, cells, weights)
        np.add.at(flat, rows[groups.which] * width + width - 1, weights * values)
        return cells

    def keep_exemplars(self, cells: IntArray, values: FloatArray, spans: SpanColumns) -> None:
        """Remember the last call of every cell that `observe` returned."""
        width = self._table.shape[1]
        distinct, last = np.unique(cells[::-1], return_index=True)
        for cell, row in zip(distinct, len(cells) - 1 - last, strict=True):
            exemplar = Exemplar(
                trace_id=spans.trace_id[int(row)].as_py().hex(),
                span_id=spans.span_id[int(row)].as_py().hex(),
                value=float(values[row]),
                time_s=float(spans.end_s[row]),
            )
            self._exemplars.setdefault(int(cell) // width, {})[int(cell) % width] = exemplar

    def series(self) -> Iterator[Series]:
        """Copy out every series."""
        for labels, row in self._rows.items():
            cells = self._table[row]
            yield Series(
                labels,
                value=float(cells[-1]),
                created_s=self._created_s[row],
                buckets=tuple(cells[:-1].tolist()),
                exemplars=dict(self._exemplars.get(row, {})),
            )

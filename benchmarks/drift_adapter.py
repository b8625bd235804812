"""The detectors of `llmobs.measures.drift` behind the interface of a drift benchmark.

A benchmark that calls ``fit(reference)``, ``update(batch)`` and ``score()`` on objects with
``signal``, ``name`` and ``threshold``, and whose streams have the columns ``t`` (seconds from a
Monday 00:00), ``sid``, ``app``, the signals, and ``emb()`` and ``oemb()``, runs them with:

    PYTHONPATH=. python drift_bench.py far --days 7 --seeds 1 --nulls seasonal+sessions \
        --adapter benchmarks.drift_adapter:Adapter,tok_in,score,topic,oemb --det llmobs
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.monitor.sessions import Sessions
from llmobs.measures.drift import (
    CELLS_PER_ROUTE,
    OPENED,
    TURNED,
    Basis,
    CategoryReference,
    Codebook,
    MeanReference,
    RateReference,
    WitnessReference,
    hour_cells,
    log_threshold,
)

__all__ = ["Adapter"]

N_ROUTES: Final = 3
MONDAY_S: Final = 4 * 86_400  # 1970-01-05
N_SAMPLE: Final = 6000
Ints = npt.NDArray[np.int64]


class Adapter:
    """One monitor: features of a call, units of a session, and the detector for the signal."""

    name = "llmobs"

    def __init__(self, signal: str) -> None:
        self.signal = signal
        # One false alarm in 300,000 sessions, as the detectors it is compared with.
        self.threshold = log_threshold(1, 1e4, 1.0, 30.0)
        self.of_first_call = signal in ("topic", "lang", "emb")
        self.sessions = self._new_sessions(1)

    def _new_sessions(self, width: int) -> Sessions:
        return Sessions(n_flags=2, n_sums=width, idle_s=600.0, cap_s=3600.0, max_open=8192)

    def fit(self, ref: Any) -> None:
        """Learn from a reference without drift."""
        rows = np.linspace(0, len(ref) - 1, min(len(ref), N_SAMPLE)).astype(int)
        reference: Any
        if self.signal in ("topic", "lang", "emb"):
            if self.signal == "emb":
                self.book = Codebook.fit(ref[rows].emb(), max_clusters=96)
            n = {"topic": 32, "lang": 8}.get(self.signal) or self.book.n_codes
            first = np.unique(ref.sid, return_index=True)[1]
            reference = CategoryReference.of(n, N_ROUTES)
            reference.learn(self._cells(ref)[first], self._codes(ref)[first])
            self.detector = reference.detector(lift=0.25, floor=0.004, seasonal=True)
        elif self.signal == "refused":
            positive = np.bincount(ref.sid, ref.refused)
            n_sessions = np.bincount(ref.sid)
            reference = RateReference(int((n_sessions > 0).sum()), int((positive > 0).sum()))
            self.detector = reference.detector(lift=0.2, floor=0.005)
        elif self.signal == "oemb":
            self.basis = Basis.fit(ref[rows].oemb(), 64)
            values = self.basis.project(ref.oemb())
            self.route_means = np.stack([values[ref.app == r].mean(0) for r in range(N_ROUTES)])
            reference = WitnessReference.of(values.shape[1])
            reference.learn(self._unit_means(ref, values - self.route_means[ref.app])[1])
            self.detector = reference.detector(gate=0.1)
            self.sessions = self._new_sessions(values.shape[1])
        else:
            first, means = self._unit_means(ref, self._values(ref)[:, None])
            reference = MeanReference.of(N_ROUTES)
            reference.learn(self._cells(ref)[first], means[:, 0])
            self.detector = reference.detector(gate=0.1, seasonal=True)
            self.sessions = self._new_sessions(2)

    def update(self, batch: Any) -> None:
        """Judge what came since the last check."""
        if not len(batch):
            return
        at_ns = ((batch.t + MONDAY_S) * 1e9).astype(np.int64)
        keys = [str(session) for session in batch.sid]
        slots = self.sessions.assign(keys, at_ns, np.zeros((len(keys), 16), np.uint8))
        if self.of_first_call:
            rows = self.sessions.first(slots, 0)
            codes = self._codes(batch[rows])
            self.detector.update(at_ns[rows], self._cells(batch[rows]), codes)
        elif self.signal == "refused":
            opened = self.sessions.first(slots, 0)
            refused = np.flatnonzero(batch.refused)
            turned = refused[self.sessions.first(slots[refused], 1)]
            events = np.repeat([OPENED, TURNED], [len(opened), len(turned)])
            rows = np.concatenate([opened, turned])
            order = np.lexsort((events, rows))
            self.detector.update(at_ns[rows[order]], events[order])
        elif self.signal == "oemb":
            residuals = self.basis.project(batch.oemb()) - self.route_means[batch.app]
            self.sessions.add(slots, residuals)
        else:
            self.sessions.add(slots, np.stack([self._values(batch), batch.app], axis=1))
        closed = self.sessions.close(int(at_ns[-1]))
        if len(closed.at_ns) and not self.of_first_call and self.signal != "refused":
            means = closed.sums / closed.counts
            if self.signal == "oemb":
                self.detector.update(closed.at_ns, means)
            else:
                routes = np.rint(means[:, 1]).astype(np.int64)
                cells = hour_cells(closed.at_ns) + CELLS_PER_ROUTE * routes
                self.detector.update(closed.at_ns, cells, means[:, 0])

    def score(self) -> float:
        """Return the evidence."""
        return float(max(self.detector.log_e, -20.0))

    def _values(self, stream: Any) -> npt.NDArray[np.float64]:
        values = np.asarray(getattr(stream, self.signal), dtype=np.float64)
        return np.log(values + 1) if self.signal.startswith("tok") else values

    def _codes(self, stream: Any) -> Ints:
        if self.signal == "emb":
            return self.book.assign(stream.emb())
        return np.asarray(getattr(stream, self.signal), dtype=np.int64)

    def _cells(self, stream: Any) -> Ints:
        at_ns = ((stream.t + MONDAY_S) * 1e9).astype(np.int64)
        return hour_cells(at_ns) + CELLS_PER_ROUTE * np.asarray(stream.app, dtype=np.int64)

    @staticmethod
    def _unit_means(stream: Any, values: npt.NDArray[Any]) -> tuple[Ints, npt.NDArray[np.float64]]:
        """Return the row of each session's first call, and the means over its calls."""
        _, first, inverse = np.unique(stream.sid, return_index=True, return_inverse=True)
        sums = np.zeros((len(first), values.shape[1]))
        np.add.at(sums, inverse, values)
        order = np.argsort(first)
        means = sums / np.bincount(inverse)[:, None]
        return first[order], means[order]

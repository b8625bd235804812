"""Scoring again what was scored by an earlier version of a scorer.

What was stored of the earlier version stays; what people see is the version that was stored last.
Monitors and metrics counted these calls when they came, and hear nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmobs.analyzer.pipeline import with_content
from llmobs.analyzer.score import ScoreStage
from llmobs.analyzer.store.base import NOTHING, Row, Store
from llmobs.records import Cursor, ScoreColumn, Scores, SpanBatch

__all__ = ["Rescorer"]

# About half a second of work: often enough to show progress and to be broken off.
_SPANS: Final = 2048

_Known: TypeAlias = Mapping[tuple[str, str, str], npt.NDArray[np.bool_]]
"""By name, target and version: which spans have a score."""


class Rescorer:
    """Scores the spans of a window again, a few thousand at a time.

    It keeps no books: a span that has a score of a scorer's version is not scored by it again.
    So whoever was interrupted begins anew, and what is done goes by quickly.

    Args:
        store: Has the spans.
        stage: Its scorers are asked, in turn with the scoring of what comes in.
        scored: How far that has come; what lies behind it is left to it.
    """

    def __init__(self, store: Store, stage: ScoreStage, scored: Callable[[], Cursor]) -> None:
        self._store, self._stage, self._scored = store, stage, scored
        self._stages: dict[frozenset[str], ScoreStage] = {}
        self._one_at_a_time = threading.Lock()  # or two would score the same

    def step(self, since_ns: int, until_ns: int, names: Sequence[str], after: int) -> Row:
        """Score the next spans of a window.

        Args:
            since_ns: Begin of the window.
            until_ns: Its end, exclusive.
            names: Of scorers; empty: all.
            after: What the last step returned under this name; -1 at first.

        Returns:
            after (-1: done), n_spans read, n_scores stored, n_left (spans behind `after`),
            failed (reason by scorer: their scores are missing; begin anew to try again),
            versions (by scorer).

        Raises:
            ConfigurationError: A name is no scorer's.
        """
        with self._one_at_a_time:
            stage = self._stage_of(frozenset(names or self._stage.versions))
            spans, last, n_left = self._store.history(
                since_ns, until_ns, after, self._scored(), _SPANS
            )
            n_scores, failed = self._score(stage, spans, last)
            return {
                "after": last if n_left else NOTHING,
                "n_spans": len(spans),
                "n_scores": n_scores,
                "n_left": n_left,
                "failed": failed,
                "versions": dict(stage.versions),
            }

    def _stage_of(self, names: frozenset[str]) -> ScoreStage:
        if names not in self._stages:  # kept, since it knows which scorers hang
            self._stages[names] = self._stage.beside(names)
        return self._stages[names]

    def _score(self, stage: ScoreStage, spans: SpanBatch, last: int) -> tuple[int, dict[str, str]]:
        """Score what some scorer has not; return how many scores are new, and what failed."""
        spans = with_content(self._store, spans)
        known: _Known = {
            (column.name, column.target, column.version): ~np.isnan(column.values)
            for column in self._store.scores_of(spans, stage.versions)
        }
        lacking = {
            name: lacks
            for name, version in stage.versions.items()
            if (lacks := _lacks(name, version, known, len(spans))).any()
        }
        if not lacking:
            return 0, {}
        rows = np.flatnonzero(np.any(list(lacking.values()), axis=0))
        left = SpanBatch(spans.table.take(pa.array(rows)))
        scores = self._stage_of(frozenset(lacking)).score(left)
        new = tuple(_without(column, known, rows) for column in scores.columns)
        self._store.append_scores(last, left, Scores(new, {}))
        n_new = sum(int(np.count_nonzero(~np.isnan(column.values))) for column in new)
        return n_new, dict(scores.failed)


def _lacks(name: str, version: str, known: _Known, n_spans: int) -> npt.NDArray[np.bool_]:
    """Return which spans have no score of a scorer's version, shape (n_spans,)."""
    said = [has for (of, _, by), has in known.items() if (of, by) == (name, version)]
    return ~np.any(said, axis=0) if said else np.ones(n_spans, np.bool_)


def _without(
    column: ScoreColumn,
    known: _Known,
    rows: npt.NDArray[np.int64],
) -> ScoreColumn:
    """Return a column without what is stored already."""
    has = known.get((column.name, column.target, column.version))
    if has is None:
        return column
    return replace(column, values=np.where(has[rows], np.nan, column.values))

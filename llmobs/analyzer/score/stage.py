"""All scorers over one batch; each may fail without costing another its column."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from llmobs import registry
from llmobs.analyzer.score.base import DistinctTexts, Scorer, Source, Target, Verdicts
from llmobs.errors import ConfigurationError
from llmobs.measures.text import TextEncoder, TextFeatures
from llmobs.records import ScoreColumn, Scores, SpanBatch
from llmobs.semconv import INFERENCE_OPERATIONS, OPERATION_EXECUTE_TOOL, OPERATION_RETRIEVAL

__all__ = ["Batch", "ScoreStage", "load_scorers"]

logger = logging.getLogger(__name__)

_GROUP: Final = "llmobs.scorers"
_FETCHING_OPERATIONS: Final = frozenset({OPERATION_EXECUTE_TOOL, OPERATION_RETRIEVAL})
# A scorer that fails three times running will fail the fourth; it is tried again later.
_MAX_FAILURES: Final = 3
_FIRST_PAUSE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 3600.0


def load_scorers(names: Sequence[str] | None = None) -> list[Scorer]:
    """Load scorers by entry point.

    Args:
        names: Which; None: all that are installed.

    Raises:
        ConfigurationError: An unknown name, or a scorer that can't be made.
    """
    return [_load(name) for name in (registry.names(_GROUP) if names is None else names)]


def _load(name: str) -> Scorer:
    make: Callable[[], Scorer] = registry.load(_GROUP, name)
    try:
        return make()
    except Exception as error:  # someone else's code
        raise ConfigurationError(
            f"scorer {name!r} can't be made: {type(error).__name__}; leave it out of `scorers`"
        ) from error


@dataclass(frozen=True)
class _Distinct:
    """`DistinctTexts` of one column."""

    texts: Sequence[str]
    rows: npt.NDArray[np.int64]
    encoder: TextEncoder

    @cached_property
    def features(self) -> TextFeatures:
        return self.encoder.encode(self.texts)


@dataclass(frozen=True)
class Batch:
    """`ScoringInput` over the spans of one batch."""

    spans: SpanBatch
    encoder: TextEncoder

    @cached_property
    def is_inference(self) -> npt.NDArray[np.bool_]:
        """Shape (n,): the span asked a model for an answer."""
        return self._is_any(INFERENCE_OPERATIONS)

    def distinct(self, source: Source) -> DistinctTexts:
        """Return the texts to judge; see `ScoringInput`."""
        if source == "input":
            return self._inputs
        return self._outputs if source == "output" else self._contexts

    def embeddings(self, source: Literal["input", "output"]) -> npt.NDArray[np.float32]:
        """Return one vector a span, shape (n, n_dimensions); NaN where there is no text."""
        distinct = self.distinct(source)
        vectors = distinct.features.embeddings
        # An embedding of length 0 (no known word) says as little as no text.
        vectors = np.where(np.any(vectors, axis=1, keepdims=True), vectors, np.float32(np.nan))
        blank = np.full((1, vectors.shape[1]), np.nan, np.float32)
        return np.concatenate((vectors, blank))[distinct.rows]  # -1 finds the last

    @cached_property
    def _inputs(self) -> _Distinct:
        return self._collect(self.spans.texts("input_text"), self.is_inference)

    @cached_property
    def _outputs(self) -> _Distinct:
        return self._collect(self.spans.texts("output_text"), self.is_inference)

    @cached_property
    def _contexts(self) -> _Distinct:
        fetches = self._is_any(_FETCHING_OPERATIONS)
        # What a tool returned is its span's output; retrieved documents may stand in either.
        texts = [
            f"{context}\n{output}" if fetched and context and output else
            context or (output if fetched else "")
            for context, output, fetched in zip(
                self.spans.texts("context_text"),
                self.spans.texts("output_text"),
                fetches.tolist(),
                strict=True,
            )
        ]  # fmt: skip
        return self._collect(texts, self.is_inference | fetches)

    def _collect(self, texts: Sequence[str], judged: npt.NDArray[np.bool_]) -> _Distinct:
        number: dict[str, int] = {}
        rows = [
            number.setdefault(text, len(number)) if judge and text.strip() else -1
            for text, judge in zip(texts, judged.tolist(), strict=True)
        ]
        return _Distinct(list(number), np.asarray(rows, np.int64), self.encoder)

    def _is_any(self, operations: frozenset[str]) -> npt.NDArray[np.bool_]:
        return np.array([name in operations for name in self.spans.texts("operation")], np.bool_)


@dataclass
class _Health:
    """How a scorer has done lately."""

    n_failures: int = 0
    in_a_row: int = 0
    paused_until_s: float = -np.inf

    def record_failure(self, now_s: float) -> None:
        self.n_failures += 1
        self.in_a_row += 1
        if self.in_a_row >= _MAX_FAILURES:
            pause_s = _FIRST_PAUSE_S * 2.0 ** min(self.in_a_row - _MAX_FAILURES, 10)
            self.paused_until_s = now_s + min(pause_s, _LONGEST_PAUSE_S)


class ScoreStage:
    """Runs every scorer over a batch and keeps what came out.

    A scorer runs in a thread that is left behind when its time is up: Python can't kill it. One
    that hangs costs its column, `time_box_s` once, and as long as it hangs a thread and a batch
    in memory; while it computes, it takes its share of the interpreter from everything else.
    Against code that never lets go of the interpreter's lock (a regular expression that
    backtracks without end, a loop in C) no time box helps: the whole process stands still.
    Such code belongs into a process of its own, behind a scorer that calls it.

    Args:
        scorers: In the order of the columns.
        time_box_s: What one scorer may take for one target of one batch, in seconds. One that
            takes longer loses its column and is not asked again before it has come back.
        encoder: Makes the shared features; by default the packaged one.
        clock: Seconds that only grow; for pauses after repeated failures.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        *,
        time_box_s: float,
        encoder: TextEncoder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scorers = tuple(scorers)
        self._time_box_s = time_box_s
        self._encoder = encoder or TextEncoder.load()
        self._clock = clock
        self._health = {scorer.name: _Health() for scorer in self._scorers}
        self._running: dict[str, threading.Thread] = {}
        if len(self._health) < len(self._scorers):
            names = ", ".join(scorer.name for scorer in self._scorers)
            raise ConfigurationError(f"two scorers have one name, of {names}; leave one out")

    @property
    def n_failures(self) -> Mapping[str, int]:
        """How often each scorer failed or ran out of time since the start."""
        return {name: health.n_failures for name, health in self._health.items()}

    def score(self, spans: SpanBatch) -> Scores:
        """Score a batch; the same spans give the same scores."""
        batch = Batch(spans, self._encoder)
        # Before the scorers, so that none is charged for the features that all share.
        embeddings = {"input": batch.embeddings("input"), "output": batch.embeddings("output")}
        columns: list[ScoreColumn] = []
        failed: dict[str, str] = {}
        for scorer in self._scorers:
            reason = self._pause(scorer.name)
            if reason:
                failed[scorer.name] = reason
                continue
            made, reason = self._run(scorer, batch)
            columns += made
            if reason:
                failed[scorer.name] = reason
        return Scores(tuple(columns), embeddings, failed)

    def _pause(self, name: str) -> str:
        """Return why a scorer is not asked now, or ""."""
        still = self._running.get(name)
        if still is not None and still.is_alive():
            return "still busy with an earlier batch"
        if self._clock() < self._health[name].paused_until_s:
            return f"paused after {self._health[name].in_a_row} failures in a row"
        return ""

    def _run(self, scorer: Scorer, batch: Batch) -> tuple[list[ScoreColumn], str]:
        columns: list[ScoreColumn] = []
        health = self._health[scorer.name]
        for target in scorer.targets:
            result = self._in_time(scorer, batch, target)
            if isinstance(result, str):
                health.record_failure(self._clock())
                logger.warning(
                    "scorer failed",
                    extra={"scorer": scorer.name, "target": target, "reason": result},
                )
                return columns, result
            columns.append(result)
        health.in_a_row = 0
        return columns, ""

    def _in_time(self, scorer: Scorer, batch: Batch, target: Target) -> ScoreColumn | str:
        """Run a scorer in a thread that can be left behind, and return what it says or why not."""
        results: list[ScoreColumn | str] = []

        def work() -> None:
            try:
                verdicts = scorer.score(batch, target)
                results.append(_column(scorer, target, verdicts, len(batch.spans)))
            except Exception as error:  # a scorer is someone else's code
                # Its words may hold a user's text; its kind can't.
                results.append(f"raised {type(error).__name__}")

        thread = threading.Thread(target=work, name=f"scorer-{scorer.name}", daemon=True)
        thread.start()
        thread.join(self._time_box_s)
        if results:
            return results[0]
        self._running[scorer.name] = thread
        return f"took longer than {self._time_box_s:g} s"


def _column(scorer: Scorer, target: Target, verdicts: Verdicts, n_spans: int) -> ScoreColumn | str:
    """Return verdicts as a column that the next stages can trust, or what is wrong with them."""
    values = np.asarray(verdicts.values, np.float64)
    labels, explanations = list(verdicts.labels), list(verdicts.explanations)
    lengths = {len(labels), len(explanations)}
    if values.shape != (n_spans,) or lengths != {n_spans}:
        return (
            f"returned values of shape {values.shape}, {sorted(lengths)} texts for {n_spans} spans"
        )
    if np.isinf(values).any():
        return "returned an infinite value"
    if not all(isinstance(text, str) for text in (*labels, *explanations)):
        return "returned labels or explanations that are no texts"
    return ScoreColumn(scorer.name, scorer.version, target, values, labels, explanations)

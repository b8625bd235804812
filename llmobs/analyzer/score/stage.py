"""All scorers over one batch; each may fail without costing another its column."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from queue import Empty, SimpleQueue
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.score.base import DistinctTexts, Scorer, Source, Target
from llmobs.analyzer.score.verdicts import as_column
from llmobs.errors import ConfigurationError
from llmobs.measures.text import TextEncoder, TextFeatures, warm
from llmobs.records import ScoreColumn, Scores, SpanBatch
from llmobs.semconv import INFERENCE_OPERATIONS, OPERATION_EXECUTE_TOOL, OPERATION_RETRIEVAL

__all__ = ["Batch", "ScoreStage"]

logger = logging.getLogger(__name__)

_FETCHING_OPERATIONS: Final = frozenset({OPERATION_EXECUTE_TOOL, OPERATION_RETRIEVAL})
# A scorer that fails three times running will fail the fourth; it is tried again later.
_MAX_FAILURES: Final = 3
_FIRST_PAUSE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 3600.0
# What is computed on the way of that many spans stays in the processor's cache, and peak memory
# is theirs, however large a batch is.
_SLICE_SPANS: Final = 1024

_Place: TypeAlias = tuple[str, Target]
_Result: TypeAlias = ScoreColumn | str
_Job: TypeAlias = Callable[[], _Result]


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
    """`ScoringInput` over the spans of one batch or a slice of it."""

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
    """Runs every scorer over a batch, slice by slice, and keeps what came out.

    A scorer that fails on one slice has no column for the batch. Scorers run in a thread that
    is left behind when the time of one is up: Python can't kill it. One that hangs costs its
    columns, `time_box_s` once, and as long as it hangs a thread and a slice in memory; while it
    computes, it takes its share of the interpreter from everything else. Against code that
    never lets go of the interpreter's lock (a regular expression that backtracks without end,
    a loop in C) no time box helps: the whole process stands still. Such code belongs into a
    process of its own, behind a scorer that calls it.

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
        self._is_warm = False
        self._health = {scorer.name: _Health() for scorer in self._scorers}
        self._running: dict[str, threading.Thread] = {}
        self._turn = threading.Lock()
        if len(self._health) < len(self._scorers):
            names = ", ".join(scorer.name for scorer in self._scorers)
            raise ConfigurationError(f"two scorers have one name, of {names}; leave one out")

    def beside(self, names: Collection[str]) -> ScoreStage:
        """Return another stage over some of the same scorers, for another thread.

        Both take turns, slice by slice, since a scorer need not stand two threads. Failures and
        pauses of the one are not the other's.

        Raises:
            ConfigurationError: A name is no scorer's.
        """
        if unknown := sorted(set(names) - self._health.keys()):
            raise ConfigurationError(
                f"no scorer {unknown[0]!r} runs here; there are {', '.join(sorted(self._health))}"
            )
        stage = ScoreStage(
            [scorer for scorer in self._scorers if scorer.name in names],
            time_box_s=self._time_box_s,
            encoder=self._encoder,
            clock=self._clock,
        )
        stage._turn = self._turn
        return stage

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of each scorer by name."""
        return {scorer.name: scorer.version for scorer in self._scorers}

    @property
    def n_failures(self) -> Mapping[str, int]:
        """How often each scorer failed or ran out of time since the start."""
        return {name: health.n_failures for name, health in self._health.items()}

    def warm(self) -> None:
        """Load and compile what the first batch would wait for; once."""
        if not self._is_warm:
            warm()
            self._is_warm = True

    def score(self, spans: SpanBatch) -> Scores:
        """Score a batch; the same spans give the same scores."""
        self.warm()  # or it counts as the time of whoever is asked first
        failed = {s.name: reason for s in self._scorers if (reason := self._pause(s.name))}
        asked = [scorer for scorer in self._scorers if scorer.name not in failed]
        made: dict[_Place, list[ScoreColumn]] = {(s.name, t): [] for s in asked for t in s.targets}
        left_s = dict.fromkeys(made, self._time_box_s)
        vectors: dict[str, list[npt.NDArray[np.float32]]] = {"input": [], "output": []}
        with _Worker() as worker:
            for start in range(0, max(len(spans), 1), _SLICE_SPANS):
                batch = Batch(SpanBatch(spans.table.slice(start, _SLICE_SPANS)), self._encoder)
                # Before the scorers, so that none is charged for the features that all share.
                vectors["input"].append(batch.embeddings("input"))
                vectors["output"].append(batch.embeddings("output"))
                with self._turn:
                    for scorer in asked:
                        if scorer.name not in failed:
                            reason = self._run(scorer, batch, worker, made, left_s)
                            if reason:
                                failed[scorer.name] = reason
        for scorer in asked:
            if scorer.name not in failed:
                self._health[scorer.name].in_a_row = 0
        columns = tuple(_joined(parts) for (name, _), parts in made.items() if name not in failed)
        return Scores(
            columns, {key: np.concatenate(parts) for key, parts in vectors.items()}, failed
        )

    def complete(self, spans: SpanBatch, columns: Sequence[ScoreColumn]) -> Scores:
        """Return what `score` said of a batch elsewhere, of which the columns were kept.

        Columns of scorers that this stage doesn't have, or has in another version, are left out.
        """
        ours = {(scorer.name, scorer.version) for scorer in self._scorers}
        batch = Batch(spans, self._encoder)
        return Scores(
            tuple(column for column in columns if (column.name, column.version) in ours),
            {"input": batch.embeddings("input"), "output": batch.embeddings("output")},
        )

    def _pause(self, name: str) -> str:
        """Return why a scorer is not asked now, or ""."""
        still = self._running.get(name)
        if still is not None and still.is_alive():
            return "still busy with an earlier batch"
        if self._clock() < self._health[name].paused_until_s:
            return f"paused after {self._health[name].in_a_row} failures in a row"
        return ""

    def _run(
        self,
        scorer: Scorer,
        batch: Batch,
        worker: _Worker,
        made: Mapping[_Place, list[ScoreColumn]],
        left_s: dict[_Place, float],
    ) -> str:
        """Ask for every target of one slice and return why the scorer failed, or ""."""
        for target in scorer.targets:
            place = scorer.name, target
            begun = time.monotonic()
            result = worker.run(
                f"scorer-{scorer.name}",
                partial(_ask, scorer, batch, target),
                left_s[place],
            )
            left_s[place] = max(left_s[place] - (time.monotonic() - begun), 0.0)
            if isinstance(result, ScoreColumn):
                made[place].append(result)
                continue
            if isinstance(result, threading.Thread):
                self._running[scorer.name] = result
                result = f"took longer than {self._time_box_s:g} s"
            self._health[scorer.name].record_failure(self._clock())
            logger.warning(
                "scorer failed",
                extra={"scorer": scorer.name, "target": target, "reason": result},
            )
            return result
        return ""


class _Worker:
    """A thread that does one job after the other and can be left behind in the midst of one."""

    def __enter__(self) -> _Worker:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)

    def run(self, name: str, job: _Job, timeout_s: float) -> _Result | threading.Thread:
        """Return what the job returns, or the thread that still works at it."""
        answer: SimpleQueue[_Result] = SimpleQueue()
        self._jobs.put((name, job, answer))
        try:
            return answer.get(timeout=timeout_s)
        except Empty:
            late = self._thread
            self._jobs.put(None)  # it ends when the job does
            self._start()
            return late

    def _start(self) -> None:
        self._jobs: SimpleQueue[tuple[str, _Job, SimpleQueue[_Result]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), daemon=True)
        self._thread.start()


def _work(jobs: SimpleQueue[tuple[str, _Job, SimpleQueue[_Result]] | None]) -> None:
    while (item := jobs.get()) is not None:
        threading.current_thread().name, job, answer = item
        answer.put(job())
        del item, job, answer  # or they live as long as the wait for the next


def _ask(scorer: Scorer, batch: Batch, target: Target) -> _Result:
    """Return what a scorer says, or why it says nothing that can be used."""
    try:
        return as_column(scorer, target, scorer.score(batch, target), len(batch.spans))
    except Exception as error:  # a scorer is someone else's code
        # Its words may hold a user's text; its kind can't.
        return f"raised {type(error).__name__}"


def _joined(parts: Sequence[ScoreColumn]) -> ScoreColumn:
    """Return the slices of one column as one."""
    return replace(
        parts[0],
        values=np.concatenate([part.values for part in parts]),
        labels=[label for part in parts for label in part.labels],
        explanations=[text for part in parts for text in part.explanations],
    )

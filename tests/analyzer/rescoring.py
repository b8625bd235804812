"""An engine that is started again with another version of a scorer."""

from __future__ import annotations

import random
import time
from typing import Any

from llmobs.analyzer.decode import decode_events, decode_metrics, decode_spans
from llmobs.analyzer.monitor import MonitorSettings
from llmobs.analyzer.normalize import normalize
from llmobs.analyzer.pipeline import Analysis, Scoring
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.rescore import Rescorer
from llmobs.analyzer.score import FunctionScorer, ScoreStage, scorer
from llmobs.analyzer.store import ClickHouseStore, SqliteState
from llmobs.analyzer.store.base import NOTHING, Row
from tests.otlp import chat_span, traces_request

__all__ = ["ALL", "N_SEGMENTS", "World", "filled", "of_version"]

N_SEGMENTS, N_SPANS = 3, 4
ALL = (0, 2**62)


def of_version(version: str, fail_from: float) -> FunctionScorer:
    @scorer(name="long", version=version, target="input", fail_from=fail_from)
    def long(text: str) -> float:
        return float(len(text))

    return long


def filled(store: ClickHouseStore, first: int = 0) -> None:
    for number in range(first, first + N_SEGMENTS):
        chance = random.Random(number)
        body = traces_request(
            [chat_span(chance, session=f"s-{n}", text="a question") for n in range(N_SPANS)]
        )
        spans = normalize(decode_spans([body]), now_ns=time.time_ns())
        store.append(number, spans, decode_events([])[0], decode_metrics([])[0])


class World:
    """An engine that was started with a scorer of a version."""

    def __init__(self, store: ClickHouseStore, state: SqliteState, *scorers: Any) -> None:
        self.store, self.metrics = store, Metrics()
        stage = ScoreStage(scorers, time_box_s=60)
        self.analysis = Analysis(state, Scoring(store, stage), MonitorSettings(), self.metrics)
        self.rescorer = Rescorer(store, stage, state.cursor)

    def analyze(self) -> None:
        while self.analysis.step():
            pass
        self.analysis.close()

    def rescore(self, *names: str) -> list[Row]:
        rows: list[Row] = []
        after = NOTHING
        while not rows or after != NOTHING:
            rows.append(self.rescorer.step(*ALL, names, after))
            after = rows[-1]["after"]
        return rows

    def shown(self) -> list[Row]:
        """Return the scores of all spans as a trace shows them."""
        traces = self.store.traces(*ALL, 1000)
        spans = [span for row in traces for span in self.store.trace(row["trace_id"])]
        return [score for span in spans for score in span["scores"]]

    def totals(self) -> dict[str, tuple[int, int]]:
        scores = self.store.overview(*ALL)["scores"]
        return {row["name"]: (row["n"], row["n_fail"]) for row in scores}

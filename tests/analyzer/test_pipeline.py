"""The loops that only a fault shows: what a step that raised leaves behind."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmobs.analyzer.decode import decode_events, decode_metrics, decode_spans
from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.monitor import MonitorSettings
from llmobs.analyzer.normalize import normalize
from llmobs.analyzer.pipeline import Analysis, Ingest, Loop, Scoring
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.receive.feedback import read_feedback
from llmobs.analyzer.score import ScoreStage, load_scorers
from llmobs.analyzer.store import ClickHouseStore, SqliteState
from llmobs.measures.cost import PriceBook
from llmobs.records import EVENT_SCHEMA, EventBatch, RawSpans, Scores, SpanBatch
from tests.otlp import chat_span, traces_request


def fill(store: ClickHouseStore, n_segments: int) -> None:
    chance = random.Random(1)
    for number in range(n_segments):
        body = traces_request([chat_span(chance, session=f"s-{number}-{n}") for n in range(5)])
        spans = normalize(decode_spans([body]), now_ns=time.time_ns())
        store.append(number, spans, decode_events([])[0], decode_metrics([])[0])


class FailsOnce(Metrics):
    """Metrics that raise the first time: a stand-in for any part of ours that may."""

    n_calls = 0

    def record(self, spans: SpanBatch, scores: Scores, events: EventBatch | None = None) -> None:
        self.n_calls += 1
        if self.n_calls == 1:
            raise RuntimeError("disk on fire")
        super().record(spans, scores, events)


def test_a_request_that_decoding_stumbles_over_is_set_aside_and_the_others_are_stored(
    store: ClickHouseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours that nobody knows yet, put in by hand."""
    chance = random.Random(1)
    bodies = [traces_request([chat_span(chance, session=f"s-{n}")]) for n in range(5)]

    def stumbles(raw: RawSpans, **options: Any) -> SpanBatch:
        spans = normalize(raw, **options)
        if "s-3" in spans.texts("session_id"):
            raise IndexError("nobody thought of this")
        return spans

    monkeypatch.setattr("llmobs.analyzer.pipeline.normalize", stumbles)
    writer = SegmentWriter(tmp_path / "log")
    for body in bodies:
        writer.append("traces", body, lambda error: None)
    writer.close()
    log = SegmentReader(tmp_path / "log", tmp_path / "aside")
    ingest = Ingest(log, store, PriceBook(), Metrics())
    while log.sealed():
        ingest.step()
    assert store.sizes()["spans"] == 4
    assert len([path for path in (tmp_path / "aside").rglob("*") if path.is_file()]) >= 1
    assert any(bodies[3] in path.read_bytes() for path in (tmp_path / "aside").iterdir())


def test_each_request_that_can_not_be_stored_is_set_aside_under_its_own_number(
    store: ClickHouseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)
    good, stumbled = (traces_request([chat_span(chance, session=s)]) for s in ("good", "bad"))
    unreadable = b"\x0a\x7f"

    def stumbles(raw: RawSpans, **options: Any) -> SpanBatch:
        spans = normalize(raw, **options)
        if "bad" in spans.texts("session_id"):
            raise IndexError("nobody thought of this")
        return spans

    monkeypatch.setattr("llmobs.analyzer.pipeline.normalize", stumbles)
    writer = SegmentWriter(tmp_path / "log", segment_age_s=60)
    for body in (good, stumbled, unreadable):
        writer.append("traces", body, lambda error: None)
    writer.close()
    log = SegmentReader(tmp_path / "log", tmp_path / "aside")
    Ingest(log, store, PriceBook(), Metrics()).step()
    aside = sorted(path.read_bytes() for path in (tmp_path / "aside").glob("*.pb"))
    assert aside == sorted([stumbled, unreadable])
    assert store.sizes()["spans"] == 1


def test_an_analysis_whose_clock_is_set_back_goes_on_writing_down_where_it_stands(
    store: ClickHouseStore, state: SqliteState
) -> None:
    now_ns = time.time_ns()
    times = {"now_ns": now_ns + 10**9 * 86_400 * 365}
    scoring = Scoring(store, ScoreStage(load_scorers(("refusal",)), time_box_s=60))
    analysis = Analysis(state, scoring, MonitorSettings(), Metrics(), clock=lambda: times["now_ns"])
    analysis.step()
    fill(store, 1)
    times["now_ns"] = now_ns
    analysis.step()
    assert state.cursor() == {0: 0}


def test_a_step_that_raised_is_done_again_and_leaves_nothing_twice(
    store: ClickHouseStore, state: SqliteState
) -> None:
    fill(store, 3)
    scoring = Scoring(store, ScoreStage(load_scorers(("refusal",)), time_box_s=60))
    analysis = Analysis(state, scoring, MonitorSettings(), FailsOnce())
    with pytest.raises(RuntimeError, match="on fire"):
        analysis.step()
    assert analysis.step() == 15
    analysis.close()
    assert store.sizes()["scores"] == 15
    assert state.cursor() == {0: 2}


@pytest.mark.parametrize("first", ["span", "event"])
def test_content_that_came_apart_from_its_span_is_scored_in_either_order(
    store: ClickHouseStore, state: SqliteState, first: str
) -> None:
    """In two segments; the analysis runs in between, and is done again after a crash."""
    span = chat_span(random.Random(1), text="", answer="")
    for attribute in list(span.attributes):
        if attribute.key in {"gen_ai.input.messages", "gen_ai.output.messages"}:
            span.attributes.remove(attribute)
    spans = normalize(decode_spans([traces_request([span])]), now_ns=time.time_ns())
    said = '[{"role":"%s","parts":[{"type":"text","content":"%s"}]}]'
    texts = {
        "gen_ai.input.messages": said % ("user", "Can you help me?"),
        "gen_ai.output.messages": said % ("assistant", "I am sorry, I can't help with that."),
    }
    row = {
        "ts_ns": span.end_time_unix_nano,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "service": "tests",
        "environment": "",
        "event_name": "gen_ai.client.inference.operation.details",
        "severity": 9,
        "body": "",
        "attributes_s": list(texts.items()),
        "attributes_n": [],
    }
    events = EventBatch(pa.Table.from_pylist([row], schema=EVENT_SCHEMA))
    nothing = normalize(decode_spans([]), now_ns=0)
    silence, no_metrics = decode_events([])[0], decode_metrics([])[0]
    parts = [(spans, silence), (nothing, events)]
    scoring = Scoring(store, ScoreStage(load_scorers(("refusal",)), time_box_s=60))
    for number, part in enumerate(parts if first == "span" else reversed(parts)):
        store.append(number, *part, no_metrics)
        analysis = Analysis(state, scoring, MonitorSettings(), Metrics())
        analysis.step()
    Analysis(state, scoring, MonitorSettings(), Metrics()).step()
    (refusal,) = store.trace(span.trace_id.hex())[0]["scores"]
    assert (refusal["name"], refusal["label"]) == ("refusal", "fail")


@pytest.mark.parametrize("first", ["span", "feedback"])
def test_feedback_of_a_page_is_joined_to_its_span_in_either_order(
    store: ClickHouseStore, state: SqliteState, first: str
) -> None:
    span = chat_span(random.Random(1))
    said: dict[str, Any] = {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "score": 0,
        "comment": "not what I asked",
    }
    request, _ = read_feedback(json.dumps(said).encode())
    spans = normalize(decode_spans([traces_request([span])]), now_ns=time.time_ns())
    nothing, silence = normalize(decode_spans([]), now_ns=0), decode_events([])[0]
    parts = [(spans, silence), (nothing, decode_events([request])[0])]
    metrics = Metrics()
    scoring = Scoring(store, ScoreStage(load_scorers(("refusal",)), time_box_s=60))
    analysis = Analysis(state, scoring, MonitorSettings(), metrics)
    for number, part in enumerate(parts if first == "span" else reversed(parts)):
        store.append(number, *part, decode_metrics([])[0])
        analysis.step()
    scores = {score["name"]: score for score in store.trace(said["trace_id"])[0]["scores"]}
    feedback = scores["user_feedback"]
    assert (feedback["value"], feedback["explanation"]) == (0.0, "not what I asked")
    assert b'llmobs_feedback_total{llmobs_feature="",rating="down"' in metrics.render()


def test_completeness_is_told_when_it_is_written_down_and_goes_on_after_a_restart(
    store: ClickHouseStore, state: SqliteState
) -> None:
    times = {"now_ns": time.time_ns()}
    scoring = Scoring(store, ScoreStage(load_scorers(("refusal",)), time_box_s=60))

    def started() -> tuple[Analysis, Metrics]:
        metrics = Metrics()
        return Analysis(
            state, scoring, MonitorSettings(), metrics, clock=lambda: times["now_ns"]
        ), metrics

    def pass_by(seconds: int) -> None:
        times["now_ns"] += seconds * 10**9
        analysis.step()

    analysis, metrics = started()
    pass_by(400)
    for segment, numbers in enumerate([(0, 1, 4), (0, 1, 4), (5,)]):
        sent = [
            chat_span(
                random.Random(number),
                at_ns=times["now_ns"],
                attributes={"llmobs.sequence": number, "llmobs.process.id": "a0b1c2d3"},
            )
            for number in numbers
        ]
        spans = normalize(decode_spans([traces_request(sent)]), now_ns=times["now_ns"])
        store.append(segment, spans, decode_events([])[0], decode_metrics([])[0])
        pass_by(3)
        assert b'llmobs_completeness_ratio{service_name="tests"} 1.0' in metrics.render()
        analysis, metrics = started()
    pass_by(299)
    assert b'llmobs_calls_missing_total{service_name="tests"} 0.0' in metrics.render()
    pass_by(2)
    pass_by(3)
    assert b'llmobs_calls_missing_total{service_name="tests"} 2.0' in metrics.render()
    ratio = f'llmobs_completeness_ratio{{service_name="tests"}} {4 / 6}'
    assert ratio.encode() in metrics.render()


def test_an_analysis_that_was_not_committed_is_done_again_after_a_restart(
    store: ClickHouseStore, state: SqliteState
) -> None:
    fill(store, 2)
    scoring = Scoring(store, ScoreStage(load_scorers(("refusal",)), time_box_s=60))
    first = Analysis(state, scoring, MonitorSettings(), Metrics())
    assert first.step() == 10  # killed here: nothing was written down
    assert state.cursor() == {}
    second = Analysis(state, scoring, MonitorSettings(), Metrics())
    assert second.step() == 10
    second.close()
    assert store.sizes()["scores"] == 10


def test_a_loop_goes_on_after_a_step_that_raised() -> None:
    done = threading.Event()
    beats: list[str] = []
    results: Iterator[object] = iter([1, RuntimeError("once"), 1])

    def step() -> int:
        result = next(results, None)
        if result is None:
            done.set()
            return 0
        if isinstance(result, Exception):
            raise result
        return 1

    loop = Loop("test", step, idle_s=0.01, heartbeat=beats.append)
    loop.start()
    assert done.wait(10)
    loop.stop()
    assert beats.count("test") >= 2
    assert loop.error == ""


def test_scores_are_published_once_they_are_stored(
    store: ClickHouseStore, state: SqliteState
) -> None:
    told: list[tuple[int, int]] = []

    def publish(spans: SpanBatch, scores: Scores) -> None:
        n_scores = sum(int((column.values >= 0).sum()) for column in scores.columns)
        told.append((n_scores, store.sizes()["scores"]))

    fill(store, 1)
    stage = ScoreStage(load_scorers(("refusal",)), time_box_s=60)
    Analysis(state, Scoring(store, stage, publish), MonitorSettings(), Metrics()).step()
    assert told == [(5, 5)]

"""A user is forgotten everywhere: in the store, the log, monitors, findings and what lies aside."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmobs.analyzer import pipeline
from llmobs.analyzer.erase import Eraser
from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.monitor import MonitorSettings
from llmobs.analyzer.pipeline import Analysis, Ingest, Loop, Scoring
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.score import ScoreStage, load_scorers
from llmobs.analyzer.store import ClickHouseStore, SqliteState, open_state, open_store
from llmobs.errors import LlmobsError
from llmobs.measures.cost import PriceBook
from tests.analyzer.store.test_state import FINDING
from tests.otlp import chat_span, traces_request

SECRET = "my tax number is 12345"


class World:
    """The parts of an engine over one folder, stepped by the test but for the analysis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = open_store(f"chdb://{folder / 'store'}")
        self.state: SqliteState = open_state(folder / "state.db")
        self.log = SegmentReader(folder / "log", folder / "aside")
        self.ingest = Ingest(self.log, self.store, PriceBook(), Metrics())
        scoring = Scoring(self.store, ScoreStage(load_scorers(("refusal",)), time_box_s=60))
        self.analysis = Analysis(self.state, scoring, MonitorSettings(), Metrics())
        self.loop = Loop("analysis", self.analysis.step, idle_s=0.01, heartbeat=lambda _: None)
        self.eraser = Eraser(self.store, self.state, self.analysis.forget, folder / "aside")
        self._chance = random.Random(1)

    def send(self, *users: str) -> None:
        """Put a span of each user, begun a minute ago, into one sealed segment."""
        at_ns = time.time_ns() - 60 * 10**9
        spans = [
            chat_span(
                self._chance, session="", text=SECRET, at_ns=at_ns, attributes={"user.id": user}
            )
            for user in users
        ]
        writer = SegmentWriter(self.folder / "log")
        writer.append("traces", traces_request(spans), lambda error: None)
        writer.close()

    def take(self) -> None:
        """Store what the log holds."""
        while self.log.sealed():
            self.ingest.step()

    def close(self) -> None:
        self.loop.stop()
        self.log.close()
        self.state.close()
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def users(store: ClickHouseStore) -> list[str]:
    rows = store._clients.ask("SELECT user_id FROM spans ORDER BY user_id")
    return [row["user_id"] for row in rows]


def test_a_user_is_forgotten_wherever_a_part_of_them_is(world: World) -> None:
    world.send("ann", "bob")
    world.take()
    world.loop.start()
    (trace,) = [row["trace_id"] for row in world.store.traces(0, 2**62, user_id="ann")]
    quoting = replace(FINDING, evidence={"texts": [SECRET]}, examples=(trace,))
    world.state.commit({}, None, [quoting], [])
    (world.folder / "aside" / "1-0.traces.pb").write_bytes(b"broken, of whom?")
    (world.folder / "aside" / "1-0.traces.pb.json").write_text("{}")
    world.send("ann", "bob")  # waits in the log

    row = world.eraser.erase("user", "ann")
    assert row == {"n_spans": 1, "n_findings": 1, "n_aside": 1}
    world.take()

    assert users(world.store) == ["bob", "bob"]
    finding = world.state.finding(quoting.id)
    assert finding is not None
    assert (finding.evidence, finding.examples) == ({"texts": []}, ())
    assert list((world.folder / "aside").iterdir()) == []
    assert world.eraser.erase("user", "ann") == {"n_spans": 0, "n_findings": 0, "n_aside": 0}


def test_scores_of_a_batch_that_was_under_way_do_not_come_back(world: World) -> None:
    for _ in range(20):
        world.send("ann", "bob")
    world.take()
    world.loop.start()
    world.eraser.erase("user", "ann")
    deadline = time.monotonic() + 20
    while world.store.sizes()["scores"] < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    world.loop.stop()
    assert users(world.store) == ["bob"] * 20
    assert world.store.sizes()["scores"] == 20


def test_while_the_analysis_stands_still_nothing_is_deleted_and_it_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "FORGET_TIMEOUT_S", 0.1)
    world.send("ann", "bob")
    world.take()
    with pytest.raises(LlmobsError, match="stands still"):
        world.eraser.erase("user", "ann")
    assert users(world.store) == ["ann", "bob"]
    world.send("ann")  # but nothing more comes in
    world.take()
    assert users(world.store) == ["ann", "bob"]
    world.loop.start()
    monkeypatch.setattr(pipeline, "FORGET_TIMEOUT_S", 20.0)
    assert world.eraser.erase("user", "ann")["n_spans"] == 1

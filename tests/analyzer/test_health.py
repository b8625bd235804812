"""What log and store say of themselves reaches the metrics."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmobs.analyzer import health
from llmobs.analyzer.health import Health
from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.publish import METRICS
from llmobs.analyzer.store import ClickHouseStore
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, generated
from tests.otlp import chat_span, traces_request


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SegmentReader]:
    reader = SegmentReader(tmp_path / "log", tmp_path / "aside")
    yield reader
    reader.close()


def test_what_waits_for_each_stage_is_told_with_its_age(
    store: ClickHouseStore, log: SegmentReader, tmp_path: Path
) -> None:
    store.hold(log.sources())
    for segment in range(3):
        store.append(segment, generated(segment, 10), NO_EVENTS, NO_METRICS)
    writer = SegmentWriter(tmp_path / "log")
    writer.append("traces", traces_request([chat_span(random.Random(1))]), lambda error: None)
    writer.close()
    observed = Health(store, log, "analysis", lambda: {0: 0})()
    waiting = observed["llmobs_backlog_segments"]
    assert waiting == {("ingest",): 1, ("analysis",): 2}
    ages_s = observed["llmobs_backlog_seconds"]
    assert set(ages_s) == set(waiting)
    assert all(0 <= age_s < 30 for age_s in ages_s.values())
    assert set(observed["llmobs_lost_total"]) == {("corrupt",), ("no_room",)}
    assert observed["llmobs_store_bytes"][()] > 0
    assert set(observed) <= {spec.name for spec in METRICS}


def test_who_watches_for_many_tells_of_all_their_segments(store: ClickHouseStore) -> None:
    store.append(5, generated(1, 10), NO_EVENTS, NO_METRICS)
    observed = Health(store, None, "analysis", dict)()
    assert observed["llmobs_backlog_segments"] == {("analysis",): 1}
    assert "llmobs_lost_total" not in observed


def test_a_store_that_does_not_answer_hides_nothing_else(
    store: ClickHouseStore, log: SegmentReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_FRESH_S", 0.0)
    ask = Health(store, log, "analysis", dict)
    assert ask()["llmobs_store_parts"]
    store.close()
    observed = ask()
    assert observed["llmobs_backlog_segments"] == {("ingest",): 0}
    assert observed["llmobs_store_parts"] == {}


def test_many_who_ask_at_once_cost_the_store_one_question(
    store: ClickHouseStore, log: SegmentReader
) -> None:
    ask = Health(store, log, "analysis", dict)
    first = ask()
    begun = time.process_time()
    assert all(ask() is first for _ in range(1000))
    assert time.process_time() - begun < 0.1

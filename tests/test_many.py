"""Two analyzers on two partitions of a real Kafka give what one gives, also when one dies."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.log.base import LogReader
from llmobs.analyzer.log.kafka import KafkaLogReader
from llmobs.analyzer.monitor import Completeness, MonitorSettings
from llmobs.analyzer.notify import AlertBook, Announcer
from llmobs.analyzer.pipeline import Analysis, Ingest, ScoredElsewhere, Scoring, Worker
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.score import ScoreStage, load_scorers
from llmobs.analyzer.store import ClickHouseStore, SqliteState, open_state, open_store
from llmobs.analyzer.store.base import Row
from llmobs.measures.cost import PriceBook
from llmobs.records import Seen
from tests.clickhouse_http import served
from tests.kafka import Broker, broker
from tests.otlp import chat_span, traces_request
from tests.test_walk import ANSWERS, INSULT, QUESTIONS
from tests.waiting import wait_until

__all__ = ["broker"]

T0_NS = 1_795_000_000_000_000_000 // 3_600_000_000_000 * 3_600_000_000_000
MINUTE_NS = 60_000_000_000
CHUNK_NS = 10 * MINUTE_NS
N_CHUNKS = 18
SESSIONS_A_CHUNK = 40
SETTINGS = MonitorSettings(
    reference_s=3600, min_reference_units=100, session_idle_s=60, session_cap_s=600
)


def chunk(number: int) -> dict[str, bytes]:
    """Make ten minutes of sessions, one request each; answers turn toxic in the last hour.

    All are of one process, whose spans are numbered; one of them is lost.
    """
    numbers = (n for n in itertools.count() if n != 7)
    chance = random.Random(number)
    start = T0_NS + number * CHUNK_NS
    requests = {}
    for n in range(SESSIONS_A_CHUNK):
        session = f"s-{number}-{n}"
        at = start + n * (8 * MINUTE_NS // SESSIONS_A_CHUNK)
        spans = []
        for call in range(chance.randint(1, 3)):
            which = chance.randrange(4)
            toxic = number >= 12 and chance.random() < 0.4
            spans.append(
                chat_span(
                    chance,
                    at_ns=at + call * 1_000_000_000,
                    session=session,
                    text=QUESTIONS[which],
                    answer=INSULT if toxic else ANSWERS[which],
                    error="timeout" if chance.random() < 0.02 else "",
                    attributes={
                        "llmobs.sequence": next(numbers),
                        "llmobs.process.id": f"p-{number}",
                    },
                )
            )
        requests[session] = traces_request(spans)
    return requests


@dataclass
class Clock:
    """The end of the last chunk, for every part that asks for the time."""

    now_ns: int = T0_NS

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Analyzer:
    """Ingest and scoring of one machine, stepped by hand."""

    log: LogReader
    store: ClickHouseStore
    stage: ScoreStage
    clock: Clock
    ingest: Ingest = field(init=False)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        metrics = Metrics()
        self.ingest = Ingest(self.log, self.store, PriceBook(), metrics, clock=self.clock)
        self.worker = Worker(self.store, Scoring(self.store, self.stage), metrics)


@dataclass
class Watcher:
    """Monitors and alerts over what was scored."""

    state: SqliteState
    analysis: Analysis
    clock: Clock

    def step(self) -> None:
        while self.analysis.step():
            pass
        announcer = Announcer(self.state, AlertBook(page_url="http://x", resolve_after_s=900), [])
        announcer.step(self.clock.now_ns)


@pytest.fixture(scope="module")
def stage() -> ScoreStage:
    return ScoreStage(load_scorers(), time_box_s=120)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two databases, the second for many."""
    with served(tmp_path / "one") as one, served(tmp_path / "many") as many:
        yield one, many


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_analyzers_give_what_one_gives_and_one_may_die(
    broker: Broker, stores: tuple[str, str], stage: ScoreStage, tmp_path: Path
) -> None:
    clock = Clock()
    prefix = broker.make_topics(2)
    with ExitStack() as stack:

        def opened(url: str) -> ClickHouseStore:
            store = open_store(url)
            stack.callback(store.close)
            return store

        def watcher(name: str, batches: Scoring | ScoredElsewhere) -> Watcher:
            state = open_state(tmp_path / f"{name}.db")
            stack.callback(state.close)
            analysis = Analysis(state, batches, SETTINGS, Metrics(), clock=clock)
            return Watcher(state, analysis, clock)

        def member(name: str) -> Analyzer:
            store = opened(stores[1])
            log = KafkaLogReader(
                broker.url(prefix),
                resume=store.position,
                aside=tmp_path / name,
                segment_age_s=0.05,
                handover_s=0.5,
            )
            stack.callback(log.close)
            return Analyzer(log, store, stage, clock)

        one = opened(stores[0])
        one_log = SegmentReader(tmp_path / "log", tmp_path / "aside")
        one_ingest = Ingest(one_log, one, PriceBook(), Metrics(), clock=clock)
        one_watcher = watcher("one", Scoring(one, stage))

        members = [member("a"), member("b")]
        wait_until(lambda: all(member.log.sources() for member in members))
        many = opened(stores[1])
        many_watcher = watcher("many", ScoredElsewhere(many, stage))

        n_spans = 0
        for number in range(N_CHUNKS):
            requests = chunk(number)
            clock.now_ns = T0_NS + (number + 1) * CHUNK_NS

            writer = SegmentWriter(tmp_path / "log")
            for request in requests.values():
                writer.append("traces", request, lambda error: None)
            writer.close()
            while one_log.sealed():
                one_ingest.step()
            one_watcher.step()
            n_spans = one.sizes()["spans"]

            shares: dict[int, list[bytes]] = {0: [], 1: []}
            for session, request in requests.items():
                shares[zlib.crc32(session.encode()) % 2].append(request)
            broker.send(f"{prefix}spans", shares)
            if number == 9:
                # One that has spans; how many partitions of which topic, Kafka decides.
                dying = next(each for each in members if min(each.log.sources()) < 2)
                members.remove(dying)
                die_in_the_midst(dying)
            wait_until(partial(has_scored, members, many, n_spans))
            many_watcher.step()

        assert many.sizes()["spans"] == n_spans
        assert_same(one, many)
        assert_same_alerts(one_watcher.state, many_watcher.state)
        n_lost = N_CHUNKS - 1  # the last one may come still
        seen = Seen(n_spans / (n_spans + n_lost), n_lost)
        assert completeness(one_watcher) == completeness(many_watcher) == {"tests": seen}


def completeness(watcher: Watcher) -> Mapping[str, Seen]:
    watcher.analysis.close()  # writes down where it stands
    saved = watcher.state.completeness_state()
    assert saved is not None
    return Completeness.from_state(saved, now_ns=0).by_service()


def has_scored(members: list[Analyzer], store: ClickHouseStore, n_spans: int) -> bool:
    """Let everybody do what there is to do; tell whether so many spans are stored and scored."""
    for member in members:
        while member.ingest.step() or member.worker.step():
            pass
    (scored,) = store._clients.ask("SELECT sum(n_spans) AS n FROM scored")
    n_stored, n_scored = int(store.sizes()["spans"]), int(scored["n"])
    return n_stored >= n_spans and n_scored >= n_spans


def die_in_the_midst(member: Analyzer) -> None:
    """End an analyzer when half a segment is stored."""
    wait_until(lambda: bool(member.log.sealed()))
    segment = member.log.read(member.log.sealed()[0])
    spans, *_ = member.ingest._decode(segment)
    member.store._insert("spans", segment.number, spans.table.slice(0, len(spans) // 2))
    member.log.close()


def assert_same(one: ClickHouseStore, many: ClickHouseStore) -> None:
    window = T0_NS, T0_NS + N_CHUNKS * CHUNK_NS
    inexact = {"p50_ms", "p95_ms", "p99_ms"}  # of sketches that were merged in another order
    rows = zip(one.series(*window, 600), many.series(*window, 600), strict=True)
    for ours, theirs in rows:
        assert ours["calls"] > 0
        for name, value in ours.items():
            if name not in inexact:
                assert theirs[name] == pytest.approx(value, rel=1e-9), name
    scores = [
        sorted(store.overview(*window)["scores"], key=lambda row: (row["name"], row["target"]))
        for store in (one, many)
    ]
    for ours, theirs in zip(*scores, strict=True):
        assert {**theirs, "mean": None} == {**ours, "mean": None}
        assert theirs["mean"] == pytest.approx(ours["mean"], rel=1e-6)
    assert {row["name"] for row in scores[0]} >= {"toxicity", "injection", "relevance"}


def assert_same_alerts(one: SqliteState, many: SqliteState) -> None:
    def alerts(state: SqliteState) -> list[tuple[str, str, str, str]]:
        return sorted((a.monitor, a.service, a.feature, a.severity) for a in state.alerts())

    def statuses(state: SqliteState) -> dict[tuple[str, str, str], Row]:
        rows = state.statuses()
        return {(row["monitor"], row["service"], row["feature"]): row for row in rows}

    assert "output.toxicity" in {monitor for monitor, *_ in alerts(one)}
    assert alerts(many) == alerts(one)
    ours, theirs = statuses(one), statuses(many)
    assert ours.keys() == theirs.keys()
    for place, row in ours.items():
        assert theirs[place]["state"] == row["state"], place
        # Of sessions that end at the same time, another comes first: the reference may end
        # some sessions earlier or later.
        assert theirs[place]["n_units"] == pytest.approx(row["n_units"], rel=0.03), place

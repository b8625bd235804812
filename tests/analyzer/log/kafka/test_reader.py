from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from llmobs.analyzer.log.kafka import KafkaLogReader
from llmobs.analyzer.log.kafka.address import source_number
from llmobs.records import first_number
from tests.analyzer.log.kafka.storing import SmallStore, step, store_until
from tests.kafka import Broker
from tests.waiting import wait_until

Make = Callable[..., KafkaLogReader]


@pytest.fixture
def store(tmp_path: Path) -> SmallStore:
    return SmallStore(tmp_path / "store.db")


@pytest.fixture
def make_reader(broker: Broker, store: SmallStore, tmp_path: Path) -> Iterator[Make]:
    """Return a way to make readers that are closed after the test."""
    readers: list[KafkaLogReader] = []

    def make(prefix: str, **options: object) -> KafkaLogReader:
        arguments = {"resume": store.position, "segment_age_s": 0.1} | options
        reader = KafkaLogReader(broker.url(prefix), aside=tmp_path / "aside", **arguments)  # type: ignore[arg-type]
        readers.append(reader)
        return reader

    yield make
    for reader in readers:
        reader.close()


def _records(n: int, name: str = "r") -> list[bytes]:
    return [b"%s-%05d" % (name.encode(), i) for i in range(n)]


def test_each_signal_comes_from_its_topic_and_each_partition_in_order(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics(2)
    sent = {
        ("traces", 0): _records(300, "spans"),
        ("traces", 1): _records(200, "more"),
        ("logs", 1): _records(100, "logs"),
        ("metrics", 0): _records(50, "metrics"),
    }
    topics = {"traces": "spans", "logs": "logs", "metrics": "metrics"}
    codecs = iter(("gzip", "zstd", "lz4", "snappy"))
    for (signal, partition), records in sent.items():
        broker.send(prefix + topics[signal], {partition: records}, compression_type=next(codecs))
    reader = make_reader(prefix, segment_bytes=500)
    store_until(store, lambda: len(store.values()) >= 650, reader)
    assert store.requests() == [
        (signal, request) for (signal, _), records in sent.items() for request in records
    ]
    assert len(reader.sources()) == 6
    assert reader.stats()["n_records"] == 650


def test_reading_goes_on_at_the_stores_position_and_not_at_the_committed_one(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics()
    records = _records(30)
    broker.send(prefix + "spans", {0: records})
    broker.commit(prefix, prefix + "spans", 0, 25)
    reader = make_reader(prefix, resume=lambda source: first_number(source) + 10 * (not source))
    store_until(store, lambda: len(store.values()) >= 20, reader)
    assert store.values() == records[10:]
    reader.close()
    assert broker.committed(prefix, prefix + "spans", 0) == 30


def test_the_first_segment_after_a_start_may_be_stored(broker: Broker, make_reader: Make) -> None:
    prefix = broker.make_topics()
    broker.send(prefix + "spans", {0: _records(20)})
    reader = make_reader(prefix, segment_bytes=80, segment_age_s=0.05)
    wait_until(lambda: len(reader.sealed()) >= 2)
    first, second = reader.sealed()[:2]
    assert reader.read(first).may_be_stored
    assert reader.read(first).until == second
    reader.remove(first)
    assert not reader.read(second).may_be_stored
    assert reader.read(second).may_be_stored
    with pytest.raises(FileNotFoundError):
        reader.read(first)
    reader.remove(first)
    assert reader.stats()["n_late"] == 0


def test_partitions_take_turns(broker: Broker, make_reader: Make) -> None:
    prefix = broker.make_topics(3)
    broker.send(prefix + "spans", {p: _records(40, f"p{p}") for p in range(3)})
    reader = make_reader(prefix, segment_bytes=80)
    wait_until(lambda: reader.stats()["n_records"] == 120 and len(reader.sealed()) >= 12)
    served = []
    for _ in range(9):
        number = reader.sealed()[0]
        served.append(reader.read(number).requests[0][1][:2])
        reader.remove(number)
    assert served[3:6] == served[:3] == served[6:]
    assert set(served) == {b"p0", b"p1", b"p2"}


def test_waiting_ends_when_a_segment_is_sealed_and_not_before(
    broker: Broker, make_reader: Make
) -> None:
    prefix = broker.make_topics()
    reader = make_reader(prefix, segment_age_s=0.05)
    wait_until(lambda: bool(reader.sources()))
    reader.sealed()
    started = time.monotonic()
    reader.wait(0.2)
    assert time.monotonic() - started >= 0.2
    sender = threading.Thread(target=broker.send, args=(prefix + "spans", {0: [b"new"]}))
    sender.start()
    reader.wait(60)
    assert len(reader.sealed()) == 1
    sender.join()


def test_what_waits_is_bounded_and_all_of_it_arrives(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics(2)
    body = bytes(10_000)
    records = {p: [b"%d-%d" % (p, i) + body for i in range(300)] for p in range(2)}
    broker.send(prefix + "spans", records)
    bound = 500_000
    reader = make_reader(prefix, max_waiting_bytes=bound, segment_bytes=50_000)
    wait_until(lambda: reader.stats()["n_paused"] == 2)
    time.sleep(0.3)
    # Six partitions share; only the two with records use theirs.
    assert bound / 3 <= reader.stats()["waiting_bytes"] <= bound / 3 + 2 * 11_000
    wait_until(lambda: sum(reader.lag().values()) == 600)
    store_until(store, lambda: len(store.values()) >= 600, reader)
    assert store.values() == [r[:12] for r in records[0] + records[1]]
    wait_until(lambda: reader.stats()["n_paused"] == 0)
    assert reader.stats()["waiting_bytes"] == 0


def test_a_record_larger_than_a_segment_and_than_all_that_may_wait_is_stored(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics(max_message_bytes="20000000")
    records = [b"small", b"x" * 9_000_000, b"small again"]
    broker.send(prefix + "spans", {0: records})
    reader = make_reader(prefix, max_waiting_bytes=1_000_000, segment_bytes=50_000)
    store_until(store, lambda: len(store.values()) >= 3, reader)
    assert store.values() == [r[:12] for r in records]


def test_a_tombstone_is_an_empty_request(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics()
    broker.send(prefix + "spans", {0: [b"a", None, b"b"]})  # type: ignore[list-item]
    reader = make_reader(prefix)
    store_until(store, lambda: len(store.values()) >= 3, reader)
    assert store.values() == [b"a", b"", b"b"]


def test_a_request_set_aside_lies_in_a_file_with_its_reason(
    broker: Broker, make_reader: Make, tmp_path: Path
) -> None:
    prefix = broker.make_topics()
    broker.send(prefix + "logs", {0: [b"good", b"\xff\xff bad"]})
    reader = make_reader(prefix)
    wait_until(lambda: bool(reader.sealed()))
    (number,) = reader.sealed()
    assert number == first_number(source_number("logs", 0))
    reader.set_aside(number, 1, "no such field")
    path = tmp_path / "aside" / f"{number}-1.logs.pb"
    assert path.read_bytes() == b"\xff\xff bad"
    about = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert about["reason"] == "no such field"
    assert reader.stats()["n_set_aside"] == 1


def test_records_that_expired_before_a_start_are_counted(
    broker: Broker,
    store: SmallStore,
    make_reader: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prefix = broker.make_topics(2)
    broker.send(prefix + "spans", {0: _records(30), 1: _records(30, "new")})
    broker.expire(prefix + "spans", 0, 20)
    broker.expire(prefix + "spans", 1, 20)
    # Of partition 0 the store has the first five; of partition 1 it never had any.
    reader = make_reader(prefix, resume=lambda source: first_number(source) + 5 * (not source))
    store_until(store, lambda: len(store.values()) >= 20, reader)
    assert store.values() == _records(30)[20:] + _records(30, "new")[20:]
    assert reader.stats()["n_expired"] == 15
    (logged,) = [r for r in caplog.records if r.message == "records expired before they were read"]
    assert (logged.levelname, logged.n_records) == ("ERROR", 15)  # type: ignore[attr-defined]


def test_records_that_expire_under_a_slow_reader_are_counted_and_what_it_has_is_kept(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics()
    body = bytes(10_000)
    records = [b"%d-" % i + body for i in range(200)]
    broker.send(prefix + "spans", {0: records})
    reader = make_reader(prefix, max_waiting_bytes=300_000, segment_bytes=50_000)
    wait_until(lambda: reader.stats()["n_paused"] == 1)
    time.sleep(0.2)
    n_taken = int(reader.stats()["n_records"])
    assert n_taken < 100
    broker.expire(prefix + "spans", 0, 150)
    store_until(store, lambda: len(store.values()) >= n_taken + 50, reader)
    assert store.values() == [r[:12] for r in records[:n_taken] + records[150:]]
    assert reader.stats()["n_expired"] == 150 - n_taken
    assert reader.problem() is None


def test_a_topic_made_anew_is_not_read_and_the_others_are(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics(2)
    broker.send(prefix + "spans", {0: _records(3), 1: _records(3, "fine")})
    reader = make_reader(prefix, resume=lambda source: first_number(source) + 5 * (not source))
    store_until(store, lambda: len(store.values()) >= 3, reader)
    assert store.values() == _records(3, "fine")
    problem = reader.problem()
    assert problem is not None
    assert "made anew" in problem
    assert reader.stats()["n_held"] == 1


def test_a_store_that_is_down_when_partitions_come_is_asked_again(
    broker: Broker, store: SmallStore, make_reader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmobs.analyzer.log.kafka.reader._LOOK_EVERY_S", 0.2)
    prefix = broker.make_topics()
    broker.send(prefix + "spans", {0: _records(20)})
    is_down = threading.Event()
    is_down.set()

    def resume(source: int) -> int:
        if is_down.is_set():
            raise ConnectionError("no store")
        return first_number(source) + 10 * (not source)

    reader = make_reader(prefix, resume=resume)
    wait_until(lambda: reader.stats()["n_held"] == 3)
    assert reader.problem() == "no store"
    assert reader.sealed() == []
    is_down.clear()
    store_until(store, lambda: len(store.values()) >= 10, reader)
    assert store.values() == _records(20)[10:]
    assert reader.problem() is None


def test_a_second_member_takes_its_share_and_gives_it_back(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics(4)
    topic = prefix + "spans"
    sent = {p: _records(100, f"a{p}") for p in range(4)}
    broker.send(topic, sent)
    first = make_reader(prefix, segment_bytes=100)
    wait_until(lambda: len(first.sources()) == 12)
    for _ in range(5):
        step(first, store)
    second = make_reader(prefix, segment_bytes=300)
    wait_until(lambda: len(second.sources()) == 6)
    assert set(first.sources()).isdisjoint(second.sources())
    store_until(store, lambda: len(store.values()) >= 400, first, second)
    first.close()
    for p, records in sent.items():
        more = _records(50, f"b{p}")
        broker.send(topic, {p: more})
        records.extend(more)
    store_until(store, lambda: len(store.values()) >= 600, second)
    assert store.values() == [record for p in range(4) for record in sent[p]]
    assert len(second.sources()) == 12
    assert first.stats()["n_lost"] == second.stats()["n_lost"] == 0


def test_a_partition_is_held_until_the_segment_that_is_being_stored_is_stored(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics(1)
    broker.send(prefix + "spans", {0: _records(10)})
    broker.send(prefix + "logs", {0: _records(10)})
    broker.send(prefix + "metrics", {0: _records(10)})
    first = make_reader(prefix)
    wait_until(lambda: len(first.sealed()) == 3)
    segments = [first.read(number) for number in first.sealed()]
    second = make_reader(prefix)
    wait_until(lambda: len(first.sources()) + len(first.sealed()) < 6)
    time.sleep(0.5)
    assert second.sealed() == []
    for segment in segments:
        store.append(segment)
        first.remove(segment.number)
    wait_until(lambda: len(first.sources()) + len(second.sources()) == 3)
    time.sleep(0.3)
    assert second.sealed() == []  # it went on behind what was stored
    assert len(store.values()) == 30
    assert first.stats()["n_lost"] == first.stats()["n_late"] == 0


def test_a_partition_leaves_at_last_when_storing_takes_too_long_and_nothing_is_stored_twice(
    broker: Broker, store: SmallStore, make_reader: Make
) -> None:
    prefix = broker.make_topics(1)
    for topic in ("spans", "logs", "metrics"):
        broker.send(prefix + topic, {0: _records(10)})
    first = make_reader(prefix, handover_s=0.2)
    wait_until(lambda: len(first.sealed()) == 3)
    slow = [first.read(number) for number in first.sealed()]
    second = make_reader(prefix)
    wait_until(lambda: first.stats()["n_lost"] > 0 and bool(second.sources()))
    for segment in slow:  # the late insert, before the new holder has begun to store
        store.append(segment)
        first.remove(segment.number)
    assert first.stats()["n_late"] == first.stats()["n_lost"]
    store_until(store, lambda: second.stats()["n_records"] >= 10, first, second)
    assert len(store.values()) == 30


def test_topics_that_are_made_later_are_found(
    broker: Broker, store: SmallStore, tmp_path: Path
) -> None:
    url = broker.url("later_", topic_metadata_refresh_interval_ms=200)
    reader = KafkaLogReader(
        url, resume=store.position, aside=tmp_path / "aside", segment_age_s=0.05
    )
    time.sleep(0.5)
    assert reader.sources() == ()
    broker.make_topics(prefix="later_")
    broker.send("later_logs", {0: [b"there"]})
    store_until(store, lambda: len(store.values()) == 1, reader)
    reader.close()


def test_a_consumer_that_librdkafka_gave_up_is_replaced(
    broker: Broker, store: SmallStore, make_reader: Make, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = broker.make_topics()
    broker.send(prefix + "spans", {0: _records(10)})
    reader = make_reader(prefix)
    store_until(store, lambda: len(store.values()) >= 10, reader)
    # What librdkafka calls when it does; it can't be made to on purpose.
    reader._on_error(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
    broker.send(prefix + "spans", {0: _records(10, "s")})
    store_until(store, lambda: len(store.values()) >= 20, reader)
    assert store.values() == _records(10) + _records(10, "s")
    assert "left the group" in caplog.text

"""What goes wrong around the log: killed workers, a broker that is gone, a frozen member."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.process
import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from llmobs.analyzer.log.kafka import KafkaLogReader, KafkaLogWriter
from llmobs.errors import OverloadedError
from llmobs.records import first_number
from tests.analyzer.log.kafka.storing import TIMEOUT_S, SmallStore, step, store_until
from tests.kafka import Broker
from tests.waiting import wait_until

SPAWN = multiprocessing.get_context("spawn")
N_KILLS = 4
OUTAGE_S = 10.0


def _work(url: str, store_path: Path, aside: Path) -> None:
    """Store slowly until killed."""
    store = SmallStore(store_path)
    reader = KafkaLogReader(
        url, resume=store.position, aside=aside, segment_bytes=2000, segment_age_s=0.05
    )
    while True:
        step(reader, store, pause_s=0.04)
        reader.wait(0.1)


def test_kill_9_of_workers_loses_nothing_and_stores_nothing_twice(
    broker: Broker, tmp_path: Path
) -> None:
    n_partitions, n_records = 3, 900
    prefix = broker.make_topics(n_partitions)
    url, aside = broker.url(prefix), tmp_path / "aside"
    store = SmallStore(tmp_path / "store.db")
    records = {p: [b"%d-%04d" % (p, i) + bytes(100) for i in range(n_records)] for p in range(3)}

    def send() -> None:
        for first in range(0, n_records, 30):
            broker.send(prefix + "spans", {p: r[first : first + 30] for p, r in records.items()})
            time.sleep(0.2)

    def start() -> multiprocessing.process.BaseProcess:
        worker = SPAWN.Process(target=_work, args=(url, tmp_path / "store.db", aside))
        worker.start()
        return worker

    rng = random.Random(7)
    workers = [start(), start()]
    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(N_KILLS):
            n_stored = len(store.values())
            wait_until(lambda n=n_stored: len(store.values()) >= n + 100)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.1))
            victim = workers.pop(rng.randrange(len(workers)))
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            workers.append(start())
        wait_until(lambda: len(store.values()) >= n_partitions * n_records)
        assert all(worker.is_alive() for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
        sender.join()
    last = KafkaLogReader(url, resume=store.position, aside=aside)
    wait_until(lambda: len(last.lag()) == 9)
    store_until(store, lambda: not sum(last.lag().values()), last)
    last.close()
    expected = [record[:12] for p in range(n_partitions) for record in records[p]]
    assert store.values() == expected


def test_a_broker_that_is_gone_is_waited_for(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = broker.make_topics()
    url, aside = broker.url(prefix), tmp_path / "aside"
    store = SmallStore(tmp_path / "store.db")
    writer = KafkaLogWriter(url, answer_s=2.0)
    reader = KafkaLogReader(url, resume=store.position, aside=aside, segment_age_s=0.05)
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    writer.append("traces", b"before", answers.put)
    assert answers.get(timeout=TIMEOUT_S) is None
    store_until(store, lambda: len(store.values()) == 1, reader)

    broker.kill()
    killed = time.monotonic()
    writer.append("traces", b"during", answers.put)
    error = answers.get(timeout=TIMEOUT_S)
    assert isinstance(error, OverloadedError)
    assert time.monotonic() - killed < 8
    wait_until(lambda: reader.problem() is not None and writer.problem() is not None)
    assert "does not answer" in str(reader.problem())
    assert reader.stats()["is_connected"] == writer.stats()["is_connected"] == 0
    # Others start meanwhile.
    late_writer = KafkaLogWriter(url, answer_s=60.0)
    late_writer.append("logs", b"late", answers.put)
    other_prefix_reader = KafkaLogReader(
        broker.url(prefix).replace("group=", "group=other"),
        resume=first_number,
        aside=aside,
        segment_age_s=0.05,
    )
    wait_until(lambda: other_prefix_reader.problem() is not None)
    time.sleep(max(0.0, killed + OUTAGE_S - time.monotonic()))
    broker.start()

    assert answers.get(timeout=TIMEOUT_S) is None
    writer.append("traces", b"during", answers.put)
    assert answers.get(timeout=TIMEOUT_S) is None
    store_until(store, lambda: len(store.values()) >= 3, reader)
    # A refused request may have arrived all the same, and then its retry is there as well.
    assert set(store.requests()) == {
        ("traces", b"before"),
        ("traces", b"during"),
        ("logs", b"late"),
    }
    wait_until(lambda: other_prefix_reader.stats()["n_records"] >= 3)
    for client in (writer, late_writer, reader, other_prefix_reader):
        wait_until(lambda client=client: client.problem() is None)  # type: ignore[misc]
        client.close()
    assert reader.stats()["n_outages"] == 1
    assert "kafka does not answer" in caplog.text
    assert "kafka answers again" in caplog.text


def test_closing_does_not_wait_for_a_broker_that_is_gone(tmp_path: Path) -> None:
    url = "kafka://127.0.0.1:1/"
    reader = KafkaLogReader(url, resume=first_number, aside=tmp_path)
    writer = KafkaLogWriter(url, answer_s=1.0)
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    writer.append("traces", b"request", answers.put)
    started = time.monotonic()
    writer.close()
    reader.close()
    assert time.monotonic() - started < 10
    assert isinstance(answers.get(timeout=0), OverloadedError)


def _look(url: str, directory: Path) -> None:
    """Write down again and again what a reader says of itself, until killed."""
    reader = KafkaLogReader(
        url, resume=SmallStore(directory / "store.db").position, aside=directory
    )
    while True:
        (directory / "fresh").write_text(json.dumps(reader.stats()))
        (directory / "fresh").replace(directory / "stats")
        time.sleep(0.05)


def test_a_member_that_was_frozen_loses_its_partitions_and_begins_behind_what_others_stored(
    broker: Broker, tmp_path: Path
) -> None:
    prefix = broker.make_topics()
    records = [b"%02d" % i for i in range(20)]
    broker.send(prefix + "spans", {0: records})
    url = broker.url(prefix)
    store = SmallStore(tmp_path / "store.db")
    frozen = SPAWN.Process(target=_look, args=(url, tmp_path))
    frozen.start()

    def said() -> Counter[str]:
        path = tmp_path / "stats"
        return Counter(json.loads(path.read_text()) if path.exists() else {})

    try:
        wait_until(lambda: said()["n_segments"] == 1)
        assert frozen.pid is not None
        os.kill(frozen.pid, signal.SIGSTOP)
        reader = KafkaLogReader(url, resume=store.position, aside=tmp_path / "aside")
        store_until(store, lambda: len(store.values()) >= 20, reader)
        reader.close()
        os.kill(frozen.pid, signal.SIGCONT)
        wait_until(lambda: said()["n_lost"] == 3 and said()["n_partitions"] == 3)
        wait_until(lambda: said()["n_segments"] == said()["lag_records"] == 0)
    finally:
        frozen.kill()
        frozen.join()
    assert store.values() == records

from __future__ import annotations

import queue
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from llmobs.analyzer.log.kafka import KafkaLogReader, KafkaLogWriter
from llmobs.errors import OverloadedError, TooLargeError
from llmobs.records import Signal
from tests.analyzer.log.kafka.storing import TIMEOUT_S, SmallStore, store_until
from tests.analyzer.log.waiting import append, append_all, append_mixed
from tests.kafka import Broker
from tests.waiting import wait_until

Make = Callable[..., KafkaLogWriter]


@pytest.fixture
def make_writer(broker: Broker) -> Iterator[Make]:
    """Return a way to make writers that are closed after the test."""
    writers: list[KafkaLogWriter] = []

    def make(prefix: str, **options: object) -> KafkaLogWriter:
        writers.append(KafkaLogWriter(broker.url(prefix), **options))  # type: ignore[arg-type]
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()


def _n_in_kafka(broker: Broker, prefix: str, tmp_path: Path) -> int:
    """Return how many requests a reader finds in the topics."""
    store = SmallStore(tmp_path / "counted.db")
    reader = KafkaLogReader(broker.url(prefix), resume=store.position, aside=tmp_path / "aside")
    try:
        wait_until(lambda: len(reader.lag()) == 3)
        store_until(store, lambda: not sum(reader.lag().values()), reader)
        return len(store.values())
    finally:
        reader.close()


def test_what_is_acknowledged_is_read_in_order_under_its_signal(
    broker: Broker, make_writer: Make, tmp_path: Path
) -> None:
    prefix = broker.make_topics()
    signals: tuple[Signal, ...] = ("traces", "logs", "metrics")
    requests = [(signal, b"%s %d" % (signal.encode(), i)) for signal in signals for i in range(200)]
    writer = make_writer(prefix)
    assert append_mixed(writer, requests) == [None] * 600
    assert writer.problem() is None
    assert writer.stats()["n_requests"] == 600
    assert writer.stats()["queue_bytes"] == 0
    store = SmallStore(tmp_path / "store.db")
    reader = KafkaLogReader(broker.url(prefix), resume=store.position, aside=tmp_path / "aside")
    store_until(store, lambda: len(store.values()) >= 600, reader)
    reader.close()
    assert store.requests() == requests


def test_a_retry_is_acknowledged_again_and_written_once(
    broker: Broker, make_writer: Make, tmp_path: Path
) -> None:
    prefix = broker.make_topics()
    writer = make_writer(prefix)
    assert append(writer, b"one") is None
    assert append(writer, b"one") is None
    assert append_all(writer, [b"two"] * 3) == [None] * 3  # while it is on its way
    assert append(writer, b"one", "logs") is None  # another signal is another request
    assert writer.stats()["n_requests"] == 6
    assert writer.stats()["n_duplicates"] == 3
    assert _n_in_kafka(broker, prefix, tmp_path) == 3


def test_retries_are_remembered_for_a_bounded_number_of_requests(
    broker: Broker, make_writer: Make
) -> None:
    writer = make_writer(broker.make_topics(), max_digests=20)
    for i in range(100):
        assert append(writer, b"%d" % i) is None
    assert append(writer, b"95") is None
    assert writer.stats()["n_duplicates"] == 1
    assert writer.stats()["n_recent"] <= 20
    assert append(writer, b"5") is None
    assert writer.stats()["n_duplicates"] == 1


def test_a_request_that_the_topic_forbids_is_too_large_and_the_error_names_the_setting(
    broker: Broker, make_writer: Make
) -> None:
    prefix = broker.make_topics(max_message_bytes="100000")
    writer = make_writer(prefix)
    error = append(writer, random.Random(1).randbytes(200_000))
    assert isinstance(error, TooLargeError)
    assert "200000 bytes" in str(error)
    assert "max.message.bytes" in str(error)
    assert append(writer, bytes(200_000)) is None  # the limit is on what comes out of lz4
    assert writer.problem() is None  # it is the request that is wrong, not Kafka


def test_a_request_above_the_own_limit_is_too_large(broker: Broker, make_writer: Make) -> None:
    writer = make_writer(broker.make_topics(), max_request_bytes=10_000)
    assert isinstance(append(writer, bytes(20_000)), TooLargeError)
    assert append(writer, bytes(5_000)) is None


def test_a_topic_that_is_not_there_refuses_and_says_so(broker: Broker, make_writer: Make) -> None:
    writer = make_writer("nowhere_", answer_s=1.0)
    error = append(writer, b"lost?")
    assert isinstance(error, OverloadedError)
    assert "Kafka did not take the request" in str(error)
    assert writer.problem() == str(error)


def test_requests_beyond_the_queue_are_refused_at_once(broker: Broker, make_writer: Make) -> None:
    writer = make_writer("nowhere_", answer_s=1.0, max_queue_bytes=1000)
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    writer.append("traces", bytes(5000), answers.put)  # one is let in, whatever its size
    assert answers.empty()
    error = append(writer, bytes(10))
    assert isinstance(error, OverloadedError)
    assert "limit 1000" in str(error)
    assert writer.problem() == str(error)
    assert isinstance(answers.get(timeout=TIMEOUT_S), OverloadedError)


def test_closing_answers_everything_and_refuses_what_comes_after(
    broker: Broker, make_writer: Make
) -> None:
    writer = make_writer(broker.make_topics())
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    for i in range(100):
        writer.append("traces", b"%d" % i, answers.put)
    writer.close()
    assert [answers.get(timeout=0) for _ in range(100)] == [None] * 100
    writer.append("traces", b"late", answers.put)
    error = answers.get(timeout=0)
    assert isinstance(error, OverloadedError)
    assert "shutting down" in str(error)
    writer.close()


def test_an_acknowledgement_that_raises_harms_no_other(
    broker: Broker, make_writer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(broker.make_topics())

    def fail(error: Exception | None) -> None:
        raise ValueError("the caller's own")

    writer.append("traces", b"first", fail)
    assert append(writer, b"second") is None
    assert "acknowledgement failed" in caplog.text


def test_a_producer_that_librdkafka_gave_up_is_replaced(broker: Broker, make_writer: Make) -> None:
    writer = make_writer(broker.make_topics())
    assert append(writer, b"before") is None
    # What librdkafka calls when it does; it can't be made to on purpose.
    writer._on_error(KafkaError(KafkaError._FATAL, "sequence broken", fatal=True))
    wait_until(lambda: not writer._is_fatal)
    assert append(writer, b"after") is None

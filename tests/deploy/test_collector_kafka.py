"""The shipped configuration for Kafka, between a real Collector and a real broker."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import SecretStr

from llmobs.server import Server
from llmobs.settings import Settings
from tests.deploy.collector import Collector, short_waits
from tests.deploy.traffic import (
    ids,
    logs,
    metrics,
    send,
    spans_of,
    stored,
    wait_stored,
)
from tests.kafka import Broker, broker
from tests.otlp import chat_span, post
from tests.waiting import wait_until

__all__ = ["broker"]

N_PARTITIONS = 4


@pytest.fixture
def prefix(broker: Broker) -> str:
    """Make topics as an operator would, for records as large as the Collector's."""
    return broker.make_topics(N_PARTITIONS, max_message_bytes=str(16 << 20))


def in_front_of(broker: Broker, prefix: str, directory: Path) -> Collector:
    name = "exporters.kafka/llmobs"
    return Collector(
        "collector-kafka.yaml",
        directory,
        {"KAFKA_BROKERS": f"[{broker.address}]"},
        f"{name}.traces.topic={prefix}spans",
        f"{name}.logs.topic={prefix}logs",
        f"{name}.metrics.topic={prefix}metrics",
        *short_waits(name),
        f"{name}.timeout=5s",
    )


def records(broker: Broker, topic: str, n_spans: int) -> list[tuple[int, list[Span]]]:
    """Return partition and spans of each record, when so many spans have come."""
    consumer = Consumer({
        "bootstrap.servers": broker.address, "group.id": "test", "log_level": 0,
        "auto.offset.reset": "earliest", "enable.auto.commit": False,
    })  # fmt: skip
    found: list[tuple[int, list[Span]]] = []
    consumer.subscribe([topic])

    def all_came() -> bool:
        for message in consumer.consume(500, timeout=0.2):
            assert message.error() is None
            request = ExportTraceServiceRequest.FromString(message.value() or b"")
            spans = [
                span for r in request.resource_spans for s in r.scope_spans for span in s.spans
            ]
            found.append((message.partition() or 0, spans))
        return sum(len(spans) for _, spans in found) >= n_spans

    try:
        wait_until(all_came)
    finally:
        consumer.close()
    return found


def test_all_of_a_trace_is_in_one_partition(broker: Broker, prefix: str, tmp_path: Path) -> None:
    spans = spans_of(random.Random(1), 200)
    with in_front_of(broker, prefix, tmp_path).running() as collector:
        send(collector, spans)
        found = records(broker, f"{prefix}spans", len(spans))
    assert ids([span for _, of_record in found for span in of_record]) == ids(spans)
    places: dict[bytes, set[int]] = {}
    for partition, of_record in found:
        for span in of_record:
            places.setdefault(span.trace_id, set()).add(partition)
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len(set().union(*places.values())) == N_PARTITIONS


def test_a_span_of_some_megabytes_gets_through(broker: Broker, prefix: str, tmp_path: Path) -> None:
    chance = random.Random(2)
    # Words without order, so that compression does not make it small.
    text = " ".join(f"{chance.getrandbits(64):x}" for _ in range(500_000))
    spans = [*spans_of(chance, 10), chat_span(chance, text=text)]
    with in_front_of(broker, prefix, tmp_path).running() as collector:
        send(collector, spans, a_request=1)
        found = records(broker, f"{prefix}spans", len(spans))
    assert ids([span for _, of_record in found for span in of_record]) == ids(spans)


@pytest.mark.slow
def test_what_apps_send_is_in_the_store_once_although_the_broker_was_down(
    broker: Broker, prefix: str, tmp_path: Path
) -> None:
    spans = spans_of(random.Random(3), 100)
    settings = Settings(
        data=tmp_path / "data", http_port=0, grpc_port=0, web_port=0,
        log=SecretStr(broker.url(prefix)), segment_max_age_s=0.2, scorers=("language",),
    )  # fmt: skip
    with in_front_of(broker, prefix, tmp_path).running() as collector:
        send(collector, spans[:150])
        broker.kill()
        send(collector, spans[150:])
        assert post(collector.http_port, logs(20), path="/v1/logs")[0] == 200
        assert post(collector.http_port, metrics(5), path="/v1/metrics")[0] == 200
        broker.start()
        with Server(settings) as server:
            server.wait_ready()
            wait_stored(server, traces=len(spans), logs=20, metrics=5)
    found = stored(settings.data)
    assert sorted(found["spans"]) == ids(spans)
    assert found["rolled_up"] == len(spans)
    assert Counter(found["events"]) == {"test.event": 20}
    assert Counter(found["metrics"]) == {"test.metric": 5}

"""A real Kafka broker for tests: one node, a small heap, a folder of the test session."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.dashboards.outside import missing, parts
from tests.ports import free_ports

__all__ = ["TOPICS", "Broker", "broker"]

TOPICS = ("spans", "logs", "metrics")
START_TIMEOUT_S = 90.0

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
log.cleaner.dedupe.buffer.size=2000000
log.cleaner.io.buffer.size=65536
num.network.threads=1
num.io.threads=2
background.threads=1
log.initial.task.delay.ms=500
"""
_JAVA = ("-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def _libraries() -> Path:
    """Return where Kafka's jars are; skip the test, or fail it where all parts must be there."""
    named = os.environ.get("LLMOBS_KAFKA_HOME")
    homes = [Path(named)] if named else sorted(parts().glob("kafka-*"))
    found = [home for home in homes if any(home.glob("kafka_*.jar"))]
    if not found or not shutil.which("java"):
        missing("Kafka's jars or java are not here (.ci/kafka fetches the jars)")
    return found[-1]


class Broker:
    """A broker in a process of its own, that may be killed and started again."""

    def __init__(self, libraries: Path, directory: Path) -> None:
        self._java = (shutil.which("java") or "java", *_JAVA, "-cp", f"{libraries}/*")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._prefixes = itertools.count()
        port, controller_port = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self._properties = directory / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(port=port, controller_port=controller_port, directory=directory)
        )
        cluster = uuid.uuid4().hex[:22]
        tool = [*self._java, "kafka.tools.StorageTool", "format"]
        subprocess.run(
            [*tool, "-t", cluster, "-c", str(self._properties)], check=True, capture_output=True
        )
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def start(self) -> None:
        """Start the broker and return when it answers."""
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._properties)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                self.admin.list_topics(timeout=1)
                return
            if self._process.poll() is not None:
                break
        self.kill()
        pytest.fail(f"Kafka does not start: {(self._directory / 'output').read_text()[-3000:]}")

    def kill(self) -> None:
        """End the broker as a power cut does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def make_topics(self, n_partitions: int = 1, *, prefix: str = "", **config: str) -> str:
        """Make the three topics and return their prefix: another each time, unless named."""
        if self._process is None or self._process.poll() is not None:
            self.start()  # a test that failed left it dead
        prefix = prefix or f"test{next(self._prefixes)}_"
        dotted = {name.replace("_", "."): value for name, value in config.items()}
        topics = [NewTopic(prefix + name, n_partitions, 1, config=dotted) for name in TOPICS]
        for made in self.admin.create_topics(topics).values():
            made.result(30)
        return prefix

    def expire(self, topic: str, partition: int, before: int) -> None:
        """Delete the records before an offset, as retention does."""
        place = TopicPartition(topic, partition, before)
        self.admin.delete_records([place])[place].result(30)

    def url(self, prefix: str, **options: object) -> str:
        """Return the URL of the log in the topics with that prefix; members notice things soon."""
        options = {"session_timeout_ms": 3000, "heartbeat_interval_ms": 100} | options
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"kafka://{self.address}/?prefix={prefix}&group={prefix}{more}"

    def send(self, topic: str, values: Mapping[int, list[bytes]], **config: object) -> None:
        """Write records to partitions, in order, as another producer would."""
        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "log_level": 0,
                "message.max.bytes": 64 << 20,
                "enable.idempotence": True,  # else a batch that is sent again comes later
            }
            | {name.replace("_", "."): value for name, value in config.items()}
        )
        for partition, records in values.items():
            for record in records:
                producer.produce(topic, record, partition=partition)
        assert producer.flush(60) == 0

    def committed(self, group: str, topic: str, partition: int) -> int:
        """Return the offset that a group committed; negative when none."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})
        try:
            return consumer.committed([TopicPartition(topic, partition)], timeout=30)[0].offset
        finally:
            consumer.close()

    def commit(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Commit an offset for a group without members."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})
        try:
            place = TopicPartition(topic, partition, offset)
            consumer.commit(offsets=[place], asynchronous=False)
        finally:
            consumer.close()


_RUNNING = pytest.StashKey[Broker]()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """Return the one broker of the test session, whichever test files import this fixture."""
    stash = request.config.stash
    if _RUNNING not in stash:
        stash[_RUNNING] = running = Broker(_libraries(), tmp_path_factory.mktemp("kafka"))
        request.config.add_cleanup(running.kill)
        running.start()
    return stash[_RUNNING]

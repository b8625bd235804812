"""The receiver as a process of its own, with a log on disk, stopped and killed."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.receive import run
from tests.analyzer.receive.serving import PROTOBUF, check, export, send

SPAWN = multiprocessing.get_context("spawn")


def _serve(directory: Path, ports: multiprocessing.Queue[tuple[int, int]]) -> None:
    run(
        SegmentWriter(directory, segment_age_s=0.1),
        check,
        http_port=0,
        grpc_port=0,
        on_ready=lambda http_port, grpc_port: ports.put((http_port, grpc_port)),
    )


class Process:
    def __init__(self, directory: Path) -> None:
        ports: multiprocessing.Queue[tuple[int, int]] = SPAWN.Queue()
        self._process = SPAWN.Process(target=_serve, args=(directory, ports))
        self._process.start()
        self.http_port, self.grpc_port = ports.get(timeout=60)

    def end(self, number: signal.Signals) -> int | None:
        """Send a signal and return the exit code."""
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, number)
        self._process.join(30)
        return self._process.exitcode


Start = Callable[[], Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(tmp_path / "log"))
        return started[-1]

    yield start
    for process in started:
        process.end(signal.SIGKILL)


@pytest.fixture
def reader(tmp_path: Path) -> SegmentReader:
    return SegmentReader(tmp_path / "log", tmp_path / "aside")


def _stored(reader: SegmentReader) -> Counter[bytes]:
    return Counter(
        request for number in reader.sealed() for _, request in reader.read(number).requests
    )


def test_sigterm_finishes_requests_in_flight_seals_the_log_and_exits_with_0(
    start: Start, reader: SegmentReader, tmp_path: Path
) -> None:
    process = start()
    body = export("traces").SerializeToString()
    head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    with socket.create_connection(("127.0.0.1", process.http_port), timeout=20) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body[:10])
        time.sleep(0.1)
        codes: list[int | None] = []
        stopper = threading.Thread(target=lambda: codes.append(process.end(signal.SIGTERM)))
        stopper.start()
        time.sleep(0.3)
        with pytest.raises(OSError):
            send(process.http_port, "/v1/traces", body, PROTOBUF)
        connection.sendall(body[10:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    stopper.join()
    assert codes == [0]
    assert _stored(reader) == {body: 1}
    assert not list((tmp_path / "log").glob("*.open"))


def test_kill_9_under_load_loses_nothing_acknowledged_and_retries_are_stored_once(
    start: Start, reader: SegmentReader
) -> None:
    n_senders = 4
    acknowledged: set[bytes] = set()
    pending: list[list[bytes]] = [[] for _ in range(n_senders)]
    expected: set[bytes] = set()

    def load(port: int, sender: int, life: int) -> None:
        """Send one request after the other until the server is gone; first what is pending."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            for n in range(100_000):
                if not pending[sender]:
                    name = f"{life}-{sender}-{n}"
                    pending[sender].append(export("traces", name, n=8).SerializeToString())
                connection.request("POST", "/v1/traces", pending[sender][0], PROTOBUF)
                response = connection.getresponse()
                response.read()
                assert response.status == 200
                acknowledged.add(pending[sender].pop())
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    for life in range(3):
        process = start()
        senders = [
            threading.Thread(target=load, args=(process.http_port, sender, life))
            for sender in range(n_senders)
        ]
        for thread in senders:
            thread.start()
        time.sleep(0.4)
        process.end(signal.SIGKILL)
        for thread in senders:
            thread.join()
    process = start()
    for body in [body for bodies in pending for body in bodies]:
        assert send(process.http_port, "/v1/traces", body, PROTOBUF).status == 200
        expected.add(body)
    assert process.end(signal.SIGTERM) == 0
    expected |= acknowledged
    assert len(expected) > 50
    assert _stored(reader) == dict.fromkeys(expected, 1)

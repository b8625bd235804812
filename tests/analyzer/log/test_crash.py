"""The writer in a process of its own, killed or starved of disk."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.errors import OverloadedError
from tests.analyzer.log.waiting import append, stored

SPAWN = multiprocessing.get_context("spawn")
N_KILLS = 6
N_OUTSTANDING = 32


class Journal:
    """What a sender remembers of its requests; a line is there when `write` has returned."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, request: str) -> None:
        os.write(self._descriptor, f"{request}\n".encode())


def _request(name: str) -> bytes:
    return f"{name} ".encode() * 100


def _write_until_killed(directory: Path, life: int, retries: list[str]) -> None:
    writer = SegmentWriter(directory, segment_bytes=20_000, segment_age_s=0.02)
    sent, acknowledged = Journal(directory / "sent"), Journal(directory / "acknowledged")
    room = threading.Semaphore(N_OUTSTANDING)

    def names() -> Iterator[str]:
        yield from retries
        n = 0
        while True:
            yield f"{life}-{n}"
            n += 1

    def send(name: str) -> None:
        def done(error: Exception | None) -> None:
            if error is None:
                acknowledged.write(name)
            room.release()

        sent.write(name)
        writer.append("traces", _request(name), done)

    for name in names():
        room.acquire()
        send(name)


def test_kill_9_loses_nothing_acknowledged_and_a_retry_is_stored_once(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    reader = SegmentReader(directory, tmp_path / "aside")
    rng = random.Random(5)
    kept: Counter[bytes] = Counter()
    numbers: list[int] = []

    def take() -> None:
        for number in reader.sealed():
            numbers.append(number)
            kept.update(request for _, request in reader.read(number).requests)
            reader.remove(number)

    retries: list[str] = []
    for life in range(N_KILLS):
        process = SPAWN.Process(target=_write_until_killed, args=(directory, life, retries))
        process.start()
        assert process.pid is not None
        while not any(line.startswith(f"{life}-") for line in _lines(directory / "acknowledged")):
            time.sleep(0.01)
        until = time.monotonic() + rng.uniform(0.05, 0.3)
        while time.monotonic() < until:
            take()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if life % 2:
            take()  # now and then the engine has removed everything when the writer is back
        acknowledged = set(_lines(directory / "acknowledged"))
        retries = [
            name for name in dict.fromkeys(_lines(directory / "sent")) if name not in acknowledged
        ]
    writer = SegmentWriter(directory)
    for name in retries:
        assert append(writer, _request(name)) is None
    writer.close()
    take()

    everything = {_request(name) for name in _lines(directory / "sent")}
    assert len(everything) > 100
    assert set(kept) == everything
    assert set(kept.values()) == {1}
    assert numbers == sorted(set(numbers))


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _write_to_a_small_disk(directory: Path, answers: multiprocessing.Queue[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = SegmentWriter(directory, segment_bytes=1 << 20, segment_age_s=60)
    resource.setrlimit(resource.RLIMIT_FSIZE, (45_000, hard))
    for i in range(5):  # the fifth would end at 50 kB, and its first part fits
        error = append(writer, b"%d" % i * 10_000)
        assert error is None or isinstance(error, OverloadedError)
        answers.put("kept" if error is None else "refused")
    answers.put("kept" if append(writer, b"5" * 10_000) is None else "refused")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    answers.put("kept" if append(writer, b"4" * 10_000) is None else "refused")
    writer.close()


def test_a_full_disk_refuses_without_half_records_and_writing_goes_on_afterwards(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "log"
    answers: multiprocessing.Queue[str] = SPAWN.Queue()
    process = SPAWN.Process(target=_write_to_a_small_disk, args=(directory, answers))
    process.start()
    said = [answers.get(timeout=30) for _ in range(7)]
    process.join()
    assert process.exitcode == 0
    # The sixth goes to a fresh file, the segment with the torn end having been cut and sealed.
    assert said == ["kept"] * 4 + ["refused", "kept", "kept"]
    reader = SegmentReader(directory, tmp_path / "aside")
    assert [request[:1] for _, request in stored(reader)] == [b"0", b"1", b"2", b"3", b"5", b"4"]
    assert reader.stats()["n_corrupt"] == 0

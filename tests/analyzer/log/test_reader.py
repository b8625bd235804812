from __future__ import annotations

import errno
import json
import threading
import time
from pathlib import Path

import pytest

from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.log import aside as aside_module
from llmobs.analyzer.log.record import HEADER_BYTES
from tests.analyzer.log.waiting import append, append_all, stored


@pytest.fixture
def reader(tmp_path: Path) -> SegmentReader:
    """Read a log of one segment with the requests 0, 1 and 2."""
    writer = SegmentWriter(tmp_path / "log", segment_age_s=60)
    append_all(writer, [b"request %d" % i for i in range(3)])
    writer.close()
    return SegmentReader(tmp_path / "log", tmp_path / "aside")


def _segment(tmp_path: Path) -> Path:
    return next((tmp_path / "log").glob("*.seg"))


def test_a_corrupt_record_is_set_aside_and_the_rest_is_read(
    tmp_path: Path, reader: SegmentReader
) -> None:
    path = _segment(tmp_path)
    data = bytearray(path.read_bytes())
    size = HEADER_BYTES + len(b"request 0")
    data[size + HEADER_BYTES] ^= 0xFF
    path.write_bytes(data)
    number = reader.sealed()[0]
    for _ in range(2):  # reading again counts nothing twice
        requests = reader.read(number).requests
        assert requests == (("traces", b"request 0"), ("traces", b"request 2"))
        assert reader.stats()["n_corrupt"] == 1
    aside = tmp_path / "aside" / f"{number:012d}-at-{size}.damaged"
    assert aside.read_bytes() == data[size : 2 * size]


def test_a_segment_that_is_all_noise_reads_as_empty(tmp_path: Path, reader: SegmentReader) -> None:
    _segment(tmp_path).write_bytes(b"\0" * 1000)
    assert reader.read(reader.sealed()[0]).requests == ()
    assert reader.stats()["n_corrupt"] == 1


def test_a_request_set_aside_lies_in_a_file_with_its_reason(
    tmp_path: Path, reader: SegmentReader
) -> None:
    number = reader.sealed()[0]
    for _ in range(2):
        reader.set_aside(number, 1, "no such field")
    path = tmp_path / "aside" / f"{number:012d}-1.traces.pb"
    assert path.read_bytes() == b"request 1"
    assert json.loads(path.with_name(f"{path.name}.json").read_text()) == {
        "segment": number,
        "index": 1,
        "signal": "traces",
        "reason": "no such field",
    }
    assert reader.stats()["n_set_aside"] == 1


def test_what_is_set_aside_never_fills_the_disk(tmp_path: Path, reader: SegmentReader) -> None:
    bounded = SegmentReader(tmp_path / "log", tmp_path / "aside", max_aside_bytes=200)
    number = bounded.sealed()[0]
    for index in range(3):
        bounded.set_aside(number, index, "bad")
    assert sum(path.stat().st_size for path in (tmp_path / "aside").iterdir()) <= 200
    assert bounded.stats()["n_set_aside"] == 2
    assert bounded.stats()["n_aside_dropped"] == 1


def test_trying_again_to_set_aside_on_a_full_disk_does_not_use_up_the_room(
    tmp_path: Path, reader: SegmentReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = SegmentReader(tmp_path / "log", tmp_path / "aside", max_aside_bytes=200)
    number = bounded.sealed()[0]

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(aside_module, "replace_file", full)
        for _ in range(10):
            with pytest.raises(OSError, match="No space"):
                bounded.set_aside(number, 0, "bad")
    bounded.set_aside(number, 0, "bad")
    assert bounded.stats()["n_set_aside"] == 1


def test_a_removed_segment_is_gone_and_may_be_removed_again(reader: SegmentReader) -> None:
    number = reader.sealed()[0]
    reader.remove(number)
    reader.remove(number)
    assert reader.sealed() == []
    with pytest.raises(FileNotFoundError):
        reader.read(number)


def test_waiting_ends_when_a_segment_is_sealed_and_not_before(
    tmp_path: Path, reader: SegmentReader
) -> None:
    reader.sealed()
    started = time.monotonic()
    reader.wait(0.2)
    assert time.monotonic() - started >= 0.2
    writer = SegmentWriter(tmp_path / "log", segment_age_s=0.3)
    threading.Thread(target=append, args=(writer, b"new")).start()
    reader.wait(20)
    assert len(reader.sealed()) == 2
    writer.close()


def test_waiting_returns_at_once_for_what_was_sealed_since_the_last_look(
    tmp_path: Path, reader: SegmentReader
) -> None:
    reader.sealed()
    writer = SegmentWriter(tmp_path / "log")
    append(writer, b"new")
    writer.close()
    started = time.monotonic()
    reader.wait(20)
    assert time.monotonic() - started < 5


def test_the_engine_may_remove_segments_while_the_receiver_writes(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "log", segment_bytes=1000, segment_age_s=0.05)
    reader = SegmentReader(tmp_path / "log", tmp_path / "aside")
    read: list[bytes] = []

    def drain() -> None:
        for number in reader.sealed():
            read.extend(request for _, request in reader.read(number).requests)
            reader.remove(number)

    requests = [b"%03d" % i * 50 for i in range(200)]
    for first in range(0, 200, 10):
        assert append_all(writer, requests[first : first + 10]) == [None] * 10
        drain()
    writer.close()
    drain()
    assert read == requests
    assert stored(reader) == []
    assert writer.stats()["bytes_on_disk"] == 0

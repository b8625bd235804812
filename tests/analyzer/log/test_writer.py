from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.log import writer as writer_module
from llmobs.analyzer.log.record import pack
from llmobs.errors import ConfigurationError, OverloadedError
from tests.analyzer.log.waiting import append, append_all, stored


class Disk:
    """A disk that can be told to hold still or to fail."""

    def __init__(self) -> None:
        self.works = threading.Event()
        self.works.set()
        self.broken = False
        self.n_syncs = 0

    def sync(self, descriptor: int) -> None:
        self.works.wait()
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        self.n_syncs += 1
        os.fdatasync(descriptor)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def reader(tmp_path: Path) -> SegmentReader:
    return SegmentReader(tmp_path / "log", tmp_path / "aside")


def test_acknowledged_requests_are_read_back_in_order(
    directory: Path, reader: SegmentReader
) -> None:
    writer = SegmentWriter(directory)
    requests = [b"request %d" % i for i in range(100)]
    assert append_all(writer, requests) == [None] * 100
    assert append(writer, b"a log", "logs") is None
    writer.close()
    assert stored(reader) == [*(("traces", request) for request in requests), ("logs", b"a log")]


def test_many_requests_share_one_fsync(directory: Path) -> None:
    disk = Disk()
    writer = SegmentWriter(directory, sync=disk.sync)
    disk.works.clear()
    threading.Timer(0.2, disk.works.set).start()
    assert append_all(writer, [b"%d" % i for i in range(500)]) == [None] * 500
    assert disk.n_syncs <= 5
    assert writer.stats()["n_fsyncs"] == disk.n_syncs
    writer.close()


def test_nothing_is_acknowledged_before_the_disk_has_it(directory: Path) -> None:
    disk = Disk()
    writer = SegmentWriter(directory, sync=disk.sync)
    disk.works.clear()
    acknowledged = threading.Event()
    writer.append("traces", b"x", lambda error: acknowledged.set())
    writer.append("traces", b"x", lambda error: acknowledged.set())  # a retry has to wait, too
    assert not acknowledged.wait(0.2)
    disk.works.set()
    assert acknowledged.wait(5)
    writer.close()


def test_a_segment_is_sealed_by_age_when_nothing_more_comes(
    directory: Path, reader: SegmentReader
) -> None:
    writer = SegmentWriter(directory, segment_age_s=0.1)
    append(writer, b"alone")
    reader.wait(5)
    assert stored(reader) == [("traces", b"alone")]
    writer.close()


def test_while_the_engine_is_behind_segments_grow_and_are_sealed_when_it_has_caught_up(
    directory: Path, reader: SegmentReader
) -> None:
    writer = SegmentWriter(directory, segment_age_s=0.05)
    deadline = time.monotonic() + 1.5
    n_requests = 0
    while time.monotonic() < deadline:
        append(writer, b"%d" % n_requests)
        n_requests += 1
    behind = reader.sealed()
    assert len(behind) == 4
    n_stored = 0
    for number in behind:
        n_stored += len(reader.read(number).requests)
        reader.remove(number)
    for _ in range(100):
        if reader.sealed():
            break
        time.sleep(0.05)
    n_stored += sum(len(reader.read(number).requests) for number in reader.sealed())
    assert n_stored == n_requests
    writer.close()


def test_a_segment_is_sealed_by_size(directory: Path, reader: SegmentReader) -> None:
    writer = SegmentWriter(directory, segment_bytes=10_000, segment_age_s=60)
    append_all(writer, [b"%03d" % i * 1000 for i in range(20)])
    writer.close()
    sizes = [path.stat().st_size for path in directory.glob("*.seg")]
    assert len(sizes) >= 3
    assert max(sizes) <= 2 * 10_000 + 3032
    assert len(stored(reader)) == 20


def test_numbers_never_repeat_even_when_every_segment_is_gone(
    directory: Path, reader: SegmentReader
) -> None:
    seen: list[int] = []
    for life in range(4):
        writer = SegmentWriter(directory)
        append(writer, b"%d" % life)
        writer.close()
        seen += reader.sealed()
        for number in reader.sealed():
            reader.remove(number)
    assert len(seen) == 4
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("damage", [None, b"", b"?", b"\xff\xfe"])
def test_numbers_go_on_above_all_that_were_used_when_the_number_file_is_lost(
    directory: Path, reader: SegmentReader, damage: bytes | None
) -> None:
    used: list[int] = []
    for _ in range(3):
        writer = SegmentWriter(directory)
        append(writer, b"%d" % len(used))
        writer.close()
        used += reader.sealed()
        for number in reader.sealed():
            reader.remove(number)
        if damage is None:
            (directory / "next").unlink()
        else:
            (directory / "next").write_bytes(damage)
    assert len(used) == 3
    assert used == sorted(set(used))


def test_a_log_that_was_deleted_by_hand_starts_above_its_former_self(
    directory: Path, reader: SegmentReader
) -> None:
    used: list[int] = []
    for _ in range(2):
        writer = SegmentWriter(directory)
        append(writer, b"a")
        writer.close()
        used += reader.sealed()
        shutil.rmtree(directory)
    assert used[1] > used[0]


def test_a_directory_has_one_writer(directory: Path) -> None:
    writer = SegmentWriter(directory)
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        SegmentWriter(directory)
    writer.close()
    SegmentWriter(directory).close()


def test_files_are_for_their_owner_alone(directory: Path) -> None:
    writer = SegmentWriter(directory)
    append(writer, b"a secret prompt")
    writer.close()
    assert directory.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.iterdir())


def test_nothing_is_acknowledged_into_a_file_that_was_given_up(
    directory: Path, reader: SegmentReader
) -> None:
    fails = iter([True, True])  # the first write, then the attempt to cut the file back

    def sync(descriptor: int) -> None:
        if next(fails, False):
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)

    writer = SegmentWriter(directory, sync=sync)
    assert isinstance(append(writer, b"refused"), OverloadedError)
    while writer.stats()["n_disk_errors"] < 2:
        time.sleep(0.01)
    assert append(writer, b"kept") is None
    writer.close()
    assert stored(reader) == [("traces", b"kept")]


def test_a_directory_that_can_not_be_synced_costs_no_descriptors(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(directory)

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(writer_module, "sync_directory", broken)
        append(writer, b"0")
        before = len(list(Path("/dev/fd").iterdir()))
        for i in range(1, 20):
            assert isinstance(append(writer, b"%d" % i), OverloadedError)
        assert len(list(Path("/dev/fd").iterdir())) == before
    assert append(writer, b"kept") is None
    writer.close()


def test_a_left_over_segment_is_cut_at_its_torn_end_and_sealed(
    directory: Path, reader: SegmentReader
) -> None:
    whole, torn = pack("traces", b"whole"), pack("traces", b"torn")
    path = directory / f"{7:012d}.open"
    path.write_bytes(whole.header + whole.request + torn.header + torn.request[:-1])
    (directory / f"{8:012d}.open").write_bytes(torn.header[:10])
    writer = SegmentWriter(directory)
    assert reader.sealed() == [7]
    assert stored(reader) == [("traces", b"whole")]
    assert path.with_suffix(".seg").stat().st_size == len(whole)
    append_all(writer, [b"whole", b"torn"])  # both retried by their sender
    writer.close()
    assert stored(reader) == [("traces", b"whole"), ("traces", b"torn")]
    assert reader.sealed()[-1] > 8


class TestRetries:
    def test_a_byte_identical_request_is_acknowledged_and_not_written(
        self, directory: Path, reader: SegmentReader
    ) -> None:
        writer = SegmentWriter(directory)
        assert append_all(writer, [b"a", b"b", b"a", b"a"]) == [None] * 4
        assert append(writer, b"a") is None
        assert append(writer, b"a", "logs") is None
        writer.close()
        assert stored(reader) == [("traces", b"a"), ("traces", b"b"), ("logs", b"a")]
        assert writer.stats()["n_duplicates"] == 3

    def test_are_known_after_a_restart_when_the_engine_has_removed_the_segment(
        self, directory: Path, reader: SegmentReader
    ) -> None:
        writer = SegmentWriter(directory)
        append(writer, b"a")
        writer.close()
        for number in reader.sealed():
            reader.remove(number)
        writer = SegmentWriter(directory)
        assert append_all(writer, [b"a", b"b"]) == [None, None]
        writer.close()
        assert stored(reader) == [("traces", b"b")]

    def test_are_forgotten_after_the_window(self, directory: Path, reader: SegmentReader) -> None:
        start = now = 1000.0
        writer = SegmentWriter(
            directory, duplicate_window_s=600, segment_age_s=0.01, clock=lambda: now
        )
        for after_s, is_written in ((0, True), (599, False), (1900, True)):
            now = start + after_s
            assert append(writer, b"a") is None
            if is_written:
                reader.wait(5)
                assert reader.sealed()
            assert len(stored(reader)) == (2 if after_s == 1900 else 1)
        writer.close()

    def test_cost_bounded_memory_and_disk(self, directory: Path) -> None:
        writer = SegmentWriter(directory, max_digests=200, segment_bytes=2000)
        append_all(writer, [b"%d" % i for i in range(2000)])
        stats = writer.stats()
        writer.close()
        # Two generations, each over by at most one segment of tiny requests.
        assert 100 <= stats["n_recent"] <= 400
        assert sum(p.stat().st_size for p in directory.glob("recent-*")) <= 400 * 16


class TestBounds:
    def test_a_full_log_refuses_until_the_engine_has_removed_something(
        self, directory: Path, reader: SegmentReader
    ) -> None:
        writer = SegmentWriter(
            directory, max_bytes=50_000, segment_bytes=10_000, segment_age_s=0.05, retry_after_s=3
        )
        answers = [append(writer, b"%02d" % i + b"x" * 5000) for i in range(15)]
        refused = [answer for answer in answers if answer is not None]
        assert answers[:8] == [None] * 8
        assert refused
        assert isinstance(refused[0], OverloadedError)
        assert refused[0].retry_after_s == 3
        assert "engine" in str(refused[0])
        assert writer.problem() is None  # something small would still fit
        assert sum(p.stat().st_size for p in directory.glob("*.seg")) <= 50_000
        for number in reader.sealed():
            reader.remove(number)
        time.sleep(0.12)
        assert append(writer, b"after") is None
        writer.close()

    def test_a_slow_disk_bounds_the_queue(self, directory: Path) -> None:
        disk = Disk()
        writer = SegmentWriter(directory, max_queue_bytes=100_000, sync=disk.sync)
        disk.works.clear()
        answers: list[Exception | None] = []
        for i in range(20):
            writer.append("traces", b"%02d" % i + b"x" * 10_000, answers.append)
        assert len(answers) == 11  # nine wait
        assert all(isinstance(answer, OverloadedError) for answer in answers)
        problem = append(writer, b"y" * 10_000)
        assert "wait for the disk" in str(problem)
        disk.works.set()
        writer.close()
        assert answers.count(None) == 9

    def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(
        self, directory: Path
    ) -> None:
        writer = SegmentWriter(directory, max_queue_bytes=1000)
        assert append(writer, b"x" * 5000) is None
        writer.close()

    def test_a_closed_log_refuses(self, directory: Path) -> None:
        writer = SegmentWriter(directory)
        writer.close()
        writer.close()
        assert isinstance(append(writer, b"x"), OverloadedError)


class TestFailingDisk:
    def test_a_refused_request_is_not_in_the_log_and_the_writer_recovers(
        self, directory: Path, reader: SegmentReader
    ) -> None:
        disk = Disk()
        writer = SegmentWriter(directory, sync=disk.sync)
        assert append(writer, b"before") is None
        disk.broken = True
        refusal = append(writer, b"during")
        assert isinstance(refusal, OverloadedError)
        assert "Input/output error" in str(refusal)
        assert "Input/output error" in str(writer.problem())
        assert isinstance(append(writer, b"still"), OverloadedError)
        disk.broken = False
        assert append_all(writer, [b"after", b"during"]) == [None, None]
        writer.close()
        assert sorted(stored(reader)) == [
            ("traces", b"after"),
            ("traces", b"before"),
            ("traces", b"during"),
        ]
        assert writer.stats()["n_disk_errors"] >= 2

    def test_a_callback_that_raises_does_not_stop_the_others(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        writer = SegmentWriter(directory)

        def fail(error: Exception | None) -> None:
            raise RuntimeError("the caller's fault")

        writer.append("traces", b"1", fail)
        assert append(writer, b"2") is None
        writer.close()
        assert "acknowledgement failed" in caplog.text

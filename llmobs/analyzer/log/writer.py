"""The receiver's end of the log: one thread that makes requests durable, many at a time."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmobs.analyzer.log.base import BEHIND, Done
from llmobs.analyzer.log.files import (
    OPEN_SUFFIX,
    SEALED_SUFFIX,
    DirectoryLock,
    Numbers,
    Sync,
    backlog,
    make_directory,
    open_file,
    segment_path,
    segments,
    sync_data,
    sync_directory,
    write_all,
)
from llmobs.analyzer.log.recent import Recent
from llmobs.analyzer.log.record import HEADER_BYTES, Record, pack, scan
from llmobs.errors import OverloadedError
from llmobs.records import Signal

__all__ = ["SegmentWriter"]

logger = logging.getLogger(__name__)

# How long a disk that failed is left alone before sealing is tried again, and how long the
# writer calls itself troubled after a failure.
_DISK_PAUSE_S: Final = 1.0
_TROUBLED_S: Final = 5.0
# A full log asks the directory at most this often whether the engine has removed something.
_RESCAN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Waiting:
    record: Record
    done: Done


class _OpenSegment:
    """The segment that is being written: a file whose first `size` bytes are durable."""

    def __init__(self, directory: Path, number: int, sync: Sync) -> None:
        self.path = segment_path(directory, number, OPEN_SUFFIX)
        self.size = 0
        self.failed = False
        self._sync = sync
        self._descriptor = open_file(self.path, os.O_WRONLY | os.O_APPEND | os.O_EXCL)
        try:
            sync_directory(directory)
        except OSError:
            self.path.unlink(missing_ok=True)
            self.close()
            raise

    def append(self, records: Sequence[Record]) -> None:
        """Write records and wait until they are on disk.

        Raises:
            OSError: They are not, and the segment takes no more: after a failed fsync nobody
                knows what the disk holds, so it has to be cut to `size` and finished.
        """
        buffers = [part for record in records for part in (record.header, record.request)]
        try:
            write_all(self._descriptor, buffers)
            self._sync(self._descriptor)
        except BaseException:
            self.failed = True
            raise
        self.size += sum(map(len, records))

    def finish(self) -> None:
        """Cut what is not durable; an empty segment leaves no file.

        May be called again, whether it failed or not; nothing can be appended afterwards.

        Raises:
            OSError: The disk refuses.
        """
        if self.failed:
            os.ftruncate(self._descriptor, self.size)
            self._sync(self._descriptor)
            self.failed = False
        if not self.size:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._descriptor)


class SegmentWriter:
    """Keeps requests in segment files; a `LogWriter`, and a `Sink` of the receivers.

    One thread takes all that has queued up, writes it, calls fdatasync once and then says
    `done` to each: the slower the disk, the larger the groups.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = 4 << 20,
        segment_age_s: float = 0.5,
        max_bytes: int = 1 << 30,
        max_queue_bytes: int = 64 << 20,
        duplicate_window_s: float = 600,
        max_digests: int = 200_000,
        retry_after_s: float = 5.0,
        sync: Sync = sync_data,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the directory, recover what the last writer left, and start the thread.

        Args:
            directory: Made where it is missing.
            segment_bytes: A segment is sealed when it is at least as large; one group or one
                request may make it larger.
            segment_age_s: A segment is sealed so long after its first request, or later while
                the engine is behind.
            max_bytes: Size of all segments; beyond it requests are refused.
            max_queue_bytes: Requests that may wait in memory for the disk. One request is
                always let in, whatever its size.
            duplicate_window_s: How long a byte-identical request counts as a retry.
            max_digests: Requests remembered for that, at most.
            retry_after_s: What a refused sender is told.
            sync: Makes the content of a file descriptor durable.
            clock: Seconds that only ever grow, for the duplicate window.

        Raises:
            ConfigurationError: Another writer has the directory, or it can't be made or read.
            OSError: The disk fails while the left-over segment is recovered.
        """
        make_directory(directory)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._max_bytes = max_bytes
        self._max_queue_bytes = max_queue_bytes
        self._retry_after_s = retry_after_s
        self._sync = sync

        self._lock = DirectoryLock(directory)
        self._numbers = Numbers(directory)
        self._recent = Recent(
            directory, window_s=duplicate_window_s, max_digests=max_digests, clock=clock
        )
        self._recover()

        self._segment: _OpenSegment | None = None
        self._seal_at = 0.0  # monotonic; of the open segment
        self._changed = threading.Condition()  # guards what follows
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0  # queued, about to be queued, or being written
        self._closing = False
        self._disk_bytes = backlog(directory).size_bytes
        self._scanned_at = 0.0
        self._trouble: tuple[float, str] | None = None
        self._n_requests = self._n_duplicates = self._n_refused = self._n_disk_errors = 0
        self._n_syncs = self._bytes_written = 0
        self._sync_s = 0.0

        self._thread = threading.Thread(target=self._run, name="llmobs-log", daemon=True)
        self._thread.start()

    def append(self, signal: Signal, request: bytes, done: Done) -> None:
        """Queue one request; `done(None)` is called when it survives a power cut.

        A request that was acknowledged within the last minutes (byte for byte the same) is
        acknowledged again and not written. Never blocks: when the log is full or the disk
        fails, `done` gets an OverloadedError.
        """
        size = HEADER_BYTES + len(request)
        with self._changed:
            refusal = self._refusal(size)
            if refusal is None:
                self._queue_bytes += size
            else:
                self._n_refused += 1
        if refusal is not None:
            done(OverloadedError(refusal, retry_after_s=self._retry_after_s))
            return
        waiting = _Waiting(pack(signal, request), done)  # hashing needs no lock and no GIL
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify()

    def problem(self) -> str | None:
        """Say why a request would be refused now; None when it would be taken."""
        with self._changed:
            if self._trouble is not None and time.monotonic() < self._trouble[0]:
                return self._trouble[1]
            return self._refusal(0)

    def stats(self) -> dict[str, float]:
        """Return counters since the start and gauges of now.

        ``n_requests`` were acknowledged, ``n_duplicates`` of them again; ``n_refused`` found
        the log full or closed, ``n_disk_errors`` counts failed groups and seals;
        ``bytes_written``, ``n_fsyncs`` and ``fsync_seconds`` of the segments; gauges:
        ``bytes_on_disk`` and ``n_segments`` (sealed), ``oldest_segment_age_s``,
        ``limit_bytes``, ``queue_bytes``, ``n_recent`` (remembered requests).
        """
        waiting = backlog(self._directory)
        with self._changed:
            return {
                "n_requests": self._n_requests,
                "n_duplicates": self._n_duplicates,
                "n_refused": self._n_refused,
                "n_disk_errors": self._n_disk_errors,
                "bytes_written": self._bytes_written,
                "n_fsyncs": self._n_syncs,
                "fsync_seconds": self._sync_s,
                "bytes_on_disk": waiting.size_bytes,
                "n_segments": waiting.n_segments,
                "oldest_segment_age_s": waiting.oldest_age_s,
                "limit_bytes": self._max_bytes,
                "queue_bytes": self._queue_bytes,
                "n_recent": len(self._recent),
            }

    def close(self) -> None:
        """Write what is queued, seal the open segment, and stop; may be called twice."""
        with self._changed:
            closed, self._closing = self._closing, True
            self._changed.notify()
        self._thread.join()
        if not closed:
            self._lock.release()

    # Before a request is queued.

    def _refusal(self, size: int) -> str | None:
        if self._closing:
            return "the receiver is shutting down"
        if self._queue_bytes and self._queue_bytes + size > self._max_queue_bytes:
            return (
                f"{self._queue_bytes} bytes already wait for the disk "
                f"(limit {self._max_queue_bytes}); send less or use a faster disk"
            )
        if self._total_bytes() + size > self._max_bytes:
            self._rescan()
        if self._total_bytes() + size > self._max_bytes:
            return (
                f"the log holds {self._total_bytes()} bytes (limit {self._max_bytes}): "
                "the engine doesn't keep up or isn't running"
            )
        return None

    def _total_bytes(self) -> int:
        segment = self._segment
        return self._disk_bytes + (segment.size if segment else 0) + self._queue_bytes

    def _rescan(self) -> None:
        now = time.monotonic()
        if now - self._scanned_at >= _RESCAN_S:
            self._scanned_at = now
            self._disk_bytes = backlog(self._directory).size_bytes

    # On the thread.

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._commit(batch)
            if self._segment is not None and self._is_due(self._segment):
                self._try_to_seal(self._segment)
        if self._segment is not None:
            self._try_to_seal(self._segment)

    def _next_batch(self) -> list[_Waiting] | None:
        """Wait for requests or for the open segment to be due; None to stop."""
        with self._changed:
            while not self._queue:
                if self._closing and not self._queue_bytes:
                    return None
                wait_s = None if self._segment is None else self._seal_at - time.monotonic()
                if wait_s is not None and wait_s <= 0:
                    return []
                self._changed.wait(wait_s)
            batch: list[_Waiting] = []
            size = 0
            while self._queue and size < self._segment_bytes:
                batch.append(self._queue.popleft())
                size += len(batch[-1].record)
            return batch

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        error: Exception | None = None
        n_written = 0
        try:
            n_written = self._write(batch)
        except Exception as cause:  # whatever it is, the senders must hear and the thread live
            self._note_trouble("writing failed", cause)
            error = OverloadedError(
                f"the log can't write ({cause}); nothing of this request was kept",
                retry_after_s=self._retry_after_s,
            )
            self._seal_at = 0.0
        with self._changed:
            self._queue_bytes -= sum(len(waiting.record) for waiting in batch)
            if error is None:
                self._n_requests += len(batch)
                self._n_duplicates += len(batch) - n_written
            else:
                self._n_refused += len(batch)
        for waiting in batch:
            try:
                waiting.done(error)
            except Exception:  # the caller's code; the other requests still have to hear
                logger.exception("acknowledgement failed")

    def _write(self, batch: Sequence[_Waiting]) -> int:
        """Make what is new in a batch durable and return the number of its requests."""
        if self._segment is not None and self._segment.failed:
            self._seal(self._segment)
        if self._segment is None:
            self._recent.forget_old()
        fresh: dict[bytes, Record] = {}
        for waiting in batch:
            if waiting.record.digest not in self._recent:
                fresh.setdefault(waiting.record.digest, waiting.record)
        if not fresh:
            return 0
        if self._segment is None:
            self._segment = _OpenSegment(self._directory, self._numbers.take(), self._sync)
            self._seal_at = time.monotonic() + self._segment_age_s
        segment, size_before = self._segment, self._segment.size
        started = time.perf_counter()
        segment.append(list(fresh.values()))
        with self._changed:
            self._n_syncs += 1
            self._sync_s += time.perf_counter() - started
            self._bytes_written += segment.size - size_before
        self._recent.add(fresh)
        return len(fresh)

    def _is_due(self, segment: _OpenSegment) -> bool:
        if segment.size >= self._segment_bytes:
            return True
        now = time.monotonic()
        if now < self._seal_at:
            return False
        if not segment.failed and backlog(self._directory).n_segments >= BEHIND:
            self._seal_at = now + self._segment_age_s
            return False
        return True

    def _try_to_seal(self, segment: _OpenSegment) -> None:
        try:
            self._seal(segment)
        except OSError as cause:
            self._note_trouble("sealing failed", cause)
            self._seal_at = time.monotonic() + _DISK_PAUSE_S

    def _seal(self, segment: _OpenSegment) -> None:
        """End the open segment.

        Raises:
            OSError: The disk refuses; the segment stays open, to be sealed later.
        """
        segment.finish()
        if segment.size:
            self._hand_over(segment.path)
        segment.close()
        with self._changed:
            self._segment = None
            self._disk_bytes += segment.size

    def _hand_over(self, path: Path) -> None:
        """Seal a segment: from here on the engine may read it, and remove it.

        Its hashes are durable before it gets its name, because afterwards it may be gone.
        """
        self._recent.save()
        path.rename(path.with_suffix(SEALED_SUFFIX))
        try:
            sync_directory(self._directory)
        except OSError as cause:
            # No harm: after a power cut it is an open segment again, and recovered as such.
            self._note_trouble("syncing the directory failed", cause)

    def _note_trouble(self, event: str, cause: Exception) -> None:
        with self._changed:
            self._n_disk_errors += 1
            self._trouble = (time.monotonic() + _TROUBLED_S, f"{event}: {cause}")
        logger.warning("log disk error", extra={"what": event, "reason": str(cause)})

    # On start.

    def _recover(self) -> None:
        """Seal what the last writer left open, without the torn end it never acknowledged."""
        for number in segments(self._directory, OPEN_SUFFIX):
            path = segment_path(self._directory, number, OPEN_SUFFIX)
            data = path.read_bytes()
            found = [(end, item) for end, item in scan(data) if isinstance(item, Record)]
            if not found:
                path.unlink()
                continue
            good = found[-1][0]
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, good)
                self._sync(descriptor)
            finally:
                os.close(descriptor)
            self._recent.forget_old()
            self._recent.add(record.digest for _, record in found)
            self._recent.save()
            path.rename(path.with_suffix(SEALED_SUFFIX))
            sync_directory(self._directory)
            logger.info(
                "open segment recovered",
                extra={
                    "segment": number,
                    "n_requests": len(found),
                    "n_bytes_cut": len(data) - good,
                },
            )

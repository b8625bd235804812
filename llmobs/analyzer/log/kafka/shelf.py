"""Where the thread that talks to Kafka leaves segments, and the engine takes them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence

from llmobs.analyzer.log.kafka.partition import Partition
from llmobs.records import Segment, Signal, first_number, source_of

__all__ = ["Shelf"]

logger = logging.getLogger(__name__)


class Shelf:
    """The partitions that are read, and what of each waits to be stored.

    Any thread may call it. Memory is shared out: each partition may have as much of it as any
    other, so that one with a long backlog leaves room for the rest.
    """

    def __init__(self, *, segment_bytes: int, segment_age_s: float, max_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._max_bytes = max_bytes
        self._changed = threading.Condition()  # guards what follows
        self._partitions: dict[int, Partition] = {}  # by source; the next to serve first
        self._seen: frozenset[int] = frozenset()
        self._is_stopped = False
        self._n_records = self._n_bytes = self._n_late = 0

    # The engine's side.

    def sealed(self) -> Sequence[int]:
        """Return the numbers of the sealed segments, the next to store first.

        Partitions take turns: the one that was served last comes last.
        """
        with self._changed:
            numbers = self._sealed()
            self._seen = frozenset(numbers)
            return numbers

    def wait(self, timeout_s: float) -> None:
        """Return when there is a segment that the last `sealed()` did not return."""
        with self._changed:
            self._changed.wait_for(lambda: not self._seen.issuperset(self._sealed()), timeout_s)

    def read(self, number: int) -> Segment:
        """Return one sealed segment.

        Raises:
            FileNotFoundError: It was removed, or its partition went to another member.
        """
        with self._changed:
            try:
                return self._partitions[source_of(number)].read(number)
            except KeyError:
                raise FileNotFoundError(f"segment {number} is not, or no longer, here") from None

    def remove(self, number: int) -> None:
        """Forget a segment that is stored."""
        source = source_of(number)
        with self._changed:
            partition = self._partitions.get(source)
            if partition is not None:
                if partition.remove(number):
                    self._partitions[source] = self._partitions.pop(source)  # served: to the end
                    self._changed.notify_all()
                    return
                if number < first_number(source) + partition.stored_offset:
                    return  # removed before
            self._n_late += 1
        logger.warning("segment stored after its partition left", extra={"segment": number})

    # The side of the thread that talks to Kafka.

    def begin(self, source: int, signal: Signal, offset: int) -> None:
        """Take a partition in, where it is not here already; all before the offset is stored."""
        with self._changed:
            if source not in self._partitions:
                self._partitions[source] = Partition(
                    source,
                    signal,
                    offset,
                    segment_bytes=self._segment_bytes,
                    segment_age_s=self._segment_age_s,
                )

    def next_offset(self, source: int) -> int | None:
        """Return the offset behind what was taken from a partition; None when it is not here."""
        with self._changed:
            partition = self._partitions.get(source)
            return None if partition is None else partition.next_offset

    def stored(self) -> Mapping[int, int]:
        """Return for each source the offset before which all is stored."""
        with self._changed:
            return {source: p.stored_offset for source, p in self._partitions.items()}

    def add(self, source: int, offset: int, request: bytes) -> bool:
        """Take a record of a partition that is here, and say whether its share is used up."""
        now = time.monotonic()
        with self._changed:
            partition = self._partitions.get(source)
            if partition is None:
                return False
            partition.add(offset, request, now)
            self._n_records += 1
            self._n_bytes += len(request)
            is_full = partition.waiting_bytes >= self._share_bytes()
            if is_full:
                partition.seal(now)  # nothing more comes: there is nothing to wait for
            return is_full

    def seal_due(self) -> None:
        """Seal what is large or old enough, and wake who waits for it."""
        now = time.monotonic()
        with self._changed:
            for partition in self._partitions.values():
                partition.seal_if_due(now)
            self._changed.notify_all()

    def with_room(self, sources: Collection[int]) -> set[int]:
        """Return those of the partitions that have used no more than half of their share."""
        with self._changed:
            room = self._share_bytes() // 2
            return {s for s in sources if self._partitions[s].waiting_bytes <= room}

    def leave(self, sources: Collection[int], timeout_s: float) -> int:
        """Drop what nobody has read, and wait until the rest is stored.

        Returns:
            How many partitions still have a segment that is being stored.
        """
        with self._changed:
            leaving = [self._partitions[s] for s in sources if s in self._partitions]
            for partition in leaving:
                partition.leave()

            def n_unsettled() -> int:
                return sum(partition.is_being_stored() for partition in leaving)

            self._changed.wait_for(lambda: self._is_stopped or not n_unsettled(), timeout_s)
            return n_unsettled()

    def drop(self, sources: Collection[int]) -> None:
        """Forget partitions with all that they hold."""
        with self._changed:
            for source in sources:
                self._partitions.pop(source, None)

    def stop(self) -> None:
        """Let nobody wait for a segment to be stored any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def stats(self) -> dict[str, float]:
        """Return the part of the reader's numbers that is known here."""
        now = time.monotonic()
        with self._changed:
            partitions = self._partitions.values()
            since = [partition.oldest_since() for partition in partitions]
            return {
                "n_records": self._n_records,
                "n_bytes": self._n_bytes,
                "n_late": self._n_late,
                "n_segments": len(self._sealed()),
                "waiting_bytes": sum(partition.waiting_bytes for partition in partitions),
                "oldest_segment_age_s": now - min((s for s in since if s is not None), default=now),
            }

    def _sealed(self) -> list[int]:
        queues = [p.sealed() for p in self._partitions.values() if not p.is_leaving]
        turns = itertools.zip_longest(*queues)
        return [number for turn in turns for number in turn if number is not None]

    def _share_bytes(self) -> int:
        return self._max_bytes // max(1, len(self._partitions))

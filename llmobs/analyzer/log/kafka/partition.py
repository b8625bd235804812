"""One partition's records on their way to the store, cut into segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from llmobs.analyzer.log.base import BEHIND
from llmobs.records import Segment, Signal, first_number

__all__ = ["Partition"]


@dataclass(frozen=True, slots=True)
class _Sealed:
    segment: Segment
    size_bytes: int
    since: float


class Partition:
    """What was taken from a partition and is not stored yet. Not thread-safe.

    A segment is numbered by the offset of its first record, so that whoever takes over at the
    same offset gives the same number, however differently he cuts.
    """

    def __init__(
        self, source: int, signal: Signal, start: int, *, segment_bytes: int, segment_age_s: float
    ) -> None:
        """Begin at the offset `start`; all before it is stored."""
        self.signal = signal
        self.next_offset = start
        self.stored_offset = start
        self.waiting_bytes = 0
        self.is_leaving = False
        self._first_number = first_number(source)
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._open: list[bytes] = []
        self._open_bytes = self._open_from = 0
        self._seal_at = 0.0
        self._sealed: dict[int, _Sealed] = {}  # by number, in order
        self._read: set[int] = set()
        self._is_fresh = True  # no segment of this holder is in the store yet

    def add(self, offset: int, request: bytes, now: float) -> None:
        """Take the next record; one that was taken before is ignored.

        Offsets may leave gaps: marks of transactions and compacted records.
        """
        if offset < self.next_offset:
            return
        if self._open_bytes + len(request) > self._segment_bytes:
            self.seal(now)
        if not self._open:
            self._open_from = offset
            self._seal_at = now + self._segment_age_s
        self._open.append(request)
        self._open_bytes += len(request)
        self.waiting_bytes += len(request)
        self.next_offset = offset + 1

    def seal_if_due(self, now: float) -> None:
        """Seal what is open when it is large or old enough."""
        is_old = now >= self._seal_at and len(self._sealed) < BEHIND
        if self._open and (is_old or self._open_bytes >= self._segment_bytes):
            self.seal(now)

    def seal(self, now: float) -> None:
        """Seal what is open."""
        if not self._open:
            return
        number = self._first_number + self._open_from
        requests = tuple((self.signal, request) for request in self._open)
        segment = Segment(number, requests, until=self._first_number + self.next_offset)
        self._sealed[number] = _Sealed(segment, self._open_bytes, now)
        self._open, self._open_bytes = [], 0

    def sealed(self) -> Sequence[int]:
        """Return the numbers of the sealed segments, ascending."""
        return list(self._sealed)

    def oldest_since(self) -> float | None:
        """Return when the oldest of them was sealed."""
        return next((sealed.since for sealed in self._sealed.values()), None)

    def read(self, number: int) -> Segment:
        """Return a sealed segment.

        Raises:
            KeyError: There is none of that number.
        """
        segment = self._sealed[number].segment
        may_be_stored = self._is_fresh or number in self._read
        self._read.add(number)
        return dataclasses.replace(segment, may_be_stored=may_be_stored)

    def remove(self, number: int) -> bool:
        """Forget a segment that is stored; False when it was not read from here.

        The number alone doesn't say what was stored: a holder of this partition before may have
        cut a shorter segment from the same offset.
        """
        if number not in self._read:
            return False
        self._read.discard(number)
        sealed = self._sealed.pop(number)
        self.waiting_bytes -= sealed.size_bytes
        self.stored_offset = sealed.segment.until - self._first_number
        self._is_fresh = False
        return True

    def leave(self) -> None:
        """Drop all that nobody has read: the partition goes to someone else."""
        self.is_leaving = True
        self._open.clear()
        self._sealed = {n: sealed for n, sealed in self._sealed.items() if n in self._read}

    def is_being_stored(self) -> bool:
        """Whether a segment was read and not removed."""
        return bool(self._read)

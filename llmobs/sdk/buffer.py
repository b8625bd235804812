"""The bounded queue between the application's threads and the one that sends."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from llmobs.sdk.guarded import report

__all__ = ["Buffer", "Item"]

REQUEST_BYTES: Final = 3_000_000  # below what gRPC servers take by default, 4 MiB
WAKE_AT: Final = 512  # items; the batch that OpenTelemetry's own processor sends


class Item(Protocol):
    """Something that waits to be sent; `size` is about how many bytes of memory it holds."""

    size: int


class Buffer:
    """Items that wait, bounded in number and in bytes. What finds no room is dropped and counted.

    `put` takes no lock, for three reasons: a thread that is descheduled with the lock would hold
    up the application's others; a garbage collection inside it may end an abandoned generator,
    which puts again; and a fork may copy it locked. It relies on what CPython does atomically:
    appending to a deque, ``next`` of a count, releasing a lock.
    """

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._items: deque[Item] = deque()
        # Racing threads may lose an update; `take` sets it right with every batch.
        self._n_bytes = 0
        self._wake = threading.Lock()  # locked: nothing to do
        self._wake.acquire()
        self._numbers = itertools.count()
        self._foreign_numbers = itertools.count(1)
        self.n_numbered = 0
        self.n_foreign = 0
        self.dropped: dict[str, int] = {}
        # Called by the first `put` after a fork: a child has no sender before it needs one.
        self.start: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def next_number(self) -> int:
        """Return the next number of a span, from 0, never twice."""
        number = next(self._numbers)
        self.n_numbered = number + 1
        return number

    def count_foreign(self) -> None:
        """Count a span of another instrumentation."""
        self.n_foreign = next(self._foreign_numbers)

    def put(self, item: Item) -> None:
        """Queue an item, or drop it where there is no room. Never waits."""
        n_waiting = len(self._items)
        if n_waiting >= self._capacity or self._n_bytes > self._capacity_bytes:
            self.drop("queue_full")
            return
        self._items.append(item)
        self._n_bytes += item.size
        if self.start is not None:
            start, self.start = self.start, None
            start()
        if n_waiting == WAKE_AT or self._n_bytes > self._capacity_bytes // 4:
            self.wake()

    def drop(self, reason: str, n_items: int = 1) -> None:
        """Count items that are lost, and say so once a minute."""
        self.dropped[reason] = self.dropped.get(reason, 0) + n_items
        report("telemetry dropped", reason=reason, n_dropped=self.dropped[reason])

    def wake(self) -> None:
        """Let the sender look now."""
        if self._wake.locked():
            with suppress(RuntimeError):  # another thread was first
                self._wake.release()

    def wait(self, timeout_s: float) -> None:
        """Wait until woken, or for a time; for the sender alone."""
        self._wake.acquire(timeout=timeout_s)

    def take(self, n_items: int) -> list[Item]:
        """Remove and return the oldest items, of a request's size at most; for the sender alone."""
        items = self._items
        taken: list[Item] = []
        n_bytes = 0
        while items and len(taken) < n_items and n_bytes < REQUEST_BYTES:
            taken.append(items.popleft())
            n_bytes += taken[-1].size
        self._n_bytes = sum(item.size for item in items.copy()) if items else 0
        return taken

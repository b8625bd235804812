"""The bounded queue between the application's threads and the one that sends."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from llmobs.sdk.guarded import report

__all__ = ["REQUEST_BYTES", "Buffer", "Item"]

REQUEST_BYTES: Final = 3_000_000  # below what gRPC servers take by default, 4 MiB


class Item(Protocol):
    """Something that waits to be sent; `size` is about how many bytes of memory it holds."""

    size: int


class Buffer:
    """Items that wait, bounded in number and in bytes. What finds no room is dropped and counted.

    `put` takes no lock and logs nothing, for three reasons: a thread that is descheduled with the
    lock would hold up the application's others; a garbage collection inside it, or inside a log
    handler, may end an abandoned generator, which puts again; and a fork may copy it locked. It
    relies on what CPython does atomically: appending to a deque, taking from a list, ``next`` of a
    count, releasing a lock.

    Args:
        capacity: Items that may wait.
        capacity_bytes: Memory for what waits, about.
        batch_size: Items that are worth a request: the sender is woken when they wait.
    """

    def __init__(self, capacity: int, capacity_bytes: int, batch_size: int) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        # A queue that is smaller than a batch is emptied well before it is full.
        self._wake_items = min(batch_size, capacity // 2)
        self._wake_bytes = capacity_bytes // 4
        self._items: deque[Item] = deque()
        # Racing threads may lose an update; `take` sets it right with every batch.
        self._n_bytes = 0
        self._wake = threading.Lock()  # locked: nothing to do
        self._wake.acquire()
        self._numbers = itertools.count()
        self._foreign = itertools.count()
        self._full = itertools.count()
        self._lost: dict[str, int] = {}
        self._losing = threading.Lock()  # between the threads that send
        self._told: dict[str, int] = {}
        # Called by the first `put` after a fork: a child has no sender before it needs one.
        self.on_first_put: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_due(self) -> bool:
        """Whether as much waits as the sender is woken for."""
        return len(self._items) >= max(self._wake_items, 1) or self._n_bytes > self._wake_bytes

    @property
    def n_numbered(self) -> int:
        """How many numbers were given out."""
        return _reached(self._numbers)

    @property
    def n_foreign(self) -> int:
        """How many spans of other instrumentations were counted."""
        return _reached(self._foreign)

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many items were lost, by reason."""
        n_full = _reached(self._full)
        return ({"queue_full": n_full} if n_full else {}) | self._lost

    def next_number(self) -> int:
        """Return the next number of a span, from 0, never twice."""
        return next(self._numbers)

    def count_foreign(self) -> None:
        """Count a span of another instrumentation."""
        next(self._foreign)

    def put(self, item: Item) -> None:
        """Queue an item, or drop it where there is no room. Never waits."""
        n_waiting = len(self._items)
        if n_waiting >= self._capacity or self._n_bytes > self._capacity_bytes:
            next(self._full)
            return
        self._items.append(item)
        self._n_bytes += item.size
        if self.on_first_put:
            with suppress(IndexError):  # another thread was first
                self.on_first_put.pop()()
        if n_waiting >= self._wake_items or self._n_bytes > self._wake_bytes:
            self.wake()

    def wake(self) -> None:
        """Let the sender look now."""
        if self._wake.locked():
            with suppress(RuntimeError):  # another thread was first
                self._wake.release()

    # --- for the sender alone ---

    def wait(self, timeout_s: float) -> None:
        """Wait until woken, or for a time."""
        self._wake.acquire(timeout=timeout_s)

    def take(self, n_items: int) -> list[Item]:
        """Remove and return the oldest items, of a request's size at most."""
        items = self._items
        taken: list[Item] = []
        n_bytes = 0
        while items and len(taken) < n_items and n_bytes < REQUEST_BYTES:
            taken.append(items.popleft())
            n_bytes += taken[-1].size
        self._n_bytes = sum(item.size for item in items.copy()) if items else 0
        return taken

    def drop(self, reason: str, n_items: int = 1) -> None:
        """Count items that were taken and are lost."""
        with self._losing:
            self._lost[reason] = self._lost.get(reason, 0) + n_items

    def report_losses(self) -> None:
        """Say what was lost since this was said last, once a minute."""
        for reason, n_dropped in self.dropped.items():
            if n_dropped != self._told.get(reason) and report(
                "telemetry dropped", reason=reason, n_dropped=n_dropped
            ):
                self._told[reason] = n_dropped


def _reached(count: itertools.count[int]) -> int:
    """Return what a count gives next, without taking it; its text is all that tells."""
    return int(repr(count)[len("count(") : -1])

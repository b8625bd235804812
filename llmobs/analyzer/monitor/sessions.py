"""Open sessions of one place: what was said so far, until they fall silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from llmobs.measures.drift import Tree
from llmobs.records import FloatArray

__all__ = ["Closed", "Sessions"]

_FIRST_CAPACITY: Final = 64


@dataclass(frozen=True, slots=True)
class Closed:
    """Sessions that ended, in order of their last call.

    Attributes:
        at_ns: Shape (n,), end of the last call.
        traces: Shape (n, 16), a trace of each (the last).
        sums: Shape (n, n_sums).
        counts: Shape (n, n_sums), calls that contributed to each sum.
    """

    at_ns: npt.NDArray[np.int64]
    traces: npt.NDArray[np.uint8]
    sums: FloatArray
    counts: FloatArray


class Sessions:
    """A table of open sessions as columns, one slot each.

    A session that opens long before the time of the last `close` is being replayed, or its
    sender's clock is behind: its end is waited for on its own clock.

    Attributes:
        flags: Shape (capacity, n_flags): what happened already in a session.
        sums: Shape (capacity, n_sums).
        counts: As `sums`: how many calls contributed.
    """

    _COLUMNS: Final = (
        "first_ns",
        "last_ns",
        "lag_ns",
        "number",
        "traces",
        "flags",
        "sums",
        "counts",
    )

    def __init__(
        self, *, n_flags: int, n_sums: int, idle_s: float, cap_s: float, max_open: int
    ) -> None:
        self._idle_ns = int(idle_s * 1e9)
        self._cap_ns = int(cap_s * 1e9)
        self._max_open = max_open
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []  # by slot
        self._is_open = np.zeros(0, np.bool_)
        self._free: list[int] = []
        self._ended: list[int] = []  # lost their key, and wait to be taken by `close`
        self._n_opened = 0
        self._clock_ns = -1  # of the last `close`
        self.first_ns = np.zeros(0, np.int64)
        self.last_ns = np.zeros(0, np.int64)
        self.lag_ns = np.zeros(0, np.int64)  # how far its clock is behind; 0 but for late ones
        self.number = np.zeros(0, np.int64)  # order of opening; settles ties
        self.traces = np.zeros((0, 16), np.uint8)
        self.flags = np.zeros((0, n_flags), np.bool_)
        self.sums = np.zeros((0, n_sums), np.float32)
        self.counts = np.zeros((0, n_sums), np.uint32)

    def __len__(self) -> int:
        return len(self._slots)

    def assign(
        self, keys: Sequence[str], at_ns: npt.NDArray[np.int64], traces: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.int64]:
        """Return the slot of each call, opening sessions where needed.

        Args:
            keys: Session of each call, in time order.
            at_ns: Shape (n,), when each call ended.
            traces: Shape (n, 16), trace of each.
        """
        slots = np.empty(len(keys), np.int64)
        for row, (key, at) in enumerate(zip(keys, at_ns.tolist(), strict=True)):
            slot = self._slots.get(key)
            if slot is not None and (
                at - self.last_ns[slot] > self._idle_ns or at - self.first_ns[slot] > self._cap_ns
            ):
                self._end(slot)
                slot = None
            if slot is None:
                slot = self._open(key, at)
            self.last_ns[slot] = max(self.last_ns[slot], at)
            slots[row] = slot
        self.traces[slots] = traces
        return slots

    def first(self, slots: npt.NDArray[np.int64], flag: int) -> npt.NDArray[np.int64]:
        """Return the positions in `slots` that are the first of their session, and flag these.

        A session that has the flag already has no first position.
        """
        fresh = np.flatnonzero(~self.flags[slots, flag])
        if not len(fresh):
            return fresh
        _, firsts = np.unique(slots[fresh], return_index=True)
        found = fresh[np.sort(firsts)]
        self.flags[slots[found], flag] = True
        return found

    def add(self, slots: npt.NDArray[np.int64], values: FloatArray) -> None:
        """Add one row of values, shape (n, n_sums), for each call; NaN adds nothing."""
        if not len(slots):
            return
        order = np.argsort(slots, kind="stable")
        unique, starts = np.unique(slots[order], return_index=True)
        known = np.isfinite(values)[order]
        filled = np.where(known, values[order], 0.0)
        self.sums[unique] += np.add.reduceat(filled, starts, axis=0).astype(np.float32)
        self.counts[unique] += np.add.reduceat(known.astype(np.uint32), starts, axis=0)

    def close(self, clock_ns: int) -> Closed:
        """Close the sessions that are silent or too long at this time, and return them."""
        own_clock_ns = clock_ns - self.lag_ns
        is_idle = own_clock_ns - self.last_ns > self._idle_ns
        over = self._is_open & (is_idle | (own_clock_ns - self.first_ns > self._cap_ns))
        self._clock_ns = clock_ns
        n_beyond = len(self._slots) - int(over.sum()) - self._max_open
        if n_beyond > 0:
            rest = np.flatnonzero(self._is_open & ~over)
            longest_idle = np.lexsort((self.number[rest], self.last_ns[rest]))
            over[rest[longest_idle[:n_beyond]]] = True
        for slot in np.flatnonzero(over).tolist():
            self._end(slot)
        ended = np.array(self._ended, np.int64)
        ended = ended[np.lexsort((self.number[ended], self.last_ns[ended]))]
        self._free.extend(ended.tolist())
        self._ended = []
        sums = self.sums[ended].astype(np.float64)
        counts = self.counts[ended].astype(np.float64)
        return Closed(self.last_ns[ended], self.traces[ended], sums, counts)

    def _open(self, key: str, at_ns: int) -> int:
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._slots[key] = slot
        self._keys[slot] = key
        self._is_open[slot] = True
        self.first_ns[slot] = self.last_ns[slot] = at_ns
        lag_ns = self._clock_ns - at_ns
        self.lag_ns[slot] = lag_ns if lag_ns > self._idle_ns else 0
        self.number[slot] = self._n_opened
        self._n_opened += 1
        self.flags[slot] = False
        self.sums[slot] = 0.0
        self.counts[slot] = 0
        return slot

    def _end(self, slot: int) -> None:
        del self._slots[self._keys[slot]]
        self._is_open[slot] = False
        self._ended.append(slot)

    def _grow(self) -> None:
        n = len(self._is_open)
        more = max(_FIRST_CAPACITY, n)
        for name in (*self._COLUMNS, "_is_open"):
            column = getattr(self, name)
            rest = np.zeros((more, *column.shape[1:]), column.dtype)
            setattr(self, name, np.concatenate([column, rest]))
        self._keys.extend([""] * more)
        self._free.extend(range(n + more - 1, n - 1, -1))

    def to_tree(self) -> Tree:
        """Return the open sessions; to be called after `close`."""
        slots = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        columns = {name: getattr(self, name)[slots] for name in self._COLUMNS}
        plain = {"n_opened": self._n_opened, "clock_ns": self._clock_ns}
        return {"keys": list(self._slots), **plain, **columns}

    def restore(self, tree: Tree) -> None:
        """Take over the open sessions of `to_tree`; this table must be new."""
        self._keys = tree["keys"]
        self._slots = {key: slot for slot, key in enumerate(self._keys)}
        self._is_open = np.ones(len(self._keys), np.bool_)
        self._n_opened, self._clock_ns = tree["n_opened"], tree["clock_ns"]
        for name in self._COLUMNS:
            setattr(self, name, tree[name])

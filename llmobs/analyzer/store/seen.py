"""Which spans were stored lately: a bounded window of span identities."""

from __future__ import annotations

import secrets
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Seen", "span_keys"]

Keys: TypeAlias = npt.NDArray[np.uint64]

# Of this process: who sends spans can't choose ids that collide with others'.
_SECRET: Final = np.uint64(secrets.randbits(64))


def span_keys(spans: pa.Table) -> Keys:
    """Return one 64-bit key of each span's trace id and span id, shape (n,).

    Two of a window of 2 million spans share a key with a chance of one in 10^7. Spans
    without an id (all zeros) get random keys: nothing says that they are the same.
    """
    trace = _words(spans.column("trace_id"), 2)
    span = _words(spans.column("span_id"), 1)[:, 0]
    # One word after the other, mixed in between: ids that count up, or differ in their last
    # bytes alone, are as far apart as random ones.
    keys = _mix(trace[:, 0] ^ _SECRET)
    keys = _mix(keys ^ trace[:, 1])
    keys = _mix(keys ^ span)
    nameless = span == 0
    if nameless.any():
        random = np.random.default_rng().integers(
            0, 2**64, int(nameless.sum()), dtype=np.uint64, endpoint=False
        )
        keys[nameless] = random
    return keys


class Seen:
    """A set of keys that forgets the oldest.

    Keys lie in sorted runs; an added run is merged with its neighbours until each run is
    more than twice as long as the next, so a look-up searches a dozen arrays. Two
    generations: when the young one has half the capacity it becomes the old one.

    Args:
        capacity: The window holds between half of it and all of it, in spans.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._young: list[Keys] = []
        self._old: list[Keys] = []

    def __len__(self) -> int:
        return sum(len(run) for run in (*self._young, *self._old))

    def first_seen(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Tell which keys are new: not in the window and not earlier in `keys`."""
        new = np.zeros(len(keys), dtype=np.bool_)
        new[np.unique(keys, return_index=True)[1]] = True
        for run in (*self._young, *self._old):
            at = np.searchsorted(run, keys)
            np.minimum(at, len(run) - 1, out=at)
            new &= run[at] != keys
        return new

    def add(self, keys: Keys) -> None:
        """Remember keys."""
        if len(keys) == 0:
            return
        runs = self._young
        runs.append(np.sort(keys))
        while len(runs) > 1 and len(runs[-2]) <= 2 * len(runs[-1]):
            runs[-2:] = [np.sort(np.concatenate(runs[-2:]), kind="stable")]
        if sum(map(len, runs)) >= self.capacity // 2:
            self._old, self._young = runs, []


def _mix(words: Keys) -> Keys:
    """Apply the finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit in, every bit out."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _words(column: pa.ChunkedArray, n_words: int) -> Keys:
    """View fixed-size ids as little-endian words of shape (n, n_words)."""
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype="<u8")[
            chunk.offset * n_words : (chunk.offset + len(chunk)) * n_words
        ]
        for chunk in column.chunks
        if len(chunk)
    ]
    flat = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)
    return flat.astype(np.uint64, copy=False).reshape(-1, n_words)

"""The requests of the last minutes, by hash: what a sender's retry is recognised by."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from llmobs.analyzer.log.files import open_file, sync_data, sync_directory, write_all

__all__ = ["Recent"]

_DIGEST_BYTES: Final = 16


@dataclass(slots=True)
class _Generation:
    """Hashes that are forgotten together.

    Attributes:
        started_s: When the first hash came, or this process.
        last_s: When the last one came, or this process.
        size_bytes: How much of the file is known to be good.
    """

    path: Path
    started_s: float
    last_s: float
    digests: set[bytes] = field(default_factory=set)
    size_bytes: int = 0


class Recent:
    """Hashes of the requests that are on disk, in two generations of one file each.

    A hash is remembered for at least `window_s`, or for the next `max_digests / 2` requests
    if these come sooner, and for at most twice that; both count from the start of the process
    for what it finds on disk, since a clock on the wall may have been set meanwhile. Not
    thread-safe.
    """

    def __init__(
        self, directory: Path, *, window_s: float, max_digests: int, clock: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._window_s = window_s
        self._max_a_generation = max_digests // 2
        self._clock = clock
        self._unsaved: list[bytes] = []
        self._generations = [_load(p, clock()) for p in sorted(directory.glob("recent-*.hashes"))]

    def __contains__(self, digest: bytes) -> bool:
        return any(digest in generation.digests for generation in self._generations)

    def __len__(self) -> int:
        return sum(len(generation.digests) for generation in self._generations)

    def forget_old(self) -> None:
        """Drop what is older than the window; start a new generation when one is due.

        To be called only when everything is saved.

        Raises:
            OSError: The new file can't be made; nothing has changed then.
        """
        now = self._clock()
        newest = self._generations[-1] if self._generations else None
        if (
            newest is None
            or now - newest.started_s >= self._window_s
            or len(newest.digests) >= self._max_a_generation
        ):
            self._generations.append(self._new_generation(now))
        *older, newest = self._generations
        kept = [g for g in older[-1:] if now - g.last_s <= self._window_s]
        for generation in older:
            if generation not in kept:
                generation.path.unlink(missing_ok=True)
        self._generations = [*kept, newest]

    def add(self, digests: Iterable[bytes]) -> None:
        """Remember requests that are on disk now."""
        newest = self._generations[-1]
        newest.last_s = self._clock()
        for digest in digests:
            newest.digests.add(digest)
            self._unsaved.append(digest)

    def save(self) -> None:
        """Make all that was added survive a power cut.

        Raises:
            OSError: The disk refuses; nothing is forgotten, and the next call tries again.
        """
        if not self._unsaved:
            return
        newest = self._generations[-1]
        descriptor = open_file(newest.path, os.O_WRONLY)
        try:
            # From the last good end on, so that a try that failed halfway is written over.
            os.lseek(descriptor, newest.size_bytes, os.SEEK_SET)
            write_all(descriptor, [b"".join(self._unsaved)])
            sync_data(descriptor)
        finally:
            os.close(descriptor)
        newest.size_bytes += _DIGEST_BYTES * len(self._unsaved)
        self._unsaved.clear()

    def _new_generation(self, now: float) -> _Generation:
        newest = self._generations[-1].path if self._generations else None
        number = _number(newest) + 1 if newest else 0
        path = self._directory / f"recent-{number:012d}.hashes"
        os.close(open_file(path, os.O_WRONLY | os.O_TRUNC))
        sync_directory(self._directory)
        return _Generation(path, started_s=now, last_s=now)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("recent-"))


def _load(path: Path, now: float) -> _Generation:
    data = path.read_bytes()
    size = len(data) - len(data) % _DIGEST_BYTES  # a torn end was never relied upon
    digests = {data[at : at + _DIGEST_BYTES] for at in range(0, size, _DIGEST_BYTES)}
    return _Generation(path, now, now, digests, size)

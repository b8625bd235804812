"""The directory of the log: names, numbers, and what makes a change of them durable."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmobs.errors import ConfigurationError

__all__ = [
    "OPEN_SUFFIX",
    "SEALED_SUFFIX",
    "Backlog",
    "DirectoryLock",
    "Numbers",
    "Sync",
    "backlog",
    "make_directory",
    "open_file",
    "replace_file",
    "segment_path",
    "segments",
    "sync_data",
    "sync_directory",
    "write_all",
]

logger = logging.getLogger(__name__)

Sync = Callable[[int], None]

OPEN_SUFFIX: Final = ".open"
SEALED_SUFFIX: Final = ".seg"
# Segments hold prompts and answers: for nobody but the user that runs llmobs.
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
# writev takes at most IOV_MAX buffers, 1024 on Linux and macOS.
_IOV_MAX: Final = 1024

# macOS has no fdatasync.
sync_data: Final[Sync] = getattr(os, "fdatasync", os.fsync)


def make_directory(path: Path) -> None:
    """Make a directory, readable by its owner alone, where there is none.

    Raises:
        ConfigurationError: It can't be made.
    """
    try:
        path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"can't make the directory {path}: {error.strerror}; choose another data directory"
        ) from error


def segment_path(directory: Path, number: int, suffix: str) -> Path:
    """Return where a segment lies; names sort as numbers do."""
    return directory / f"{number:012d}{suffix}"


def segments(directory: Path, suffix: str) -> list[int]:
    """Return the numbers of the segments with that suffix, ascending."""
    names = (Path(entry) for entry in os.listdir(directory))  # noqa: PTH208 - names, not paths
    return sorted(int(p.stem) for p in names if p.suffix == suffix and p.stem.isdecimal())


@dataclass(frozen=True, slots=True)
class Backlog:
    """The sealed segments that wait for the engine.

    Attributes:
        oldest_age_s: Seconds since the oldest of them was last written; 0 without any.
    """

    n_segments: int
    size_bytes: int
    oldest_age_s: float


def backlog(directory: Path) -> Backlog:
    """Measure the sealed segments on disk."""
    sizes: list[int] = []
    oldest = now = time.time()
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.endswith(SEALED_SUFFIX):
                continue
            try:
                stat = entry.stat()
            except FileNotFoundError:  # the engine removed it meanwhile
                continue
            sizes.append(stat.st_size)
            oldest = min(oldest, stat.st_mtime)
    return Backlog(len(sizes), sum(sizes), now - oldest)


def open_file(path: Path, flags: int) -> int:
    """Open a file of the log for its owner alone and return the descriptor."""
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)


def sync_directory(directory: Path) -> None:
    """Make created, renamed and removed names survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, buffers: list[bytes]) -> None:
    """Append buffers to a file with as few system calls as possible.

    Raises:
        OSError: The disk took less than all; what it took stands in the file.
    """
    for first in range(0, len(buffers), _IOV_MAX):
        some = buffers[first : first + _IOV_MAX]
        n_written = os.writev(descriptor, some)
        if n_written < sum(map(len, some)):
            # A full disk writes a part and says why at the next try.
            rest = memoryview(b"".join(some))[n_written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file so that after any crash it holds all of the content, or the old one.

    Raises:
        OSError: The disk refuses; the old content stands.
    """
    fresh = path.with_name(f"{path.name}.new")
    descriptor = open_file(fresh, os.O_WRONLY | os.O_TRUNC)
    try:
        write_all(descriptor, [content])
        sync_data(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    sync_directory(path.parent)


class DirectoryLock:
    """One writer per directory; the kernel frees the lock when its process dies."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = open_file(directory / "lock", os.O_RDWR)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode().strip() or "unknown"
            os.close(self._descriptor)
            raise ConfigurationError(
                f"another receiver (process {holder}) writes to {directory}; "
                "stop it first, or give this one its own data directory"
            ) from error
        with contextlib.suppress(OSError):  # a full disk: the number is only for the message
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another writer in."""
        os.close(self._descriptor)


class Numbers:
    """Segment numbers that never repeat, even after every segment is gone.

    The file `next` holds the first number that was never handed out. It is moved ahead by
    `_RESERVED` at a time, so that a new segment seldom costs another fsync; a restart skips
    the rest of a reservation.

    Where the file is missing or damaged, nobody knows any more which numbers the store has
    seen. Numbers then go on at the time in milliseconds: segments come slower than that, so
    it is above all of them, and a log that was deleted by hand starts above its former self.
    """

    _RESERVED: Final = 64

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Find the first free number.

        Args:
            directory: Of the log.
            clock: Unix time in seconds.
        """
        self._path = directory / "next"
        used = segments(directory, SEALED_SUFFIX) + segments(directory, OPEN_SUFFIX)
        saved = self._saved()
        self._next = max(int(clock() * 1000) if saved is None else saved, max(used, default=0) + 1)
        self._reserved_to = self._next

    def take(self) -> int:
        """Return the next number; its use is on disk before this returns."""
        if self._next == self._reserved_to:
            self._reserve(self._next + self._RESERVED)
        number, self._next = self._next, self._next + 1
        return number

    def _saved(self) -> int | None:
        try:
            return int(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except ValueError:
            logger.warning("next segment number lost", extra={"file": str(self._path)})
            return None

    def _reserve(self, up_to: int) -> None:
        replace_file(self._path, f"{up_to}\n".encode())
        self._reserved_to = up_to

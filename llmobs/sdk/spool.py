"""Requests on disk until the receiver has taken them: what an outage or a kill would lose.

A folder that the processes of a machine may share. Each has a folder of its own in it, with a lock
that the system lets go of when the process ends, however it ends; whoever finds a folder unlocked
takes over what lies in it. A request is one file, whose name tells its place in the order, its
signal and how many spans or events it holds::

    spool/3f9ac01b/lock
    spool/3f9ac01b/000000000017-traces-512.otlp

What was written survives a kill of the process. It is not forced to the disk, so that a machine
that loses its power may lose the last seconds.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from llmobs.sdk.guarded import report

try:
    import fcntl
except ImportError:  # Windows has no lock that ends with its process and that a fork respects
    fcntl = None  # type: ignore[assignment]

__all__ = ["Entry", "Signal", "Spool", "is_supported"]

Signal: TypeAlias = Literal["traces", "logs"]

_NAME: Final = re.compile(r"(\d{12})-(traces|logs)-(\d+)\.otlp")
_LOCK: Final = "lock"
# The processes' folders. Whatever else lies in the one that they share is none of our business.
_FOLDER: Final = re.compile(r"[0-9a-f]{8}")
# A folder that is new may be taken for a dead process's and removed; where that happens so often,
# it is something else: a file system without locks, or no more files that may be open.
_TRIES: Final = 5
# What a file takes on most file systems beside its bytes: its last block is half full on average,
# and its name and inode want room too.
_FILE_BYTES: Final = 2_500


def is_supported() -> bool:
    """Return whether this system has the lock that a spool stands on."""
    return fcntl is not None


@dataclass(frozen=True, slots=True)
class Entry:
    """One request on disk.

    Attributes:
        n_items: Spans or events in it.
        size: Bytes that it takes.
        is_own: Whether this process wrote it, and not one that is dead.
    """

    path: Path
    signal: Signal
    n_items: int
    size: int
    is_own: bool


@dataclass(slots=True)
class _Home:
    """A folder whose lock we hold, and how many requests are in it."""

    lock: int
    n_entries: int = 0


class Spool:
    """Requests of one process, oldest first, and those of dead ones before them.

    One thread adds, another takes.

    Args:
        root: The folder that processes share; it is made when it is first needed.
        max_bytes: Bytes that all of them together may take. Beyond it the oldest of this process's
            go, and where it has none, the newest is not kept.
        on_drop: Told of how many items went so.

    Attributes:
        n_items: Spans and events that are on disk for this process to send.
    """

    def __init__(self, root: str, max_bytes: int, on_drop: Callable[[int], None]) -> None:
        self._root = Path(root).absolute()
        self._max_bytes = max_bytes
        self._on_drop = on_drop
        self._homes: dict[Path, _Home] = {}
        self.renew()

    def renew(self) -> None:
        """Forget all of the parent's after a fork, and leave the parent its locks."""
        for home in self._homes.values():
            with suppress(OSError):
                os.close(home.lock)
        self._homes = {}
        self._mutex = threading.Lock()
        self._own: Path | None = None
        self._entries: deque[Entry] = deque()
        self._n_written = 0
        self._n_bytes = 0
        self._others_bytes = 0
        self.n_items = 0

    def add(self, signal: Signal, request: bytes, n_items: int) -> bool:
        """Write a request; return False where that fails and the caller has to keep it."""
        size = len(request) + _FILE_BYTES
        with self._mutex:
            if not self._has_room(size):
                self._on_drop(n_items)
                return True
            try:
                own = self._own = self._own or self._new_home()
                path = own / f"{self._n_written:012d}-{signal}-{n_items}.otlp"
                _write(path, request)
            except OSError as error:
                if self._own is not None and not self._own.exists():
                    self._own = None  # somebody has cleaned up
                report("spool can't be written", error=error.strerror)
                return False
            self._n_written += 1
            self._count(Entry(path, signal, n_items, size, is_own=True))
            return True

    def take(self) -> Entry | None:
        """Return the oldest request, which is the caller's now: to `remove` or to `put_back`."""
        with self._mutex:
            return self._entries.popleft() if self._entries else None

    def put_back(self, entry: Entry) -> None:
        """Keep a request that was not taken; it stays the oldest."""
        with self._mutex:
            self._entries.appendleft(entry)

    def remove(self, entry: Entry) -> None:
        """Delete a request that was taken, or that nobody ever will."""
        with self._mutex:
            self._delete(entry)

    def adopt(self) -> None:
        """Take over what dead processes have left, and see how much the living ones have."""
        others_bytes = 0
        found: list[Entry] = []
        for folder in self._folders():
            if folder in self._homes:
                continue
            lock = _locked(folder)
            entries = list(_entries(folder))
            if lock is None:
                others_bytes += sum(entry.size for entry in entries)
            elif not entries:
                _remove(folder, lock)
            else:
                self._homes[folder] = _Home(lock)
                found += entries
        with self._mutex:
            self._others_bytes = others_bytes
            for entry in reversed(found):
                self._count(entry, is_oldest=True)

    def close(self) -> None:
        """Let go of all locks: what is left is for the next process."""
        with self._mutex:
            for folder, home in self._homes.items():
                if home.n_entries:
                    os.close(home.lock)
                else:
                    _remove(folder, home.lock)
            self._homes = {}
        self.renew()

    def _count(self, entry: Entry, *, is_oldest: bool = False) -> None:
        if is_oldest:
            self._entries.appendleft(entry)
        else:
            self._entries.append(entry)
        self._homes[entry.path.parent].n_entries += 1
        self._n_bytes += entry.size
        self.n_items += entry.n_items

    def _delete(self, entry: Entry) -> None:
        with suppress(OSError):  # somebody has cleaned up, or nobody can
            entry.path.unlink()
        self._n_bytes -= entry.size
        self.n_items -= entry.n_items
        folder = entry.path.parent
        home = self._homes[folder]
        home.n_entries -= 1
        if not home.n_entries and folder != self._own:
            _remove(folder, home.lock)
            del self._homes[folder]

    def _has_room(self, size: int) -> bool:
        """Delete the oldest requests until there is room; return whether there is."""
        allowed = self._max_bytes - self._others_bytes - size
        while self._entries and self._n_bytes > allowed:
            oldest = self._entries.popleft()
            self._delete(oldest)
            self._on_drop(oldest.n_items)
        return self._n_bytes <= allowed

    def _new_home(self) -> Path:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(_TRIES):
            folder = self._root / secrets.token_hex(4)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                lock = _locked(folder, is_new=True)
                if lock is not None:
                    self._homes[folder] = _Home(lock)
                    return folder
                with suppress(OSError):  # one that adopts was faster, and has removed it
                    (folder / _LOCK).unlink()
                    folder.rmdir()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def _folders(self) -> list[Path]:
        """Return the processes' folders, the one that was written to longest ago first."""
        aged = []
        with suppress(OSError), os.scandir(self._root) as found:  # not made yet, or no folder
            for item in found:
                with suppress(FileNotFoundError):
                    if _FOLDER.fullmatch(item.name) and item.is_dir(follow_symlinks=False):
                        aged.append((item.stat().st_mtime_ns, Path(item.path)))
        return [folder for _, folder in sorted(aged)]


def _write(path: Path, request: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    part = path.with_suffix(".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(request)
        part.rename(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def _entries(folder: Path) -> Iterator[Entry]:
    """Return the requests in a dead or foreign process's folder, oldest first."""
    with suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            with suppress(FileNotFoundError):
                if match is not None:
                    signal: Signal = "traces" if match[2] == "traces" else "logs"
                    size = path.stat().st_size + _FILE_BYTES
                    yield Entry(path, signal, int(match[3]), size, is_own=False)


def _locked(folder: Path, *, is_new: bool = False) -> int | None:
    """Lock a folder; return the lock, None where its process lives or the folder is gone."""
    path = folder / _LOCK
    try:
        lock = os.open(path, os.O_RDWR | (os.O_CREAT if is_new else 0), 0o600)
    except OSError:
        with suppress(OSError):  # empty: its process was killed at once, or will make another
            folder.rmdir()
        return None
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # One that held it until now may have removed the folder.
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    os.close(lock)
    return None


def _remove(folder: Path, lock: int) -> None:
    """Remove a folder that holds no request, and let go of its lock."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix == ".part" or path.name == _LOCK:
                path.unlink()
        folder.rmdir()
    os.close(lock)

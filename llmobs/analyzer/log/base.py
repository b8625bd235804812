"""The seam of the log: requests go in, sealed segments come out, none is lost in between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from llmobs.records import Segment, Signal

__all__ = ["BEHIND", "Done", "LogReader", "LogWriter"]

Done: TypeAlias = Callable[[Exception | None], None]
"""Hears how it went with a request: None when it is kept, else why not."""

# With so many sealed segments waiting the engine is behind: larger ones help it to catch up,
# so that none is sealed for its age alone.
BEHIND: Final = 4


class LogWriter(Protocol):
    """The receiver's end."""

    def append(self, signal: Signal, request: bytes, done: Done) -> None:
        """Queue one request; `done(None)` is called when it survives a power cut.

        A request that was acknowledged within the last minutes (byte for byte the same) is
        acknowledged again and not written. Never blocks: when the log is full or the disk
        fails, `done` gets an OverloadedError.
        """

    def close(self) -> None:
        """Write what is queued, seal the open segment, and stop."""


class LogReader(Protocol):
    """The engine's end."""

    def sources(self) -> Collection[int]:
        """Return the sources that this process reads now, and no other process.

        A log file is one source; partitions of a topic come and go.
        """

    def sealed(self) -> Sequence[int]:
        """Return the numbers of the sealed segments that are still kept, the next to store first.

        Those of one source come in ascending order.
        """

    def wait(self, timeout_s: float) -> None:
        """Return when a segment may have been sealed, at the latest after `timeout_s`."""

    def read(self, number: int) -> Segment:
        """Read one sealed segment; what is torn or corrupt is set aside and counted.

        It says so (`Segment.may_be_stored`) when it, or a part of it, may be in the store: the
        first of a source after a start or a change of hands, and one that was read before.
        """

    def set_aside(self, number: int, index: int, reason: str) -> None:
        """Keep request `index` of a segment in a file of its own, for a person to look at."""

    def remove(self, number: int) -> None:
        """Forget a segment: its content is stored elsewhere, durably."""

    def problem(self) -> str | None:
        """Say why something is not read now; None where all is."""

    def stats(self) -> Mapping[str, float]:
        """Return counters since the start and gauges of now.

        At least ``n_segments`` that wait, ``oldest_segment_age_s`` and ``bytes_aside``.
        """

    def close(self) -> None:
        """Let go of what is read."""

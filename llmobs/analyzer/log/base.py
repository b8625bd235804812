"""The seam of the log: requests go in, sealed segments come out, none is lost in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from llmobs.records import Segment, Signal

__all__ = ["LogReader", "LogWriter"]


class LogWriter(Protocol):
    """The receiver's end."""

    def append(
        self, signal: Signal, request: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        """Queue one request; `done(None)` is called when it survives a power cut.

        A request that was acknowledged within the last minutes (byte for byte the same) is
        acknowledged again and not written. Never blocks: when the log is full or the disk
        fails, `done` gets an OverloadedError.
        """

    def close(self) -> None:
        """Write what is queued, seal the open segment, and stop."""


class LogReader(Protocol):
    """The engine's end."""

    def sealed(self) -> Sequence[int]:
        """Return the numbers of the sealed segments that are still kept, ascending."""

    def wait(self, timeout_s: float) -> None:
        """Return when a segment may have been sealed, at the latest after `timeout_s`."""

    def read(self, number: int) -> Segment:
        """Read one sealed segment; what is torn or corrupt is set aside and counted."""

    def set_aside(self, number: int, index: int, reason: str) -> None:
        """Keep request `index` of a segment in a file of its own, for a person to look at."""

    def remove(self, number: int) -> None:
        """Forget a segment: its content is stored elsewhere, durably."""

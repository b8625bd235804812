"""What the receivers need from the rest: somewhere to keep a request, and a check of its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from llmobs.records import Signal

__all__ = ["Check", "Sink"]

Check: TypeAlias = Callable[[Signal, bytes, bool], tuple[bytes, int]]
"""(signal, body, is_json) -> (the request in protobuf, number of its spans, records or points).

Raises BadRequestError when the bytes are not such a request. Called from several threads at
once. An empty body never gets here.
"""


class Sink(Protocol):
    """Where requests are kept before they are acknowledged."""

    def append(
        self, signal: Signal, request: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        """Keep one request and say when it is safe. Never blocks.

        Args:
            signal: What the request holds.
            request: An OTLP export request in protobuf.
            done: Called once, from any thread: with None when the bytes are on disk, else
                with the reason (an OverloadedError when the sender should try again).
        """

    def problem(self) -> str | None:
        """Say why a request would be refused now; None when it would be taken."""

    def stats(self) -> Mapping[str, float]:
        """Return the numbers that `/metrics` shows as ``llmobs_log_*``."""

    def close(self) -> None:
        """Finish what was appended and let go of the disk."""

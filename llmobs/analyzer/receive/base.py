"""What the receivers need from the rest: somewhere to keep a request, and a check of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from llmobs.records import Signal

__all__ = ["Check", "Sink"]

Check: TypeAlias = Callable[[Signal, bytes, bool], tuple[bytes, int]]
"""(signal, body, is_json) -> (the request in protobuf, number of its spans, records or points).

Raises BadRequestError when the bytes are not such a request.
"""


class Sink(Protocol):
    """Where requests are kept before they are acknowledged."""

    def append(
        self, signal: Signal, request: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        """Keep one request and say when it is safe.

        Args:
            signal: What the request holds.
            request: An OTLP export request in protobuf.
            done: Called once, from any thread: with None when the bytes are on disk, else
                with the reason (an OverloadedError when the sender should try again).
        """

"""Uvicorn's HTTP protocol, less patient: no connection waits without end for its next part."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ImpatientProtocol"]

# As much as nginx allows by default (4 x 8 KiB); keys and trace headers take some 200 bytes.
_MAX_HEAD_BYTES: Final = 32 << 10


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection whose head, or whose rest of a refused body, does not come in time.

    Uvicorn itself only ends connections that are idle between two requests: one that has sent
    nothing yet, half a head, or a body drop by drop after its refusal would be kept for good.
    The body of a request that is being answered is `HttpApp`'s to wait for.
    """

    timeout_s: ClassVar[float] = 30.0
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes: int | None = 0  # so far; None while no head is awaited

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; refuse a head without an end."""
        super().data_received(data)
        if self._head_bytes is None or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > _MAX_HEAD_BYTES:
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        super().on_message_begin()
        self._head_bytes = 0
        self._wait()

    def on_headers_complete(self) -> None:
        """Leave the waiting to the application."""
        self._head_bytes = None
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Have all of a request."""
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was answered early, only to throw it away."""
        cycle: Any = self.cycle
        super().on_response_complete()
        if cycle is self.cycle and cycle.more_body and not self.transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(self.timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

"""What both transports do with a request between its head and its answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from llmobs.access import KeyOwner, Keys, Role
from llmobs.analyzer.receive.answer import Outcome, RefusedError
from llmobs.analyzer.receive.base import Check, Sink
from llmobs.analyzer.receive.feedback import MAX_FEEDBACK_BYTES, read_feedback
from llmobs.analyzer.receive.metrics import ReceiverMetrics
from llmobs.analyzer.receive.unpack import GZIP_MAGIC, unpack
from llmobs.errors import BadRequestError, OverloadedError, TooLargeError
from llmobs.records import Signal

__all__ = ["Intake", "Limits", "Request", "Reservation"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the receivers bear.

    Attributes:
        max_packed_bytes: Largest body as sent.
        max_unpacked_bytes: Largest body once unpacked.
        max_in_flight_bytes: Bodies as sent, of all requests that are being received.
        max_grpc_requests: gRPC requests that are handled at the same time.
        read_timeout_s: A head must be here so long after its first byte or the connection's
            begin, a body so long after its head.
        answer_timeout_s: How long a request waits for the disk before the sender is told to
            try again.
        drain_s: How long requests in flight may take when the receiver is stopped.
    """

    max_packed_bytes: int = 16 << 20
    max_unpacked_bytes: int = 64 << 20
    max_in_flight_bytes: int = 256 << 20
    max_grpc_requests: int = 64
    read_timeout_s: float = 30.0
    answer_timeout_s: float = 30.0
    drain_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was unpacked and checked.

    Attributes:
        content: In protobuf; empty when it holds nothing.
        n_items: Its spans, log records or data points.
    """

    signal: Signal
    owner: KeyOwner
    content: bytes
    n_items: int


class Reservation:
    """A request's share of the memory for bodies."""

    def __init__(self, intake: Intake, max_bytes: int) -> None:
        self._intake = intake
        self._max_bytes = max_bytes
        self.size = 0

    def grow(self, n_bytes: int) -> None:
        """Take room for so many bytes more.

        Raises:
            RefusedError: The request is too large, or there is no room now.
        """
        if self.size + n_bytes > self._max_bytes:
            raise RefusedError(
                Outcome.TOO_LARGE,
                f"the body is larger than {self._max_bytes} bytes; send less at once (spans: "
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE), or pack it with gzip",
            )
        self._intake.reserve(n_bytes)
        self.size += n_bytes


class Intake:
    """Admits, reads, checks and accounts for requests; any thread may call it."""

    def __init__(
        self, sink: Sink, check: Check, keys: Keys, limits: Limits, metrics: ReceiverMetrics
    ) -> None:
        self.limits = limits
        self.metrics = metrics
        self.sink = sink
        self._check = check
        self._keys = keys
        self._lock = threading.Lock()
        self._in_flight_bytes = 0

    def admit(self, headers: Mapping[str, str], role: Role = Role.INGEST) -> KeyOwner:
        """Find out who sends, before anything of the body is read.

        Args:
            headers: By lower-case name.
            role: What the key must be for.

        Raises:
            RefusedError: No valid key, a key that may not send, or a quota that is used up.
        """
        owner = self._keys.check(headers)
        if owner is None:
            raise RefusedError(
                Outcome.UNAUTHENTICATED,
                "no valid key; send one as 'Authorization: Bearer KEY' or 'x-api-key: KEY' "
                "(OTEL_EXPORTER_OTLP_HEADERS)",
            )
        if not owner.may(role):
            raise RefusedError(
                Outcome.FORBIDDEN,
                f"the key of {owner.name!r} is for {owner.role.value}, not for sending this; "
                f"use one for {role.value}",
            )
        wait_s = owner.quota.wait_s() if owner.quota else 0.0
        if wait_s > 0:
            raise RefusedError(
                Outcome.OVER_QUOTA,
                f"the quota of {owner.name!r} is used up for {wait_s:.1f} s; "
                "send less, or ask for a larger quota",
                retry_after_s=wait_s,
            )
        return owner

    @contextmanager
    def reservation(self, max_bytes: int | None = None) -> Iterator[Reservation]:
        """Account for the memory of one body as it comes in.

        Args:
            max_bytes: The most that it may take; None: `Limits.max_packed_bytes`.
        """
        reservation = Reservation(self, max_bytes or self.limits.max_packed_bytes)
        try:
            yield reservation
        finally:
            with self._lock:
                self._in_flight_bytes -= reservation.size

    def reserve(self, n_bytes: int) -> None:
        """Take room for `n_bytes`.

        Raises:
            RefusedError: There is no room now.
        """
        with self._lock:
            if self._in_flight_bytes + n_bytes <= self.limits.max_in_flight_bytes:
                self._in_flight_bytes += n_bytes
                return
        raise RefusedError(
            Outcome.BUSY, "too many requests at the same time; try again", retry_after_s=1.0
        )

    def read(
        self,
        signal: Signal,
        owner: KeyOwner,
        packed: bytes,
        encoding: str,
        is_json: bool,
        *,
        max_bytes: int | None = None,
    ) -> Request:
        """Unpack a body and check that it is an export request.

        Args:
            signal: What it is said to hold.
            owner: Who sends.
            packed: The body as it came.
            encoding: One that `is_known_encoding`.
            is_json: Whether it is JSON; else protobuf.
            max_bytes: Of the body unpacked; None: as many as `limits` allow.

        Raises:
            RefusedError: It isn't, or is too large (`Outcome.TOO_LARGE`).
        """

        def check(body: bytes) -> tuple[bytes, int]:
            # Protobuf's empty message is an export request without anything in it.
            return self._check(signal, body, is_json) if body else (b"", 0)

        limit = max_bytes or self.limits.max_unpacked_bytes
        return self._read(signal, owner, packed, encoding, check, limit)

    def read_feedback(self, owner: KeyOwner, packed: bytes, encoding: str) -> Request:
        """Unpack what a web page says of an answer; as `read`."""
        return self._read("logs", owner, packed, encoding, read_feedback, MAX_FEEDBACK_BYTES)

    def _read(
        self,
        signal: Signal,
        owner: KeyOwner,
        packed: bytes,
        encoding: str,
        check: Callable[[bytes], tuple[bytes, int]],
        max_bytes: int,
    ) -> Request:
        try:
            content, n_items = check(unpack(packed, encoding, max_bytes=max_bytes))
        except TooLargeError as error:
            raise RefusedError(Outcome.TOO_LARGE, str(error)) from error
        except BadRequestError as error:
            hint = ""
            if packed.startswith(GZIP_MAGIC) and encoding != "gzip":
                hint = "; it looks like gzip: say so with 'Content-Encoding: gzip'"
            raise RefusedError(Outcome.INVALID, f"{error}{hint}") from error
        except Exception as error:  # the checker's code: one request must not stop the others
            logger.exception("check failed", extra={"signal": signal, "n_bytes": len(packed)})
            raise RefusedError(
                Outcome.FAILED, "the request could not be checked; the server's log says why"
            ) from error
        return Request(signal, owner, content if n_items else b"", n_items)

    def settle(self, request: Request, error: Exception | None) -> None:
        """Account for what the sink said about a request.

        Raises:
            RefusedError: It was not kept.
        """
        if error is None:
            self.metrics.count_kept(request.signal, request.n_items, len(request.content))
            if request.owner.quota:
                request.owner.quota.charge(request.n_items, len(request.content))
            return
        if isinstance(error, OverloadedError):
            raise RefusedError(
                Outcome.OVERLOADED, str(error), retry_after_s=error.retry_after_s
            ) from error
        if isinstance(error, TooLargeError):  # for a broker, whatever the limits here say
            raise RefusedError(Outcome.TOO_LARGE, str(error)) from error
        raise RefusedError(
            Outcome.FAILED, "the request could not be kept; the server's log says why"
        ) from error

    def late(self) -> RefusedError:
        """Return what a sender is told when the disk takes too long."""
        return RefusedError(
            Outcome.OVERLOADED,
            f"the disk did not confirm within {self.limits.answer_timeout_s:g} s; send the same "
            "bytes again: if they were kept meanwhile, they are not kept twice",
            retry_after_s=5.0,
        )

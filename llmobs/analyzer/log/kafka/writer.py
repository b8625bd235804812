"""The receiver's end of the log in Kafka: a producer."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from llmobs.analyzer.log.base import Done
from llmobs.analyzer.log.kafka.address import KafkaAddress
from llmobs.analyzer.log.kafka.outage import Outage
from llmobs.analyzer.log.record import digest_of
from llmobs.errors import LlmobsError, OverloadedError, TooLargeError
from llmobs.records import Signal

__all__ = ["KafkaLogWriter"]

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.1
# How long the writer calls itself troubled after a request could not be delivered.
_TROUBLED_S: Final = 5.0


class _Recent:
    """Hashes of acknowledged requests, in memory: two generations. Not thread-safe."""

    def __init__(self, window_s: float, max_digests: int) -> None:
        self._window_s = window_s
        self._max_a_generation = max_digests // 2
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()
        self._since = time.monotonic()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._new or digest in self._old

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, digest: bytes) -> None:
        """Remember a hash for the window, or for the next half of all that may be remembered."""
        now = time.monotonic()
        age_s = now - self._since
        if age_s >= self._window_s or len(self._new) >= self._max_a_generation:
            self._old = self._new if age_s < 2 * self._window_s else set()
            self._new, self._since = set(), now
        self._new.add(digest)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request on its way: who sent it, and who sent it again meanwhile."""

    size_bytes: int
    senders: list[Done]


class KafkaLogWriter:
    """Keeps requests in Kafka topics; a `LogWriter`, and a `Sink` of the receivers.

    A byte-identical retry is recognised by the writer that took the first copy, for some
    minutes and as long as it lives. One that comes to another receiver, or after a restart, or
    after Kafka was slower than `answer_s`, is written again; its spans are dropped where spans
    are stored once by trace and span.
    """

    def __init__(
        self,
        url: str,
        *,
        max_request_bytes: int = 64 << 20,
        max_queue_bytes: int = 64 << 20,
        answer_s: float = 10.0,
        duplicate_window_s: float = 600,
        max_digests: int = 200_000,
        retry_after_s: float = 5.0,
    ) -> None:
        """Start; Kafka need not be there yet.

        Args:
            url: As `KafkaAddress.parse` reads it.
            max_request_bytes: The largest request to offer to Kafka; the topic's own limit is
                its ``max.message.bytes``, for the request as it is compressed.
            max_queue_bytes: Requests that may wait in memory for Kafka. One request is always
                let in, whatever its size.
            answer_s: When Kafka has not confirmed a request after this long, it is refused.
            duplicate_window_s: How long a byte-identical request counts as a retry.
            max_digests: Requests remembered for that, at most.
            retry_after_s: What a refused sender is told.

        Raises:
            ConfigurationError: The URL is wrong.
        """
        self._address = KafkaAddress.parse(url)
        self._max_request_bytes = max_request_bytes
        self._max_queue_bytes = max_queue_bytes
        self._answer_s = answer_s
        self._retry_after_s = retry_after_s
        self._outage = Outage(self._address.servers, self._address.topic("traces"))
        self._is_fatal = False
        self._closing = threading.Event()

        self._lock = threading.Lock()  # guards what follows
        self._recent = _Recent(duplicate_window_s, max_digests)
        self._waiting: dict[bytes, _Waiting] = {}  # by hash
        self._queue_bytes = 0
        self._trouble: tuple[float, str] | None = None
        self._n_requests = self._n_duplicates = self._n_refused = self._n_failed = 0
        self._bytes_written = 0

        self._producer = self._connect()
        self._thread = threading.Thread(target=self._run, name="llmobs-kafka", daemon=True)
        self._thread.start()

    def append(self, signal: Signal, request: bytes, done: Done) -> None:
        """Hand one request to Kafka; `done(None)` is called when all in-sync replicas have it.

        A request that was acknowledged within the last minutes (byte for byte the same) is
        acknowledged again and not written. Never blocks: `done` gets an OverloadedError when
        the queue is full or Kafka doesn't confirm in time, and a TooLargeError when Kafka's
        limit on the size of a message forbids it.
        """
        digest = digest_of(signal, request)
        answer: Exception | None = None
        with self._lock:
            if digest in self._waiting:
                self._waiting[digest].senders.append(done)
                return
            refusal = self._refusal(len(request))
            is_known = digest in self._recent
            if refusal is not None:
                self._n_refused += 1
                answer = OverloadedError(refusal, retry_after_s=self._retry_after_s)
            elif is_known:
                self._n_requests += 1
                self._n_duplicates += 1
            else:
                self._waiting[digest] = _Waiting(len(request), [done])
                self._queue_bytes += len(request)
        if answer is not None or is_known:
            done(answer)
            return
        settle = partial(self._settle, digest)
        try:
            self._producer.produce(self._address.topic(signal), request, on_delivery=settle)
        except BufferError:
            settle(KafkaError(KafkaError._QUEUE_FULL), None)
        except KafkaException as error:
            settle(error.args[0], None)

    def problem(self) -> str | None:
        """Say why a request would be refused now; None when it would be taken."""
        with self._lock:
            if self._outage.reason is not None:
                return self._outage.reason
            if self._trouble is not None and time.monotonic() < self._trouble[0]:
                return self._trouble[1]
            return self._refusal(0)

    def stats(self) -> dict[str, float]:
        """Return counters since the start and gauges of now.

        ``n_requests`` were acknowledged, ``n_duplicates`` of them again; ``n_refused`` found
        the queue full or closed, or were not confirmed: ``n_failed`` deliveries;
        ``bytes_written`` to Kafka; ``n_outages`` of the cluster; gauges: ``is_connected``,
        ``queue_bytes``, ``n_recent`` (remembered requests).
        """
        with self._lock:
            return {
                "n_requests": self._n_requests,
                "n_duplicates": self._n_duplicates,
                "n_refused": self._n_refused,
                "n_failed": self._n_failed,
                "bytes_written": self._bytes_written,
                "n_outages": self._outage.n_outages,
                "is_connected": float(self._outage.reason is None),
                "queue_bytes": self._queue_bytes,
                "n_recent": len(self._recent),
            }

    def close(self) -> None:
        """Wait for what is on its way, refuse the rest, and stop; may be called twice."""
        with self._lock:
            self._closing.set()
        self._thread.join()

    def _refusal(self, size: int) -> str | None:
        if self._closing.is_set():
            return "the receiver is shutting down"
        if self._queue_bytes and self._queue_bytes + size > self._max_queue_bytes:
            return (
                f"{self._queue_bytes} bytes already wait for Kafka "
                f"(limit {self._max_queue_bytes}); send less or add partitions"
            )
        return None

    # On the thread.

    def _run(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(_POLL_S)
            self._outage.check(self._producer)
            if self._is_fatal:
                self._replace()
        self._end(self._producer, 0.0 if self._is_fatal else self._answer_s)
        for digest in list(self._waiting):  # handed to Kafka too late
            self._settle(digest, KafkaError(KafkaError._DESTROY), None)

    def _replace(self) -> None:
        """Begin anew after an error that ends a producer for good."""
        broken, self._producer = self._producer, self._connect()
        self._end(broken, 0.0)

    def _end(self, producer: Producer, wait_s: float) -> None:
        """See all requests answered: confirmed, or failed."""
        if producer.flush(wait_s):
            producer.purge()
            producer.flush(_POLL_S)

    def _connect(self) -> Producer:
        self._is_fatal = False
        return self._address.connect(
            Producer,
            error_cb=self._on_error,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            compression_type="lz4",
            message_max_bytes=self._max_request_bytes,
            message_timeout_ms=int(self._answer_s * 1000),
            queue_buffering_max_kbytes=(self._max_queue_bytes + self._max_request_bytes >> 10) + 1,
        )

    def _on_error(self, error: KafkaError) -> None:
        self._is_fatal |= error.fatal()
        self._outage.suspect(error)

    def _settle(self, digest: bytes, error: KafkaError | None, _message: Message | None) -> None:
        """Tell all that wait for a request how it went."""
        with self._lock:
            waiting = self._waiting.pop(digest, None)
            if waiting is None:  # answered when the writer closed
                return
            self._queue_bytes -= waiting.size_bytes
            if error is None:
                self._recent.add(digest)
                self._n_requests += len(waiting.senders)
                self._n_duplicates += len(waiting.senders) - 1
                self._bytes_written += waiting.size_bytes
                self._trouble = None
            else:
                self._n_failed += 1
                self._n_refused += len(waiting.senders)
        answer = None if error is None else self._answer(error, waiting.size_bytes)
        for done in waiting.senders:
            try:
                done(answer)
            except Exception:  # the caller's code; the other senders still have to hear
                logger.exception("acknowledgement failed")

    def _answer(self, error: KafkaError, size: int) -> LlmobsError:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return TooLargeError(
                f"a request of {size} bytes is larger than Kafka takes: raise max.message.bytes of "
                "the topic (or message.max.bytes of the brokers), or send smaller batches"
            )
        reason = f"Kafka did not take the request ({error.str()})"
        with self._lock:
            is_news = self._trouble is None or self._trouble[0] < time.monotonic()
            self._trouble = time.monotonic() + _TROUBLED_S, reason
        if is_news:
            logger.warning("kafka refuses", extra={"reason": error.str()})
        return OverloadedError(reason, retry_after_s=self._retry_after_s)

"""Senders that behave as exporters do: a request is sent again until it is acknowledged."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from tests.otlp import chat_span, post, traces_request

__all__ = ["Load"]

_OVERLOADED = {429, 503}


@dataclass
class Load:
    """Threads that send requests of some spans to a receiver, one after the other.

    Use it as a context manager.

    Attributes:
        port: Of OTLP/HTTP.
        acknowledged: Span ids (hex) of the requests that were answered with 200.
        n_refused: Answers that asked to wait.
        last_s: When a request was last acknowledged; monotonic.
    """

    port: int
    seed: int = 1
    n_senders: int = 3
    spans_a_request: int = 32
    pause_s: float = 0.05
    acknowledged: set[str] = field(default_factory=set)
    n_refused: int = 0
    last_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        for n in range(self.n_senders):
            chance = random.Random(self.seed * 100 + n)
            thread = threading.Thread(target=self._send, args=(chance,))
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop; what was not acknowledged by then may or may not have been kept."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        assert not self.failures, self.failures

    def wait_acknowledged(self, since_s: float, timeout_s: float = 60.0) -> float:
        """Return how long after a moment (monotonic) a request was acknowledged."""
        while self.last_s <= since_s:
            assert time.monotonic() < since_s + timeout_s, "nothing is acknowledged any more"
            time.sleep(0.005)
        return self.last_s - since_s

    def _send(self, chance: random.Random) -> None:
        while not self._stopping.is_set():
            spans = [
                chat_span(chance, session=f"s-{chance.randrange(50)}")
                for _ in range(self.spans_a_request)
            ]
            if self._was_kept(traces_request(spans)):
                with self._lock:
                    self.acknowledged |= {span.span_id.hex() for span in spans}
                self._stopping.wait(self.pause_s)

    def _was_kept(self, body: bytes) -> bool:
        """Send a request until it is acknowledged, or until all is to stop."""
        while not self._stopping.is_set():
            begun_s = time.monotonic()
            try:
                status, answer = post(self.port, body)
            except OSError:
                status, answer = 0, b""
            if status == 200:
                with self._lock:
                    self.last_s = max(self.last_s, begun_s)
                return True
            if status in _OVERLOADED:
                with self._lock:
                    self.n_refused += 1
            elif status:
                self.failures.append(f"{status}: {answer!r}")
                return False
            self._stopping.wait(0.02)
        return False

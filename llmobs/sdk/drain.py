"""The thread that sends what lies in the spool: in order, and for as long as it takes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from opentelemetry import context as context_api
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY

from llmobs.sdk.exporters import RETRY_PAUSE_S, THREAD_NAME, Exporters, Outcome
from llmobs.sdk.guarded import guarded, report
from llmobs.sdk.runtime import Runtime
from llmobs.sdk.spool import Entry, Spool

__all__ = ["Drainer"]

# How often a process looks for what others have left: they die rarely, and nobody is waiting.
ADOPT_EVERY_S: Final = 10.0


class Drainer:
    """Sends a spool's requests, oldest first, on a daemon thread of its own.

    A thread beside the one that describes spans: that one must go on writing while this one waits
    for a receiver.

    Args:
        make_exporters: Makes them when they are first needed: sockets don't outlive a fork.

    Attributes:
        n_spans: Spans of this process that a receiver has taken.
        n_events: Events of this process that a receiver has taken.
    """

    def __init__(
        self, runtime: Runtime, spool: Spool, make_exporters: Callable[[], Exporters]
    ) -> None:
        self._runtime = runtime
        self._spool = spool
        self._make_exporters = make_exporters
        self._exporters: Exporters | None = None
        self._work = threading.Event()
        self._waiting: deque[threading.Event] = deque()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{THREAD_NAME}-spool", daemon=True)
        self._is_all_sent = False
        self.n_spans = 0
        self.n_events = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look now."""
        self._work.set()

    def flush(self, timeout_s: float) -> bool:
        """Try to send all that is there; return whether that was done in time."""
        done = threading.Event()
        self._waiting.append(done)
        self._work.set()
        return done.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Try within a time to send all that is there, then end; return whether all is sent.

        What is not stays on disk, for a process to come.
        """
        self._is_closing.set()
        self._work.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive() and self._exporters is not None:
            self._exporters.shutdown()  # wakes it from waiting for another try
            self._thread.join(0.2)
        return not self._thread.is_alive() and self._is_all_sent

    # --- on the thread ---

    def _run(self) -> None:
        context_api.attach(context_api.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        adopt_s = monotonic()
        while not self._is_closing.is_set():
            self._work.clear()
            asked = list(self._waiting)
            is_away = False
            with guarded("drain the spool"):
                if monotonic() >= adopt_s:
                    adopt_s = monotonic() + ADOPT_EVERY_S
                    self._spool.adopt()
                is_away = not self._drain()
            for done in asked:
                self._waiting.remove(done)
                done.set()
            if is_away:
                report("receiver is away")
                self._is_closing.wait(RETRY_PAUSE_S)
            else:
                self._work.wait(ADOPT_EVERY_S)
        with guarded("drain the spool"):
            self._is_all_sent = self._drain()
        with guarded("close the spool"):
            self._spool.close()
        if self._exporters is not None:
            self._exporters.shutdown()
        while self._waiting:
            self._waiting.popleft().set()

    def _drain(self) -> bool:
        """Send until nothing is left; return False where the receiver is away."""
        while (entry := self._spool.take()) is not None:
            outcome = Outcome.AWAY
            try:
                outcome = self._send(entry)
            finally:
                if outcome is Outcome.AWAY:
                    self._spool.put_back(entry)
            if outcome is Outcome.AWAY:
                return False
            if outcome is not Outcome.TAKEN:
                self._runtime.buffer.drop(outcome.value, entry.n_items)
            elif entry.is_own and entry.signal == "traces":
                self.n_spans += entry.n_items
            elif entry.is_own:
                self.n_events += entry.n_items
            self._spool.remove(entry)  # last: what is nowhere to be seen would look lost
        return True

    def _send(self, entry: Entry) -> Outcome:
        try:
            request = entry.path.read_bytes()
        except OSError as error:
            report("spool can't be read", error=error.strerror)
            return Outcome.UNREADABLE
        if self._exporters is None:
            self._exporters = self._make_exporters()
        exporters = self._exporters
        post = exporters.post_spans if entry.signal == "traces" else exporters.post_events
        return Outcome.REFUSED if post is None else post(request)

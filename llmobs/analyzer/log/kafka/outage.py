"""Whether the cluster answers, said once when it changes."""

from __future__ import annotations

import logging
import time
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException

__all__ = ["Outage"]

logger = logging.getLogger(__name__)

# How often the cluster is asked while it is in doubt, and how long it may take: the thread that
# asks has other things to do.
_ASK_EVERY_S: Final = 1.0
_ASK_TIMEOUT_S: Final = 1.0


class _Client(Protocol):
    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any: ...


class Outage:
    """Watches one client. `reason` may be read by any thread, the rest is for one thread."""

    def __init__(self, servers: str, topic: str) -> None:
        """Take what to name in messages and a topic to ask for."""
        self.reason: str | None = None
        self.n_outages = 0
        self._servers = servers
        self._topic = topic
        self._doubt: str | None = None
        self._ask_at = 0.0

    def suspect(self, error: KafkaError) -> None:
        """Note what librdkafka reports; it does so of idle connections that close, too."""
        self._doubt = error.str()

    def check(self, client: _Client) -> None:
        """Ask the cluster, when that is in doubt and was not done a moment ago."""
        if self._doubt is None or time.monotonic() < self._ask_at:
            return
        try:
            client.list_topics(self._topic, timeout=_ASK_TIMEOUT_S)
        except KafkaException:
            self._ask_at = time.monotonic() + _ASK_EVERY_S
            if self.reason is None:
                self.n_outages += 1
                logger.warning(
                    "kafka does not answer",
                    extra={"servers": self._servers, "reason": self._doubt},
                )
            self.reason = f"Kafka at {self._servers} does not answer ({self._doubt})"
            return
        if self.reason is not None:
            logger.warning("kafka answers again", extra={"servers": self._servers})
        self.reason = self._doubt = None

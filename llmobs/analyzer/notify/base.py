"""The seam of the notifiers: an alert goes out, or it is said why it did not."""

from __future__ import annotations

from typing import Protocol

from llmobs.records import Alert, Finding

__all__ = ["Notifier"]


class Notifier(Protocol):
    """One channel to people."""

    @property
    def name(self) -> str:
        """The channel's name in the settings."""

    def send(self, alert: Alert, finding: Finding | None) -> None:
        """Deliver one alert.

        Raises:
            LlmobsError: The channel did not take it; the outbox tries again later.
        """

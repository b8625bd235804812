"""The seams of this room: notifiers that carry alerts out, and the state they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from llmobs.errors import LlmobsError
from llmobs.records import Alert, Finding

__all__ = ["AlertMetrics", "Annotator", "DeliveryError", "Notifier", "State"]


class DeliveryError(LlmobsError):
    """A channel did not take an alert; the outbox tries again later."""


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


class Annotator(Protocol):
    """Marks findings on dashboards."""

    def annotate(self, finding: Finding, *, until_ns: int | None = None) -> None:
        """Mark when something moved; the same finding is marked once.

        Args:
            finding: What was found.
            until_ns: When it was over, in ns since 1970; None while it lasts.

        Raises:
            LlmobsError: It was not marked.
        """


class AlertMetrics(Protocol):
    """Counts what the announcer does."""

    def record_alerts(self, firing: Iterable[Alert]) -> None:
        """Show how many alerts fire now."""

    def record_publish_failure(self, target: str) -> None:
        """Count a delivery that was not taken."""


class State(Protocol):
    """What the announcer needs of the analyzer's transactional state."""

    def unannounced(self, limit: int = 100) -> list[Finding]:
        """Return findings of level ``page`` that were not taken yet, oldest first."""

    def alerts(self, state: str | None = None, limit: int = 200) -> list[Alert]:
        """Return alerts, newest first."""

    def statuses(self) -> list[dict[str, Any]]:
        """Return the monitors' statuses as last committed (`MonitorStatus.to_json`)."""

    def announce(
        self, finding_ids: Sequence[str], alerts: Sequence[Alert], channels: Sequence[str]
    ) -> None:
        """Mark findings as taken, write alerts, queue each for every channel: all or nothing.

        An alert whose id is known replaces the one that is stored. No channels: nobody is told.
        """

    def outbox(self, now_ns: int, limit: int = 100) -> list[tuple[int, str, Alert, Finding | None]]:
        """Return due deliveries: (delivery id, channel, alert, its first finding)."""

    def delivered(self, delivery_id: int) -> None:
        """Forget a delivery that the channel took."""

    def retry(self, delivery_id: int, at_ns: int, reason: str) -> None:
        """Try a delivery again at a time, with the reason why it was not taken."""

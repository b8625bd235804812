"""The analyzer's state in memory, as the store keeps it in SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmobs.records import Alert, Finding


@dataclass
class Delivery:
    """One row of the outbox."""

    channel: str
    alert: Alert
    due_ns: int = 0
    reason: str = ""


@dataclass
class MemoryState:
    """Findings, alerts and the outbox."""

    found: list[Finding] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    kept: dict[str, Alert] = field(default_factory=dict)
    queue: dict[int, Delivery] = field(default_factory=dict)
    n_deliveries: int = 0

    def unannounced(self, limit: int = 100) -> list[Finding]:
        return [f for f in self.found if f.id not in self.taken][:limit]

    def alerts(self, state: str | None = None, limit: int = 200) -> list[Alert]:
        wanted = [a for a in self.kept.values() if state in (None, a.state)]
        return wanted[::-1][:limit]

    def statuses(self) -> list[dict[str, Any]]:
        return self.rows

    def announce(
        self, finding_ids: Sequence[str], alerts: Sequence[Alert], channels: Sequence[str]
    ) -> None:
        self.taken |= set(finding_ids)
        for alert in alerts:
            self.kept[alert.id] = alert
            for channel in channels:
                self.n_deliveries += 1
                self.queue[self.n_deliveries] = Delivery(channel, alert)

    def outbox(self, now_ns: int, limit: int = 100) -> list[tuple[int, str, Alert, Finding | None]]:
        findings = {finding.id: finding for finding in self.found}
        due = [
            (number, row.channel, row.alert, findings.get(row.alert.finding_id))
            for number, row in self.queue.items()
            if row.due_ns <= now_ns
        ]
        return due[:limit]

    def delivered(self, delivery_id: int) -> None:
        del self.queue[delivery_id]

    def retry(self, delivery_id: int, at_ns: int, reason: str) -> None:
        self.queue[delivery_id].due_ns = at_ns
        self.queue[delivery_id].reason = reason

"""Findings become alerts: one a thing that moved, told when it begins and when it is over.

`AlertBook` decides and does nothing: it is given what fires, what was found, what is in alarm
and the time, and returns the alerts that changed. One incident moves several things at once,
so what begins at one place (`place_of`) is told in one message (`AlertBook.together`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple, TypeAlias

from llmobs.records import Alert, Finding

__all__ = [
    "SEVERITIES",
    "AlertBook",
    "Change",
    "SeverityRule",
    "key_of",
    "place_of",
    "sample_alert",
]

Severity: TypeAlias = Literal["page", "ticket"]

_S: Final = 1_000_000_000
_N_EXAMPLES: Final = 3
# 2026-01-01: a test needs no clock.
_TEST_NS: Final = 1_767_225_600 * _S
# Beyond this nobody's decision changes, and exp() of the evidence may overflow.
_MAX_LOG_ODDS: Final = math.log(1e9)

_WHAT_MOVED: Final = {
    "input": "What users send has changed",
    "output": "What is answered has changed",
    "model": "The model answers differently",
    "security": "Security",
    "cost": "Cost",
    "reliability": "Reliability",
}


class SeverityRule(NamedTuple):
    """One line of the severity table; patterns as in the shell."""

    kind: str
    monitor: str
    severity: Severity


SEVERITIES: Final = (
    SeverityRule("security", "*", "page"),
    SeverityRule("reliability", "*", "page"),
    SeverityRule("cost", "*", "page"),
    SeverityRule("output", "*toxic*", "page"),
    SeverityRule("*", "*", "ticket"),
)
"""Who is woken: the first line that matches a finding counts. Drift can wait for the morning."""


class Change(NamedTuple):
    """An alert that changed.

    Attributes:
        alert: The alert as it is now.
        finding_ids: The findings that this takes up.
        is_news: People are told; an alert that fires already only counts one more finding.
    """

    alert: Alert
    finding_ids: tuple[str, ...]
    is_news: bool


def alert_key(monitor: str, service: str, environment: str, feature: str) -> str:
    """Return what findings of one alert have in common: the monitor and the place."""
    return "|".join((monitor, service, environment, feature))


def key_of(finding: Finding) -> str:
    """Return the key of the alert that a finding belongs to."""
    return alert_key(finding.monitor, finding.service, finding.environment, finding.feature)


def place_of(alert: Alert) -> str:
    """Return what alerts that are told together have in common: the key without the monitor."""
    return alert.key.partition("|")[2]


@dataclass(frozen=True)
class AlertBook:
    """The rules by which findings become alerts.

    Attributes:
        page_url: Base URL of the page that shows traces, without a final slash.
        runbook_url: Where the runbooks are; ``#<kind>`` follows.
        resolve_after_s: An alert whose monitor has no status is over after this time
            without a finding, in seconds.
        settle_s: An alert whose monitor left the alarm is over after this time without a
            finding, in seconds, so that a monitor on the edge does not tell twice a minute.
        severities: The severity table.
    """

    page_url: str = "http://127.0.0.1:4319"
    runbook_url: str = "docs/runbooks.md"
    resolve_after_s: float = 6 * 3600.0
    settle_s: float = 600.0
    severities: Sequence[SeverityRule] = SEVERITIES

    def changes(
        self,
        firing: Iterable[Alert],
        findings: Iterable[Finding],
        *,
        in_alarm: Mapping[str, bool],
        heard_ns: Mapping[str, int],
        now_ns: int,
    ) -> list[Change]:
        """Say which alerts begin, grow or end.

        Args:
            firing: The alerts that fire now.
            findings: Findings that nobody was told of, oldest first.
            in_alarm: For each key of a monitor with a status, whether it is in alarm.
            heard_ns: For each key that fires, when its last finding came, in ns since 1970.
            now_ns: The time, in ns since 1970.

        Returns:
            At most one change an alert; those that end come first.
        """
        alerts = {alert.key: alert for alert in firing}
        taken: dict[str, list[Finding]] = {}
        for found in findings:
            taken.setdefault(key_of(found), []).append(found)
        over = {
            key
            for key in alerts
            if key not in taken and self._is_over(key, in_alarm, heard_ns, now_ns)
        }
        lasting = [alert for key, alert in alerts.items() if key not in over]
        ended = [
            Change(self._resolved(alert, lasting, now_ns), (), is_news=True)
            for key, alert in alerts.items()
            if key in over
        ]
        return ended + [self._grown(alerts.get(key), key, found) for key, found in taken.items()]

    def together(self, begun: Iterable[Change]) -> list[Change]:
        """Let each alert that begins at one place say what else moved there; the worst first."""
        ranked = sorted(begun, key=lambda change: change.alert.severity != "page")
        summaries = [change.alert.message.partition("\n")[0] for change in ranked]
        out = []
        for i, change in enumerate(ranked):
            _, _, details = change.alert.message.partition("\n")
            others = [f"Also: {text}" for j, text in enumerate(summaries) if j != i]
            message = "\n".join([summaries[i], *others, details])
            out.append(change._replace(alert=replace(change.alert, message=message)))
        return out

    def _grown(self, alert: Alert | None, key: str, found: Sequence[Finding]) -> Change:
        ids = tuple(finding.id for finding in found)
        if alert is None:
            return Change(replace(self._begun(key, found[0]), n_findings=len(found)), ids, True)
        if alert.finding_id in ids:  # it was written down, and nobody was told yet
            return Change(replace(alert, n_findings=len(found)), ids, True)
        return Change(replace(alert, n_findings=alert.n_findings + len(found)), ids, False)

    def _begun(self, key: str, first: Finding) -> Alert:
        place = f"{first.service}/{first.feature}" if first.feature else first.service
        if first.environment:
            place = f"{place} ({first.environment})"
        return Alert(
            id=hashlib.sha256(f"{key}\n{first.id}".encode()).hexdigest()[:16],
            key=key,
            state="firing",
            severity=self._severity(first),
            title=f"{_WHAT_MOVED[first.kind]}: {first.monitor} in {place}",
            message=self._message(first),
            service=first.service,
            environment=first.environment,
            feature=first.feature,
            monitor=first.monitor,
            starts_at_ns=first.at_ns,
            ends_at_ns=None,
            n_findings=1,
            finding_id=first.id,
        )

    def _severity(self, finding: Finding) -> Severity:
        for rule in self.severities:
            if fnmatchcase(finding.kind, rule.kind) and fnmatchcase(finding.monitor, rule.monitor):
                return rule.severity
        return "ticket"

    def _message(self, finding: Finding) -> str:
        lines = [finding.summary, _since(finding)]
        if finding.reference is not None and finding.current is not None:
            before, now = f"{finding.reference:.3g}", f"{finding.current:.3g}"
            lines.append(f"Was {before}, is now {now} {finding.unit}".rstrip())
        if math.isfinite(finding.log_e) and math.isfinite(finding.log_threshold):
            lines.append(
                f"Evidence {_odds(finding.log_e)} against chance, "
                f"alarm from {_odds(finding.log_threshold)}"
            )
        if finding.provisional:
            lines.append("The reference was still short when this was found.")
        lines += [
            f"Example: {self.page_url}/traces/{trace_id}"
            for trace_id in finding.examples[:_N_EXAMPLES]
        ]
        lines.append(f"What to do: {self.runbook_url}#{finding.kind}")
        return "\n".join(lines)

    def _is_over(
        self, key: str, in_alarm: Mapping[str, bool], heard_ns: Mapping[str, int], now_ns: int
    ) -> bool:
        if in_alarm.get(key, False):
            return False
        quiet_s = (now_ns - heard_ns.get(key, now_ns)) / _S
        return quiet_s >= (self.settle_s if key in in_alarm else self.resolve_after_s)

    def _resolved(self, alert: Alert, lasting: Iterable[Alert], now_ns: int) -> Alert:
        plural = "" if alert.n_findings == 1 else "s"
        message = (
            f"Quiet again since {_clock(now_ns)}; it began {_clock(alert.starts_at_ns)} "
            f"and was found {alert.n_findings} time{plural}."
        )
        others = sorted(a.monitor for a in lasting if place_of(a) == place_of(alert))
        if others:
            message += f"\nStill firing here: {', '.join(others)}."
        return replace(
            alert,
            state="resolved",
            ends_at_ns=now_ns,
            title=f"Resolved: {alert.title}",
            message=message,
        )


def sample_alert() -> tuple[Alert, Finding]:
    """Return an alert and its finding to try a channel with; both say that they are a test."""
    found = Finding(
        id="test",
        monitor="test",
        kind="input",
        level="page",
        service="llmobs",
        environment="",
        feature="test",
        at_ns=_TEST_NS,
        onset_ns=_TEST_NS,
        summary="This is a test of the channel: nothing has moved.",
        log_e=10.0,
        log_threshold=9.2,
        reference=0.02,
        current=0.31,
        unit="",
        evidence={},
        examples=(),
        provisional=False,
    )
    (change,) = AlertBook().changes([], [found], in_alarm={}, heard_ns={}, now_ns=_TEST_NS)
    return change.alert, found


def _since(finding: Finding) -> str:
    return f"Since about {_clock(finding.onset_ns)}, found {_clock(finding.at_ns)}"


def _clock(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / _S, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _odds(log_e: float) -> str:
    if log_e > _MAX_LOG_ODDS:
        return "over 1,000,000,000 : 1"
    return f"{math.exp(log_e):,.0f} : 1"

"""The loop that tells people: findings become alerts, alerts wait in the outbox until taken."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from llmobs.analyzer.notify.alerting import AlertBook, alert_key
from llmobs.analyzer.notify.base import AlertMetrics, Annotator, Notifier, State
from llmobs.errors import ConfigurationError, LlmobsError
from llmobs.records import Alert, Finding

__all__ = ["Announcer", "Route"]

logger = logging.getLogger(__name__)

_S: Final = 1_000_000_000
GRAFANA: Final = "grafana"
"""Name of the channel that marks alerts on the dashboards."""
# The first wait outlasts a restart of most services; the longest still tells on the same day.
FIRST_RETRY_S: Final = 15.0
LONGEST_RETRY_S: Final = 3600.0
# More alerts than that firing at once is an outage of the monitoring, not of what it watches.
_MAX_FIRING: Final = 10_000


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the routing table: where alerts of a kind go.

    Attributes:
        channels: Names of notifiers.
        severity: ``page`` or ``ticket``; None is both.
        service: Pattern as in the shell.
    """

    channels: tuple[str, ...]
    severity: str | None = None
    service: str = "*"

    def matches(self, alert: Alert) -> bool:
        """Say whether this line is about the alert."""
        return self.severity in (None, alert.severity) and fnmatchcase(alert.service, self.service)


@dataclass(frozen=True, slots=True)
class _Marks:
    """The dashboards as a channel."""

    annotator: Annotator
    name: str = GRAFANA

    def send(self, alert: Alert, finding: Finding | None) -> None:
        if finding is not None:
            self.annotator.annotate(finding, until_ns=alert.ends_at_ns)


class _Waiting(NamedTuple):
    delivery_id: int
    n_attempts: int
    at_ns: int


class Announcer:
    """Takes findings out of the state, alerts to people; called over and over.

    A finding is marked as taken, its alert written and its deliveries queued in one
    transaction; a delivery leaves the queue when its channel took it. So nothing is lost, and
    an alert goes out twice only if the process dies between a channel's yes and that mark.

    Args:
        state: The transactional state.
        book: The rules for alerts.
        notifiers: The channels.
        routes: The routing table: an alert goes to the channels of every line that matches.
            None sends all alerts to all channels.
        grafana: Marks every alert's finding on the dashboards, by the same outbox.
        metrics: Counts alerts and failures.

    Raises:
        ConfigurationError: Two channels have one name, or a route names no channel.
    """

    def __init__(
        self,
        state: State,
        book: AlertBook,
        notifiers: Sequence[Notifier],
        routes: Sequence[Route] | None = None,
        *,
        grafana: Annotator | None = None,
        metrics: AlertMetrics | None = None,
    ) -> None:
        self._state = state
        self._book = book
        self._metrics = metrics
        marks = [] if grafana is None else [_Marks(grafana)]
        channels: list[Notifier] = [*notifiers, *marks]
        self._notifiers = {channel.name: channel for channel in channels}
        if len(self._notifiers) < len(channels):
            raise ConfigurationError(
                f"two notification channels have the same name ({GRAFANA!r} is taken by the "
                "annotations): rename one"
            )
        self._routes = [Route(tuple(n.name for n in notifiers))] if routes is None else [*routes]
        self._routes += [Route((GRAFANA,)) for _ in marks]
        for name in {name for route in self._routes for name in route.channels}:
            if name not in self._notifiers:
                known = ", ".join(self._notifiers) or "none"
                raise ConfigurationError(f"a route names the channel {name!r}; there are: {known}")
        # When the last finding of a firing alert came. After a restart: now, so that an
        # alert may end later than it should but never earlier.
        self._heard_ns: dict[str, int] = {}
        self._waiting: dict[tuple[str, str], _Waiting] = {}

    def step(self, now_ns: int) -> int:
        """Take up new findings and deliver what is due.

        Returns:
            How many alerts changed and deliveries were tried; 0 means there was nothing to do.
        """
        return self._announce(now_ns) + self._deliver(now_ns)

    def _announce(self, now_ns: int) -> int:
        firing = self._state.alerts("firing", _MAX_FIRING)
        findings = self._state.unannounced()
        self._heard_ns = {a.key: self._heard_ns.get(a.key, now_ns) for a in firing}
        self._heard_ns |= {alert_key(f.monitor, f.service, f.feature): now_ns for f in findings}
        changes = self._book.changes(
            firing,
            findings,
            in_alarm=_in_alarm(self._state) if firing else {},
            heard_ns=self._heard_ns,
            now_ns=now_ns,
        )
        for change in changes:
            channels = self._channels(change.alert) if change.is_news else ()
            self._state.announce(change.finding_ids, [change.alert], channels)
        if self._metrics:
            self._metrics.record_alerts(
                self._state.alerts("firing", _MAX_FIRING) if changes else firing
            )
        return len(changes)

    def _channels(self, alert: Alert) -> tuple[str, ...]:
        named = (name for route in self._routes if route.matches(alert) for name in route.channels)
        return tuple(dict.fromkeys(named))

    def _deliver(self, now_ns: int) -> int:
        due = self._state.outbox(now_ns)
        for delivery_id, channel, alert, finding in due:
            earlier = self._waiting.get((alert.id, channel))
            if earlier is not None and earlier.delivery_id != delivery_id:
                # "Resolved" must not overtake the message it answers.
                self._state.retry(delivery_id, earlier.at_ns + 1, "waits for an earlier message")
            elif channel not in self._notifiers:
                logger.error("delivery to unknown channel dropped", extra={"channel": channel})
                self._state.delivered(delivery_id)
            else:
                self._try(delivery_id, channel, alert, finding, now_ns)
        return len(due)

    def _try(
        self, delivery_id: int, channel: str, alert: Alert, finding: Finding | None, now_ns: int
    ) -> None:
        key = (alert.id, channel)
        try:
            self._notifiers[channel].send(alert, finding)
        except LlmobsError as error:
            reason = str(error)
        except Exception as error:  # a notifier may be someone else's code
            reason = f"{type(error).__name__}: {error}"
        else:
            self._waiting.pop(key, None)
            self._state.delivered(delivery_id)
            return
        if self._metrics:
            self._metrics.record_publish_failure(GRAFANA if channel == GRAFANA else "notify")
        n_attempts = self._waiting[key].n_attempts + 1 if key in self._waiting else 1
        wait_s = min(FIRST_RETRY_S * 2 ** min(n_attempts - 1, 16), LONGEST_RETRY_S)
        at_ns = now_ns + int(wait_s * _S)
        self._waiting[key] = _Waiting(delivery_id, n_attempts, at_ns)
        self._state.retry(delivery_id, at_ns, reason)
        logger.warning(
            "alert not delivered",
            extra={"channel": channel, "n_attempts": n_attempts, "retry_in_s": wait_s},
        )


def _in_alarm(state: State) -> dict[str, bool]:
    return {
        alert_key(str(row["monitor"]), str(row["service"]), str(row["feature"])): row["state"]
        == "alarm"
        for row in state.statuses()
    }

"""The loop that tells people: findings become alerts, alerts wait in the outbox until taken."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from llmobs.analyzer.notify.alerting import AlertBook, Change, alert_key, key_of, place_of
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
_SLEW_NS: Final = 60 * 10**9  # a clock that goes back by less was being put right
# As Alertmanager's group_wait and group_interval: what one incident moves is found within
# seconds, and what it moves later need not wake anybody again.
GROUP_WAIT_S: Final = 10.0
GROUP_INTERVAL_S: Final = 300.0
# More alerts than that firing at once is an outage of the monitoring, not of what it watches.
_MAX_FIRING: Final = 10_000
_MAX_NS: Final = 2**63 - 1


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


class _Told(NamedTuple):
    severity: str
    at_ns: int


class Announcer:
    """Takes findings out of the state, alerts to people; called over and over.

    A finding is marked as taken, its alert written and its deliveries queued in one
    transaction; a delivery leaves the queue when its channel took it. So nothing is lost, and
    an alert goes out twice only if the process dies between a channel's yes and that mark.

    What begins at one place (service, environment, feature) goes out together, as it does in
    Alertmanager: `group_wait_s` after the first finding each channel gets one message, of the
    worst alert that is routed to it, with all that moved. What begins there later waits until
    `group_interval_s` after that message, unless it is worse than what was told. Every alert
    is written down at once and marked on the dashboards as one of its own.

    Args:
        state: The transactional state.
        book: The rules for alerts.
        notifiers: The channels.
        routes: The routing table: an alert goes to the channels of every line that matches.
            None sends all alerts to all channels.
        grafana: Marks every alert's finding on the dashboards, by the same outbox.
        metrics: Counts alerts and failures.
        group_wait_s: See above.
        group_interval_s: See above.

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
        group_wait_s: float = GROUP_WAIT_S,
        group_interval_s: float = GROUP_INTERVAL_S,
    ) -> None:
        self._state = state
        self._book = book
        self._metrics = metrics
        self._wait_ns = int(group_wait_s * _S)
        self._interval_ns = int(group_interval_s * _S)
        marks = [] if grafana is None else [_Marks(grafana)]
        self._marks = tuple(mark.name for mark in marks)
        channels: list[Notifier] = [*notifiers, *marks]
        self._notifiers = {channel.name: channel for channel in channels}
        if len(self._notifiers) < len(channels):
            raise ConfigurationError(
                f"two notification channels have the same name ({GRAFANA!r} is taken by the "
                "annotations): rename one"
            )
        self._routes = [Route(tuple(n.name for n in notifiers))] if routes is None else [*routes]
        for name in {name for route in self._routes for name in route.channels}:
            if name not in self._notifiers:
                known = ", ".join(self._notifiers) or "none"
                raise ConfigurationError(f"a route names the channel {name!r}; there are: {known}")
        # What follows is lost with the process, and then people are told sooner or more.
        # When the last finding of a firing alert came; an alert may end later than it should.
        self._heard_ns: dict[str, int] = {}
        self._held_since_ns: dict[str, int] = {}  # by place, until its alerts are told
        self._told: dict[str, _Told] = {}  # by place, what was told last
        self._untold: set[str] = set()  # ids of alerts that another one spoke for
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._is_resumed = False
        self._stepped_ns = 0

    def step(self, now_ns: int) -> int:
        """Take up new findings and deliver what is due.

        Returns:
            How many alerts changed and deliveries were tried; 0 means there was nothing to do.
        """
        if now_ns < self._stepped_ns - _SLEW_NS:
            self._forget_times()
        self._stepped_ns = now_ns
        if not self._is_resumed:
            self._resume(now_ns)
        return self._announce(now_ns) + self._deliver(now_ns)

    def _forget_times(self) -> None:
        """Go on as after a restart: by a clock that was ahead, alerts would be held for ever."""
        self._heard_ns, self._held_since_ns, self._told, self._waiting = {}, {}, {}, {}
        self._is_resumed = False

    def _resume(self, now_ns: int) -> None:
        """Make due, in their order, all messages that waited for another try at a restart."""
        for delivery_id, *_ in self._state.outbox(_MAX_NS, _MAX_FIRING):
            self._state.retry(delivery_id, now_ns, "tried again after a restart")
        self._is_resumed = True

    def _announce(self, now_ns: int) -> int:
        firing = self._state.alerts("firing", _MAX_FIRING)
        findings = self._state.unannounced(_MAX_FIRING)
        self._heard_ns = {a.key: self._heard_ns.get(a.key, now_ns) for a in firing}
        self._heard_ns |= {key_of(finding): now_ns for finding in findings}
        changes = self._book.changes(
            firing,
            findings,
            in_alarm=_in_alarm(self._state) if firing else {},
            heard_ns=self._heard_ns,
            now_ns=now_ns,
        )
        begun: dict[str, list[Change]] = {}
        n_changed = 0
        for change in changes:
            if change.is_news and change.alert.state == "firing":
                begun.setdefault(place_of(change.alert), []).append(change)
            else:
                self._write(change)
                n_changed += 1
        n_changed += self._announce_begun(begun, {alert.id: alert for alert in firing}, now_ns)
        if self._metrics:
            self._metrics.record_alerts(
                self._state.alerts("firing", _MAX_FIRING) if n_changed else firing
            )
        return n_changed

    def _write(self, change: Change) -> None:
        """Write down an alert that grew or ended, and tell its end where its begin was told."""
        alert = change.alert
        channels: tuple[str, ...] = ()
        if change.is_news:
            channels = self._marks if alert.id in self._untold else self._channels(alert)
            self._untold.discard(alert.id)
        self._state.announce(change.finding_ids, [alert], channels)

    def _announce_begun(
        self, begun: dict[str, list[Change]], known: dict[str, Alert], now_ns: int
    ) -> int:
        """Tell of the places whose time has come; write down the alerts of the others."""
        n_changed = 0
        since = self._held_since_ns
        self._held_since_ns = {place: since.get(place, now_ns) for place in begun}
        for place, changes in begun.items():
            severity = min(change.alert.severity for change in changes)  # "page" < "ticket"
            if now_ns >= self._due_ns(place, severity):
                self._tell(self._book.together(changes))
                self._told[place] = _Told(severity, now_ns)
                del self._held_since_ns[place]
                n_changed += len(changes)
                continue
            new = [c.alert for c in changes if known.get(c.alert.id) != c.alert]
            if new:  # seen on the page at once; the findings are taken when people are told
                self._state.announce((), new, ())
                n_changed += len(new)
        return n_changed

    def _due_ns(self, place: str, severity: str) -> int:
        due_ns = self._held_since_ns[place] + self._wait_ns
        told = self._told.get(place)
        if told is None or severity < told.severity:
            return due_ns
        return max(due_ns, told.at_ns + self._interval_ns)

    def _tell(self, changes: Sequence[Change]) -> None:
        """Queue one message a channel, of the first alert that is routed to it."""
        told: set[str] = set()
        routed = []
        for change in changes:
            channels = [name for name in self._channels(change.alert) if name not in told]
            told |= set(channels) - set(self._marks)
            routed.append((change, channels))
            if set(channels) <= set(self._marks):
                self._untold.add(change.alert.id)
        # The one that speaks for all comes last: should the process die before, it still does.
        for change, channels in reversed(routed):
            self._state.announce(change.finding_ids, [change.alert], channels)

    def _channels(self, alert: Alert) -> tuple[str, ...]:
        named = (name for route in self._routes if route.matches(alert) for name in route.channels)
        return tuple(dict.fromkeys((*named, *self._marks)))

    def _deliver(self, now_ns: int) -> int:
        due = self._state.outbox(now_ns)
        failed: set[str] = set()  # one time-out a channel and step is enough
        for delivery_id, channel, alert, finding in due:
            key = (alert.id, channel)
            earlier = self._waiting.get(key)
            if earlier is not None and earlier.delivery_id != delivery_id:
                # "Resolved" must not overtake the message it answers.
                self._state.retry(delivery_id, earlier.at_ns + 1, "waits for an earlier message")
            elif channel not in self._notifiers:
                logger.error("delivery to unknown channel dropped", extra={"channel": channel})
                self._state.delivered(delivery_id)
            elif channel in failed:
                n_attempts = earlier.n_attempts if earlier else 0
                at_ns = now_ns + int(FIRST_RETRY_S * _S)
                self._waiting[key] = _Waiting(delivery_id, n_attempts, at_ns)
                self._state.retry(delivery_id, at_ns, "waits for its channel, which just failed")
            elif not self._try(delivery_id, channel, alert, finding, now_ns):
                failed.add(channel)
        return len(due)

    def _try(
        self, delivery_id: int, channel: str, alert: Alert, finding: Finding | None, now_ns: int
    ) -> bool:
        """Send one message; say whether its channel took it."""
        key = (alert.id, channel)
        try:
            self._notifiers[channel].send(alert, finding)
        except LlmobsError as error:
            reason = str(error)
        except Exception as error:  # a notifier may be someone else's code
            # Its words may hold the channel's address with its secret; its kind can't.
            reason = f"raised {type(error).__name__}"
        else:
            self._waiting.pop(key, None)
            self._state.delivered(delivery_id)
            return True
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
        return False


def _in_alarm(state: State) -> dict[str, bool]:
    """Say for the alert key of each monitor with a status whether it is in alarm."""
    return {
        alert_key(row["monitor"], row["service"], row["environment"], row["feature"]): (
            row["state"] == "alarm"
        )
        for row in state.statuses()
    }

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from llmobs.analyzer.notify.alerting import AlertBook, alert_key, sample_alert
from llmobs.analyzer.notify.announcer import FIRST_RETRY_S, LONGEST_RETRY_S, Announcer, Route
from llmobs.analyzer.notify.apprise_channel import AppriseNotifier
from llmobs.analyzer.notify.base import DeliveryError
from llmobs.errors import ConfigurationError
from llmobs.records import Alert, Finding
from tests.analyzer.notify.findings import MINUTE, NOON, finding
from tests.analyzer.notify.memory_state import MemoryState
from tests.analyzer.publish.listener import Listener, listening

S = 10**9


def webhook(url: str, name: str = "hook") -> AppriseNotifier:
    return AppriseNotifier(name, f"{url.replace('http://', 'json://')}/alerts")


def bodies(listener: Listener) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in listener.received]


def status(state: str) -> dict[str, Any]:
    return {"monitor": "input.topic", "service": "shop", "feature": "answers", "state": state}


class Recorder:
    """A channel that remembers."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        self.name = name
        self.fails = fails
        self.sent: list[Alert] = []

    def send(self, alert: Alert, finding: Finding | None) -> None:
        if self.fails:
            raise DeliveryError("down")
        self.sent.append(alert)


class Counts:
    """Metrics that remember."""

    def __init__(self) -> None:
        self.n_firing = -1
        self.failures: list[str] = []

    def record_alerts(self, firing: Iterable[Alert]) -> None:
        self.n_firing = len(list(firing))

    def record_publish_failure(self, target: str) -> None:
        self.failures.append(target)


class Marks:
    """Dashboards that remember what was marked, by finding."""

    def __init__(self) -> None:
        self.down = False
        self.until_ns: dict[str, int | None] = {}

    def annotate(self, finding: Finding, *, until_ns: int | None = None) -> None:
        if self.down:
            raise DeliveryError("down")
        self.until_ns[finding.id] = until_ns


def test_one_alert_is_one_post_with_the_fields_a_program_needs() -> None:
    state = MemoryState(found=[finding(), finding(id="f2")])
    with listening() as listener:
        announcer = Announcer(state, AlertBook(), [webhook(listener.url)])
        assert announcer.step(NOON) == 2  # one alert begun, one delivery
        for minute in range(1, 5):
            assert announcer.step(NOON + minute * MINUTE) == 0
        assert listener.n_requests == 1
        (body,) = bodies(listener)
    assert body["title"].startswith("What users send has changed")
    assert "What to do: " in body["message"]
    assert body["type"] == "warning"
    assert body["alert"] == state.alerts()[0].to_json()
    assert body["finding"]["evidence"]["movers"][0]["name"] == "refunds"
    assert not state.queue
    assert not state.unannounced()


def test_a_finding_while_the_alert_fires_tells_nobody() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    with listening() as listener:
        announcer = Announcer(state, AlertBook(), [webhook(listener.url)])
        announcer.step(NOON)
        state.found.append(finding(id="f2"))
        announcer.step(NOON + MINUTE)
        assert listener.n_requests == 1
    assert state.alerts()[0].n_findings == 2


def test_the_end_of_an_alert_is_told_once() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    with listening() as listener:
        announcer = Announcer(state, AlertBook(), [webhook(listener.url)])
        announcer.step(NOON)
        announcer.step(NOON + 60 * MINUTE)
        state.rows = [status("watching")]
        announcer.step(NOON + 61 * MINUTE)
        announcer.step(NOON + 62 * MINUTE)
        assert [body["alert"]["state"] for body in bodies(listener)] == ["firing", "resolved"]
        assert [body["type"] for body in bodies(listener)] == ["warning", "success"]
    assert not state.alerts("firing")


def test_a_listener_that_was_down_gets_the_alert_later_and_once() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    counts = Counts()
    hook = webhook(f"http://127.0.0.1:{port}")
    announcer = Announcer(state, AlertBook(), [hook], metrics=counts)
    announcer.step(NOON)
    assert counts.failures == ["notify"]
    assert counts.n_firing == 1
    (delivery,) = state.queue.values()
    assert delivery.due_ns == NOON + FIRST_RETRY_S * S
    assert "did not take the alert" in delivery.reason
    assert announcer.step(NOON + 5 * S) == 0  # not yet due
    announcer.step(NOON + 15 * S)
    assert delivery.due_ns == NOON + (15 + 30) * S
    with listening(port) as listener:
        announcer.step(NOON + 45 * S)
        announcer.step(NOON + 90 * S)
        assert listener.n_requests == 1
    assert not state.queue


def test_a_refused_alert_is_tried_again() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    with listening() as listener:
        listener.answers = [503]
        announcer = Announcer(state, AlertBook(), [webhook(listener.url)])
        announcer.step(NOON)
        assert not listener.received
        announcer.step(NOON + MINUTE)
        assert len(listener.received) == 1


def test_the_wait_grows_to_an_hour_and_no_further() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    announcer = Announcer(state, AlertBook(), [Recorder("down", fails=True)])
    now, waits = NOON, []
    for _ in range(12):
        announcer.step(now)
        (delivery,) = state.queue.values()
        waits.append((delivery.due_ns - now) / S)
        now = delivery.due_ns
    assert waits[:3] == [15, 30, 60]
    assert waits[-1] == LONGEST_RETRY_S


def test_the_end_does_not_overtake_the_beginning() -> None:
    channel = Recorder("chat", fails=True)
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    announcer = Announcer(state, AlertBook(settle_s=0), [channel])
    announcer.step(NOON)  # fails, due again in 15 s
    channel.fails = False
    state.rows = [status("watching")]
    announcer.step(NOON + 5 * S)
    assert not channel.sent
    announcer.step(NOON + 16 * S)
    announcer.step(NOON + 17 * S)
    assert [alert.state for alert in channel.sent] == ["firing", "resolved"]


def test_what_was_begun_before_a_restart_goes_out_after_it() -> None:
    state = MemoryState(found=[finding()])
    Announcer(state, AlertBook(), [Recorder("chat", fails=True)]).step(NOON)
    channel = Recorder("chat")
    announcer = Announcer(state, AlertBook(), [channel])
    announcer.step(NOON + MINUTE)
    assert [alert.state for alert in channel.sent] == ["firing"]
    # No status, and the restart is when it was last heard of.
    announcer.step(NOON + 360 * MINUTE)
    assert len(channel.sent) == 1
    announcer.step(NOON + 361 * MINUTE)
    assert [alert.state for alert in channel.sent] == ["firing", "resolved"]


def test_routes_send_by_severity_and_service() -> None:
    pager, chat = Recorder("pager"), Recorder("chat")
    state = MemoryState(
        found=[
            finding(),
            finding(id="f2", kind="security", monitor="input.injection"),
            finding(id="f3", service="internal", kind="cost", monitor="cost.rate"),
        ]
    )
    routes = [Route(("pager",), severity="page", service="sh*"), Route(("chat",))]
    Announcer(state, AlertBook(), [pager, chat], routes).step(NOON)
    assert [alert.monitor for alert in pager.sent] == ["input.injection"]
    assert len(chat.sent) == 3


def test_a_failing_channel_does_not_hold_up_the_others() -> None:
    good = Recorder("good")
    state = MemoryState(found=[finding()])
    Announcer(state, AlertBook(), [Recorder("bad", fails=True), good]).step(NOON)
    assert len(good.sent) == 1
    assert [row.channel for row in state.queue.values()] == ["bad"]


def test_a_delivery_to_a_channel_that_was_removed_leaves_the_queue() -> None:
    state = MemoryState(found=[finding()])
    Announcer(state, AlertBook(), [Recorder("old", fails=True)]).step(NOON)
    Announcer(state, AlertBook(), []).step(NOON + MINUTE)
    assert not state.queue


def test_a_route_to_nowhere_and_a_name_used_twice_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="there are: chat"):
        Announcer(MemoryState(), AlertBook(), [Recorder("chat")], [Route(("pager",))])
    with pytest.raises(ConfigurationError, match="same name"):
        Announcer(MemoryState(), AlertBook(), [Recorder("chat"), Recorder("chat")])


def test_an_address_that_apprise_does_not_know_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="'pager'") as caught:
        AppriseNotifier("pager", "carrier-pigeon://secret-key@loft")
    assert "secret-key" not in str(caught.value)


def test_a_channel_that_refuses_says_why_without_its_secret() -> None:
    with listening() as listener:
        listener.answers = [500]
        url = listener.url.replace("http://", "json://user:hunter2@")
        with pytest.raises(DeliveryError, match="error=500") as caught:
            AppriseNotifier("hook", url).send(_alert(), None)
    assert "hunter2" not in str(caught.value)


def test_an_alert_without_its_finding_is_sent_all_the_same() -> None:
    with listening() as listener:
        webhook(listener.url).send(_alert(), None)
        assert bodies(listener)[0]["finding"] is None


def _alert() -> Alert:
    key = alert_key("input.topic", "shop", "answers")
    (change,) = AlertBook().changes([], [finding()], in_alarm={key: True}, heard_ns={}, now_ns=NOON)
    return change.alert


def test_an_alert_is_marked_on_the_dashboards_and_its_end_too() -> None:
    marks, counts = Marks(), Counts()
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    announcer = Announcer(state, AlertBook(settle_s=0), [], grafana=marks, metrics=counts)
    marks.down = True
    announcer.step(NOON)
    assert counts.failures == ["grafana"]
    marks.down = False
    announcer.step(NOON + MINUTE)
    assert marks.until_ns == {"f1": None}
    state.rows = [status("watching")]
    announcer.step(NOON + 2 * MINUTE)
    assert marks.until_ns == {"f1": NOON + 2 * MINUTE}
    assert counts.n_firing == 0


def test_a_sample_alert_goes_out_and_says_that_it_is_a_test() -> None:
    with listening() as listener:
        webhook(listener.url).send(*sample_alert())
        assert "This is a test" in bodies(listener)[0]["message"]

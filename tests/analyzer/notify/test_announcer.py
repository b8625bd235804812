from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest

from llmobs.analyzer.notify.alerting import AlertBook, sample_alert
from llmobs.analyzer.notify.announcer import FIRST_RETRY_S, LONGEST_RETRY_S, Announcer, Route
from llmobs.analyzer.notify.apprise_channel import AppriseNotifier
from llmobs.analyzer.notify.base import DeliveryError
from llmobs.errors import ConfigurationError
from llmobs.records import Alert, Finding
from tests.analyzer.notify.findings import MINUTE, NOON, finding
from tests.analyzer.notify.memory_state import MemoryState
from tests.analyzer.publish.listener import Listener, listening
from tests.ports import free_ports

S = 10**9
at_once = partial(Announcer, group_wait_s=0.0, group_interval_s=0.0)


def webhook(url: str, name: str = "hook") -> AppriseNotifier:
    return AppriseNotifier(name, f"{url.replace('http://', 'json://')}/alerts")


def bodies(listener: Listener) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in listener.received]


def status(state: str, environment: str = "prod") -> dict[str, Any]:
    place = {"service": "shop", "environment": environment, "feature": "answers"}
    return {"monitor": "input.topic", **place, "state": state}


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
        announcer = at_once(state, AlertBook(), [webhook(listener.url)])
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
        announcer = at_once(state, AlertBook(), [webhook(listener.url)])
        announcer.step(NOON)
        state.found.append(finding(id="f2"))
        announcer.step(NOON + MINUTE)
        assert listener.n_requests == 1
    assert state.alerts()[0].n_findings == 2


def test_the_end_of_an_alert_is_told_once() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    with listening() as listener:
        announcer = at_once(state, AlertBook(), [webhook(listener.url)])
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
    (port,) = free_ports(1)
    counts = Counts()
    hook = webhook(f"http://127.0.0.1:{port}")
    announcer = at_once(state, AlertBook(), [hook], metrics=counts)
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
        announcer = at_once(state, AlertBook(), [webhook(listener.url)])
        announcer.step(NOON)
        assert not listener.received
        announcer.step(NOON + MINUTE)
        assert len(listener.received) == 1


def test_the_wait_grows_to_an_hour_and_no_further() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    announcer = at_once(state, AlertBook(), [Recorder("down", fails=True)])
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
    announcer = at_once(state, AlertBook(settle_s=0), [channel])
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
    at_once(state, AlertBook(), [Recorder("chat", fails=True)]).step(NOON)
    channel = Recorder("chat")
    announcer = at_once(state, AlertBook(), [channel])
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
            finding(id="f2", kind="security", monitor="input.injection", feature="search"),
            finding(id="f3", service="internal", kind="cost", monitor="cost.rate"),
        ]
    )
    routes = [Route(("pager",), severity="page", service="sh*"), Route(("chat",))]
    at_once(state, AlertBook(), [pager, chat], routes).step(NOON)
    assert [alert.monitor for alert in pager.sent] == ["input.injection"]
    assert len(chat.sent) == 3


def moved(finding_id: str, monitor: str, kind: str = "model", **fields: Any) -> Finding:
    return finding(id=finding_id, monitor=monitor, kind=kind, summary=f"{monitor} moved.", **fields)


def test_one_incident_is_one_message_a_place_and_one_alert_a_monitor() -> None:
    chat, marks = Recorder("chat"), Marks()
    state = MemoryState(found=[finding()])
    announcer = Announcer(state, AlertBook(), [chat], grafana=marks)
    announcer.step(NOON)
    assert [alert.monitor for alert in state.alerts("firing")] == ["input.topic"]  # on the page
    assert not chat.sent
    assert announcer.step(NOON + 1 * S) == 0  # nothing is new, so the loop may rest
    state.found.append(moved("f2", "output.toxicity", "output"))
    state.found.append(moved("f3", "output.length"))
    state.found.append(moved("f4", "output.length", environment="staging"))
    announcer.step(NOON + 5 * S)
    announcer.step(NOON + 11 * S)
    announcer.step(NOON + 16 * S)
    first, elsewhere = chat.sent
    assert (first.monitor, first.severity) == ("output.toxicity", "page")
    assert "Also: output.length moved." in first.message
    assert "Also: Questions about refunds" in first.message
    assert "(staging)" in elsewhere.title
    assert len(state.alerts("firing")) == 4
    assert set(marks.until_ns) == {"f1", "f2", "f3", "f4"}
    assert not state.unannounced()
    assert not state.queue


def test_what_moves_later_at_a_place_waits_unless_it_is_worse() -> None:
    chat = Recorder("chat")
    state = MemoryState(found=[finding()])
    announcer = Announcer(state, AlertBook(), [chat])
    announcer.step(NOON)
    announcer.step(NOON + 10 * S)
    state.found.append(moved("f2", "output.length"))
    state.found.append(moved("f3", "output.relevance", "output"))
    announcer.step(NOON + 20 * S)
    announcer.step(NOON + 60 * S)
    assert [alert.monitor for alert in chat.sent] == ["input.topic"]
    state.found.append(moved("f4", "input.injection", "security"))
    announcer.step(NOON + 60 * S)
    assert [alert.monitor for alert in chat.sent] == ["input.topic", "input.injection"]
    assert "Also: output.length moved." in chat.sent[-1].message
    state.found.append(moved("f5", "calls.errors", "reliability"))
    announcer.step(NOON + 80 * S)
    announcer.step(NOON + 359 * S)
    assert len(chat.sent) == 2
    announcer.step(NOON + 360 * S)
    assert chat.sent[-1].monitor == "calls.errors"


def test_a_clock_that_was_ahead_holds_nothing_back() -> None:
    day, chat = 86_400 * S, Recorder("chat")
    state = MemoryState(found=[finding()])
    announcer = Announcer(state, AlertBook(), [chat])
    announcer.step(NOON + day)
    announcer.step(NOON + day + 10 * S)  # told, by a clock that stands a day ahead
    chat.fails = True
    state.found.append(moved("f2", "input.injection", "security"))
    announcer.step(NOON + day + 20 * S)
    announcer.step(NOON + day + 30 * S)  # waits for another try
    chat.fails = False
    state.found.append(moved("f3", "calls.errors", "reliability"))
    announcer.step(NOON)
    announcer.step(NOON + 10 * S)
    assert sorted(alert.monitor for alert in chat.sent) == [
        "calls.errors",
        "input.injection",
        "input.topic",
    ]


def test_each_channel_hears_of_the_worst_that_is_routed_to_it() -> None:
    pager, chat = Recorder("pager"), Recorder("chat")
    state = MemoryState(found=[finding(), moved("f2", "input.injection", "security")])
    routes = [Route(("pager",), severity="page"), Route(("chat",), severity="ticket")]
    at_once(state, AlertBook(), [pager, chat], routes).step(NOON)
    assert [alert.monitor for alert in pager.sent] == ["input.injection"]
    assert [alert.monitor for alert in chat.sent] == ["input.topic"]
    assert "Also: input.injection moved." in chat.sent[0].message


def test_the_end_is_told_of_what_was_told_and_marked_of_all() -> None:
    chat, marks = Recorder("chat"), Marks()
    state = MemoryState(
        found=[finding(), moved("f2", "input.injection", "security")],
        rows=[status("alarm"), status("alarm") | {"monitor": "input.injection"}],
    )
    announcer = at_once(state, AlertBook(settle_s=0), [chat], grafana=marks)
    announcer.step(NOON)
    state.rows = [status("watching"), status("watching") | {"monitor": "input.injection"}]
    announcer.step(NOON + MINUTE)
    ends = [(alert.monitor, alert.state) for alert in chat.sent]
    assert ends == [("input.injection", "firing"), ("input.injection", "resolved")]
    assert marks.until_ns == {"f1": NOON + MINUTE, "f2": NOON + MINUTE}
    assert not state.alerts("firing")


def test_a_restart_before_people_were_told_loses_nothing() -> None:
    state = MemoryState(found=[finding(), moved("f2", "output.length")])
    Announcer(state, AlertBook(), [Recorder("chat")]).step(NOON)
    assert len(state.alerts("firing")) == 2
    chat = Recorder("chat")
    announcer = Announcer(state, AlertBook(), [chat])
    announcer.step(NOON + MINUTE)
    announcer.step(NOON + MINUTE + 10 * S)
    (alert,) = chat.sent
    assert alert.n_findings == 1
    assert "Also: output.length moved." in alert.message
    assert len(state.alerts("firing")) == 2


def test_an_alarm_in_one_environment_is_not_ended_by_the_quiet_of_another() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm"), status("watching", "test")])
    announcer = at_once(state, AlertBook(settle_s=0), [Recorder("chat")])
    announcer.step(NOON)
    announcer.step(NOON + 60 * MINUTE)
    assert len(state.alerts("firing")) == 1
    state.rows = [status("watching"), status("alarm", "test")]
    announcer.step(NOON + 120 * MINUTE)
    assert state.alerts("firing") == []


def test_after_a_restart_the_end_does_not_overtake_the_beginning() -> None:
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    announcer = at_once(state, AlertBook(settle_s=0), [Recorder("chat", fails=True)])
    announcer.step(NOON)
    announcer.step(NOON + 15 * S)  # fails again, due in 30 s
    state.rows = [status("watching")]
    chat = Recorder("chat")
    restarted = at_once(state, AlertBook(settle_s=0), [chat])
    restarted.step(NOON + 16 * S)
    restarted.step(NOON + 17 * S)
    assert [alert.state for alert in chat.sent] == ["firing", "resolved"]


def test_a_channel_that_fails_is_asked_once_a_step() -> None:
    class Down(Recorder):
        n_asked = 0

        def send(self, alert: Alert, finding: Finding | None) -> None:
            self.n_asked += 1
            super().send(alert, finding)

    down = Down("down", fails=True)
    state = MemoryState(found=[finding(id=f"f{i}", feature=f"feature-{i}") for i in range(9)])
    announcer = at_once(state, AlertBook(), [down])
    announcer.step(NOON)
    assert down.n_asked == 1
    assert len(state.queue) == 9
    down.fails = False
    announcer.step(NOON + MINUTE)
    assert len(down.sent) == 9


def test_the_reason_of_a_failure_holds_no_secret_of_a_channel() -> None:
    class Broken(Recorder):
        def send(self, alert: Alert, finding: Finding | None) -> None:
            raise OSError("https://hooks.example.com/services/hunter2 refused")

    state = MemoryState(found=[finding()])
    at_once(state, AlertBook(), [Broken("chat")]).step(NOON)
    (delivery,) = state.queue.values()
    assert delivery.reason == "raised OSError"


def test_what_users_wrote_does_not_leave_by_a_webhook() -> None:
    movers = [{"name": "refunds", "current": 0.3, "texts": ["I am Jane and want a refund"]}]
    with listening() as listener:
        webhook(listener.url).send(_alert(), finding(evidence={"movers": movers}))
        (body,) = bodies(listener)
    assert body["finding"]["evidence"] == {"movers": [{"name": "refunds", "current": 0.3}]}


def test_a_failing_channel_does_not_hold_up_the_others() -> None:
    good = Recorder("good")
    state = MemoryState(found=[finding()])
    at_once(state, AlertBook(), [Recorder("bad", fails=True), good]).step(NOON)
    assert len(good.sent) == 1
    assert [row.channel for row in state.queue.values()] == ["bad"]


def test_a_delivery_to_a_channel_that_was_removed_leaves_the_queue() -> None:
    state = MemoryState(found=[finding()])
    at_once(state, AlertBook(), [Recorder("old", fails=True)]).step(NOON)
    at_once(state, AlertBook(), []).step(NOON + MINUTE)
    assert not state.queue


def test_a_route_to_nowhere_and_a_name_used_twice_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="there are: chat"):
        at_once(MemoryState(), AlertBook(), [Recorder("chat")], [Route(("pager",))])
    with pytest.raises(ConfigurationError, match="same name"):
        at_once(MemoryState(), AlertBook(), [Recorder("chat"), Recorder("chat")])


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
    (change,) = AlertBook().changes([], [finding()], in_alarm={}, heard_ns={}, now_ns=NOON)
    return change.alert


def test_an_alert_is_marked_on_the_dashboards_and_its_end_too() -> None:
    marks, counts = Marks(), Counts()
    state = MemoryState(found=[finding()], rows=[status("alarm")])
    announcer = at_once(state, AlertBook(settle_s=0), [], grafana=marks, metrics=counts)
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

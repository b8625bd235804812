from __future__ import annotations

import pytest

from llmobs.analyzer.notify.alerting import AlertBook, Change, key_of, place_of
from llmobs.records import Alert, Finding
from tests.analyzer.notify.findings import MINUTE, NOON, finding

KEY = key_of(finding())


def changes(
    *findings: Finding,
    firing: tuple[Alert, ...] = (),
    in_alarm: bool | None = None,
    quiet_minutes: float = 0,
) -> list[Change]:
    return AlertBook(page_url="http://page", runbook_url="http://docs").changes(
        firing,
        findings,
        in_alarm={} if in_alarm is None else {KEY: in_alarm},
        heard_ns={alert.key: NOON for alert in firing},
        now_ns=NOON + int(quiet_minutes * MINUTE),
    )


def firing_alert() -> Alert:
    return changes(finding())[0].alert


def test_findings_of_one_thing_are_one_alert() -> None:
    (change,) = changes(finding(), finding(id="f2", at_ns=NOON + MINUTE))
    assert change.is_news
    assert change.finding_ids == ("f1", "f2")
    assert change.alert.n_findings == 2
    assert change.alert.finding_id == "f1"
    assert change.alert.state == "firing"
    assert change.alert.starts_at_ns == NOON


def test_findings_about_another_feature_are_another_alert() -> None:
    found = changes(finding(), finding(id="f2", feature="search"))
    assert len({change.alert.id for change in found}) == 2


def test_findings_in_another_environment_are_another_alert_that_says_where() -> None:
    found = changes(finding(), finding(id="f2", environment="staging"))
    assert len({change.alert.key for change in found}) == 2
    assert len({place_of(change.alert) for change in found}) == 2
    assert [change.alert.title.rpartition(" ")[2] for change in found] == ["(prod)", "(staging)"]


def test_what_begins_together_is_told_by_the_worst_with_all_that_moved() -> None:
    begun = changes(
        finding(),
        finding(id="f2", monitor="output.toxicity", kind="output", summary="Toxic answers rose."),
        finding(id="f3", monitor="output.length", kind="model", summary="Answers grew."),
    )
    worst, *others = AlertBook().together(begun)
    assert (worst.alert.monitor, worst.alert.severity) == ("output.toxicity", "page")
    assert worst.alert.message.splitlines()[:3] == [
        "Toxic answers rose.",
        "Also: Questions about refunds went from 2 % to 31 %.",
        "Also: Answers grew.",
    ]
    assert "What to do: " in worst.alert.message
    assert [change.alert.monitor for change in others] == ["input.topic", "output.length"]
    assert [change.finding_ids for change in (worst, *others)] == [("f2",), ("f1",), ("f3",)]


def test_an_alert_of_which_nobody_was_told_is_news_still() -> None:
    (change,) = changes(finding(), finding(id="f2"), firing=(firing_alert(),))
    assert change.is_news
    assert change.alert.id == firing_alert().id
    assert change.alert.n_findings == 2


def test_the_end_says_what_goes_on_at_the_same_place() -> None:
    other = changes(finding(id="f2", monitor="output.length"))[0].alert
    elsewhere = changes(finding(id="f3", environment="staging", monitor="calls.errors"))[0].alert
    (change,) = AlertBook().changes(
        [firing_alert(), other, elsewhere],
        [],
        in_alarm={KEY: False, other.key: True, elsewhere.key: True},
        heard_ns={KEY: NOON},
        now_ns=NOON + 60 * MINUTE,
    )
    assert change.alert.message.endswith("Still firing here: output.length.")


def test_the_same_finding_gives_the_same_alert_id_after_a_restart() -> None:
    assert changes(finding())[0].alert.id == changes(finding())[0].alert.id


def test_a_finding_while_the_alert_fires_is_counted_and_no_news() -> None:
    (change,) = changes(finding(id="f2"), firing=(firing_alert(),))
    assert not change.is_news
    assert change.alert.id == firing_alert().id
    assert change.alert.n_findings == 2


def test_the_message_says_what_since_when_how_sure_and_where_to_look() -> None:
    alert = firing_alert()
    assert alert.title == "What users send has changed: input.topic in shop/answers (prod)"
    assert alert.message.splitlines() == [
        "Questions about refunds went from 2 % to 31 %.",
        "Since about 2025-11-25 11:33 UTC, found 2025-11-25 12:00 UTC",
        "Was 0.02, is now 0.31",
        "Evidence 22,026 : 1 against chance, alarm from 10,000 : 1",
        f"Example: http://page/traces/{'aa' * 16}",
        f"Example: http://page/traces/{'bb' * 16}",
        f"Example: http://page/traces/{'cc' * 16}",
        "What to do: http://docs#input",
    ]


def test_a_message_says_nothing_that_is_not_known() -> None:
    bare = finding(
        reference=None, log_e=float("inf"), examples=(), provisional=True, feature="", kind="cost"
    )
    alert = changes(bare)[0].alert
    assert "Was" not in alert.message
    assert "Evidence" not in alert.message
    assert "still short" in alert.message
    assert alert.title.endswith("in shop (prod)")


def test_overwhelming_evidence_is_no_endless_number() -> None:
    assert "over 1,000,000,000 : 1 against" in changes(finding(log_e=5000.0))[0].alert.message


@pytest.mark.parametrize(
    ("kind", "monitor", "severity"),
    [
        ("input", "input.topic", "ticket"),
        ("output", "output.length", "ticket"),
        ("output", "output.toxicity", "page"),
        ("model", "model.change", "ticket"),
        ("security", "input.injection", "page"),
        ("reliability", "errors", "page"),
        ("cost", "cost.rate", "page"),
    ],
)
def test_drift_waits_for_the_morning_and_harm_does_not(
    kind: str, monitor: str, severity: str
) -> None:
    assert changes(finding(kind=kind, monitor=monitor))[0].alert.severity == severity


def test_an_alert_fires_as_long_as_its_monitor_is_in_alarm() -> None:
    assert not changes(firing=(firing_alert(),), in_alarm=True, quiet_minutes=10_000)


def test_an_alert_ends_when_its_monitor_has_left_the_alarm_for_a_while() -> None:
    assert not changes(firing=(firing_alert(),), in_alarm=False, quiet_minutes=9)
    (change,) = changes(firing=(firing_alert(),), in_alarm=False, quiet_minutes=10)
    assert change.is_news
    assert change.alert.state == "resolved"
    assert change.alert.ends_at_ns == NOON + 10 * MINUTE
    assert change.alert.title.startswith("Resolved: What users send has changed")
    assert "found 1 time." in change.alert.message


def test_an_alert_of_a_monitor_without_status_ends_after_six_quiet_hours() -> None:
    assert not changes(firing=(firing_alert(),), quiet_minutes=359)
    assert changes(firing=(firing_alert(),), quiet_minutes=360)[0].alert.state == "resolved"


def test_a_new_finding_keeps_an_alert_that_would_end() -> None:
    (change,) = changes(
        finding(id="f2"), firing=(firing_alert(),), in_alarm=False, quiet_minutes=60
    )
    assert change.alert.state == "firing"

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmobs.analyzer.store import SqliteState, open_state
from llmobs.errors import StoreError
from llmobs.records import Alert, Finding, MonitorStatus

FINDING = Finding(
    id="f1",
    monitor="input.topic",
    kind="input",
    level="page",
    service="app",
    environment="prod",
    feature="help",
    at_ns=1_000,
    onset_ns=500,
    summary="Other questions than before: “Mond” 🌙",
    log_e=9.5,
    log_threshold=9.2,
    reference=None,
    current=0.25,
    unit="share",
    evidence={"movers": [{"word": "moon", "before": 0.0, "after": 0.3}], "n": 7},
    examples=("aa", "bb"),
    provisional=True,
)
ALERT = Alert(
    id="a1",
    key="input.topic/app/help",
    state="firing",
    severity="page",
    title="Topics moved",
    message="…",
    service="app",
    environment="prod",
    feature="help",
    monitor="input.topic",
    starts_at_ns=1_000,
    ends_at_ns=None,
    n_findings=1,
    finding_id="f1",
)
STATUS = MonitorStatus(
    monitor="input.topic",
    kind="input",
    service="app",
    environment="prod",
    feature="help",
    state="learning",
    words="learning, 212 of 400 sessions",
    log_e=0.5,
    log_threshold=9.2,
    reference=None,
    current=None,
    unit="share",
    n_units=212,
    n_reference=400,
    history=[(1, 0.1), (2, 0.5)],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def state(path: Path) -> Iterator[SqliteState]:
    opened = open_state(path)
    yield opened
    opened.close()


def test_at_first_nothing_was_analyzed(state: SqliteState) -> None:
    assert state.cursor() == {}
    assert state.monitor_state() is None
    assert state.completeness_state() is None
    assert not state.unannounced()
    assert not state.findings()
    assert not state.alerts()
    assert not state.statuses()
    assert not state.outbox(10**18)
    assert not state.waiting()
    assert state.finding("f1") is None


def test_what_was_committed_is_there_in_the_next_life(path: Path) -> None:
    first = open_state(path)
    first.commit({0: 7, 3: 9}, b"\x00\xff", [FINDING], [STATUS], b"\x01")
    first.close()
    second = open_state(path)
    assert second.cursor() == {0: 7, 3: 9}
    assert second.monitor_state() == b"\x00\xff"
    assert second.completeness_state() == b"\x01"
    assert second.finding("f1") == FINDING
    assert second.statuses() == [STATUS.to_json()]
    second.close()


def test_statuses_are_the_last_ones_in_their_order(state: SqliteState) -> None:
    state.commit({0: 1}, None, [], [STATUS, replace(STATUS, monitor="b")])
    state.commit({0: 2}, None, [], [replace(STATUS, monitor="c"), replace(STATUS, monitor="a")])
    assert [status["monitor"] for status in state.statuses()] == ["c", "a"]


def test_a_finding_that_is_found_again_is_one_finding_and_stays_announced(
    state: SqliteState,
) -> None:
    state.commit({0: 1}, None, [FINDING], [])
    state.announce(["f1"], [ALERT], ["chat"])
    state.commit({0: 1}, None, [replace(FINDING, log_e=10.0)], [])
    assert state.findings() == [replace(FINDING, log_e=10.0)]
    assert state.unannounced() == []


def test_only_pages_wait_to_be_announced_oldest_first(state: SqliteState) -> None:
    late, early = replace(FINDING, id="late", at_ns=9), replace(FINDING, id="early", at_ns=3)
    state.commit({0: 1}, None, [late, early, replace(FINDING, id="quiet", level="watch")], [])
    assert [finding.id for finding in state.unannounced()] == ["early", "late"]
    assert [finding.id for finding in state.unannounced(limit=1)] == ["early"]


def test_findings_and_alerts_are_listed_newest_first(state: SqliteState) -> None:
    findings = [replace(FINDING, id=str(at), at_ns=at) for at in (5, 9, 7)]
    state.commit({0: 1}, None, findings, [])
    assert [finding.id for finding in state.findings()] == ["9", "7", "5"]
    assert [finding.id for finding in state.findings(since_ns=7, limit=1)] == ["9"]
    alerts = [replace(ALERT, id=str(at), starts_at_ns=at) for at in (5, 9)]
    state.announce([], [*alerts, replace(ALERT, id="r", state="resolved", starts_at_ns=7)])
    assert [alert.id for alert in state.alerts()] == ["9", "r", "5"]
    assert [alert.id for alert in state.alerts("resolved")] == ["r"]
    assert [alert.id for alert in state.alerts(limit=1)] == ["9"]


def test_an_alert_waits_for_each_channel_with_its_finding(state: SqliteState) -> None:
    state.commit({0: 1}, None, [FINDING], [])
    state.announce(["f1"], [ALERT], ["chat", "pager"])
    assert [item[1:] for item in state.outbox(0)] == [
        ("chat", ALERT, FINDING),
        ("pager", ALERT, FINDING),
    ]
    assert state.alerts() == [ALERT]


def test_news_is_told_once_a_channel_however_often_it_is_announced(state: SqliteState) -> None:
    state.commit({0: 1}, None, [FINDING], [])
    state.announce(["f1"], [ALERT], ["chat"])
    state.announce(["f1"], [ALERT], ["chat"])
    ((number, *_),) = state.outbox(0)
    state.delivered(number)
    state.announce(["f1"], [ALERT], ["chat"])  # a life that was killed before it wrote this down
    assert state.outbox(0) == []
    resolved = replace(ALERT, state="resolved", ends_at_ns=2_000)
    state.announce([], [resolved, replace(ALERT, n_findings=2)], ["chat"])
    assert [alert.state for _, _, alert, _ in state.outbox(0)] == ["resolved", "firing"]


def test_a_delivery_that_failed_waits_and_tells_why(state: SqliteState) -> None:
    state.announce([], [ALERT], ["chat"])
    ((number, *_),) = state.outbox(5)
    state.retry(number, 100, "503")
    state.retry(number, 200, "timed out")
    assert state.outbox(199) == []
    assert [item[0] for item in state.outbox(200)] == [number]
    assert state.waiting() == [
        {
            "delivery_id": number,
            "channel": "chat",
            "alert_id": "a1",
            "event": "firing 1",
            "due_ns": 200,
            "tries": 2,
            "reason": "timed out",
        }
    ]
    state.delivered(number)
    assert state.waiting() == []


def test_an_alert_without_a_known_finding_is_delivered_all_the_same(state: SqliteState) -> None:
    state.announce([], [replace(ALERT, finding_id="gone")], ["chat"])
    assert state.outbox(0)[0][3] is None


def test_a_commit_that_fails_changes_nothing(state: SqliteState) -> None:
    state.commit({0: 1}, b"a", [], [STATUS])
    broken = replace(FINDING, id=None)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        state.commit({0: 2}, b"b", [FINDING, replace(broken, at_ns=None)], [])  # type: ignore[arg-type]
    assert (state.cursor(), state.monitor_state()) == ({0: 1}, b"a")
    assert state.findings() == []
    assert len(state.statuses()) == 1


def test_what_was_committed_survives_a_kill(path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from llmobs.analyzer.store import open_state; "
        "s = open_state(Path(sys.argv[1])); "
        "[s.commit({0: i}, b'x' * i, [], []) for i in range(50)]; "
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    state = open_state(path)
    assert (state.cursor(), state.monitor_state()) == ({0: 49}, b"x" * 49)
    state.close()


def test_threads_take_turns(state: SqliteState) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for i in range(20):
                state.commit({0: i}, b"", [replace(FINDING, id=f"{name}-{i}")], [STATUS])
                state.findings(limit=3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(state.findings()) == 80


def test_a_file_of_the_first_version_is_taken_over(path: Path) -> None:
    opened = open_state(path)
    opened.commit({0: 7}, b"monitors", [FINDING], [])
    opened.close()
    database = sqlite3.connect(path)
    database.execute("ALTER TABLE analysis DROP COLUMN completeness")
    database.execute("PRAGMA user_version = 1")
    database.close()
    for completeness in (None, b"new"):  # the second time there is nothing left to do
        opened = open_state(path)
        assert (opened.cursor(), opened.monitor_state()) == ({0: 7}, b"monitors")
        assert opened.completeness_state() == completeness
        opened.commit({0: 7}, b"monitors", [], [], b"new")
        opened.close()


def test_a_file_of_a_newer_version_or_of_none_is_refused(path: Path, tmp_path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="version 99"):
        open_state(path)
    other = tmp_path / "text"
    other.write_text("this is not a database at all " * 50)
    with pytest.raises(StoreError, match="can't be opened"):
        open_state(other)


def test_the_disk_is_asked_to_keep_what_was_committed(state: SqliteState) -> None:
    assert state._first("PRAGMA journal_mode") == ("wal",)
    assert state._first("PRAGMA synchronous") == (2,)


def test_traces_and_texts_that_are_forgotten_leave_the_findings(state: SqliteState) -> None:
    evidence = {"movers": [{"name": "about «moon»", "texts": ["where is the moon", "hi"]}], "n": 7}
    quoting = replace(FINDING, id="quoting", evidence=evidence, examples=("aa", "bb"))
    other = replace(FINDING, id="other", examples=("cc",))
    state.commit({}, None, [quoting, other], [])
    assert state.forget({"aa"}, {"where is the moon"}) == 1
    assert state.forget({"aa"}, {"where is the moon"}) == 0
    assert state.finding("other") == other
    kept = state.finding("quoting")
    assert kept is not None
    assert kept.examples == ("bb",)
    assert kept.evidence == {"movers": [{"name": "about «moon»", "texts": ["hi"]}], "n": 7}

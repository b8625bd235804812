"""`llmobs doctor`, against the real API with the metrics of each state."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner
from starlette.applications import Starlette

from llmobs.cli.doctor import Check, diagnose, doctor
from llmobs.web.app import create_app
from llmobs.web.health import health
from tests.web.fakes import FakeState, FakeStore, sample_page_metrics, sample_ready


@dataclass
class Shown:
    """What the fake server shows of itself; a test changes it."""

    url: str = ""
    details: dict[str, Any] = field(default_factory=lambda: sample_ready()[1])
    lines: str = ""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return all(state == "ok" for state in self.details.values()), self.details

    def metrics(self) -> bytes:
        return changed(self.lines)


def changed(lines: str) -> bytes:
    """Return the metrics of a server that is well, with some series added or replaced."""
    new = {line.rsplit(" ", 1)[0]: line for line in lines.splitlines()}
    kept = [
        line
        for line in sample_page_metrics().decode().splitlines()
        if line.rsplit(" ", 1)[0] not in new
    ]
    return "\n".join([*kept, *new.values(), ""]).encode()


@contextmanager
def listening(app: Starlette) -> Iterator[str]:
    """Serve an app on a free port; yield its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def serving() -> Iterator[Shown]:
    now_ms = time.time_ns() // 1_000_000
    store = FakeStore(now_ms, sessions=60)
    shown = Shown()
    app = create_app(store, FakeState(now_ms, store), metrics=shown.metrics, ready=shown.ready)
    with listening(app) as shown.url:
        yield shown


@pytest.fixture
def server(serving: Shown) -> Shown:
    """A server that is well."""
    serving.details, serving.lines = sample_ready()[1], ""
    return serving


def run(url: str, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(doctor, [*words, "--url", url])
    return result.exit_code, result.stdout, result.stderr


def checks_of(url: str) -> dict[str, dict[str, str]]:
    _, lines, _ = run(url, "--json")
    return {row["name"]: row for row in map(json.loads, lines.splitlines())}


def test_a_server_that_is_well_has_no_problem(server: Shown) -> None:
    code, out, err = run(server.url)
    assert code == 0
    assert "problem " not in out
    assert err.startswith("0 problems")
    assert re.search(r"ok +ingest loop +finished a cycle \d\.\d s ago", out)
    assert "110 accepted since the start, none refused" in out
    assert "2.5 MB wait to be read (0% of 1.1 GB), the oldest for 0.4 s" in out
    assert "12,783 stored, 64 sent twice, none set aside" in out


def test_monitors_in_alarm_are_a_warning_that_names_the_next_command(server: Shown) -> None:
    monitors = checks_of(server.url)["monitors"]
    assert monitors["state"] == "warning"
    assert "llmobs drift" in monitors["next_step"]


def test_each_check_is_one_line_of_json_for_programs(server: Shown) -> None:
    checks = checks_of(server.url)
    assert {"server", "ingest loop", "log", "requests", "store", "traffic", "clock"} <= set(checks)
    assert all(set(row) == {"name", "state", "words", "next_step"} for row in checks.values())


def test_a_loop_that_fails_is_a_problem_with_its_reason_and_what_it_means(server: Shown) -> None:
    server.details = {**server.details, "analysis": "StoreError: disk full"}
    code, out, err = run(server.url)
    assert code == 1
    assert "fails (StoreError: disk full), and spans are kept, but not scored or watched" in out
    assert "the server's log has the traceback" in out
    assert err.startswith("2 problems")  # the server is not ready, and why


def test_a_receiver_that_is_down_is_a_problem(server: Shown) -> None:
    server.details = {**server.details, "receiver": "down"}
    assert checks_of(server.url)["receiver"]["state"] == "problem"


STATES = [
    ('llmobs_last_cycle_timestamp_seconds{stage="analysis"} 1', "analysis loop", "problem"),
    ("llmobs_log_backlog_bytes 1.05e+09", "log", "problem"),
    ("llmobs_log_backlog_bytes 7e+08", "log", "warning"),
    ("llmobs_log_backlog_seconds 40", "log", "warning"),
    ("llmobs_log_backlog_seconds 900", "log", "problem"),
    ("llmobs_log_disk_errors_total 2", "log", "problem"),
    ('llmobs_backlog_seconds{stage="analysis"} 90', "analysis backlog", "warning"),
    ('llmobs_backlog_seconds{stage="analysis"} 900', "analysis backlog", "problem"),
    ("llmobs_store_parts 400", "store engine", "warning"),
    ("llmobs_store_parts 1200", "store engine", "problem"),
    ('llmobs_lost_total{reason="corrupt"} 1', "lost: corrupt", "problem"),
    ('llmobs_lost_total{reason="no_room"} 4', "lost: no_room", "problem"),
    ('llmobs_lost_total{reason="expired"} 7', "lost: expired", "problem"),
    ("llmobs_scoring_lag_seconds 300", "analysis", "warning"),
    (
        'llmobs_receive_requests_total{outcome="unauthenticated",signal="none",transport="http"} 3',
        "refused: unauthenticated",
        "warning",
    ),
    (
        'llmobs_receive_requests_total{outcome="overloaded",signal="traces",transport="http"} 3',
        "refused: overloaded",
        "problem",
    ),
    ('llmobs_ingest_items_total{outcome="rejected",signal="traces"} 2', "items", "warning"),
    ('llmobs_repairs_total{repair="invalid_utf8"} 7', "repairs", "warning"),
    ('llmobs_scorer_failures_total{scorer="toxicity"} 4', "scorers", "warning"),
    ('llmobs_publish_failures_total{target="notify"} 5', "reach: notify", "warning"),
    ('llmobs_series_folded_total{metric="llmobs_calls_total"} 9', "series", "warning"),
]


@pytest.mark.parametrize(("line", "name", "state"), STATES, ids=[line for line, _, _ in STATES])
def test_a_state_of_the_metrics_is_told_with_what_to_do(
    server: Shown, line: str, name: str, state: str
) -> None:
    assert checks_of(server.url).get(name, {"state": "ok"})["state"] == "ok"
    server.lines = line
    check = checks_of(server.url)[name]
    assert check["state"] == state
    assert check["next_step"]
    assert run(server.url)[0] == (1 if state == "problem" else 0)


def judged(**changes: Any) -> dict[str, Check]:
    """Judge a server that is well but for `changes` to its status."""
    now_ms = time.time() * 1000
    status = {
        "version": "1.0",
        "now_ms": now_ms,
        "ready": True,
        "details": sample_ready()[1],
        "health": health(sample_page_metrics(), now_ms / 1000),
        "sizes": {
            "spans": 1000,
            "bytes_on_disk": 250_000,
            "bytes_a_span": 250.0,
            "newest_ms": now_ms - 3000,
        },
        **changes,
    }
    checks = diagnose(status, [], now_ms=now_ms)
    return {check.name: check for check in checks}


def test_no_traffic_yet_comes_with_the_lines_that_send_some() -> None:
    empty = {"spans": 0, "bytes_on_disk": 0, "bytes_a_span": None, "newest_ms": None}
    check = judged(sizes=empty)["traffic"]
    assert check.state == "warning"
    assert "@llmobs.observe" in check.next_step


def test_traffic_that_stopped_is_a_warning() -> None:
    old = {
        "spans": 10,
        "bytes_on_disk": 9e6,
        "bytes_a_span": 9e5,
        "newest_ms": time.time() * 1000 - 3 * 3_600_000,
    }
    checks = judged(sizes=old)
    assert checks["traffic"].state == "warning"
    assert checks["traffic"].words == "the newest span is from 3 h ago"
    assert checks["store"].state == "warning"


def test_a_clock_that_differs_from_the_servers_is_told_with_its_side() -> None:
    assert judged()["clock"].state == "ok"
    check = judged(now_ms=time.time() * 1000 + 600_000)["clock"]
    assert check.state == "warning"
    assert "10 min behind the server" in check.words


@pytest.mark.parametrize(
    ("ratio", "missing", "state", "words"),
    [
        ("1.0", "0", "ok", "all spans of the last day came in"),
        ("0.99995", "7", "ok", "99.99% of the spans of the last day came in (7 missing"),
        ("0.9", "1200", "warning", "90.00% of the spans of the last day came in (1,200 missing"),
    ],
)
def test_what_did_not_come_in_is_told_by_service(
    ratio: str, missing: str, state: str, words: str
) -> None:
    lines = [
        f'llmobs_completeness_ratio{{service_name="shop"}} {ratio}',
        f'llmobs_calls_missing_total{{service_name="shop"}} {missing}',
    ]
    metrics = without("llmobs_completeness_ratio", "llmobs_calls_missing_total")
    assert judged(health=metrics)["completeness"].words.startswith("not known")
    told = health("\n".join([*lines, ""]).encode(), time.time())
    metrics |= {name: told[name] for name in ("completeness", "missing")}
    check = judged(health=metrics)["seen: shop"]
    assert check.state == state
    assert check.words.startswith(words)
    assert bool(check.next_step) == (ratio != "1.0")


def test_a_log_that_is_read_to_its_end_says_so() -> None:
    metrics = changed("llmobs_log_backlog_segments 0")
    check = judged(health=health(metrics, time.time()))["log"]
    assert (check.state, check.words) == ("ok", "nothing waits to be read (room for 1.1 GB)")


def without(*names: str) -> dict[str, Any]:
    """Return the health of a server that does not say some things."""
    lines = sample_page_metrics().decode().splitlines()
    kept = [line for line in lines if not line.startswith(names)]
    return health("\n".join([*kept, ""]).encode(), time.time())


def test_a_log_in_a_broker_has_no_limit_but_what_waits_there_is_told() -> None:
    told = without("llmobs_log_")
    told["log"] = {"n_refused": 0.0, "queue_bytes": 2_000_000.0}
    told["engine"]["lag_records"] = 12_000.0
    checks = judged(health=told)
    assert checks["log"].words == "is a broker; 2 MB wait to go there"
    assert "1 segment waits to be stored" in checks["ingest backlog"].words
    assert "12,000 records are still in Kafka" in checks["ingest backlog"].words


def test_a_log_that_can_not_be_read_is_a_problem_that_says_why() -> None:
    details = {"ingest": "ok", "log": "the place in otlp_spans/3 is gone", "receiver": "ok"}
    check = judged(details=details)["log reader"]
    assert check.state == "problem"
    assert "otlp_spans/3" in check.words
    assert "log reader" not in judged(details={**details, "log": "ok"})


def test_a_store_that_does_not_answer_is_a_problem() -> None:
    assert judged(health=without("llmobs_store_"))["store engine"].state == "problem"


def test_a_worker_does_not_watch_and_who_watches_takes_nothing() -> None:
    worker = judged(details={"ingest": "ok", "scoring": "ok", "receiver": "ok"})
    assert "scoring loop" in worker
    assert "analysis loop" not in worker
    watch = judged(details={"analysis": "ok", "announcer": "ok"}, health=without("llmobs_log_"))
    assert not {"log", "receiver", "ingest loop"} & set(watch)
    assert all(check.state != "problem" for check in watch.values())


def test_loops_that_have_not_turned_yet_are_not_taken_for_dead() -> None:
    check = judged(health=health(b"", 0.0))["ingest loop"]
    assert check.state == "warning"
    assert check.next_step


def test_a_server_that_asks_for_a_token_is_a_problem_that_says_how_to_give_it(
    serving: Shown,
) -> None:
    store = FakeStore(time.time_ns() // 1_000_000, sessions=0)
    state = FakeState(store.now_ms, store)
    app = create_app(
        store, state, metrics=serving.metrics, ready=serving.ready, token="secret-token"
    )
    with listening(app) as url:
        code, out, _ = run(url)
        assert code == 1
        assert "401" in out
        assert "--token" in out
        assert run(url, "--token", "secret-token")[0] == 0


def test_a_server_that_is_not_there_is_a_problem_that_says_how_to_start_one() -> None:
    code, out, _ = run("http://127.0.0.1:9")
    assert code == 1
    assert "llmobs up" in out

"""The command line, against the real API on sample data."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from click.testing import CliRunner

from llmobs.cli.commands import cli
from llmobs.web.app import create_app
from tests.listener import Listener
from tests.web.fakes import FakeState, FakeStore, sample_page_metrics, sample_ready


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    now_ms = time.time_ns() // 1_000_000
    store = FakeStore(now_ms)
    app = create_app(
        store, FakeState(now_ms, store), metrics=sample_page_metrics, ready=sample_ready
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, words)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("sessions",),
        ("traces", "--since", "6h"),
        ("cost", "--by", "feature"),
        ("drift",),
        ("alerts", "list"),
    ],
    ids=" ".join,
)
def test_each_list_has_a_table_for_people_and_a_line_of_json_for_programs(
    url: str, words: tuple[str, ...]
) -> None:
    _, table, _ = run(*words, "--url", url)
    _, lines, _ = run(*words, "--url", url, "--json")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert rows
    assert len(table.splitlines()) > len(rows) or len(rows) >= 20
    assert all(isinstance(row, dict) for row in rows)


def test_drift_and_firing_alerts_are_told_by_the_exit_code(url: str) -> None:
    assert run("drift", "--url", url)[0] == 1
    assert run("alerts", "list", "--firing", "--url", url)[0] == 1


def test_nothing_found_is_said_on_stderr(url: str) -> None:
    code, out, err = run("traces", "--service", "nobody", "--url", url)
    assert (code, out) == (0, "")
    assert "no trace" in err


def test_a_server_that_is_not_there_is_one_line_that_says_what_to_do() -> None:
    code, out, err = run("sessions", "--url", "http://127.0.0.1:9")
    assert (code, out) == (2, "")
    assert "llmobs up" in err
    assert len(err.splitlines()) == 1


def test_a_bad_argument_of_the_api_is_told_with_its_hint(url: str) -> None:
    code, _, err = run("sessions", "--since", "yesterday-ish", "--url", url)
    assert code == 2
    assert "since" in err


def test_status_says_how_the_loops_are(url: str) -> None:
    code, out, _ = run("status", "--url", url)
    assert code == 0
    assert "ingest" in out


def test_settings_lists_every_setting_and_hides_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llmobs.toml").write_text('[channels]\nops = "json://secret-host"\n')
    code, out, _ = run("settings", "--json")
    assert code == 0
    names = [json.loads(line)["setting"] for line in out.splitlines()]
    assert {"data", "reference_s", "channels"} <= set(names)
    assert "secret-host" not in out


def test_a_channel_is_tried_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Listener() as inbox:
        (tmp_path / "llmobs.toml").write_text(
            f'[channels]\nops = "json://127.0.0.1:{inbox.port}"\n'
        )
        code, _, err = run("alerts", "test", "ops")
        assert (code, err) == (0, "ops: delivered\n")
        assert len(inbox.received) == 1
        code, _, err = run("alerts", "test", "nobody")
        assert code == 2
        assert "ops" in err

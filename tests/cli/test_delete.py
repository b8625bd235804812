"""`llmobs delete`, against the real page."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from llmobs.analyzer.store.base import Row
from llmobs.cli.commands import cli
from llmobs.web.app import create_app
from tests.cli.test_doctor import listening
from tests.web.fakes import FakeState, FakeStore, sample_page_metrics, sample_ready

TOLD: list[tuple[str, str]] = []


def erase(owner: str, name: str) -> Row:
    TOLD.append((owner, name))
    return {"n_spans": 1234, "n_findings": 2, "n_aside": 0}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    store = FakeStore(time.time_ns() // 1_000_000, sessions=0)
    app = create_app(
        store,
        FakeState(store.now_ms, store),
        metrics=sample_page_metrics,
        ready=sample_ready,
        admin_token="admin-secret",
        erase=erase,
    )
    with listening(app) as address:
        yield address


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    TOLD.clear()


def run(url: str, *words: str, answer: str = "", token: str = "admin-secret") -> Result:
    arguments = ["delete", "--url", url, "--token", token, *words]
    return CliRunner().invoke(cli, arguments, input=answer)


def test_a_user_is_deleted_after_a_yes(url: str) -> None:
    result = run(url, "--user", "ann@example.com", answer="y\n")
    assert result.exit_code == 0
    assert TOLD == [("user", "ann@example.com")]
    assert "1,234 spans deleted" in result.stderr


def test_a_no_deletes_nothing(url: str) -> None:
    assert run(url, "--user", "ann", answer="n\n").exit_code == 1
    assert TOLD == []


def test_programs_say_yes_and_get_json(url: str) -> None:
    result = run(url, "--session", "tenant/7 ü?", "--yes", "--json")
    assert json.loads(result.stdout)["n_spans"] == 1234
    assert TOLD == [("session", "tenant/7 ü?")]


@pytest.mark.parametrize("words", [[], ["--user", "a", "--session", "b"]])
def test_what_to_delete_must_be_named_once(url: str, words: list[str]) -> None:
    result = run(url, *words, "--yes")
    assert result.exit_code == 2
    assert "--user ID or --session ID" in result.stderr


def test_another_token_deletes_nothing(url: str) -> None:
    result = run(url, "--user", "ann", "--yes", token="guessed")
    assert result.exit_code == 2
    assert "401" in result.stderr
    assert TOLD == []

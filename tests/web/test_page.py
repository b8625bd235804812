"""Every view in a real browser: it shows its data, and the console stays silent."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from llmobs.analyzer.store.base import Row
from llmobs.web.app import create_app
from tests.web.fakes import (
    MARKUP,
    FakeState,
    FakeStore,
    sample_page_metrics,
    sample_ready,
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
REQUIRED = os.environ.get("LLMOBS_REQUIRE_OUTSIDE_PARTS") == "1"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED, reason="chromium is not installed"
)


@contextmanager
def serving(store: FakeStore, token: str | None = None) -> Iterator[str]:
    """Serve the page over a store on a free port; yield its address."""
    app = create_app(
        store,
        FakeState(store.now_ms, store),
        metrics=sample_page_metrics,
        ready=sample_ready,
        token=token,
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def store() -> FakeStore:
    return FakeStore(time.time_ns() // 1_000_000, sessions=250)


@pytest.fixture(scope="module")
def address(store: FakeStore) -> Iterator[str]:
    with serving(store) as url:
        yield url


def visit(url: str, profile: Path) -> str:
    """Return the DOM of a page once it is drawn; what the console says fails the test."""
    assert CHROMIUM is not None, "chromium is needed for this test"
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "--window-size=1440,900",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=3000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == [], said
    return done.stdout


def words(dom: str) -> str:
    """Return the text of the content, without tags."""
    main = dom[dom.index("<main") : dom.index("</main>")]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", main))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/",
            [
                "Spanish messages",
                "Calls",
                "Latency p95",
                "By model",
                "gpt-5-mini",
                "toxicity",
                "99.97 % seen",
            ],
        ),
        ("/sessions?order=cost", ["Cost per session", "user u-", "last active"]),
        ("/traces?error=1", ["question and answer", "1 error"]),
        ("/drift", ["input.language", "learning, 212 of 400 sessions", "of threshold"]),
        (
            "/drift/f-3a91c0",
            [
                "What moved",
                "in «es»",
                "in «en»",
                "86 % → 68 %",
                "Traces that show it",
                "alarm at 12.6",
            ],
        ),
        ("/alerts", ["Firing (2)", "Resolved (1)", "Time line", "the message as it was sent"]),
        (
            "/system",
            [
                "ready",
                "Spans kept",
                "CPU of the process",
                "support-bot",
                "requests accepted 110",
                "2.5 MB, oldest 400 ms",
                "99.97 % seen 3 missing since counting began",
            ],
        ),
    ],
)
def test_a_view_shows_its_data(
    address: str, tmp_path: Path, path: str, expected: list[str]
) -> None:
    text = words(visit(address + path, tmp_path))
    assert [word for word in expected if word not in text] == []
    assert "undefined" not in text
    assert "NaN" not in text


def test_charts_have_axes_and_marks(address: str, tmp_path: Path) -> None:
    dom = visit(f"{address}/drift", tmp_path)
    assert 'class="tick"' in dom
    assert 'class="threshold"' in dom
    assert 'class="mark"' in dom


def test_a_session_reads_as_a_conversation_with_hostile_text_as_text(
    address: str, tmp_path: Path, store: FakeStore
) -> None:
    hostile = next(span for span in store.spans if span["input_text"] == MARKUP)
    dom = visit(f"{address}/sessions/{hostile['session_id']}", tmp_path)
    assert "Turn 1" in words(dom)
    assert "&lt;img src=x onerror=" in dom
    assert "<img" not in dom
    assert "<title>1</title>" not in dom


def test_a_trace_shows_the_chosen_span(address: str, tmp_path: Path, store: FakeStore) -> None:
    tool = next(span for span in store.spans if span["operation"] == "execute_tool")
    dom = visit(f"{address}/traces/{tool['trace_id']}?span={tool['span_id']}", tmp_path)
    text = words(dom)
    assert tool["name"] in text
    assert '"updated": "2026-05-04T09:12:00Z"' in text
    assert dom.count('class="waterfall-row"') == len(store.trace(tool["trace_id"]))


def test_an_empty_store_tells_how_to_begin(tmp_path: Path) -> None:
    with serving(FakeStore(time.time_ns() // 1_000_000, sessions=0)) as url:
        assert "@llmobs.observe" in words(visit(url, tmp_path))


class YoungStore(FakeStore):
    """Keeps nothing that is older than a few minutes."""

    def sizes(self) -> Row:
        """Return sizes of which the oldest span is four minutes old."""
        return {**super().sizes(), "oldest_ms": self.now_ms - 4 * 60_000}


def test_the_range_is_short_while_all_that_is_kept_is_young(
    address: str, tmp_path: Path, store: FakeStore
) -> None:
    assert "<span>Last 24 hours</span>" in visit(address, tmp_path / "old")
    with serving(YoungStore(store.now_ms, sessions=20)) as url:
        assert "<span>Last 15 minutes</span>" in visit(url, tmp_path / "young")
        assert "<span>Last 6 hours</span>" in visit(f"{url}/?since=6h", tmp_path / "chosen")


def test_what_is_not_there_is_said_in_words(address: str, tmp_path: Path) -> None:
    text = words(visit(f"{address}/traces/{'0' * 32}", tmp_path))
    assert "no trace" in text
    assert "Try again" in text


def test_who_does_not_know_the_token_is_asked_for_it(tmp_path: Path, store: FakeStore) -> None:
    with serving(store, token="secret") as url:
        assert "Sign in" in words(visit(url, tmp_path))

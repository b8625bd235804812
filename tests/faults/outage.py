"""The store's server gone for a while, under load: killed, and back on the same port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmobs.server import Server
from tests.faults.accounts import Account, account_of
from tests.faults.kills import quick_settings, wait_ready, wait_stored
from tests.faults.load import Load

__all__ = ["Outage", "store_down"]


@dataclass
class Outage:
    """What came of it.

    Attributes:
        n_acknowledged_meanwhile: Spans that were acknowledged while the store was down.
        n_refused: Requests that were asked to wait.
        caught_up_s: From the store's return until the log was empty.
        ready_again_s: From the store's return until the page said that all is well.
    """

    account: Account
    down_s: float
    n_acknowledged_meanwhile: int
    n_refused: int
    caught_up_s: float
    ready_again_s: float


def store_down(data: Path, down_s: float, *, pause_s: float = 0.05) -> Outage:
    """Take the store away for `down_s` seconds while senders send.

    Args:
        data: An empty folder.
        down_s: How long.
        pause_s: Between two requests of a sender.
    """
    data.mkdir(exist_ok=True)
    with _served(data / "clickhouse", 0) as (port, pid):
        settings = quick_settings(data / "data", store=f"clickhouse://127.0.0.1:{port}/default")
        with Server(settings) as server:
            server.wait_ready()
            page = f"http://127.0.0.1:{server.settings.web_port}/readyz"
            with Load(server.settings.http_port, pause_s=pause_s) as load:
                load.wait_acknowledged(time.monotonic() + 1)
                os.kill(pid, signal.SIGKILL)
                n_before = len(load.acknowledged)
                time.sleep(down_s)
                n_meanwhile = len(load.acknowledged) - n_before
                with _served(data / "clickhouse", port):
                    back_s = time.monotonic()
                    ready_s = wait_ready(page, back_s)
                    load.stop()
                    wait_stored(data / "data", timeout_s=60 + 10 * down_s)
                    caught_up_s = time.monotonic() - back_s
                    server.stop()
    return Outage(
        account_of(data / "clickhouse", load.acknowledged),
        down_s,
        n_meanwhile,
        load.n_refused,
        caught_up_s,
        ready_s,
    )


@contextmanager
def _served(path: Path, port: int) -> Iterator[tuple[int, int]]:
    """Serve a chDB folder as a ClickHouse server; yields its port and process id."""
    command = [sys.executable, "-m", "tests.clickhouse_http", "--path", str(path)]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()
            process.wait(30)

"""kill -9 of a whole server's processes under load, and what is left of its data."""

from __future__ import annotations

import os
import random
import signal
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from llmobs import server as server_module
from llmobs.server import Server
from llmobs.settings import Settings
from tests.faults.accounts import Account, account_of
from tests.faults.load import Load

__all__ = ["Killed", "kill_under_load", "quick_settings", "wait_ready", "wait_stored"]


@dataclass
class Killed:
    """What came of it.

    Attributes:
        acknowledged_again_s: From each death of the receiver to the next acknowledged request.
        ready_again_s: From each death of the engine until the page is ready, the receiver too.
    """

    account: Account
    n_kills: int
    acknowledged_again_s: list[float] = field(default_factory=list)
    ready_again_s: list[float] = field(default_factory=list)


def quick_settings(data: Path, **more: object) -> Settings:
    """Return settings with free ports and many small segments: many places to die at."""
    values: dict[str, object] = {
        "data": data,
        "grpc_port": 0,
        "http_port": 0,
        "web_port": 0,
        "segment_max_bytes": 256 << 10,
        "segment_max_age_s": 0.1,
        **more,
    }
    return Settings.model_validate(values)


def kill_under_load(
    data: Path,
    *,
    n_kills: int,
    seed: int = 11,
    told: Callable[[int], None] = lambda n: None,
) -> Killed:
    """Kill receiver and engine in turn, `n_kills` in all, while senders send.

    Args:
        data: An empty folder.
        n_kills: Of both together.
        seed: Of the moments and the traffic.
        told: Called after each kill with how many there were.
    """
    chance = random.Random(seed)
    out = Killed(Account(0, 0, 0, 0, 0, 0), n_kills)
    # A child that dies again and again is restarted later and later; here it is meant to.
    with (
        patch.object(server_module, "RESTART_DELAYS_S", (0.0,)),
        Server(quick_settings(data)) as server,
    ):
        server.wait_ready()
        page = f"http://127.0.0.1:{server.settings.web_port}/readyz"
        with Load(server.settings.http_port, seed=seed) as load:
            order: list[str] = []
            for n in range(n_kills):
                order = order or chance.sample(["receiver", "engine"], 2)
                name = order.pop()
                load.wait_acknowledged(time.monotonic())
                time.sleep(chance.uniform(0.0, 1.0))
                died_s = time.monotonic()
                os.kill(server.pids()[name], signal.SIGKILL)
                if name == "receiver":
                    out.acknowledged_again_s.append(load.wait_acknowledged(died_s))
                elif chance.random() < 0.7:  # else the next kill may hit a process that starts
                    out.ready_again_s.append(wait_ready(page, died_s))
                told(n + 1)
        wait_stored(data)
        assert server.n_restarts >= n_kills
    out.account = account_of(data / "store", load.acknowledged)
    return out


def wait_ready(url: str, since_s: float, timeout_s: float = 60.0) -> float:
    """Return how long after a moment (monotonic) a page says that it is ready."""
    time.sleep(0.02)  # a process that was killed this moment may answer once more
    while time.monotonic() < since_s + timeout_s:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return time.monotonic() - since_s
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"{url} never became ready")


def wait_stored(data: Path, timeout_s: float = 180.0) -> None:
    """Return when the engine has taken everything out of the log."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if not [*(data / "log").glob("*.seg"), *(data / "log").glob("*.open")]:
            return
    raise AssertionError("the log does not drain")

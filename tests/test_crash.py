"""kill -9 of whole processes in the middle of load: nothing acknowledged is lost or doubled.

`tests/faults` kills at every step of the loops; `benchmarks/crash.py` kills more often.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmobs import server
from tests.faults.accounts import account_of
from tests.faults.kills import kill_under_load, wait_ready, wait_stored
from tests.faults.load import Load
from tests.ports import free_ports

N_KILLS = 20  # of each process


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_acknowledged_span_is_stored_exactly_once_whatever_is_killed(tmp_path: Path) -> None:
    killed = kill_under_load(tmp_path, n_kills=2 * N_KILLS)
    assert killed.account.n_acknowledged > 1000
    assert killed.account.is_exact, killed.account
    # A sender that was refused, or got no answer, sends again until it is acknowledged.
    assert killed.account.n_unasked <= 3 * 32


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_children_drain_and_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """The supervisor is `llmobs up` here, a process of its own."""
    ports = [str(port) for port in free_ports(3)]
    command = [sys.executable, "-m", "llmobs.cli", "up", "--data", str(tmp_path)]
    for name, port in zip(("grpc", "http", "web"), ports, strict=True):
        command += [f"--{name}-port", port]
    page = f"http://127.0.0.1:{ports[2]}/readyz"
    with Load(int(ports[1]), seed=5) as load:
        for _ in range(N_KILLS):
            with _running(command) as supervisor:
                wait_ready(page, time.monotonic())
                load.wait_acknowledged(time.monotonic())
                children = _children(supervisor.pid)
                os.kill(supervisor.pid, signal.SIGKILL)
                supervisor.wait()
            _wait_gone(children)
        load.stop()
        with _running(command) as supervisor:
            wait_ready(page, time.monotonic())
            wait_stored(tmp_path)
            supervisor.terminate()
            assert supervisor.wait(60) == 0
    account = account_of(tmp_path / "store", load.acknowledged)
    assert account.n_acknowledged > 1000
    assert account.is_exact, account


def test_a_child_that_lived_long_is_restarted_at_once_and_one_that_dies_again_and_again_later() -> (
    None
):
    delays = [server.restart_delay_s(n) for n in range(9)]
    assert delays[:2] == [0.0, 0.0]
    assert delays == sorted(delays)
    assert delays[-1] == server.RESTART_DELAYS_S[-1]


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    out: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return out
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except FileNotFoundError:  # a thread that ended between the two looks
            continue
        for child in children:
            out += [int(child), *_children(int(child))]
    return out


def _wait_gone(pids: list[int], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(_runs(pid) for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError("children outlived their supervisor")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"

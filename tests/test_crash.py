"""kill -9 of every process in the middle of load: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llmobs.server import Server
from llmobs.settings import Settings
from tests.otlp import chat_span, post, traces_request

N_KILLS = 20  # of each process
N_SENDERS = 3
SPANS_A_REQUEST = 32

COUNT = """
import json, sys
import clickhouse_connect
client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
ids = client.query("SELECT lower(hex(span_id)), count() FROM spans GROUP BY span_id").result_rows
calls = client.query("SELECT sum(n_spans) FROM minutes").result_rows[0][0]
print(json.dumps({"ids": dict(ids), "rolled_up": int(calls)}))
"""


@dataclass
class Load:
    """Senders that behave as exporters do: a request is sent again until it is acknowledged."""

    port: int
    acknowledged: set[str] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, seed: int) -> None:
        for n in range(N_SENDERS):
            thread = threading.Thread(target=self._send, args=(random.Random(seed * 100 + n),))
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send(self, chance: random.Random) -> None:
        while not self._stopping.is_set():
            spans = [
                chat_span(chance, session=f"s-{chance.randrange(50)}")
                for _ in range(SPANS_A_REQUEST)
            ]
            body = traces_request(spans)
            while True:
                try:
                    status, answer = post(self.port, body)
                except OSError:
                    status, answer = 0, b""
                if status == 200:
                    with self._lock:
                        self.acknowledged |= {span.span_id.hex() for span in spans}
                    break
                assert status in {0, 429, 503}, answer
                if self._stopping.is_set():
                    return
                time.sleep(0.05)
            time.sleep(0.05)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_acknowledged_span_is_stored_exactly_once_whatever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(11)
    settings = Settings(
        data=tmp_path,
        grpc_port=0,
        http_port=0,
        web_port=0,
        segment_max_bytes=256 << 10,  # many small segments: many places to die at
        segment_max_age_s=0.1,
    )
    server = Server(settings).start()
    server.wait_ready()
    settings = server.settings
    load = Load(settings.http_port)
    load.start(seed=3)
    try:
        for _ in range(N_KILLS):
            for name in chance.sample(["receiver", "engine"], 2):
                time.sleep(chance.uniform(0.2, 2.0))
                kill(server.pids()[name])
            server.wait_ready()
        load.stop()
        _wait_stored(tmp_path)
    finally:
        load.stop()
        server.stop()
    _assert_exact(tmp_path, load.acknowledged)
    assert server.n_restarts >= 2 * N_KILLS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_children_drain_and_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """The supervisor is `llmobs up` here, a process of its own, killed 20 times."""
    ports = [str(port) for port in _free_ports(3)]
    command = [sys.executable, "-m", "llmobs.cli", "up", "--data", str(tmp_path)]
    for name, port in zip(("grpc", "http", "web"), ports, strict=True):
        command += [f"--{name}-port", port]
    load = Load(int(ports[1]))
    load.start(seed=5)
    try:
        for _ in range(N_KILLS):
            with _running(command) as supervisor:
                _wait_ready(f"http://127.0.0.1:{ports[2]}/readyz", supervisor)
                time.sleep(0.2)
                children = _children(supervisor.pid)
                kill(supervisor.pid)
                supervisor.wait()
            _wait_gone(children)
        load.stop()
        with _running(command) as supervisor:
            _wait_ready(f"http://127.0.0.1:{ports[2]}/readyz", supervisor)
            _wait_stored(tmp_path)
            supervisor.terminate()
            assert supervisor.wait(60) == 0
    finally:
        load.stop()
    _assert_exact(tmp_path, load.acknowledged)


def _wait_stored(data: Path, timeout_s: float = 180.0) -> None:
    """Return when the engine has taken everything out of the log."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(0.3)
        if not [*(data / "log").glob("*.seg"), *(data / "log").glob("*.open")]:
            return
    raise AssertionError("the log does not drain")


def _assert_exact(data: Path, acknowledged: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(data / "store")],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    stored: dict[str, int] = found["ids"]
    assert len(acknowledged) > 1000
    assert acknowledged - stored.keys() == set(), "acknowledged and lost"
    assert [span for span, n in stored.items() if n > 1] == [], "stored twice"
    assert found["rolled_up"] == len(stored), "roll-up and spans disagree"


def _free_ports(n: int) -> list[int]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _wait_ready(url: str, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, "llmobs up ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} never became ready")


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

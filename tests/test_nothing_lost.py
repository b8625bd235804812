"""Nothing is lost in silence: real apps lose spans, pages give feedback, and the server tells.

Full queues, a receiver away, kill -9; and keys that may send feedback and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest
from pydantic import SecretStr

from llmobs.errors import LlmobsError
from llmobs.server import Server
from llmobs.settings import Settings
from llmobs.web.client import Api
from tests.analyzer.receive.serving import JSON, PROTOBUF, send
from tests.otlp import chat_span, traces_request
from tests.waiting import wait_until

# Makes so many calls for each line that it reads, and answers what became of all so far.
APP = """
import json, sys, time
import llmobs
llmobs.init(sys.argv[1], **json.loads(sys.argv[2]))
@llmobs.observe(kind="tool")
def call(n):
    return n
for line in sys.stdin:
    pace, n_calls = line.split()
    for n in range(int(n_calls)):
        call(n)
        if pace == "calm":
            time.sleep(0.0005)
    llmobs.flush(20)
    said = llmobs.status()
    print(json.dumps([said.recorded, said.exported]), flush=True)
"""


KEY, PUBLIC_KEY, ORIGIN = "private", "public", "https://shop.example"


class App:
    """A process with the SDK."""

    def __init__(self, service: str, endpoint: str, **options: Any) -> None:
        said = json.dumps({"endpoint": endpoint, "headers": {"x-api-key": KEY}, **options})
        self._process = subprocess.Popen(
            [sys.executable, "-c", APP, service, said],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.n_recorded = 0
        self.n_exported = 0

    def __enter__(self) -> App:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:
            self._process.kill()

    def call(self, pace: str, n_calls: int) -> None:
        """Make calls, and wait until all is sent or given up."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{pace} {n_calls}\n")
        self._process.stdin.flush()
        self.n_recorded, self.n_exported = json.loads(self._process.stdout.readline())

    @property
    def n_lost(self) -> int:
        return self.n_recorded - self.n_exported


class Way:
    """The network between an app and the server; nothing comes through while it is cut."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_cut = False
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Let nothing through any more, also where a connection is open."""
        self.is_cut = True
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let new connections through."""
        self.is_cut = False

    def close(self) -> None:
        self.cut()
        # Closing alone does not wake a thread that waits in `accept`.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                here.close()
                continue
            there = socket.create_connection(self._target)
            self._open += [here, there]
            for source, sink in ((here, there), (there, here)):
                self._threads.append(threading.Thread(target=_copy, args=(source, sink)))
                self._threads[-1].start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with source, contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = Settings(
        data=tmp_path_factory.mktemp("server"),
        ingest_keys=(SecretStr(KEY),),
        feedback_keys=(SecretStr(PUBLIC_KEY),),
        cors_origins=(ORIGIN,),
        grpc_port=0,
        http_port=0,
        web_port=0,
        segment_max_age_s=0.1,
        completeness_grace_s=1.0,
        scorers=("refusal",),
    )
    with Server(settings) as server:
        server.wait_ready()
        time.sleep(1.2)  # what was there before the server is given a time of grace
        yield server


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_server_says_of_every_app_how_much_of_it_came_in(server: Server) -> None:
    api = Api(server.settings.page_url)
    endpoint = f"http://127.0.0.1:{server.settings.http_port}"
    way = Way(server.settings.http_port)
    expected: dict[str, tuple[float, int]] = {}

    def told() -> dict[str, tuple[float, int]]:
        health = api.get("status")["health"]
        missing = health["missing"]
        return {name: (ratio, missing[name]) for name, ratio in health["completeness"].items()}

    def settle() -> None:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: told() == expected, timeout_s=20)
        assert told() == expected

    with contextlib.closing(way):
        with App("calm", endpoint) as calm:
            calm.call("calm", 500)
            assert calm.n_lost == 0
            expected["calm"] = (1.0, 0)

        with App("sampled", endpoint, sample_ratio=0.5) as sampled:
            sampled.call("calm", 200)
            assert 50 < sampled.n_recorded < 150
            expected["sampled"] = (1.0, 0)

        with App("small", endpoint, queue_capacity=50) as small:
            small.call("burst", 3000)
            small.call("calm", 5)
            assert small.n_lost > 0
            expected["small"] = (small.n_exported / small.n_recorded, small.n_lost)

        with App("away", way.url, retry_s=0.3) as away:
            away.call("calm", 50)
            way.cut()
            away.call("calm", 70)
            way.mend()
            away.call("calm", 30)
            assert away.n_lost > 0
            expected["away"] = (away.n_exported / 150, away.n_lost)

        with App("killed", endpoint, queue_capacity=50) as killed:
            killed.call("burst", 2000)
            killed.call("calm", 5)
        with App("killed", endpoint) as reborn:
            reborn.call("calm", 100)
            n_seen, n_lost = killed.n_exported + 100, killed.n_lost
            assert n_lost > 0
            expected["killed"] = (n_seen / (n_seen + n_lost), n_lost)

        settle()
        os.kill(server.pids()["engine"], signal.SIGKILL)
        server.wait_ready()
        settle()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_page_says_what_its_user_thinks_of_an_answer(server: Server) -> None:
    port, api = server.settings.http_port, Api(server.settings.page_url)
    span = chat_span(random.Random(1))
    trace_id = span.trace_id.hex()
    said = {"trace_id": trace_id, "span_id": span.span_id.hex(), "score": 1, "comment": "Great!"}
    page = {"origin": ORIGIN, "x-api-key": PUBLIC_KEY}
    given = send(port, "/v1/feedback", json.dumps(said).encode(), {**JSON, **page})
    assert (given.status, given.headers["access-control-allow-origin"]) == (200, ORIGIN)
    body = traces_request([span])
    assert send(port, "/v1/traces", body, {**PROTOBUF, **page}).status == 403
    assert send(port, "/v1/traces", body, {**PROTOBUF, "x-api-key": KEY}).status == 200

    def told() -> list[tuple[float, str]]:
        try:
            spans = api.get(f"traces/{trace_id}")["spans"]
        except LlmobsError:  # not stored yet
            return []
        scores = [score for span in spans for score in span["scores"]]
        return [(s["value"], s["explanation"]) for s in scores if s["name"] == "user_feedback"]

    wait_until(lambda: told() == [(1.0, "Great!")], timeout_s=20)

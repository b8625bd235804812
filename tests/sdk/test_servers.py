"""The SDK within real servers and schedulers: gunicorn, gevent, spawned workers, many tasks."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

import llmobs
from tests.ports import free_ports
from tests.sdk.conftest import Start
from tests.sdk.receiver import Receiver

APPLICATION = """
import os
import llmobs

llmobs.init("web", endpoint=os.environ["SINK"], capture_content="full", export_interval_s=30.0)

@llmobs.observe(kind="tool", name="work")
def work(number):
    return number

def application(environ, start_response):
    work(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [str(os.getpid()).encode()]
"""


def needs(package: str) -> pytest.MarkDecorator:
    is_missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(is_missing, reason=f"needs {package}")


def run(otlp: Receiver, program: str, folder: Path) -> None:
    """Run a program from a file, as a spawned process needs one; it has to end well and silent."""
    file = folder / "program.py"
    file.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(file)],
        env={**os.environ, "SINK": otlp.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def get(url: str) -> str:
    """Ask a server that may not be there yet."""
    for _ in range(200):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


@needs("gunicorn")
def test_workers_of_gunicorn_forked_after_init_and_replaced_meanwhile_lose_nothing(
    otlp: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "web.py").write_text(APPLICATION)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "gunicorn", "web", "--preload", "--workers=2"]
    command += ["--max-requests=5", f"--bind=127.0.0.1:{port}", "--log-level=error"]
    command += [f"--worker-tmp-dir={tmp_path}", "--graceful-timeout=5", "--no-control-socket"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "SINK": otlp.url}, stderr=subprocess.DEVNULL
    ) as server:
        try:
            workers = {get(f"http://127.0.0.1:{port}/?{number}") for number in range(24)}
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert len(workers) >= 3  # some were replaced
    otlp.wait_for_spans(24)
    asked = sorted(
        int(span.attributes["gen_ai.tool.call.arguments"].split('"')[3]) for span in otlp.spans
    )
    assert asked == list(range(24))
    of_process: dict[str, list[int]] = {}
    for span in otlp.spans:
        process = span.attributes["llmobs.process.id"]
        of_process.setdefault(process, []).append(span.attributes["llmobs.sequence"])
    assert len(of_process) == len(workers)
    assert all(sorted(found) == list(range(len(found))) for found in of_process.values())
    assert len({span.resource["service.instance.id"] for span in otlp.spans}) == len(workers)


@needs("gevent")
@pytest.mark.parametrize("order", ["patched first", "patched after the import"])
def test_greenlets_keep_their_own_span_and_session(
    otlp: Receiver, tmp_path: Path, order: str
) -> None:
    patch, early = "from gevent import monkey; monkey.patch_all()", "import llmobs"
    program = f"""
    {patch if order == "patched first" else early}
    {early if order == "patched first" else patch}
    import os, gevent, threading
    llmobs.init("green", endpoint=os.environ["SINK"], capture_content="full")

    @llmobs.observe(kind="tool", name="inner")
    def inner(number):
        gevent.sleep(0.001 * (number % 7))
        return number

    @llmobs.observe(kind="agent", name="outer")
    def outer(number):
        gevent.sleep(0.001 * (number % 5))
        return inner(number)

    def serve(number):
        with llmobs.session(f"s{{number}}"):
            outer(number)

    gevent.joinall([gevent.spawn(serve, number) for number in range(100)], raise_error=True)
    assert llmobs.flush(10)
    outer(100)
    """
    run(otlp, program, tmp_path)
    outers = {span.span_id: span for span in otlp.spans if span.name == "invoke_agent outer"}
    inners = [span for span in otlp.spans if span.name == "execute_tool inner"]
    assert (len(outers), len(inners)) == (101, 101)
    for span in inners:
        above = outers[span.parent_id]
        number = span.attributes["gen_ai.tool.call.arguments"]
        assert above.trace_id == span.trace_id
        assert above.attributes.get("session.id") == span.attributes.get("session.id")
        if "100" not in number:
            assert f'{{"number": {span.attributes["session.id"][1:]}}}' == number


def test_spawned_workers_that_are_replaced_meanwhile_lose_nothing(
    otlp: Receiver, tmp_path: Path
) -> None:
    program = """
    import multiprocessing, os
    import llmobs

    llmobs.init("pool", endpoint=os.environ["SINK"], capture_content="full")

    @llmobs.observe(kind="tool", name="work")
    def work(number):
        return number

    if __name__ == "__main__":
        with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=2) as pool:
            assert sum(pool.map(work, range(6), chunksize=1)) == 15
            pool.close()
            pool.join()
    """
    run(otlp, program, tmp_path)
    assert len(otlp.spans) == 6
    assert len({span.attributes["llmobs.process.id"] for span in otlp.spans}) >= 3


def test_thousands_of_tasks_each_find_their_own_parent(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="tool", name="inner")
    async def inner(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @llmobs.observe(kind="agent", name="outer")
    async def outer(number: int) -> int:
        await asyncio.sleep(0.0001 * (number % 3))
        found = await asyncio.gather(inner(number), inner(number))
        return sum(found)

    async def main() -> None:
        await asyncio.gather(*(outer(number) for number in range(1_000)))

    asyncio.run(main())
    assert llmobs.flush(10)
    outers = {s.span_id: s.trace_id for s in otlp.spans if s.name == "invoke_agent outer"}
    inners = [span for span in otlp.spans if span.name == "execute_tool inner"]
    assert (len(outers), len(set(outers.values())), len(inners)) == (1_000, 1_000, 2_000)
    assert all(outers[span.parent_id] == span.trace_id for span in inners)

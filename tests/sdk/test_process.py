"""The process's beginnings and ends: exit, signals, forks, pools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.ports import free_ports
from tests.sdk.receiver import Receiver

PREAMBLE = """
import os, signal, sys, time, warnings
import llmobs
llmobs.init("child", endpoint=os.environ["SINK"], capture_content="full", flush_timeout_s=1.0,
            **{options})
@llmobs.observe(kind="tool")
def work(n):
    return n
"""


def run(otlp: Receiver, body: str, *, options: str = "{}", url: str = "") -> tuple[int, float, str]:
    """Run a program; return its exit status, seconds from its last word to its end, its errors."""
    program = PREAMBLE.format(options=options) + textwrap.dedent(body)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "SINK": url or otlp.url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        began = time.monotonic()
        for line in child.stdout:
            began = time.monotonic()
            if line.startswith("kill me"):
                child.send_signal(signal.SIGTERM)
        errors = child.stderr.read()
        status = child.wait(30)
        return status, time.monotonic() - began, errors


def test_what_waits_at_the_end_is_sent(otlp: Receiver) -> None:
    status, _, errors = run(otlp, "for n in range(700): work(n)\nprint('done')")
    assert (status, errors) == (0, "")
    assert len(otlp.spans) == 700
    assert otlp.point("gen_ai.execute_tool.duration").count == 700


def test_what_waits_is_sent_when_the_program_fails(otlp: Receiver) -> None:
    status, _, errors = run(otlp, "work(1)\nraise SystemExit(3)")
    assert (status, errors) == (3, "")
    assert len(otlp.spans) == 1


def test_sigterm_sends_what_waits_and_ends_as_sigterm(otlp: Receiver) -> None:
    status, _, _ = run(otlp, "work(1)\nprint('kill me')\ntime.sleep(60)")
    assert status == -signal.SIGTERM
    assert len(otlp.spans) == 1


def test_a_handler_of_the_applications_is_left_alone(otlp: Receiver) -> None:
    body = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    work(1)
    print('kill me')
    time.sleep(60)
    """
    assert run(otlp, body)[0] == 5
    assert len(otlp.spans) == 1


@pytest.mark.parametrize("trouble", ["down", "deaf"])
def test_an_unreachable_receiver_delays_the_end_by_the_flush_timeout_at_most(
    otlp: Receiver, trouble: str
) -> None:
    otlp.mode = "deaf"
    url = ""
    if trouble == "down":
        url = f"http://127.0.0.1:{free_ports(1)[0]}"
    status, delay_s, errors = run(otlp, "for n in range(5000): work(n)\nprint('done')", url=url)
    assert status == 0
    assert delay_s < 1.0 + 2.0  # the flush timeout, and the interpreter's own end on a busy machine
    assert errors.count("\n") <= 5


def test_a_forked_child_sends_its_own_spans_and_not_its_parents(otlp: Receiver) -> None:
    body = """
    warnings.simplefilter("ignore")
    with llmobs.span("workflow", name="before"):
        work(0)
        pid = os.fork()
        if pid == 0:
            work(1)
    if pid == 0:
        work(2)
        sys.exit(0)
    os.waitpid(pid, 0)
    work(3)
    """
    assert run(otlp, body, options='{"export_interval_s": 30.0}')[0] == 0
    names = sorted(
        span.attributes.get("gen_ai.tool.call.arguments", span.name) for span in otlp.spans
    )
    assert names == ["invoke_workflow before", *(f'{{"n": {n}}}' for n in range(4))]
    of_parent = {s.attributes["llmobs.process.id"] for s in otlp.spans if '"n": 0' in str(s)}
    of_child = {s.attributes["llmobs.process.id"] for s in otlp.spans if '"n": 1' in str(s)}
    assert of_parent != of_child
    assert len({s.resource["service.instance.id"] for s in otlp.spans}) == 2
    assert len({s.span_id for s in otlp.spans}) == 5
    before = otlp.span("invoke_workflow before")
    (first,) = [s for s in otlp.spans if '"n": 1' in str(s)]
    assert first.parent_id == before.span_id


def test_a_child_that_records_nothing_starts_no_thread(otlp: Receiver) -> None:
    body = """
    warnings.simplefilter("ignore")
    import threading
    if os.fork() == 0:
        sys.exit(threading.active_count())
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    """
    assert run(otlp, body)[0] == 1


def test_workers_of_a_pool_lose_nothing(otlp: Receiver) -> None:
    body = """
    warnings.simplefilter("ignore")
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=2) as pool:
        print(sum(pool.map(work, range(8), chunksize=1)))
        pool.close()
        pool.join()
    """
    status, _, errors = run(otlp, body)
    assert (status, errors) == (0, "")
    assert len(otlp.spans) == 8
    assert len({span.attributes["llmobs.process.id"] for span in otlp.spans}) >= 4


def test_importing_the_package_loads_no_sdk() -> None:
    program = (
        "import sys, llmobs; sys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_tracer_provider_of_the_applications_gives_resource_and_sampler(otlp: Receiver) -> None:
    program = """
    import os
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Theirs(SpanExporter):
        names = []
        def export(self, spans):
            self.names += [span.name for span in spans]
            return SpanExportResult.SUCCESS

    provider = TracerProvider(resource=Resource({"service.name": "theirs", "team": "a"}))
    provider.add_span_processor(SimpleSpanProcessor(Theirs()))
    trace.set_tracer_provider(provider)
    import llmobs
    llmobs.init(endpoint=os.environ["SINK"], environment="prod")

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt):
        with trace.get_tracer("x").start_as_current_span("POST"):
            return prompt

    with trace.get_tracer("x").start_as_current_span("GET /"):
        ask("x")
    assert Theirs.names == ["POST", "GET /"], Theirs.names
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "SINK": otlp.url},
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.communicate(timeout=30)[1] == ""
    span = otlp.span("chat m")
    assert span.parent_id  # below the application's own
    assert span.resource["service.name"] == "theirs"
    assert span.resource["team"] == "a"
    assert span.resource["deployment.environment.name"] == "prod"
    assert len(otlp.spans) == 1


def test_children_forked_under_load_record_and_import(otlp: Receiver) -> None:
    body = """
    warnings.simplefilter("ignore")
    import threading
    threading.Thread(target=lambda: [work(n) for n in range(10**9)], daemon=True).start()
    pids = []
    for _ in range(12):
        time.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            import requests
            work(-1)
            os._exit(0 if llmobs.flush(20) and llmobs.status().exported == 1 else 1)
        pids.append(pid)
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os._exit(sum(ends))
    """
    options = '{"queue_capacity": 500}'
    assert run(otlp, body, options=options)[0] == 0


def test_a_daemon_thread_that_calls_on_while_the_interpreter_ends_is_silent(
    otlp: Receiver,
) -> None:
    body = """
    import threading
    @llmobs.observe(kind="chat", model="m")
    def ask(prompt):
        return (piece for piece in prompt)
    def call_on():
        while True:
            pieces = ask("abc")
            next(pieces)
    for _ in range(4):
        threading.Thread(target=call_on, daemon=True).start()
    time.sleep(0.2)
    """
    status, _, errors = run(otlp, body)
    assert status == 0
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert "Fatal" not in errors

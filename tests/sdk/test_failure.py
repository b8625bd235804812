"""A receiver that is down, deaf, slow or rude is nothing the application notices."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

import llmobs
from llmobs.sdk import configure, exporters
from tests.ports import free_ports
from tests.sdk.conftest import Start
from tests.sdk.receiver import Receiver

PROMPT = "x" * 600


@llmobs.observe(kind="chat", model="m", provider="openai")
def ask(prompt: str) -> str:
    return prompt


def p99_s(n_calls: int) -> float:
    """Return the 99th percentile of a call's time, its caller sleeping now and then."""
    times = []
    for number in range(n_calls):
        began = time.perf_counter()
        ask(PROMPT)
        times.append(time.perf_counter() - began)
        if number % 100 == 0:
            time.sleep(0.001)
    return sorted(times)[int(n_calls * 0.99)]


def resident_bytes() -> int:
    """Return the memory of this process, 0 where the system doesn't say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


@pytest.mark.parametrize("trouble", ["down", "deaf", "slow", "rude"])
def test_calls_stay_fast_and_memory_bounded(otlp: Receiver, trouble: str) -> None:
    modes: dict[str, str | int] = {"deaf": "deaf", "rude": 503}
    otlp.mode = modes.get(trouble, "ok")
    otlp.delay_s = 0.5 if trouble == "slow" else 0.0
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}" if trouble == "down" else otlp.url
    llmobs.init("s", endpoint=endpoint, capture_content="full", queue_capacity=2_000)
    p99_s(500)
    gc.collect()
    before = resident_bytes()
    worst = p99_s(20_000)
    grown = resident_bytes() - before
    status = llmobs.status()
    assert worst < 0.001
    # 2,000 spans of 2 kB wait; a batch is on its way; the rest is the interpreter's.
    assert grown < 30_000_000
    assert status.waiting <= 2_000
    assert status.recorded == 20_500
    if trouble != "slow":
        assert status.dropped["queue_full"] >= 20_500 - 2_000 - 4 * 512
        assert status.faults == 0
    began = time.perf_counter()
    assert not llmobs.shutdown(0.5)
    assert time.perf_counter() - began < 1.5


def test_the_queue_is_bounded_in_bytes_too(start: Start) -> None:
    otlp = start(queue_capacity_bytes=1_000_000)
    otlp.mode = "deaf"
    for number in range(100):
        ask(f"{number}" * 100_000)
    assert llmobs.status().waiting < 20
    assert llmobs.status().dropped["queue_full"] > 60


def test_an_outage_loses_nothing_that_finds_room(start: Start) -> None:
    otlp = start(export_interval_s=0.05)
    otlp.mode = 503
    for _ in range(300):
        ask(PROMPT)
    assert otlp.arrived.wait(5)
    time.sleep(0.2)
    assert otlp.spans == []
    otlp.mode = "ok"
    otlp.wait_for_spans(300)
    numbers = sorted(span.attributes["llmobs.sequence"] for span in otlp.spans)
    assert numbers == list(range(300))
    assert llmobs.status().dropped == {}


def test_refused_spans_are_counted_and_hold_up_no_others(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start()
    otlp.mode = 400
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            ask(PROMPT)
            llmobs.flush(5)
    otlp.mode = "ok"
    ask(PROMPT)
    assert llmobs.flush(5)
    assert llmobs.status().dropped == {"refused": 10}
    assert [span.attributes["llmobs.sequence"] for span in otlp.spans] == [10]
    # Once a minute, and never with content. The exporters' own lines per batch are silenced.
    assert caplog.text.count("telemetry dropped") <= 1
    assert "Failed to export" not in caplog.text
    assert PROMPT not in caplog.text


def test_a_sick_span_harms_no_other(start: Start) -> None:
    otlp = start(redact=None)

    class Trap(dict[str, object]):
        def items(self) -> object:  # type: ignore[override]
            raise RuntimeError("trap")

    @llmobs.observe
    def flow() -> None:
        span = llmobs.current()
        span.attributes = Trap({"a": 1})  # type: ignore[union-attr]

    flow()
    ask("fine")
    assert llmobs.flush(5)
    assert [span.name for span in otlp.spans] == ["chat m"]
    assert llmobs.status().dropped == {"not_describable": 1}


def test_a_batch_is_no_larger_than_receivers_take(start: Start) -> None:
    otlp = start(max_characters=1_000_000)
    for _ in range(30):
        ask("y" * 500_000)
    assert llmobs.flush(20)
    assert len(otlp.spans) == 30
    assert max(len(body) for body in otlp.bodies("/v1/traces")) < 8_000_000


def test_an_outage_is_none_the_less_where_a_try_may_take_little_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    otlp = start(export_interval_s=0.02)
    otlp.mode = 503
    ask(PROMPT)
    llmobs.feedback(1, session_id="s")
    assert otlp.arrived.wait(5)
    time.sleep(0.5)
    otlp.mode = "ok"
    otlp.wait_for_spans(1)
    assert llmobs.flush(5)
    assert len(otlp.events) == 1
    assert llmobs.status().dropped == {}


@pytest.mark.parametrize("answer", [None, object()])
def test_a_door_for_bytes_that_is_another_than_we_know_is_gone_around(
    start: Start, answer: object
) -> None:
    otlp = start()
    sender = configure._here.sender
    assert sender is not None
    chosen = sender._exporters_now()
    if answer is None:
        chosen.post_spans = chosen.post_events = None
    else:
        chosen.post_spans = exporters._door_for_bytes(
            SimpleNamespace(_client=SimpleNamespace(export=lambda data: answer))
        )
        chosen.spans = OTLPSpanExporter(endpoint=f"{otlp.url}/v1/traces")
    ask(PROMPT)
    ask("a\ud800")
    llmobs.feedback(1, session_id="s")
    assert llmobs.flush(5)
    assert len(otlp.spans) == 2
    assert otlp.spans[1].attributes["gen_ai.output.messages"]
    assert llmobs.status().exported == 2
    assert len(otlp.events) == 1


def test_the_installed_exporter_has_the_door_for_bytes(start: Start) -> None:
    start()
    sender = configure._here.sender
    assert sender is not None
    assert sender._exporters_now().post_spans is not None


def test_what_is_lost_is_counted_by_all_threads_and_said_by_none_of_them(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start(queue_capacity=10)
    otlp.mode = "deaf"
    ask(PROMPT)
    assert otlp.arrived.wait(5)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [ask("x") for _ in range(500)], name="application")
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    status = llmobs.status()
    assert status.recorded == 4_001
    assert status.waiting + status.dropped["queue_full"] + 1 == 4_001
    assert "application" not in {record.threadName for record in caplog.records}


def test_a_queue_smaller_than_a_batch_is_emptied_before_it_is_full(start: Start) -> None:
    otlp = start(queue_capacity=20, export_interval_s=30.0)
    for _ in range(15):
        ask("x")
    otlp.wait_for_spans(10, timeout_s=5)
    assert llmobs.status().dropped == {}


def test_texts_of_many_bytes_a_character_do_not_make_requests_larger(start: Start) -> None:
    otlp = start(max_characters=1_000_000)
    for _ in range(12):
        ask("\u7af9" * 450_000)
    assert llmobs.flush(20)
    assert len(otlp.spans) == 12
    assert max(len(body) for body in otlp.bodies("/v1/traces")) < 3_500_000


def test_what_comes_while_a_batch_is_sent_waits_for_the_next(start: Start) -> None:
    otlp = start(export_interval_s=0.4)
    otlp.delay_s = 0.05
    end_s = time.monotonic() + 1.2
    while time.monotonic() < end_s:
        ask("x")
        time.sleep(0.005)
    assert llmobs.flush(5)
    assert len(otlp.bodies("/v1/traces")) <= 4
    assert llmobs.status().exported == llmobs.status().recorded

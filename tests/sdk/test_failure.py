"""A receiver that is down, deaf, slow or rude is nothing the application notices."""

from __future__ import annotations

import gc
import logging
import socket
import time
from pathlib import Path

import pytest

import llmobs
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("trouble", ["down", "deaf", "slow", "rude"])
def test_calls_stay_fast_and_memory_bounded(otlp: Receiver, trouble: str) -> None:
    modes: dict[str, str | int] = {"deaf": "deaf", "rude": 503}
    otlp.mode = modes.get(trouble, "ok")
    otlp.delay_s = 0.5 if trouble == "slow" else 0.0
    endpoint = f"http://127.0.0.1:{free_port()}" if trouble == "down" else otlp.url
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

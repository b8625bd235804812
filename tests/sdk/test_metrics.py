"""The conventions' metrics, of both vintages."""

from __future__ import annotations

import pytest

import llmobs
from llmobs import semconv
from tests.sdk.conftest import Start


@llmobs.observe(kind="chat", model="m", provider="openai")
def ask(prompt: str) -> dict[str, object]:
    return {"text": "y", "usage": {"input_tokens": 100, "output_tokens": 20}}


@llmobs.observe(kind="embeddings", model="e", provider="openai")
def embed(text: str) -> dict[str, object]:
    return {"data": [{"embedding": [0.5] * 16}], "usage": {"prompt_tokens": 3}}


def test_current_names_have_the_advised_buckets_and_units(start: Start) -> None:
    otlp = start()
    ask("x")
    ask("x")
    embed("x")
    llmobs.flush(10)
    duration = otlp.point("gen_ai.client.inference.duration")
    assert duration.unit == "s"
    assert duration.count == 2
    assert duration.bounds == list(semconv.BUCKETS_DURATION_S)
    assert sum(duration.counts) == 2
    used = otlp.point("gen_ai.client.inference.usage.input_tokens")
    assert (used.kind, used.unit, used.total) == ("sum", "{token}", 200)
    assert used.attributes["gen_ai.token.modality"] == "unknown"
    of_call = otlp.point("gen_ai.client.inference.operation.output_tokens")
    assert (of_call.count, of_call.total) == (2, 40)
    assert of_call.bounds == list(semconv.BUCKETS_TOKENS)
    assert otlp.point("gen_ai.client.operation.duration").attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "e",
    }
    assert "gen_ai.client.token.usage" not in {point.name for point in otlp.points}


def test_released_names_are_one_flag_away(start: Start) -> None:
    otlp = start(names="released")
    ask("x")
    llmobs.flush(10)
    assert otlp.point("gen_ai.client.operation.duration").count == 1
    usage = otlp.point("gen_ai.client.token.usage", gen_ai__token__type="input")
    assert usage.total == 100
    assert not any("inference" in point.name for point in otlp.points)


def test_failed_calls_have_their_error_type(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m", provider="openai")
    def fail(prompt: str) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        fail("x")
    ask("x")
    llmobs.flush(10)
    name = "gen_ai.client.inference.duration"
    assert otlp.point(name, error__type="TimeoutError").count == 1
    assert otlp.point(name, error__type=None).count == 1


def test_no_label_comes_from_a_session_or_a_text(start: Start) -> None:
    otlp = start()
    with llmobs.session("s-1", "u-1"):
        ask("needle")
    llmobs.flush(10)
    metrics = b"".join(otlp.bodies("/v1/metrics"))
    assert b"s-1" not in metrics
    assert b"needle" not in metrics


def test_series_are_bounded(start: Start) -> None:
    from llmobs.sdk.metrics import MAX_SERIES

    otlp = start()
    for n in range(MAX_SERIES + 50):
        with llmobs.span("workflow", name=f"w{n}"):
            pass
    llmobs.flush(20)
    points = [p for p in otlp.points if p.name == "gen_ai.invoke_workflow.duration"]
    assert len(points) == MAX_SERIES + 1
    assert otlp.point("gen_ai.invoke_workflow.duration", otel__metric__overflow=True).count == 50


def test_deltas_are_sent_where_the_environment_asks(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    otlp = start()
    ask("x")
    llmobs.flush(10)
    ask("x")
    llmobs.flush(10)
    assert otlp.point("gen_ai.client.inference.duration").count == 1


def test_deltas_that_do_not_arrive_are_in_the_next(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    otlp = start()
    ask("x")
    otlp.mode = 400
    llmobs.flush(10)
    otlp.mode = "ok"
    ask("x")
    llmobs.flush(10)
    assert otlp.point("gen_ai.client.inference.duration").count == 2


def test_a_label_that_is_none_costs_no_span(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m", attributes={"server.address": ["a"]})
    def odd(prompt: str) -> str:
        return prompt

    odd("x")
    llmobs.flush(10)
    assert [span.name for span in otlp.spans] == ["chat m"]

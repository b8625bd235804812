from __future__ import annotations

import gzip
import math
import time
from collections.abc import Callable
from typing import Literal

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from llmobs.analyzer.decode import decode_events
from llmobs.analyzer.publish.evaluations import EvaluationPublisher
from llmobs.analyzer.publish.metrics import Metrics
from llmobs.errors import ConfigurationError
from llmobs.records import ScoreColumn
from tests.analyzer.publish.batches import NO_SCORES, column, scores, spans
from tests.analyzer.publish.listener import Listener, listening
from tests.ports import free_ports

TWO = spans(
    {"trace_id": b"\xab" * 16, "span_id": b"\xcd" * 8, "response_id": "resp-1"},
    {"trace_id": b"\xab" * 16, "span_id": b"\xce" * 8, "service": "search", "environment": "prod"},
)


def requests(listener: Listener) -> list[ExportLogsServiceRequest]:
    for path, headers, _ in listener.received:
        assert path == "/v1/logs"
        assert headers["content-type"] == "application/x-protobuf"
    return [
        ExportLogsServiceRequest.FromString(gzip.decompress(body))
        for _, _, body in listener.received
    ]


def records(listener: Listener) -> list[tuple[dict[str, str], LogRecord]]:
    """Return each record with the attributes of its resource."""
    return [
        ({a.key: a.value.string_value for a in logs.resource.attributes}, record)
        for request in requests(listener)
        for logs in request.resource_logs
        for record in logs.scope_logs[0].log_records
    ]


def outcomes(metrics: Metrics) -> dict[str, float]:
    return {
        one.labels[0]: one.value
        for spec, series in metrics.snapshot()
        if spec.name == "llmobs_evaluations_pushed_total"
        for one in series
    }


def failures(metrics: Metrics) -> float:
    return sum(
        one.value
        for spec, series in metrics.snapshot()
        if spec.name == "llmobs_publish_failures_total"
        for one in series
        if one.labels == ("otlp",)
    )


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_score_goes_out_as_the_conventions_event_linked_to_its_span() -> None:
    toxic = ScoreColumn(
        "toxicity", "3", "input", column("", "input", [0.9, math.nan], []).values, ["fail", ""],
        ["the text is toxic", ""],
    )  # fmt: skip
    metrics = Metrics()
    with listening() as listener:
        publisher = EvaluationPublisher(metrics, listener.url, headers={"x-key": "k"})
        publisher.start()
        publisher.put(TWO, scores(toxic, column("pii", "output", [0, 2], ["pass", "fail"])))
        publisher.stop()
        found = records(listener)
        assert listener.received[0][1]["x-key"] == "k"
    assert len(found) == 3  # nothing is said where a scorer has nothing to say
    (resource, record), _, (other, _) = found
    assert record.event_name == "gen_ai.evaluation.result"
    assert (record.trace_id, record.span_id) == (b"\xab" * 16, b"\xcd" * 8)
    assert record.time_unix_nano == 1_700_000_000_300_000_000  # when the call ended
    assert {
        a.key: a.value.double_value or a.value.string_value for a in record.attributes
    } == {
        "gen_ai.evaluation.name": "toxicity",
        "gen_ai.evaluation.score.value": 0.9,
        "gen_ai.evaluation.score.label": "fail",
        "gen_ai.evaluation.explanation": "the text is toxic",
        "gen_ai.response.id": "resp-1",
        "llmobs.evaluation.source": "analyzer",
        "llmobs.evaluation.target": "input",
        "llmobs.evaluation.version": "3",
    }  # fmt: skip
    assert resource == {"service.name": "shop"}
    assert other == {"service.name": "search", "deployment.environment.name": "prod"}
    assert outcomes(metrics) == {"sent": 3, "lost": 0}


@pytest.mark.parametrize(("which", "n"), [("fail", 1), ("all", 2)])
def test_one_may_choose_to_send_what_fails_alone(which: Literal["fail", "all"], n: int) -> None:
    with listening() as listener:
        publisher = EvaluationPublisher(Metrics(), listener.url, which=which)
        publisher.start()
        publisher.put(TWO, scores(column("pii", "output", [0, 2], ["pass", "fail"])))
        publisher.put(TWO, NO_SCORES)
        publisher.stop()
        assert len(records(listener)) == n


def test_many_results_go_in_requests_of_bounded_size() -> None:
    many = spans(*[{"span_id": i.to_bytes(8, "big")} for i in range(1, 1501)])
    columns = [column(name, "output", [1.0] * 1500, ["pass"] * 1500) for name in ("a", "b", "c")]
    with listening() as listener:
        publisher = EvaluationPublisher(Metrics(), listener.url)
        publisher.start()
        publisher.put(many, scores(*columns))
        publisher.stop()
        found = records(listener)
        assert len(requests(listener)) == 3
    assert len({(r.span_id, r.attributes[0].value.string_value) for _, r in found}) == 4500


def test_a_receiver_that_is_busy_for_a_moment_gets_it_with_the_next_try() -> None:
    metrics = Metrics()
    with listening() as listener:
        listener.answers = [503, 429]
        publisher = EvaluationPublisher(metrics, listener.url, backoff_s=(0.01, 0.01))
        publisher.start()
        publisher.put(TWO, scores(column("pii", "output", [0, 2], ["pass", "fail"])))
        until(lambda: len(listener.received) == 1)
        publisher.stop()
    assert outcomes(metrics) == {"sent": 2, "lost": 0}
    assert failures(metrics) == 2


def test_what_a_receiver_refuses_is_lost_at_once_and_counted() -> None:
    metrics = Metrics()
    with listening() as listener:
        listener.answers = [400]
        publisher = EvaluationPublisher(metrics, listener.url, backoff_s=(60,))
        publisher.start()
        publisher.put(TWO, scores(column("pii", "output", [0, 2], ["pass", "fail"])))
        until(lambda: outcomes(metrics)["lost"] == 2)
        publisher.put(TWO, scores(column("pii", "output", [0, 2], ["pass", "fail"])))
        publisher.stop()
        assert listener.n_requests == 2
    assert outcomes(metrics) == {"sent": 2, "lost": 2}


def test_while_the_receiver_is_down_scoring_goes_on_and_the_oldest_results_are_dropped() -> None:
    metrics = Metrics()
    publisher = EvaluationPublisher(
        metrics, f"http://127.0.0.1:{free_ports(1)[0]}", max_waiting=100, backoff_s=(60,)
    )
    publisher.start()
    pii = scores(column("pii", "output", [0, 2], ["pass", "fail"]))
    begun = time.monotonic()
    for _ in range(500):
        publisher.put(TWO, pii)
    assert time.monotonic() - begun < 5
    assert outcomes(metrics)["lost"] >= 800
    publisher.stop()
    until(lambda: outcomes(metrics) == {"sent": 0, "lost": 1000})


def test_what_comes_back_is_known_as_the_analyzers_own_and_not_counted_again() -> None:
    metrics = Metrics()
    with listening() as listener:
        publisher = EvaluationPublisher(metrics, listener.url)
        publisher.start()
        publisher.put(TWO, scores(column("pii", "output", [0, 2], ["pass", "fail"])))
        publisher.stop()
        bodies = [request.SerializeToString() for request in requests(listener)]
    events, rejected = decode_events(bodies)
    assert len(events) == 2
    assert not rejected
    metrics.record(spans(), NO_SCORES, events)
    assert "llmobs_evaluation_results_total" not in {spec.name for spec, _ in metrics.snapshot()}


def test_an_endpoint_that_is_no_url_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="no URL"):
        EvaluationPublisher(Metrics(), "collector:4318")


def test_a_result_that_can_not_be_encoded_costs_its_batch_and_no_other() -> None:
    metrics = Metrics()
    with listening() as listener:
        publisher = EvaluationPublisher(metrics, listener.url)
        publisher.start()
        publisher.put(TWO, scores(column("own", "output", [0, 2], ["\ud800", "fail"])))
        publisher.put(TWO, scores(column("pii", "output", [0, 2], ["pass", "fail"])))
        publisher.stop()
        assert len(records(listener)) == 2
    assert outcomes(metrics) == {"sent": 2, "lost": 2}

from __future__ import annotations

from collections import Counter

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from llmobs.analyzer.decode import decode_events
from llmobs.records import EVENT_SCHEMA


def request() -> ExportLogsServiceRequest:
    out = ExportLogsServiceRequest()
    of_resource = out.resource_logs.add()
    for key, value in (
        ("service.name", "shop"), ("deployment.environment", "old"), ("host.name", "h"),
        ("k", "of the resource"),
    ):  # fmt: skip
        of_resource.resource.attributes.add(key=key).value.string_value = value
    record = of_resource.scope_logs.add().log_records.add(
        time_unix_nano=5,
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        event_name="gen_ai.evaluation.result",
        severity_number=9,
    )
    record.body.string_value = "good"
    record.attributes.add(key="k").value.string_value = "own"
    record.attributes.add(key="score").value.double_value = 0.5
    record.attributes.add(key="n").value.int_value = 3
    record.attributes.add(key="parts").value.array_value.values.add(string_value="a")
    return out


def test_a_record_becomes_a_row() -> None:
    batch, rejected = decode_events([request().SerializeToString()])
    assert batch.table.schema == EVENT_SCHEMA
    batch.table.validate(full=True)
    [row] = batch.table.to_pylist()
    assert rejected == ()
    assert dict(row.pop("attributes_s")) == {"host.name": "h", "k": "own", "parts": '["a"]'}
    assert dict(row.pop("attributes_n")) == {"score": 0.5, "n": 3.0}
    assert row == {
        "ts_ns": 5,
        "trace_id": b"t" * 16,
        "span_id": b"s" * 8,
        "service": "shop",
        "environment": "old",
        "event_name": "gen_ai.evaluation.result",
        "severity": 9,
        "body": "good",
    }


def test_a_body_that_is_no_text_is_json_and_a_missing_id_is_zeros() -> None:
    out = ExportLogsServiceRequest()
    record = (
        out.resource_logs.add()
        .scope_logs.add()
        .log_records.add(observed_time_unix_nano=7, trace_id=b"odd")
    )
    pair = record.body.kvlist_value.values.add(key="a")
    pair.value.double_value = float("nan")
    record.attributes.add(key="event.name").value.string_value = "old.place"
    repairs: Counter[str] = Counter()
    batch, _ = decode_events([out.SerializeToString()], repairs=repairs)
    [row] = batch.table.to_pylist()
    assert row["body"] == '{"a":"NaN"}'
    assert row["ts_ns"] == 7
    assert row["trace_id"] == bytes(16)
    assert row["span_id"] == bytes(8)
    assert row["event_name"] == "old.place"
    assert repairs == {"event_id": 1}


def test_the_current_environment_name_wins() -> None:
    out = request()
    attribute = out.resource_logs[0].resource.attributes.add(key="deployment.environment.name")
    attribute.value.string_value = "prod"
    batch, _ = decode_events([out.SerializeToString()])
    assert batch.texts("environment") == ["prod"]


def test_a_poisoned_request_costs_the_others_nothing() -> None:
    good = request().SerializeToString()
    bad = good.replace(b"good", b"g\xffod")
    repairs: Counter[str] = Counter()
    batch, rejected = decode_events([good, b"\x0a\xff", bad], repairs=repairs)
    assert batch.texts("body") == ["good", "g�od"]
    assert [r.request for r in rejected] == [1]
    assert repairs == {"invalid_utf8": 1}


def test_no_requests_give_an_empty_batch() -> None:
    batch, rejected = decode_events([])
    assert (len(batch), rejected, batch.table.schema) == (0, (), EVENT_SCHEMA)

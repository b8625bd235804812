"""Our encoder writes what OpenTelemetry's does."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from llmobs.sdk.describe import SCOPE, describe, to_readable
from llmobs.sdk.events import SpanEvent
from llmobs.sdk.export import _encoded
from llmobs.sdk.runtime import Runtime, Settings
from llmobs.sdk.span import Spec, open_span
from llmobs.sdk.wire import encode_event, encode_request

SETTINGS = Settings(
    endpoint=None,
    headers=None,
    protocol="http/protobuf",
    content="full",
    content_place="span",
    redact=None,
    names="current",
    queue_capacity=10,
    queue_capacity_bytes=10_000_000,
    batch_size=10,
    export_interval_s=1,
    metric_interval_s=1,
    retry_s=1,
    flush_timeout_s=1,
    max_characters=1000,
    foreign="genai",
)

scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)
part = st.builds(
    lambda text: {"type": "text", "content": text},
    st.text(st.characters(codec="utf-8"), max_size=300),
)
values = st.recursive(
    scalars | part,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
attributes = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), values, max_size=6)


@settings(max_examples=150)
@given(attributes, st.booleans(), st.booleans(), st.booleans())
def test_both_encoders_write_the_same_request(
    given_attributes: dict[str, Any], failed: bool, rich: bool, has_parent: bool
) -> None:
    runtime = Runtime(SETTINGS, Resource({"service.name": "s", "n": 3}), ALWAYS_ON)
    span, _ = open_span(runtime, Spec("tool", "t", attributes=given_attributes))
    if failed:
        span.fail(ValueError("nö"))
    if rich:
        span.add_event("event", given_attributes)
        span.add_link(
            SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1)), given_attributes
        )
        span.trace_state = TraceState([("ot", "th:c"), ("a", "b")])
    if has_parent:
        span.parent_id, span.parent_is_remote = 77, True
    span.finish()
    described = describe(span, runtime)
    ours = encode_request([_encoded(described, "span")[0]], runtime.resource, SCOPE)
    theirs = encode_spans([to_readable(described, runtime)])
    assert ExportTraceServiceRequest.FromString(ours) == theirs


@given(attributes)
@settings(max_examples=50, deadline=None)
def test_our_bytes_of_an_event_say_what_opentelemetrys_encoder_says(
    given_attributes: dict[str, Any],
) -> None:
    runtime = Runtime(SETTINGS, Resource({"service.name": "s"}), ALWAYS_ON)
    span, _ = open_span(runtime, Spec("chat", "c"))
    span.finish()
    event = SpanEvent(span, "gen_ai.x", SeverityNumber.WARN, given_attributes)
    body = encode_request([encode_event(event, {})], runtime.resource, SCOPE)
    ours = ExportLogsServiceRequest.FromString(body)
    theirs = encode_logs([event.readable(runtime)])
    for request in (ours, theirs):  # the moment of encoding
        (record,) = request.resource_logs[0].scope_logs[0].log_records
        assert record.observed_time_unix_nano
        record.observed_time_unix_nano = 0
        record.ClearField("body")  # theirs is there and empty
    assert ours == theirs


def test_a_lone_surrogate_costs_itself_alone() -> None:
    runtime = Runtime(SETTINGS, Resource({}), ALWAYS_ON)
    span, _ = open_span(runtime, Spec("tool", "t", attributes={"text": "a\ud800b"}))
    span.finish()
    described = describe(span, runtime)
    body = encode_request([_encoded(described, "span")[0]], runtime.resource, SCOPE)
    request = ExportTraceServiceRequest.FromString(body)
    pairs = request.resource_spans[0].scope_spans[0].spans[0].attributes
    assert {p.key: p.value.string_value for p in pairs}["text"] == "a?b"


def test_a_number_beyond_64_bits_is_no_other_number() -> None:
    runtime = Runtime(SETTINGS, Resource({}), ALWAYS_ON)
    span, _ = open_span(runtime, Spec("tool", "t", attributes={"a": 2**64 + 5, "b": 10**400}))
    span.finish()
    body = encode_request([_encoded(describe(span, runtime), "span")[0]], runtime.resource, SCOPE)
    request = ExportTraceServiceRequest.FromString(body)
    pairs = request.resource_spans[0].scope_spans[0].spans[0].attributes
    found = {p.key: p.value for p in pairs}
    assert found["a"].double_value == float(2**64 + 5)
    assert found["b"].string_value == "<int>"

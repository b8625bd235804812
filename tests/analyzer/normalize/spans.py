"""Ways to normalized rows: from fixtures and from attributes written in a test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from llmobs.analyzer.decode import check, decode_spans_upb
from llmobs.analyzer.normalize import normalize

NOW_NS = 1_795_000_000_000_000_000
DATA = Path(__file__).parent / "data"


def any_value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case list():
            out = AnyValue()
            out.array_value.values.extend(map(any_value, value))
            return out
        case dict():
            out = AnyValue()
            out.kvlist_value.values.extend(pairs(value))
            return out
    raise TypeError(value)


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def request(
    attributes: dict[str, Any],
    *,
    scope: str = "",
    resource: dict[str, Any] | None = None,
    **span: Any,
) -> bytes:
    out = ExportTraceServiceRequest()
    of_resource = out.resource_spans.add()
    of_resource.resource.attributes.extend(pairs(resource or {}))
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = scope
    made = of_scope.spans.add(
        **{
            "trace_id": b"t" * 16,
            "span_id": b"s" * 8,
            "name": "n",
            "start_time_unix_nano": NOW_NS,
            "end_time_unix_nano": NOW_NS + 5,
        }
        | span
    )
    made.attributes.extend(pairs(attributes))
    return out.SerializeToString()


def rows(*bodies: bytes, repairs: Counter[str] | None = None) -> list[dict[str, Any]]:
    batch = normalize(decode_spans_upb(bodies), now_ns=NOW_NS, repairs=repairs)
    batch.table.validate(full=True)
    out: list[dict[str, Any]] = batch.table.to_pylist()
    for row in out:
        row["attributes_s"] = dict(row["attributes_s"])
        row["attributes_n"] = dict(row["attributes_n"])
    return out


def row(attributes: dict[str, Any], **how: Any) -> dict[str, Any]:
    repairs = how.pop("repairs", None)
    [only] = rows(request(attributes, **how), repairs=repairs)
    return only


def fixture(name: str) -> list[dict[str, Any]]:
    body, _ = check("traces", (DATA / f"{name}.json").read_bytes(), True)
    return rows(body)

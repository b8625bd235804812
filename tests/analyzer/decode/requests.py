"""Trace requests of every kind, and what is in decoded ones whatever way they were decoded."""

from __future__ import annotations

import random
import string
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from llmobs.records import RawSpans

KEYS = ("gen_ai.operation.name", "gen_ai.input.messages", "k", "", "ключ", "user.id", "a" * 70)
texts = st.text(max_size=40)


def _of_array(values: list[AnyValue]) -> AnyValue:
    value = AnyValue()
    value.array_value.SetInParent()
    value.array_value.values.extend(values)
    return value


def _of_map(pairs: list[KeyValue]) -> AnyValue:
    value = AnyValue()
    value.kvlist_value.SetInParent()
    value.kvlist_value.values.extend(pairs)
    return value


scalars = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=20)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(_of_array),
        st.lists(st.builds(KeyValue, key=st.sampled_from(KEYS), value=inner), max_size=4).map(
            _of_map
        ),
    ),
    max_leaves=8,
)
pairs = st.builds(KeyValue, key=st.sampled_from(KEYS), value=st.none() | values)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@st.composite
def trace_requests(draw: st.DrawFn, *, distinct: bool) -> bytes:
    """Draw a request with what OTLP allows, in the order that protobuf writes it.

    Args:
        draw: Hypothesis' own.
        distinct: Whether an owner has each key once at most, as it should.
    """
    key = (lambda pair: pair.key) if distinct else None
    attributes = st.lists(pairs, max_size=8, unique_by=key)
    request = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        of_resource = request.resource_spans.add(schema_url=draw(texts))
        if draw(st.booleans()):
            of_resource.resource.attributes.extend(draw(attributes))
            of_resource.resource.entity_refs.add(type="service", id_keys=["service.name"])
        for _ in range(draw(st.integers(0, 2))):
            of_scope = of_resource.scope_spans.add()
            if draw(st.booleans()):
                of_scope.scope.name = draw(texts)
                of_scope.scope.version = draw(texts)
                of_scope.scope.attributes.extend(draw(attributes))
            for _ in range(draw(st.integers(0, 3))):
                span = of_scope.spans.add(
                    trace_id=draw(st.binary(max_size=17)),
                    span_id=draw(st.binary(max_size=9)),
                    parent_span_id=draw(st.binary(max_size=9)),
                    trace_state=draw(texts),
                    name=draw(texts),
                    kind=draw(st.integers(-(2**31), 2**31 - 1)),
                    flags=draw(u32),
                    start_time_unix_nano=draw(u64),
                    end_time_unix_nano=draw(u64),
                    dropped_attributes_count=draw(u32),
                    dropped_events_count=draw(u32),
                    dropped_links_count=draw(u32),
                )
                span.attributes.extend(draw(attributes))
                if draw(st.booleans()):
                    span.status.message = draw(texts)
                    span.status.code = draw(st.integers(-3, 300))  # type: ignore[assignment]
                for _ in range(draw(st.integers(0, 2))):
                    event = span.events.add(time_unix_nano=draw(u64), name=draw(texts))
                    event.attributes.extend(draw(attributes))
                for _ in range(draw(st.integers(0, 2))):
                    link = span.links.add(
                        trace_id=draw(st.binary(max_size=16)), trace_state=draw(texts)
                    )
                    link.attributes.extend(draw(attributes))
    return request.SerializeToString()


def sample(seed: int) -> bytes:
    """Make a small request that has everything, without Hypothesis."""
    rnd = random.Random(seed)

    def text() -> str:
        return "".join(rnd.choices(string.ascii_letters + '"\\\n é', k=rnd.randrange(12)))

    def value(depth: int = 0) -> AnyValue:
        match rnd.randrange(6 if depth > 2 else 8):
            case 0:
                return AnyValue(string_value=text())
            case 1:
                return AnyValue(bool_value=rnd.random() < 0.5)
            case 2:
                return AnyValue(int_value=rnd.randrange(-(2**63), 2**63))
            case 3:
                return AnyValue(double_value=rnd.random())
            case 4:
                return AnyValue(bytes_value=rnd.randbytes(5))
            case 5:
                return AnyValue()
            case 6:
                return _of_array([value(depth + 1) for _ in range(rnd.randrange(3))])
            case _:
                pairs = [KeyValue(key=text(), value=value(depth + 1)) for _ in range(2)]
                return _of_map(pairs)

    def pairs(n: int) -> list[KeyValue]:
        return [KeyValue(key=rnd.choice((*KEYS, *"bcdefghij")), value=value()) for _ in range(n)]

    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add(schema_url="s")
    of_resource.resource.attributes.extend(pairs(2))
    of_resource.resource.entity_refs.add(type="t")
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = text()
    of_scope.scope.attributes.extend(pairs(1))
    for _ in range(2):
        span = of_scope.spans.add(
            trace_id=rnd.randbytes(16),
            span_id=rnd.randbytes(8),
            name=text(),
            kind=3,
            flags=257,
            start_time_unix_nano=rnd.getrandbits(64),
            trace_state="ot=th:8",
        )
        span.attributes.extend(pairs(5))
        span.status.code = 2  # type: ignore[assignment]
        span.status.message = text()
        span.events.add(time_unix_nano=1, name=text()).attributes.extend(pairs(2))
        span.links.add(trace_id=rnd.randbytes(16), span_id=rnd.randbytes(8)).attributes.extend(
            pairs(1)
        )
    return request.SerializeToString()


def mutate(rnd: random.Random, body: bytearray, n_times: int) -> None:
    """Change, take out, put in or cut off bytes wherever it happens."""
    for _ in range(n_times):
        if not body:
            return
        at = rnd.randrange(len(body))
        match rnd.randrange(5):
            case 0:
                body[at] = rnd.randrange(256)
            case 1:
                body[at] ^= 1 << rnd.randrange(8)
            case 2:
                del body[at : at + rnd.randrange(1, 9)]
            case 3:
                body[at:at] = rnd.randbytes(rnd.randrange(1, 9))
            case _:
                del body[at:]


def contents(raw: RawSpans) -> list[dict[str, Any]]:
    """Return each span with all that belongs to it, independent of row numbers."""
    out = []
    for part in raw.parts:
        for batch in (part.spans, part.scopes, part.events, part.links, part.attributes):
            batch.validate(full=True)
        keys = part.keys.to_pylist()
        owned: dict[tuple[int, int], list[Any]] = {}
        for row in part.attributes.to_pylist():
            owned.setdefault((row["owner_kind"], row["owner"]), []).append(
                (keys[row["key"]], row["kind"], row["number"], row["text"])
            )
        below: dict[int, list[Any]] = {}
        for kind, batch in ((3, part.events), (4, part.links)):
            for i, row in enumerate(batch.to_pylist()):
                below.setdefault(row.pop("span"), []).append((kind, row, owned.get((kind, i))))
        scopes = part.scopes.to_pylist()
        for i, span in enumerate(part.spans.to_pylist()):
            resource, scope = span.pop("resource"), span.pop("scope")
            out.append(
                span
                | {"attributes": owned.get((0, i)), "below": below.get(i)}
                | {"resource": owned.get((1, resource))}
                | {"scope": scopes[scope], "scope_attributes": owned.get((2, scope))}
            )
    return out

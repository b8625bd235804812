"""Feed the decoders mutated OTLP requests and compare the compiled scan with upb on each.

    python -m benchmarks.fuzz [--inputs 1000000] [--seed 1] [--json]

Inputs are requests of all three signals (recorded ones of many producers, and random ones
with every field that the protocol has), changed where the protocol has its joints: fields
twice, missing, moved, of another number or wire type; groups; numbers written too long or
overflowing; lengths that lie; nesting without end; texts that are not UTF-8; and plain cuts and
flipped bits. A tenth is OTLP/JSON. For every input:

- the scan gives the spans that upb gives, or both refuse;
- `check` accepts exactly what decoding accepts, and raises nothing but its own two errors;
- what is decoded is valid Arrow of its schema; one input in eight also goes between two good
  requests, which must lose nothing, and through `normalize`.

Input number i of a seed is always the same bytes: a difference is shown with its number, and
``--only NUMBER`` runs it alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from llmobs.analyzer.decode import (
    check,
    decode_events,
    decode_metrics,
    decode_spans,
    decode_spans_upb,
    warm,
)
from llmobs.analyzer.decode.check import REQUESTS
from llmobs.analyzer.decode.values import varint
from llmobs.analyzer.normalize import normalize
from llmobs.errors import BadRequestError, TooLargeError
from llmobs.records import EventBatch, MetricBatch, RawSpans, Signal
from tests.analyzer.decode.requests import contents, mutate

__all__ = ["Input", "inputs", "problem"]

NOW_NS: Final = 1_795_000_000_000_000_000
RECORDED: Final = Path(__file__).parent.parent / "tests/analyzer/normalize/data"
TABLES: Final = ("spans", "scopes", "events", "links", "attributes", "keys")
THOROUGH_EVERY: Final = 8
N_RANDOM: Final = 60  # random requests a signal, besides the recorded ones


@dataclass(frozen=True, slots=True)
class Input:
    """One body as a sender could send it."""

    signal: Signal
    is_json: bool
    body: bytes


def inputs(seed: int, number: int) -> Input:
    """Make one input; the same two numbers always make the same bytes."""
    rnd = random.Random(seed << 40 | number)
    signal: Signal = rnd.choices(("traces", "logs", "metrics"), (8, 1, 1))[0]
    if rnd.random() < 0.1:
        document = json.loads(rnd.choice(_documents(signal)))
        for _ in range(rnd.choice((0, 1, 1, 1, 2, 5))):
            _mutate_document(rnd, document)
        body = bytearray(json.dumps(document).encode())
        if rnd.random() < 0.2:
            mutate(rnd, body, rnd.randrange(1, 4))
        return Input(signal, True, bytes(body))
    body = bytearray(_mutated(rnd, signal, rnd.choice(_seeds(signal))))
    if rnd.random() < 0.2:
        mutate(rnd, body, rnd.randrange(1, 4))
    return Input(signal, False, bytes(body))


# ── what has to hold ─────────────────────────────────────────────────────────────────────


def problem(case: Input, *, thorough: bool = True) -> str | None:
    """Run one input through every door; return what is wrong, None when all is well.

    Args:
        case: The input.
        thorough: Also between two good requests, and through `normalize`.
    """
    try:
        body, n_items = check(case.signal, case.body, case.is_json, now_ns=NOW_NS)
    except (BadRequestError, TooLargeError):
        if case.is_json:
            return None
        body, n_items = case.body, -1
    if case.signal == "traces":
        return _of_spans(body, n_items, thorough)
    batch: EventBatch | MetricBatch
    if case.signal == "logs":
        batch, rejected = decode_events([body])
    else:
        batch, rejected = decode_metrics([body])
    batch.table.validate(full=True)
    if bool(rejected) != (n_items < 0):
        return f"check says {n_items} and decoding {rejected}"
    if case.signal == "logs" and not rejected and len(batch) != n_items:
        return f"check says {n_items} records and decoding {len(batch)}"
    return None


def _of_spans(body: bytes, n_items: int, thorough: bool) -> str | None:
    slow = decode_spans_upb([body])
    if bool(slow.rejected) != (n_items < 0):
        return f"check says {n_items} and decoding {slow.rejected}"
    if not slow.rejected and len(slow) != n_items:
        return f"check says {n_items} spans and decoding {len(slow)}"
    fast = decode_spans([body])
    if (reason := _difference(fast, slow)) or not thorough:
        return reason
    between = decode_spans([_good(), body, _good()])
    if [r.reason for r in between.rejected] != [r.reason for r in slow.rejected]:
        return f"between good requests: {between.rejected} against {slow.rejected}"
    if len(between) != len(slow) + 2 * _n_good():
        return f"between good requests: {len(between)} spans"
    for raw in (fast, slow):
        normalize(raw, now_ns=NOW_NS).table.validate(full=True)
    return None


def _difference(fast: RawSpans, slow: RawSpans) -> str | None:
    if fast.rejected != slow.rejected:
        return f"rejected: {fast.rejected} against {slow.rejected}"
    if fast.repairs not in ({}, slow.repairs):  # the scan never looks at texts that are not kept
        return f"repairs: {fast.repairs} against {slow.repairs}"
    if len(fast.parts) == len(slow.parts) and all(
        getattr(a, name).equals(getattr(b, name))
        for a, b in zip(fast.parts, slow.parts, strict=True)
        for name in TABLES
    ):
        return None
    # Rows may stand in another order where fields did.
    a, b = contents(fast), contents(slow)
    return None if a == b else f"spans differ: {a} against {b}"


@cache
def _good() -> bytes:
    return min(_seeds("traces"), key=lambda body: abs(len(body) - 2000))


@cache
def _n_good() -> int:
    return len(decode_spans_upb([_good()]))


# ── requests to start from ───────────────────────────────────────────────────────────────


@cache
def _seeds(signal: Signal) -> tuple[bytes, ...]:
    rnd = random.Random(signal)
    kind = REQUESTS[signal]
    seeds = [_filled(rnd, kind).SerializeToString() for _ in range(N_RANDOM)]
    seeds = [body for body in seeds if body]
    if signal == "traces":
        for path in sorted(RECORDED.glob("*.json")):
            seeds.append(check("traces", path.read_bytes(), True)[0])
    return tuple(seeds)


@cache
def _documents(signal: Signal) -> tuple[str, ...]:
    rnd = random.Random(signal)
    filled = (_filled(rnd, REQUESTS[signal]) for _ in range(N_RANDOM))
    documents = [json.dumps(_with_hex_ids(MessageToDict(message))) for message in filled]
    if signal == "traces":
        documents += [path.read_text() for path in sorted(RECORDED.glob("*.json"))]
    return tuple(documents)


def _filled(rnd: random.Random, kind: type[Message]) -> Message:
    message = kind()
    _fill(rnd, message, 0)
    return message


def _fill(rnd: random.Random, message: Any, depth: int) -> None:
    """Set fields at random; of a oneof the last one wins, as on the wire."""
    for field in message.DESCRIPTOR.fields:
        if rnd.random() < (0.25 if depth < 5 or not _is_message(field) else 0.8):
            continue
        n = rnd.choice((1, 1, 2, 3)) if field.is_repeated else 1
        for _ in range(n):
            if _is_message(field):
                target = getattr(message, field.name)
                below = target.add() if field.is_repeated else target
                below.SetInParent()
                if depth < 9:
                    _fill(rnd, below, depth + 1)
            elif field.is_repeated:
                getattr(message, field.name).append(_value(rnd, field))
            else:
                setattr(message, field.name, _value(rnd, field))


TEXTS: Final = (
    "",
    "k",
    "gen_ai.operation.name",
    "a" * 70,
    "ключ",
    '"\\\n\x01\x7f',
    "\ud7ff\U0001f600",
)
IDS: Final = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}


def _value(rnd: random.Random, field: FieldDescriptor) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return rnd.choice(TEXTS)
        case FieldDescriptor.TYPE_BYTES:
            return rnd.randbytes(rnd.choice((0, IDS.get(field.name, 5), 40)))
        case FieldDescriptor.TYPE_BOOL:
            return rnd.random() < 0.5
        case FieldDescriptor.TYPE_DOUBLE:
            return rnd.choice((0.0, -0.0, 0.1, 1e308, float("nan"), float("-inf")))
        case FieldDescriptor.TYPE_ENUM | FieldDescriptor.TYPE_INT32 | FieldDescriptor.TYPE_SINT32:
            return rnd.choice((0, 1, 2, -1, 300, -(2**31)))
        case FieldDescriptor.TYPE_UINT32 | FieldDescriptor.TYPE_FIXED32:
            return rnd.choice((0, 1, 2**32 - 1))
        case FieldDescriptor.TYPE_INT64 | FieldDescriptor.TYPE_SFIXED64:
            return rnd.choice((0, 1, -1, -(2**63), 2**63 - 1))
        case _:
            return rnd.choice((0, NOW_NS, 2**63, 2**64 - 1))


def _is_message(field: FieldDescriptor) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_MESSAGE)


def _with_hex_ids(node: Any) -> Any:
    """Return a document of `MessageToDict` with ids as OTLP/JSON has them: in hex."""
    if isinstance(node, list):
        return [_with_hex_ids(item) for item in node]
    if not isinstance(node, dict):
        return node
    ids = {"traceId", "spanId", "parentSpanId"}
    return {
        name: "ab" * 8 if name in ids and isinstance(value, str) else _with_hex_ids(value)
        for name, value in node.items()
    }


# ── mutations of the wire ────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Node:
    """One field on the wire: what is written may be anything, also what no encoder writes.

    Attributes:
        tag: Field number and wire type.
        value: Fields below, bytes of a length-delimited field, or the whole of a number.
        lie: Added to the length that is written.
    """

    tag: bytes
    value: list[Node] | bytes
    is_delimited: bool
    lie: int = 0

    def write(self) -> bytes:
        """Return the bytes."""
        if not self.is_delimited:
            assert isinstance(self.value, bytes)
            return self.tag + self.value
        inside = self.value if isinstance(self.value, bytes) else write(self.value)
        return self.tag + varint(max(0, len(inside) + self.lie) & (2**64 - 1)) + inside


def write(nodes: Sequence[Node]) -> bytes:
    """Return fields as bytes."""
    return b"".join(node.write() for node in nodes)


def read(body: bytes, kind: Any) -> list[Node]:
    """Read well-formed bytes of a message type; fields that are messages are read on."""
    nodes: list[Node] = []
    p = 0
    while p < len(body):
        start = p
        number, p = _number(body, p)
        tag, wire = body[start:p], number & 7
        if wire == 2:
            size, p = _number(body, p)
            field = kind.fields_by_number.get(number >> 3) if kind else None
            inside = body[p : p + size]
            is_message = field is not None and _is_message(field)
            value = read(inside, field.message_type) if field and is_message else inside
            nodes.append(Node(tag, value, True))
            p += size
            continue
        end = _number(body, p)[1] if wire == 0 else p + (8 if wire == 1 else 4)
        nodes.append(Node(tag, body[p:end], False))
        p = end
    return nodes


def _number(body: bytes, p: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (body[p] & 127) << shift
        shift += 7
        p += 1
        if body[p - 1] < 128:
            return value, p


Mutation: TypeAlias = Callable[[random.Random, list[Node], int], None]


def _mutated(rnd: random.Random, signal: Signal, body: bytes) -> bytes:
    nodes = read(body, REQUESTS[signal].DESCRIPTOR)
    for _ in range(rnd.choice((0, 1, 1, 1, 1, 2, 3, 8))):
        places = _places(nodes)
        if not places:
            break
        siblings, i = rnd.choice(places)
        rnd.choice(MUTATIONS)(rnd, siblings, i)
    return write(nodes)


def _places(nodes: list[Node]) -> list[tuple[list[Node], int]]:
    out = []
    waiting = [nodes]
    while waiting:
        siblings = waiting.pop()
        for i, node in enumerate(siblings):
            out.append((siblings, i))
            if isinstance(node.value, list):
                waiting.append(node.value)
    return out


def _twice(rnd: random.Random, nodes: list[Node], i: int) -> None:
    nodes.insert(rnd.randrange(len(nodes) + 1), nodes[i])


def _away(rnd: random.Random, nodes: list[Node], i: int) -> None:
    del nodes[i]


def _shuffled(rnd: random.Random, nodes: list[Node], i: int) -> None:
    rnd.shuffle(nodes)


def _other_number(rnd: random.Random, nodes: list[Node], i: int) -> None:
    wire = nodes[i].tag[0] & 7 if nodes[i].tag else 3
    number = rnd.choice((*range(17), 17, 100, 2**29 - 1, 2**29, 2**40))
    nodes[i].tag = varint(number << 3 | wire)


def _other_wire(rnd: random.Random, nodes: list[Node], i: int) -> None:
    node = nodes[i]
    if node.tag:
        tag = bytes([node.tag[0] & 248 | rnd.randrange(8)]) + node.tag[1:]
        nodes[i] = Node(tag, node.value, node.is_delimited, node.lie)


def _long_tag(rnd: random.Random, nodes: list[Node], i: int) -> None:
    nodes[i].tag = _padded(rnd, nodes[i].tag)


def _odd_number(rnd: random.Random, nodes: list[Node], i: int) -> None:
    value = rnd.choice((0, 1, 127, 128, 2**31, 2**32 + 3, 2**63, 2**64 - 1, 2**64, 2**70))
    written = varint(value)
    nodes[i].value = _padded(rnd, written) if rnd.random() < 0.4 else written
    nodes[i].is_delimited = False


def _padded(rnd: random.Random, number: bytes) -> bytes:
    """Write a number longer than needed: legal up to 10 bytes."""
    if not number:  # of a group, written as one
        return b""
    n = rnd.randrange(1, 12)
    return number[:-1] + bytes([number[-1] | 128]) + b"\x80" * (n - 1) + b"\x00"


def _false_length(rnd: random.Random, nodes: list[Node], i: int) -> None:
    nodes[i].lie = rnd.choice((-9, -2, -1, 1, 2, 9, 2**31, 2**32, 2**63))


def _group(rnd: random.Random, nodes: list[Node], i: int) -> None:
    number = rnd.choice((1, 2, 5, 9, 100))
    begin, end = varint(number << 3 | 3), varint(number << 3 | 4)
    inside = write(nodes[i : i + 1]) if rnd.random() < 0.5 else b""
    depth = rnd.choice((1, 1, 2, 98, 101))
    written = rnd.choice((begin * depth + inside + end * depth, begin, end, begin + end + begin))
    nodes.insert(i, Node(b"", written, False))


def _bad_text(rnd: random.Random, nodes: list[Node], i: int) -> None:
    bad = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x00", b"")
    nodes[i].value = rnd.choice(bad) + rnd.choice((b"", b"abc", "é".encode()))
    nodes[i].is_delimited = True


def _unknown(rnd: random.Random, nodes: list[Node], i: int) -> None:
    number = rnd.choice((15, 19, 500, 2**29 - 1))
    wire = rnd.choice((0, 1, 2, 5))
    value = {0: b"\x07", 1: bytes(8), 2: b"xy", 5: bytes(4)}[wire]
    nodes.insert(i, Node(varint(number << 3 | wire), value, wire == 2))


def _deep(rnd: random.Random, nodes: list[Node], i: int) -> None:
    """Put an attribute of nested lists or maps in place of a field."""
    value = write(nodes[i : i + 1])[:50] if rnd.random() < 0.3 else b"\x0a\x01x"
    for _ in range(rnd.choice((1, 3, 30, 31, 32, 33, 45, 50, 120))):
        if rnd.random() < 0.5:
            inside = b"\x0a" + varint(len(value)) + value
            value = b"\x2a" + varint(len(inside)) + inside
        else:
            pair = b"\x0a\x01k\x12" + varint(len(value)) + value
            inside = b"\x0a" + varint(len(pair)) + pair
            value = b"\x32" + varint(len(inside)) + inside
    attribute = b"\x0a\x01d\x12" + varint(len(value)) + value
    nodes[i] = Node(nodes[i].tag if rnd.random() < 0.5 else b"\x4a", attribute, True)


def _double(rnd: random.Random, nodes: list[Node], i: int) -> None:
    value = rnd.choice((float("nan"), float("inf"), 1e-310, 1e22, 0.1))
    nodes.insert(i, Node(b"\x21", struct.pack("<d", value), False))


def _grafted(rnd: random.Random, nodes: list[Node], i: int) -> None:
    """Put a field of another request here."""
    other = read(rnd.choice(_seeds("traces")), REQUESTS["traces"].DESCRIPTOR)
    places = _places(other)
    siblings, k = rnd.choice(places)
    nodes.insert(i, siblings[k])


MUTATIONS: Final[tuple[Mutation, ...]] = (
    _twice,
    _away,
    _shuffled,
    _other_number,
    _other_wire,
    _long_tag,
    _odd_number,
    _false_length,
    _group,
    _bad_text,
    _unknown,
    _deep,
    _double,
    _grafted,
)


# ── mutations of JSON ────────────────────────────────────────────────────────────────────

ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 2**63, 2**64, 10**40, 1e400, float("nan"), "", "abc", "0x1", "12", "-5",
    "1e3", "\ud800", "=" * 5, [], {}, [None], [[]], {"stringValue": 1}, {"intValue": "9" * 30},
    {"arrayValue": {"values": [{"kvlistValue": {"values": [{"key": "k"}]}}]}}, {"bytesValue": "a"},
)  # fmt: skip
NAMES: Final = (
    "attributes", "value", "stringValue", "intValue", "doubleValue", "traceId", "span_id", "kind",
    "startTimeUnixNano", "spans", "scopeSpans", "body", "arrayValue", "kvlistValue", "status", "x",
)  # fmt: skip


def _mutate_document(rnd: random.Random, document: Any) -> None:
    containers = [document]
    for node in containers:
        children = node.values() if isinstance(node, dict) else node
        containers += [child for child in children if isinstance(child, (dict, list)) and child]
    node = rnd.choice(containers)
    keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
        return
    key = rnd.choice(keys)
    match rnd.randrange(5):
        case 0:
            del node[key]
        case 2 if isinstance(node, dict):
            node[rnd.choice(NAMES)] = copy.deepcopy(node[key])
        case 3:
            deep: Any = node[key]
            for _ in range(rnd.choice((1, 2, 60, 150))):
                deep = [deep] if rnd.random() < 0.5 else {rnd.choice(NAMES): deep}
            node[key] = deep
        case _:
            node[key] = copy.deepcopy(rnd.choice(ODD))


# ── the run ──────────────────────────────────────────────────────────────────────────────


def run(seed: int, numbers: range) -> dict[str, Any]:
    """Run inputs; return counts and what was found."""
    found: list[str] = []
    counts: Counter[str] = Counter()
    slowest = (0.0, -1)
    begun = time.monotonic()
    for number in numbers:
        case = inputs(seed, number)
        start = time.perf_counter()
        try:
            reason = problem(case, thorough=number % THOROUGH_EVERY == 0)
        except Exception as error:  # what is looked for
            reason = f"{type(error).__name__}: {error}"
        slowest = max(slowest, (time.perf_counter() - start, number))
        counts[f"{case.signal}{'_json' if case.is_json else ''}"] += 1
        if reason:
            found.append(f"input {number}: {reason[:2000]}")
            print(found[-1], file=sys.stderr)
        if number % 20_000 == 0 and number:
            rate = (number - numbers.start) / (time.monotonic() - begun)
            print(f"{number:,} inputs, {rate:,.0f} a second", file=sys.stderr)
    return {
        "inputs": len(numbers),
        "problems": len(found),
        "first": found[:5],
        "slowest_ms": round(slowest[0] * 1000, 1),
        "slowest_input": slowest[1],
        **counts,
    }


def main() -> None:
    """Run and print; exit 1 when something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", type=int, help="run this one input alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    warm()
    numbers = range(options.start, options.start + options.inputs)
    if options.only is not None:
        numbers = range(options.only, options.only + 1)
    figures = run(options.seed, numbers)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:16}{value}")
    sys.exit(1 if figures["problems"] else 0)


if __name__ == "__main__":
    main()

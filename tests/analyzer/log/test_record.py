from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmobs.analyzer.log.record import HEADER_BYTES, Damage, Record, pack, scan
from llmobs.records import Signal

signals: st.SearchStrategy[Signal] = st.sampled_from(["traces", "logs", "metrics"])
requests = st.lists(st.tuples(signals, st.binary(max_size=200)), max_size=6)


def _packed(items: list[tuple[Signal, bytes]]) -> list[bytes]:
    return [record.header + record.request for record in (pack(*item) for item in items)]


def _found(data: bytes) -> list[tuple[Signal, bytes]]:
    return [(r.signal, r.request) for _, r in scan(data) if isinstance(r, Record)]


@given(requests)
def test_records_come_back_as_they_were_packed(items: list[tuple[Signal, bytes]]) -> None:
    assert _found(b"".join(_packed(items))) == items


@given(requests, st.data())
def test_a_torn_end_costs_only_the_last_record(
    items: list[tuple[Signal, bytes]], data: st.DataObject
) -> None:
    parts = _packed([*items, ("logs", b"the last one")])
    keep = data.draw(st.integers(0, len(parts[-1]) - 1))
    assert _found(b"".join(parts[:-1]) + parts[-1][:keep]) == items


@given(st.data())
def test_one_flipped_bit_costs_one_record_and_is_reported(data: st.DataObject) -> None:
    items: list[tuple[Signal, bytes]] = [("traces", b"a" * 50), ("logs", b"b" * 50), ("logs", b"c")]
    parts = _packed(items)
    middle = bytearray(parts[1])
    bit = data.draw(st.integers(0, 8 * len(middle) - 1))
    middle[bit // 8] ^= 1 << bit % 8
    found = list(scan(parts[0] + bytes(middle) + parts[2]))
    damage = Damage(len(parts[0]), len(parts[0]) + len(parts[1]))
    assert [item for _, item in found if isinstance(item, Damage)] == [damage]
    assert _found(parts[0] + bytes(middle) + parts[2]) == [items[0], items[2]]


@given(st.binary(max_size=500))
def test_any_bytes_can_be_scanned_and_are_covered_without_a_gap(noise: bytes) -> None:
    at = 0
    for end, item in scan(noise):
        start = item.start if isinstance(item, Damage) else end - len(item)
        assert start == at
        at = end
    assert at == len(noise)


def test_the_same_bytes_of_two_signals_are_two_requests() -> None:
    assert pack("traces", b"x").digest != pack("logs", b"x").digest
    assert pack("traces", b"x").digest == pack("traces", b"x").digest


def test_a_record_costs_32_bytes() -> None:
    assert HEADER_BYTES == 32
    assert len(pack("metrics", b"12345")) == 37

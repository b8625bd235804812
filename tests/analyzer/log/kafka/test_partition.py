from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs.analyzer.log.kafka.partition import Partition
from llmobs.records import Segment, first_number

SOURCE = 7
FIRST = first_number(SOURCE)


def _partition(
    start: int = 0, *, segment_bytes: int = 100, segment_age_s: float = 1.0
) -> Partition:
    return Partition(
        SOURCE, "traces", start, segment_bytes=segment_bytes, segment_age_s=segment_age_s
    )


def _store_all(partition: Partition) -> list[Segment]:
    segments = []
    for number in partition.sealed():
        segments.append(partition.read(number))
        assert partition.remove(number)
    return segments


def test_a_segment_is_sealed_before_it_would_grow_too_large() -> None:
    partition = _partition()
    for offset in range(5):
        partition.add(offset, b"x" * 40, now=0.0)
    partition.seal_if_due(0.0)
    assert partition.sealed() == [FIRST, FIRST + 2]
    first = partition.read(FIRST)
    assert first.requests == (("traces", b"x" * 40),) * 2
    assert first.until == FIRST + 2


def test_a_segment_is_sealed_at_its_age() -> None:
    partition = _partition()
    partition.add(0, b"x", now=10.0)
    partition.add(1, b"x", now=10.9)
    partition.seal_if_due(10.99)
    assert partition.sealed() == []
    partition.seal_if_due(11.0)
    assert partition.sealed() == [FIRST]
    assert partition.oldest_since() == 11.0


def test_segments_grow_while_the_engine_is_behind() -> None:
    partition = _partition()
    for offset in range(10):
        partition.add(offset, b"x", now=offset * 2.0)
        partition.seal_if_due(offset * 2.0 + 1)
    assert len(partition.sealed()) == 4
    assert [len(segment.requests) for segment in _store_all(partition)] == [1] * 4
    partition.seal_if_due(20.0)
    assert [len(segment.requests) for segment in _store_all(partition)] == [6]


def test_a_record_larger_than_a_segment_is_a_segment_of_its_own() -> None:
    partition = _partition()
    for offset, size in enumerate((10, 500, 10)):
        partition.add(offset, b"x" * size, now=0.0)
    partition.seal(0.0)
    sizes = [[len(request) for _, request in segment.requests] for segment in _store_all(partition)]
    assert sizes == [[10], [500], [10]]


def test_a_record_that_comes_again_is_taken_once() -> None:
    partition = _partition(start=3)
    for offset in (2, 3, 4, 3, 4, 5):
        partition.add(offset, b"%d" % offset, now=0.0)
    partition.seal(0.0)
    (segment,) = _store_all(partition)
    assert [request for _, request in segment.requests] == [b"3", b"4", b"5"]
    assert (segment.number, segment.until) == (FIRST + 3, FIRST + 6)


def test_the_first_segment_of_a_holder_may_be_stored_and_so_may_one_read_twice() -> None:
    partition = _partition(segment_bytes=1)
    for offset in range(3):
        partition.add(offset, b"x", now=0.0)
    partition.seal(0.0)
    assert partition.read(FIRST).may_be_stored
    assert partition.remove(FIRST)
    assert not partition.read(FIRST + 1).may_be_stored
    assert partition.read(FIRST + 1).may_be_stored
    assert partition.remove(FIRST + 1)
    assert not partition.read(FIRST + 2).may_be_stored


def test_a_segment_that_was_not_read_here_is_not_removed() -> None:
    partition = _partition()
    partition.add(0, b"x", now=0.0)
    partition.seal(0.0)
    assert not partition.remove(FIRST)
    assert partition.sealed() == [FIRST]


def test_a_partition_that_leaves_keeps_only_what_is_being_stored() -> None:
    partition = _partition(segment_bytes=1)
    for offset in range(3):
        partition.add(offset, b"x", now=0.0)
    partition.read(FIRST)
    partition.leave()
    assert partition.sealed() == [FIRST]
    assert partition.is_being_stored()
    assert partition.remove(FIRST)
    assert not partition.is_being_stored()
    assert partition.stored_offset == 1
    with pytest.raises(KeyError):
        partition.read(FIRST + 1)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 60)), min_size=1, max_size=40),
    st.integers(1, 120),
    st.integers(0, 1000),
)
def test_segments_hold_every_record_once_in_order_and_tile_the_offsets(
    records: list[tuple[int, int]], segment_bytes: int, start: int
) -> None:
    partition = _partition(start, segment_bytes=segment_bytes)
    offset = start - 1
    sent = []
    for gap, size in records:
        offset += gap
        sent.append((offset, bytes([offset % 256]) * size))
        partition.add(*sent[-1], now=0.0)
    partition.seal(0.0)
    segments = _store_all(partition)
    assert [request for s in segments for _, request in s.requests] == [r for _, r in sent]
    assert [s.number for s in segments] == sorted({s.number for s in segments})
    assert all(a.until <= b.number for a, b in itertools.pairwise(segments))
    assert segments[0].number == FIRST + sent[0][0]
    assert partition.stored_offset == partition.next_offset == offset + 1
    assert partition.waiting_bytes == 0
    for segment in segments:
        size = sum(len(request) for _, request in segment.requests)
        assert size <= segment_bytes or len(segment.requests) == 1 or not size

from __future__ import annotations

import threading
import time

import pytest

from llmobs.analyzer.log.kafka.shelf import Shelf
from llmobs.records import first_number


def _shelf(*, n_partitions: int = 2, max_bytes: int = 1000) -> Shelf:
    shelf = Shelf(segment_bytes=10, segment_age_s=0.0, max_bytes=max_bytes)
    for source in range(n_partitions):
        shelf.begin(source, "traces", 0)
    return shelf


def _serve(shelf: Shelf) -> int:
    number = shelf.sealed()[0]
    shelf.read(number)
    shelf.remove(number)
    return number


def test_partitions_take_turns_however_much_one_has() -> None:
    shelf = _shelf()
    for offset in range(3):
        shelf.add(0, offset, b"x" * 10)
    shelf.seal_due()
    assert _serve(shelf) == 0
    for offset in range(2):
        shelf.add(1, offset, b"x" * 10)
    shelf.seal_due()
    one = first_number(1)
    assert [_serve(shelf) for _ in range(4)] == [one, 1, one + 1, 2]


def test_each_partition_may_use_its_share_and_has_room_again_at_half_of_it() -> None:
    shelf = _shelf(n_partitions=4, max_bytes=160)  # 40 each
    assert [shelf.add(0, offset, b"x" * 10) for offset in range(4)] == [False] * 3 + [True]
    assert shelf.with_room([0, 1]) == {1}
    _serve(shelf)
    assert shelf.with_room([0]) == set()
    _serve(shelf)
    assert shelf.with_room([0]) == {0}


def test_a_record_of_a_partition_that_is_not_here_is_ignored() -> None:
    shelf = _shelf()
    assert not shelf.add(7, 0, b"x")
    assert shelf.next_offset(7) is None
    assert shelf.stats()["n_records"] == 0


def test_what_leaves_is_waited_for_while_it_is_stored_and_the_rest_is_dropped() -> None:
    shelf = _shelf()
    for offset in range(3):
        shelf.add(0, offset, b"x" * 10)
    shelf.seal_due()
    shelf.read(0)
    assert shelf.leave([0], timeout_s=0.01) == 1
    assert shelf.sealed() == []
    storing = threading.Timer(0.2, shelf.remove, [0])
    storing.start()
    started = time.monotonic()
    assert shelf.leave([0], timeout_s=20) == 0
    assert 0.1 < time.monotonic() - started < 10
    storing.join()
    assert shelf.stored()[0] == 1
    with pytest.raises(FileNotFoundError):
        shelf.read(1)


def test_nobody_waits_for_a_segment_any_more_when_the_shelf_is_stopped() -> None:
    shelf = _shelf()
    shelf.add(0, 0, b"x")
    shelf.seal_due()
    shelf.read(0)
    stopping = threading.Timer(0.1, shelf.stop)
    stopping.start()
    assert shelf.leave([0], timeout_s=20) == 1
    stopping.join()


def test_a_segment_that_is_stored_after_its_partition_left_is_counted() -> None:
    shelf = _shelf()
    shelf.add(0, 0, b"x")
    shelf.seal_due()
    shelf.read(0)
    shelf.drop([0])
    shelf.remove(0)
    assert shelf.stats()["n_late"] == 1


def test_a_late_removal_does_not_touch_what_the_partition_holds_when_it_is_back() -> None:
    shelf = _shelf()
    shelf.add(0, 0, b"x")
    shelf.seal_due()
    shelf.read(0)
    shelf.drop([0])
    shelf.begin(0, "traces", 0)
    shelf.add(0, 0, b"x")
    shelf.add(0, 1, b"y")
    shelf.seal_due()
    shelf.remove(0)  # of the time before: a shorter segment of the same number
    assert len(shelf.read(0).requests) == 2
    assert shelf.stats()["n_late"] == 1
    shelf.remove(0)
    shelf.remove(0)  # twice is fine
    assert shelf.stats()["n_late"] == 1

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from llmobs.analyzer.store import open_store
from tests.analyzer.store.deleting import N_SEGMENTS
from tests.analyzer.store.rows import NO_METRICS, events, generated
from tests.analyzer.store.test_append import assert_rollup_equals_a_recount, numbers

N_KILLS = 4


def test_nothing_is_lost_or_counted_twice_when_the_process_is_killed(tmp_path: Path) -> None:
    chance = random.Random(4)
    done = tmp_path / "done"
    n_done = 0
    for _ in range(N_KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.analyzer.store.crashing", str(tmp_path), str(n_done)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"up\n"
            # At least one segment more, or a slow machine would only ever see openings.
            while not done.exists() or len(done.read_bytes().splitlines()) <= n_done:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.wait()
        acknowledged = [int(line) for line in done.read_bytes().splitlines()]
        assert acknowledged == list(range(len(acknowledged)))
        n_done = len(acknowledged)

    store = open_store(f"chdb://{tmp_path / 'store'}")
    store.hold([0])
    last = events({"body": str(n_done)})
    store.append(n_done, generated(n_done), last, NO_METRICS, replay=True)
    expected = [[segment, 50] for segment in range(n_done + 1)]
    by_segment = "SELECT seg, count() FROM {} GROUP BY seg ORDER BY seg"
    assert numbers(store, by_segment.format("spans")) == expected
    assert numbers(store, by_segment.format("segments")) == [[seg, 1] for seg, _ in expected]
    assert numbers(store, by_segment.format("events")) == [[seg, 1] for seg, _ in expected]
    assert numbers(store, "SELECT uniqExact(trace_id, span_id) FROM spans") == [
        [50 * len(expected)]
    ]
    assert_rollup_equals_a_recount(store)
    assert sum(len(store.read({0: int(seg) - 1}, 1)[0]) for seg, _ in expected) == 50 * len(
        expected
    )
    store.close()


def test_a_deletion_that_a_kill_cut_off_is_waited_for_before_minutes_are_counted_again(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.analyzer.store.deleting", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    store = open_store(f"chdb://{tmp_path / 'store'}")
    store.hold((0,))
    ((n_pending,),) = numbers(store, "SELECT count() FROM system.mutations WHERE NOT is_done")
    assert n_pending == 0
    ((n_spans,),) = numbers(store, "SELECT count() FROM spans")
    assert 0 < n_spans < 50 * N_SEGMENTS
    assert_rollup_equals_a_recount(store)
    store.close()


def test_a_change_that_a_full_disk_left_empty_does_not_keep_the_store_from_opening(
    tmp_path: Path,
) -> None:
    store = open_store(f"chdb://{tmp_path / 'store'}")
    store.append(0, generated(0), events({}), NO_METRICS)
    store.drop_scores({})  # leaves changes of rows on the disk
    store.close()
    written = [path for path in tmp_path.rglob("mutation_*.txt") if path.stat().st_size]
    assert written
    for path in {path.parent for path in written}:
        (path / "mutation_99.txt").touch()

    store = open_store(f"chdb://{tmp_path / 'store'}")
    assert store.sizes()["spans"] == 50
    store.close()
    assert all(path.exists() for path in written)


def test_segments_that_come_back_after_a_power_cut_are_stored_once(tmp_path: Path) -> None:
    """Their removal from the log was not yet on its disk; the last of them was half stored."""
    store = open_store(f"chdb://{tmp_path / 'store'}")
    store.hold((0,))
    for segment in range(4):
        store.append(segment, generated(segment), events({"body": str(segment)}), NO_METRICS)
    store._insert("spans", 4, generated(4).table)
    store.close()

    store = open_store(f"chdb://{tmp_path / 'store'}")
    store.hold((0,))
    for segment in range(1, 6):  # the reader has doubts about the first of them alone
        store.append(
            segment,
            generated(segment),
            events({"body": str(segment)}),
            NO_METRICS,
            replay=segment == 1,
        )
    for table, n in (("spans", 50), ("events", 1), ("segments", 1)):
        assert numbers(store, f"SELECT seg, count() FROM {table} GROUP BY seg ORDER BY seg") == [
            [segment, n] for segment in range(6)
        ]
    assert_rollup_equals_a_recount(store)
    store.close()

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from llmobs.analyzer.store import open_store
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

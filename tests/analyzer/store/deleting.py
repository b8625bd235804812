"""A process that is killed within a deletion: python -m … DIRECTORY.

The engine has noted the deletion and not carried it out: it goes on with it by itself when it
is opened again.
"""

from __future__ import annotations

import os
import signal
import sys

from llmobs.analyzer.store import open_store
from llmobs.analyzer.store.clickhouse import _minutes
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, generated

N_SEGMENTS = 20

if __name__ == "__main__":
    store = open_store(f"chdb://{sys.argv[1]}/store")
    store.hold((0,))
    minutes: set[int] = set()
    for segment in range(N_SEGMENTS):
        spans = generated(segment)
        store.append(segment, spans, NO_EVENTS, NO_METRICS)
        minutes |= set(_minutes(spans.table))
    # As `delete_user` does it, up to the middle of its deletion.
    store._note_stale(0, sorted(minutes))
    store._clients.command("SYSTEM STOP MERGES spans")
    # A condition that takes long, so that it is not done before somebody counts.
    store._clients.command(
        "DELETE FROM spans WHERE reinterpretAsUInt64(span_id) % 2 = 0 AND sleepEachRow(0.001) = 0 "
        "SETTINGS lightweight_deletes_sync = 0, mutations_sync = 0"
    )
    os.kill(os.getpid(), signal.SIGKILL)

"""A process that appends segments until it is killed: python -m … DIRECTORY FIRST_SEGMENT.

As the pipeline does: a segment that a former life may have begun is replayed, the others are
new. What is done is written to a file beside the store.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llmobs.analyzer.store import open_store
from tests.analyzer.store.rows import NO_METRICS, events, generated

if __name__ == "__main__":
    directory, first = Path(sys.argv[1]), int(sys.argv[2])
    store = open_store(f"chdb://{directory / 'store'}")
    done = os.open(directory / "done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    print("up", flush=True)
    for segment in range(first, 10**6):
        # The first was left over: nobody knows how far the former life came with it.
        store.append(
            segment,
            generated(segment),
            events({"body": str(segment)}),
            NO_METRICS,
            replay=segment == first,
        )
        os.write(done, b"%d\n" % segment)

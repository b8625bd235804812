"""The log: acknowledged requests as segment files on disk, between the receiver and the engine.

The two ends run in different processes and meet only at a directory:

    NNNNNNNNNNNN.open      the segment that is being written (one at most)
    NNNNNNNNNNNN.seg       sealed: complete, never changes, waits for the engine
    next                   the first number that was never used
    recent-N.hashes        hashes of the requests of the last minutes
    lock                   held by the writer as long as it lives

What is promised, kill -9 and power cuts at any moment included:

1. An acknowledged request is in exactly one segment, `.open` or `.seg`, until the engine
   removes that segment.
2. A segment number is used once. A segment that comes back after a crash (its removal was not
   yet on disk) has the same number and the same requests.
3. A byte-identical retry is stored once, as long as the first copy is at most ten minutes
   old and among the last 100,000 requests. This holds across restarts of the writer, for
   requests that were on disk but not acknowledged, and when the engine has already removed
   the segment: a segment's hashes are on disk *before* the segment is sealed, and the engine
   sees sealed segments only. The hashes of the segment that was still open are read from it.
4. A request that was refused is not in the log, with one exception: the disk fails, then fails
   to cut off what it wrote, and the writer is killed before it could try again. The request
   is then stored after all, and its retry is recognised.
"""

from llmobs.analyzer.log.base import LogReader, LogWriter
from llmobs.analyzer.log.reader import SegmentReader
from llmobs.analyzer.log.writer import SegmentWriter

__all__ = ["LogReader", "LogWriter", "SegmentReader", "SegmentWriter"]

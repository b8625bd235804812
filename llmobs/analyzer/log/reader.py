"""The engine's end of the log: sealed segments, oldest first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from llmobs.analyzer.log.aside import Aside
from llmobs.analyzer.log.files import (
    SEALED_SUFFIX,
    backlog,
    make_directory,
    segment_path,
    segments,
)
from llmobs.analyzer.log.record import Damage, scan
from llmobs.records import Segment, Signal, first_number

__all__ = ["SegmentReader"]

logger = logging.getLogger(__name__)

# Looking costs about 0.1 ms; this adds little to the half second a segment takes to be sealed.
_POLL_S: Final = 0.05


class SegmentReader:
    """Reads sealed segments of a directory that another process writes; a `LogReader`.

    Any thread may call it.
    """

    def __init__(
        self, directory: Path, aside: Path, *, source: int = 0, max_aside_bytes: int = 256 << 20
    ) -> None:
        """Take the two directories, made where they are missing.

        Args:
            directory: That of the `SegmentWriter`.
            aside: For requests that can't be stored, to be looked at by a person.
            source: Tells this log from those of other analyzers with the same store.
            max_aside_bytes: Size of all that is set aside; what comes after is only counted.

        Raises:
            ConfigurationError: A directory can't be made.
        """
        make_directory(directory)
        self._directory = directory
        self._aside = Aside(aside, max_bytes=max_aside_bytes)
        self._source, self._first = source, first_number(source)
        self._lock = threading.Lock()  # guards what follows
        self._known: frozenset[int] = frozenset()
        # Segments are stored in order, one at a time: what a former process was at when it died
        # is the lowest that it left behind.
        self._doubtful = min(segments(directory, SEALED_SUFFIX), default=None)
        self._n_corrupt = 0

    def sources(self) -> Collection[int]:
        """Return the one source."""
        return (self._source,)

    def sealed(self) -> Sequence[int]:
        """Return the numbers of the sealed segments that are still kept, ascending."""
        numbers = segments(self._directory, SEALED_SUFFIX)
        with self._lock:
            self._known = frozenset(numbers)
        return [self._first + number for number in numbers]

    def wait(self, timeout_s: float) -> None:
        """Return when there is a segment that the last `sealed()` did not return.

        Returns after `timeout_s` at the latest.
        """
        until = time.monotonic() + timeout_s
        with self._lock:
            known = self._known
        while known.issuperset(segments(self._directory, SEALED_SUFFIX)):
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(_POLL_S, left_s))

    def read(self, number: int) -> Segment:
        """Read one sealed segment; what is corrupt is set aside and counted.

        Raises:
            FileNotFoundError: It was removed.
        """
        name = number - self._first
        with self._lock:
            may_be_stored = name == self._doubtful
            self._doubtful = name  # until it is removed
        return Segment(number, self._requests(name), may_be_stored=may_be_stored)

    def _requests(self, number: int) -> tuple[tuple[Signal, bytes], ...]:
        data = segment_path(self._directory, number, SEALED_SUFFIX).read_bytes()
        requests: list[tuple[Signal, bytes]] = []
        for _, item in scan(data):
            if isinstance(item, Damage):
                self._keep_damage(number, item, data)
            else:
                requests.append((item.signal, item.request))
        return tuple(requests)

    def set_aside(self, number: int, index: int, reason: str) -> None:
        """Keep request `index` of a segment in a file of its own, for a person to look at.

        The request lands in ``NUMBER-INDEX.SIGNAL.pb``, the reason beside it in a `.json`.
        Asking for the same request again changes nothing.

        Raises:
            OSError: The disk refuses; the segment should not be removed then.
        """
        number -= self._first
        request = self._requests(number)[index]
        self._aside.keep_request(number, index, request, reason)

    def remove(self, number: int) -> None:
        """Forget a segment: its content is stored elsewhere, durably.

        After a power cut it may be back, under the same number.
        """
        segment_path(self._directory, number - self._first, SEALED_SUFFIX).unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: files are open only while they are read."""

    def problem(self) -> str | None:
        """Return None: what can't be read is set aside."""
        return None

    def stats(self) -> dict[str, float]:
        """Return counters since the start and gauges of now.

        ``n_corrupt`` damaged stretches and ``n_set_aside`` requests were set aside,
        ``n_aside_dropped`` of both found no room; gauges: ``bytes_aside``, ``n_segments``,
        ``bytes_on_disk`` and ``oldest_segment_age_s``.
        """
        waiting = backlog(self._directory)
        with self._lock:
            n_corrupt = self._n_corrupt
        return {
            **self._aside.stats(),
            "n_corrupt": n_corrupt,
            "n_segments": waiting.n_segments,
            "bytes_on_disk": waiting.size_bytes,
            "oldest_segment_age_s": waiting.oldest_age_s,
        }

    def _keep_damage(self, number: int, damage: Damage, data: bytes) -> None:
        name = f"{number:012d}-at-{damage.start}.damaged"
        about = {"segment": number, "start": damage.start, "end": damage.end}
        if self._aside.keep(name, data[damage.start : damage.end], {**about, "reason": "checksum"}):
            with self._lock:
                self._n_corrupt += 1
            logger.error("segment damaged", extra={**about, "file": name})

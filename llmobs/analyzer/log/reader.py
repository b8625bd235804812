"""The engine's end of the log: sealed segments, oldest first."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from llmobs.analyzer.log.files import (
    SEALED_SUFFIX,
    backlog,
    make_directory,
    replace_file,
    segment_path,
    segments,
)
from llmobs.analyzer.log.record import Damage, scan
from llmobs.records import Segment, Signal

__all__ = ["SegmentReader"]

logger = logging.getLogger(__name__)

# Looking costs about 0.1 ms; this adds little to the half second a segment takes to be sealed.
_POLL_S: Final = 0.05


class SegmentReader:
    """Reads sealed segments of a directory that another process writes; a `LogReader`.

    Any thread may call it.
    """

    def __init__(self, directory: Path, aside: Path, *, max_aside_bytes: int = 256 << 20) -> None:
        """Take the two directories, made where they are missing.

        Args:
            directory: That of the `SegmentWriter`.
            aside: For requests that can't be stored, to be looked at by a person.
            max_aside_bytes: Size of all that is set aside; what comes after is only counted.

        Raises:
            ConfigurationError: A directory can't be made.
        """
        make_directory(directory)
        make_directory(aside)
        self._directory = directory
        self._aside = aside
        self._max_aside_bytes = max_aside_bytes
        self._lock = threading.Lock()  # guards what follows
        self._known: frozenset[int] = frozenset()
        self._aside_bytes = sum(path.stat().st_size for path in aside.iterdir())
        self._n_corrupt = self._n_set_aside = self._n_aside_dropped = 0

    def sealed(self) -> Sequence[int]:
        """Return the numbers of the sealed segments that are still kept, ascending."""
        numbers = segments(self._directory, SEALED_SUFFIX)
        with self._lock:
            self._known = frozenset(numbers)
        return numbers

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
        data = segment_path(self._directory, number, SEALED_SUFFIX).read_bytes()
        requests: list[tuple[Signal, bytes]] = []
        for _, item in scan(data):
            if isinstance(item, Damage):
                self._keep_damage(number, item, data)
            else:
                requests.append((item.signal, item.request))
        return Segment(number=number, requests=tuple(requests))

    def set_aside(self, number: int, index: int, reason: str) -> None:
        """Keep request `index` of a segment in a file of its own, for a person to look at.

        The request lands in ``NUMBER-INDEX.SIGNAL.pb``, the reason beside it in a `.json`.
        Asking for the same request again changes nothing.

        Raises:
            OSError: The disk refuses; the segment should not be removed then.
        """
        signal, request = self.read(number).requests[index]
        name = f"{number:012d}-{index}.{signal}.pb"
        about = {"segment": number, "index": index, "signal": signal, "reason": reason}
        if self._keep(name, request, about):
            with self._lock:
                self._n_set_aside += 1
            logger.warning("request set aside", extra={**about, "file": name})

    def remove(self, number: int) -> None:
        """Forget a segment: its content is stored elsewhere, durably.

        After a power cut it may be back, under the same number.
        """
        segment_path(self._directory, number, SEALED_SUFFIX).unlink(missing_ok=True)

    def stats(self) -> dict[str, float]:
        """Return counters since the start and gauges of now.

        ``n_corrupt`` damaged stretches and ``n_set_aside`` requests were set aside,
        ``n_aside_dropped`` of both found no room; gauges: ``bytes_aside``, ``n_segments``,
        ``bytes_on_disk`` and ``oldest_segment_age_s``.
        """
        waiting = backlog(self._directory)
        with self._lock:
            return {
                "n_corrupt": self._n_corrupt,
                "n_set_aside": self._n_set_aside,
                "n_aside_dropped": self._n_aside_dropped,
                "bytes_aside": self._aside_bytes,
                "n_segments": waiting.n_segments,
                "bytes_on_disk": waiting.size_bytes,
                "oldest_segment_age_s": waiting.oldest_age_s,
            }

    def _keep_damage(self, number: int, damage: Damage, data: bytes) -> None:
        name = f"{number:012d}-at-{damage.start}.damaged"
        about = {"segment": number, "start": damage.start, "end": damage.end}
        if self._keep(name, data[damage.start : damage.end], {**about, "reason": "checksum"}):
            with self._lock:
                self._n_corrupt += 1
            logger.error("segment damaged", extra={**about, "file": name})

    def _keep(self, name: str, content: bytes, about: Mapping[str, object]) -> bool:
        """Put content and facts beside each other; False when there already or no room."""
        path = self._aside / name
        if path.exists():
            return False
        facts = json.dumps(dict(about)).encode()
        size = len(content) + len(facts)
        with self._lock:
            has_room = self._aside_bytes + size <= self._max_aside_bytes
            if has_room:
                self._aside_bytes += size
            else:
                self._n_aside_dropped += 1
        if not has_room:
            logger.error("no room to set aside", extra={**about, "directory": str(self._aside)})
            return False
        try:
            replace_file(path.with_name(f"{name}.json"), facts)
            replace_file(path, content)
        except OSError:
            with self._lock:
                self._aside_bytes -= size  # else trying again and again would use up the room
            raise
        return True

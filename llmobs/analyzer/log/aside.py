"""What can't be stored: kept in files of its own, for a person to look at."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from llmobs.analyzer.log.files import make_directory, replace_file
from llmobs.records import Signal

__all__ = ["Aside"]

logger = logging.getLogger(__name__)


class Aside:
    """A bounded directory of requests and damaged bytes, each with the reason beside it.

    Any thread may call it.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        """Take the directory, made where it is missing.

        Args:
            directory: What it holds already counts.
            max_bytes: Size of all that is kept; what comes after is only counted.

        Raises:
            ConfigurationError: The directory can't be made.
        """
        make_directory(directory)
        self._directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # guards what follows
        self._bytes = sum(path.stat().st_size for path in directory.iterdir())
        self._n_requests = self._n_dropped = 0

    def keep_request(
        self, number: int, index: int, request: tuple[Signal, bytes], reason: str
    ) -> None:
        """Keep request `index` of segment `number`.

        It lands in ``NUMBER-INDEX.SIGNAL.pb``, the reason beside it in a `.json`. Asking for
        the same request again changes nothing.

        Raises:
            OSError: The disk refuses; the segment should not be removed then.
        """
        signal, content = request
        name = f"{number:012d}-{index}.{signal}.pb"
        about = {"segment": number, "index": index, "signal": signal, "reason": reason}
        if self.keep(name, content, about):
            with self._lock:
                self._n_requests += 1
            logger.warning("request set aside", extra={**about, "file": name})

    def keep(self, name: str, content: bytes, about: Mapping[str, object]) -> bool:
        """Put content and facts beside each other; False when there already or no room.

        Raises:
            OSError: The disk refuses.
        """
        path = self._directory / name
        if path.exists():
            return False
        facts = json.dumps(dict(about)).encode()
        size = len(content) + len(facts)
        with self._lock:
            has_room = self._bytes + size <= self._max_bytes
            if has_room:
                self._bytes += size
            else:
                self._n_dropped += 1
        if not has_room:
            logger.error("no room to set aside", extra={**about, "directory": str(self._directory)})
            return False
        try:
            replace_file(path.with_name(f"{name}.json"), facts)
            replace_file(path, content)
        except OSError:
            with self._lock:
                self._bytes -= size  # else trying again and again would use up the room
            raise
        return True

    def stats(self) -> dict[str, float]:
        """Return counters since the start and the size of what is kept.

        ``n_set_aside`` requests; ``n_aside_dropped`` of these and others found no room;
        ``bytes_aside``.
        """
        with self._lock:
            return {
                "n_set_aside": self._n_requests,
                "n_aside_dropped": self._n_dropped,
                "bytes_aside": self._bytes,
            }

"""How far a replay has come, on disk: an interrupted one goes on where it was."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Final

from llmobs.errors import ConfigurationError

__all__ = ["Journal"]

_NAME: Final = ".llmobs-replay.json"
_EVERY_S: Final = 1.0  # what an interruption repeats; the server knows it by its ids


class Journal:
    """Where to go on in each file; kept beside the files until all is sent.

    Args:
        source: The first file or folder of the replay.
        endpoint: Where it is sent to.
        resume: Go on where the last replay of these files to this place stopped.

    Raises:
        ConfigurationError: The file of an earlier replay can't be read.
    """

    def __init__(self, source: Path, endpoint: str, *, resume: bool) -> None:
        self.path = (source if source.is_dir() else source.parent) / _NAME
        self._endpoint = endpoint
        self._ends: dict[str, dict[str, int]] = {}
        self._written = time.monotonic()
        if resume and self.path.exists():
            self._read()

    def _read(self) -> None:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
            if known["endpoint"] == self._endpoint:
                self._ends = {
                    name: {"end": int(at["end"]), "size_bytes": int(at["size_bytes"])}
                    for name, at in known["files"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{str(self.path)!r} does not say how far a replay came ({error}); remove it to "
                "begin anew"
            ) from error

    def start_of(self, file: Path) -> int:
        """Return where to begin in a file: 0 in one that was not begun, or was replaced."""
        known = self._ends.get(str(file.absolute()))
        if known is None or file.stat().st_size < known["size_bytes"]:
            return 0
        return known["end"]

    def note(self, file: Path, end: int) -> None:
        """Remember that a file is sent up to here."""
        self._ends[str(file.absolute())] = {"end": end, "size_bytes": file.stat().st_size}
        if time.monotonic() - self._written > _EVERY_S:
            self.write()

    def write(self) -> None:
        """Put it on disk; in a folder that takes no file, an interrupted replay begins anew."""
        content = json.dumps({"endpoint": self._endpoint, "files": self._ends})
        fresh = self.path.with_name(f"{_NAME}.new")
        with contextlib.suppress(OSError):
            fresh.write_text(content, encoding="utf-8")
            fresh.replace(self.path)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Forget it: all is sent."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

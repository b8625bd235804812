"""Keep what goes wrong in here from reaching the user's code."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final

__all__ = ["ExportThreadFilter", "guarded", "n_faults", "note_fault", "report"]

logger = logging.getLogger("llmobs.sdk")

# One line a minute per event is enough to see a fault, and too little to flood a log.
REPORT_EVERY_S: Final = 60.0

_faults: dict[str, int] = {}
_reported_s: dict[str, float] = {}


class guarded:  # noqa: N801 - used as a statement: `with guarded("record usage"):`
    """Run a block of ours so that no `Exception` of it gets out.

    What goes wrong is counted (`n_faults`) and logged once a minute by the name of the step.
    """

    __slots__ = ("_step",)

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if kind is None:
            return False
        if not issubclass(kind, Exception):
            return False  # KeyboardInterrupt and its like belong to the user
        note_fault(self._step, kind)
        return True


def note_fault(step: str, kind: type[BaseException]) -> None:
    """Count a step that failed, and say so: where every call passes, a plain ``try`` is faster."""
    _faults[step] = _faults.get(step, 0) + 1
    report("step failed", step=step, error=kind.__name__)


def n_faults() -> int:
    """Return how many steps of ours have failed since the process began."""
    return sum(_faults.copy().values())


def report(event: str, **facts: object) -> bool:
    """Log a warning, at most once a minute per event and first fact; return whether it was due.

    Never a prompt, an answer or a key: only what callers pass as facts.
    """
    key = f"{event}:{next(iter(facts.values()), '')}"
    now_s = time.monotonic()
    if now_s - _reported_s.get(key, -REPORT_EVERY_S) < REPORT_EVERY_S:
        return False
    _reported_s[key] = now_s
    with suppress(Exception):  # a broken log handler of the application is not ours to report
        logger.warning(event, extra=facts)
    return True


class ExportThreadFilter(logging.Filter):
    """Silence the exporters' own lines about our batches; `report` tells of them once a minute.

    Args:
        thread_name: With which the names of our threads begin.
    """

    def __init__(self, thread_name: str) -> None:
        super().__init__()
        self._thread_name = thread_name

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line may pass: whether no thread of ours wrote it."""
        return not threading.current_thread().name.startswith(self._thread_name)

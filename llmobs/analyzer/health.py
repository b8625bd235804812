"""How the analyzer is: what waits in the log and in the store, what was lost, how merges stand."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from llmobs.analyzer.log.base import LogReader
from llmobs.analyzer.publish import catalogue as cat
from llmobs.analyzer.publish.metrics import Observed
from llmobs.analyzer.store.base import Store
from llmobs.errors import StoreError
from llmobs.records import Cursor

__all__ = ["Health"]

logger = logging.getLogger(__name__)

# Several may ask at once: Prometheus, the push, and every open page.
_FRESH_S: Final = 5.0
# What a log's reader counts -> reason of a loss.
_LOSSES: Final[Mapping[str, str]] = {
    "n_corrupt": "corrupt",
    "n_aside_dropped": "no_room",
    "n_expired": "expired",
}


class Health:
    """Asks log and store how they are, for `Metrics.watch`.

    Args:
        store: What is scored and watched waits here.
        log: What is stored next waits here; None in a process that stores nothing.
        stage: ``scoring`` or ``analysis``: whose `cursor` it is.
        cursor: How far that stage has come.
    """

    def __init__(
        self, store: Store, log: LogReader | None, stage: str, cursor: Callable[[], Cursor]
    ) -> None:
        self._store, self._log = store, log
        self._stage, self._cursor = stage, cursor
        self._asked = -_FRESH_S
        self._last: Observed = {}

    def __call__(self) -> Observed:
        """Return what is known now; of a store that does not answer, nothing."""
        if time.monotonic() - self._asked > _FRESH_S:
            self._last = self._ask()
            self._asked = time.monotonic()
        return self._last

    def _ask(self) -> Observed:
        waiting: dict[tuple[str, ...], float] = {}
        ages_s: dict[tuple[str, ...], float] = {}
        observed: dict[str, dict[tuple[str, ...], float]] = {
            cat.BACKLOG.name: waiting,
            cat.BACKLOG_AGE.name: ages_s,
        }
        if self._log is not None:
            stats = self._log.stats()
            waiting["ingest",] = stats["n_segments"]
            ages_s["ingest",] = stats["oldest_segment_age_s"]
            observed[cat.ASIDE.name] = {(): stats["bytes_aside"]}
            observed[cat.LOST.name] = {
                (reason,): stats[key] for key, reason in _LOSSES.items() if key in stats
            }
            if "lag_records" in stats:
                observed[cat.BROKER_LAG.name] = {(): stats["lag_records"]}
        try:
            behind = self._store.backlog(self._cursor(), self._sources())
            engine = self._store.health()
        except StoreError as error:  # whoever looks sees that it is not known
            logger.warning("the store does not say how it is", extra={"reason": str(error)})
            gone = (cat.STORE_SIZE, cat.STORE_PARTS, cat.STORE_MERGES, cat.STORE_MUTATIONS)
            return observed | {spec.name: {} for spec in gone}
        waiting[self._stage,] = behind["n_segments"]
        ages_s[self._stage,] = behind["oldest_s"]
        return observed | {
            cat.STORE_SIZE.name: {(): engine["size_bytes"]},
            cat.STORE_PARTS.name: {(): engine["parts"]},
            cat.STORE_MERGES.name: {(): engine["merges"]},
            cat.STORE_MUTATIONS.name: {(): engine["mutations"]},
        }

    def _sources(self) -> frozenset[int] | None:
        """Return the sources that the stage is about: its own ones, or those of all workers."""
        return None if self._log is None else self._store.held

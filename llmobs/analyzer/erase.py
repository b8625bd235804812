"""Forgetting a user or a session, wherever the analyzer keeps a part of them.

store      spans, scores, events; minutes are counted again; what comes late is not taken
monitors   a few texts that name a topic, in memory and in the saved state
findings   texts and trace ids that show a finding
aside      requests that could not be read: nobody can tell whose they are, so all go
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmobs.analyzer.monitor.words import MAX_TEXT
from llmobs.analyzer.store.base import Erased, Owner, Row, State, Store

__all__ = ["Eraser"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Eraser:
    """Erases in an order in which every step can be done again after a kill.

    Attributes:
        store: Told first, so that nothing comes in any more; emptied last, since it alone
            knows what the others have to look for.
        state: Holds the findings.
        monitors: Has the monitors forget, and returns when their state is written down.
        aside: Folder of requests that could not be read.
    """

    store: Store
    state: State
    monitors: Callable[[Erased], None]
    aside: Path

    def erase(self, owner: Owner, name: str) -> Row:
        """Forget all of a user or a session that began before now.

        Returns:
            n_spans deleted, n_findings that showed something of it, n_aside files removed.

        Raises:
            LlmobsError: A part failed; do it again.
        """
        erased = self.store.note_erasure(owner, name, MAX_TEXT)
        self.monitors(erased)
        n_findings = self.state.forget(erased.traces, erased.texts)
        n_aside = self._remove_aside()
        delete = self.store.delete_user if owner == "user" else self.store.delete_session
        row = {"n_spans": delete(name), "n_findings": n_findings, "n_aside": n_aside}
        logger.info("erased on request", extra={"owner": owner, **row})
        return row

    def _remove_aside(self) -> int:
        files = list(self.aside.iterdir()) if self.aside.is_dir() else []
        for file in files:
            file.unlink(missing_ok=True)
        return sum(not file.name.endswith(".json") for file in files)

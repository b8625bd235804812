"""The sessions that are going on, bounded: how many, how dear, how long."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from llmobs.analyzer.publish.columns import Codes, Labels, group
from llmobs.records import FloatArray

__all__ = ["Session", "SessionBoard"]

# The pause after which web analytics has always begun a new session.
IDLE_AFTER_S: Final = 1800.0
# About 300 bytes each: 15 MB at most.
MAX_SESSIONS: Final = 50_000


@dataclass(slots=True)
class Session:
    """One session so far."""

    service: str
    feature: str
    session_id: str
    cost_usd: float = 0.0
    n_calls: float = 0.0
    heard_s: float = 0.0


class SessionBoard:
    """Sessions by when they were last heard of; the quiet ones leave."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()

    def record(
        self,
        service: Codes,
        feature: Codes,
        session: Codes,
        *,
        costs_usd: FloatArray,
        n_calls: FloatArray,
        now_s: float,
    ) -> None:
        """Add spans of sessions; "" is no session."""
        named = np.array([bool(v) for v in session.values], bool)[session.codes]
        if not named.any():
            return
        columns = [column.where(named) for column in (service, session, feature)]
        labels, index = group(columns)
        costs = np.bincount(index, costs_usd[named], len(labels))
        calls = np.bincount(index, n_calls[named], len(labels))
        for (service_name, session_id, feature_name), cost, n in zip(
            labels, costs, calls, strict=True
        ):
            key = (service_name, session_id)
            known = self._sessions.get(key)
            if known is None:
                known = self._sessions[key] = Session(service_name, feature_name, session_id)
            known.cost_usd += float(cost)
            known.n_calls += float(n)
            known.heard_s = now_s
            self._sessions.move_to_end(key)

    def ended(self, now_s: float) -> Sequence[Session]:
        """Take out the sessions that have been quiet for half an hour, or are too many."""
        gone = []
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            quiet = now_s - session.heard_s >= IDLE_AFTER_S
            if not quiet and len(self._sessions) <= MAX_SESSIONS:
                break
            gone.append(self._sessions.pop(key))
        return gone

    def active(self) -> Counter[Labels]:
        """Count the sessions by service and feature."""
        return Counter((s.service, s.feature) for s in self._sessions.values())

    def dearest(self, limit: int = 10) -> Sequence[Session]:
        """Return the sessions with the highest cost, dearest first."""
        priced = (s for s in self._sessions.values() if s.cost_usd > 0)
        return heapq.nlargest(limit, priced, key=lambda session: session.cost_usd)

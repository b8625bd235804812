"""All monitors: batches in order go in, findings come out, and the state survives to the bit."""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import Final

import numpy as np

from llmobs.analyzer.monitor.calls import Calls, PlaceKey
from llmobs.analyzer.monitor.catalog import N_MONITORS
from llmobs.analyzer.monitor.monitor import PAUSE_S
from llmobs.analyzer.monitor.place import Place
from llmobs.analyzer.monitor.settings import MonitorSettings
from llmobs.errors import ConfigurationError
from llmobs.measures.drift import pack, unpack
from llmobs.records import Finding, MonitorStatus, Scores, SpanBatch

__all__ = ["OTHER", "Monitors"]

OTHER: Final[PlaceKey] = ("(other)", "(other)", "(other)")
"""Where the calls of places beyond `MonitorSettings.max_places` are watched together."""

# Of the layout of the state: raised with every array or field that changes.
_VERSION: Final = 2


class Monitors:
    """The monitors of every place (service, environment, feature), made as places appear.

    The same batches at the same times give the same findings with the same ids, and a restart
    from `to_state` changes nothing of that.
    """

    def __init__(self, settings: MonitorSettings | None = None) -> None:
        self.settings = settings or MonitorSettings()
        self._places: dict[PlaceKey, Place] = {}
        self._clock_ns = 0

    def observe(self, spans: SpanBatch, scores: Scores, *, now_ns: int) -> list[Finding]:
        """Judge one batch and return what was found, in a fixed order.

        Time is the time of the data, so that a backlog is judged as it would have been then.
        An empty batch says that all data has come: time is `now_ns`.

        Args:
            spans: Batches must come in order.
            scores: Of the same spans, row for row.
            now_ns: What time it is; data from the future counts as of now.
        """
        calls = Calls.of(spans, scores, now_ns)
        latest_ns = int(calls.at_ns[-1]) if len(calls) else now_ns
        # A batch of other spans only says nothing about whether calls are still to come.
        if len(calls) or not len(spans):
            # Not beyond now: this machine's clock may have been ahead, and been set right.
            self._clock_ns = min(max(self._clock_ns, latest_ns), now_ns)
        rows: dict[PlaceKey, list[int]] = {}
        admitted: dict[PlaceKey, PlaceKey] = {}
        for row, key in enumerate(calls.places):
            if key not in admitted:
                admitted[key] = self._admit(key, rows)
            rows.setdefault(admitted[key], []).append(row)
        n_monitors = N_MONITORS * max(1, len(self._places))
        findings: list[Finding] = []
        for key, place in self._places.items():
            mine = calls.take(np.array(rows[key], np.int64)) if key in rows else None
            findings += place.observe(mine, self._clock_ns, n_monitors)
        return findings

    def _admit(self, key: PlaceKey, busy: Container[PlaceKey]) -> PlaceKey:
        """Return the place that watches this key, made where there is room for it."""
        if key in self._places:
            return key
        if len(self._places) >= self.settings.max_places:
            self._make_room(busy)
        if len(self._places) >= self.settings.max_places:
            key = OTHER
        if key not in self._places:
            self._places[key] = Place(key, self.settings, self._clock_ns)
        return key

    def _make_room(self, busy: Container[PlaceKey]) -> None:
        """Forget places that fell silent: long ago, or before they had learned anything."""
        for key, place in list(self._places.items()):
            patience_s = self.settings.forget_place_s
            if not place.has_learned:
                patience_s = min(patience_s, PAUSE_S)
            if key not in busy and self._clock_ns - place.last_ns > patience_s * 1e9:
                del self._places[key]

    def renew(self, service: str, environment: str, feature: str) -> bool:
        """Forget the references of a place: what comes next is the new normal.

        Returns:
            Whether the place was known.
        """
        return self._places.pop((service, environment, feature), None) is not None

    def forget(self, traces: Collection[bytes], texts: Collection[str]) -> None:
        """Blank what is kept of the texts of some traces; what they counted for stays.

        Args:
            traces: Ids.
            texts: First `MAX_TEXT` characters of what was asked in them, for where no trace
                stands beside a text.
        """
        for place in self._places.values():
            for monitor in place.monitors:
                monitor.forget(traces, texts)

    def statuses(self, now_ns: int) -> list[MonitorStatus]:
        """Return how every monitor stands, place by place."""
        return [status for place in self._places.values() for status in place.statuses(now_ns)]

    def to_state(self) -> bytes:
        """Return the whole state as bytes."""
        places = [place.to_tree() for place in self._places.values()]
        return pack({"version": _VERSION, "clock_ns": self._clock_ns, "places": places})

    @classmethod
    def from_state(cls, state: bytes, settings: MonitorSettings | None = None) -> Monitors:
        """Go on where `to_state` was called.

        Raises:
            ConfigurationError: The bytes are no state, are damaged, or were written by another
                version of llmobs.
        """
        try:
            tree = unpack(state)
            version = tree.get("version")
            monitors = cls(settings)
            if version == _VERSION:
                monitors._clock_ns = tree["clock_ns"]
                for part in tree["places"]:
                    place = Place.from_tree(part, monitors.settings)
                    monitors._places[place.key] = place
        except Exception as error:  # whatever bytes lie there, they must not stop the engine
            raise ConfigurationError(
                f"the monitors' state can't be read ({type(error).__name__}: {error}): start "
                "without it, and references are learned anew"
            ) from error
        if version != _VERSION:
            raise ConfigurationError(
                f"the monitors' state has version {version!r}, this llmobs reads {_VERSION}: "
                "start without it, and references are learned anew"
            )
        return monitors

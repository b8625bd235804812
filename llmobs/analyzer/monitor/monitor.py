"""One monitor of one place: it learns a reference, watches, alarms, and watches again."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.monitor import words
from llmobs.analyzer.monitor.base import DriftDetector
from llmobs.analyzer.monitor.calls import PlaceKey
from llmobs.analyzer.monitor.catalog import MeanSpec, Spec
from llmobs.analyzer.monitor.settings import MonitorSettings
from llmobs.measures.drift import Tree, log_threshold
from llmobs.records import Finding, MonitorStatus

__all__ = [
    "NO_LEVEL",
    "PAUSE_S",
    "Effect",
    "Monitor",
    "Recent",
    "Units",
    "is_known",
    "reference_level",
    "started_at",
]

# Before a week is known, hours can't be told apart: routes only, gates doubled, provisional.
SEASON_S: Final = 7 * 86_400.0
PROVISIONAL_GATE: Final = 2.0
# A pause counts as learned for this long at most: neither a fortnight without traffic nor a
# first call with a wrong clock makes a whole reference out of an hour's traffic.
PAUSE_S: Final = 86_400.0
# An alarm ends after so many times the units that it took to be found.
RECOVERY_FACTOR: Final = 3
_N_RECENT: Final = 256
_N_EXAMPLES: Final = 5
_N_HISTORY: Final = 200
NO_LEVEL: Final = -(10**6)


def reference_level(elapsed_s: float, reference_s: float) -> int:
    """Return how complete a reference is: 0 when whole, -1 when half, -2 when a quarter."""
    share = elapsed_s / reference_s
    if share >= 1.0:
        return 0
    return math.floor(math.log2(share)) if share > 0 else NO_LEVEL + 1


def started_at(at_ns: npt.NDArray[np.int64], clock_ns: int) -> int:
    """Return when learning begins whose first units are these: old ones may be replayed."""
    return max(int(at_ns[0]), clock_ns - int(PAUSE_S * 1e9))


def is_known(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which rows say something: not NaN, or a code of at least 0; shape (n,)."""
    first = values if values.ndim == 1 else values[:, 0]
    return np.asarray(np.isfinite(first) & (first >= 0 if first.dtype.kind == "i" else True))


@dataclass(frozen=True, slots=True)
class Units:
    """What a monitor is given, in time order.

    Attributes:
        at_ns: Shape (n,).
        traces: Shape (n, 16), a trace that shows each unit.
        values: What the detector judges, n rows.
        learn: What the next reference learns, n rows; mostly the same as `values`.
        texts: What users asked, where a monitor shows it; else empty.
    """

    at_ns: npt.NDArray[np.int64]
    traces: npt.NDArray[np.uint8]
    values: npt.NDArray[Any]
    learn: npt.NDArray[Any]
    texts: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.at_ns)

    def where(self, mask: npt.NDArray[np.bool_]) -> Units:
        """Return some of the units."""
        if mask.all():
            return self
        rows = np.flatnonzero(mask)
        texts = [self.texts[row] for row in rows.tolist()] if self.texts else ()
        return Units(
            self.at_ns[rows], self.traces[rows], self.values[rows], self.learn[rows], texts
        )


class Recent(NamedTuple):
    """One unit that was judged lately.

    Attributes:
        value: Its value; a category or an event as a number.
        weight: How much it speaks for a change upwards (below 0: downwards).
    """

    at_ns: int
    value: float
    weight: float
    trace: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change amounts to.

    Attributes:
        summary: What moved and by how much, without place and time.
        reference: The statistic in the reference.
        current: The statistic since the onset.
        evidence: JSON-ready details.
        carriers: Recent units that show it, best first.
    """

    summary: str
    reference: float | None
    current: float | None
    evidence: Mapping[str, Any]
    carriers: Sequence[Recent]


class Reference(Protocol):
    """What a monitor learns before it watches."""

    @property
    def n_units(self) -> int:
        """Units learned."""

    def to_tree(self) -> Tree:
        """Return the state."""


class Monitor(ABC):
    """State machine around one detector: learning, watching, alarm.

    Attributes:
        spec: What is watched.
        place: Where.
        reference: What is being learned; None once the whole reference is pinned.
        detector: What watches; None while the first reference is learned.
        n_references: References pinned so far.
    """

    # Fields that make up the state, next to reference, detector and the recent units.
    _PLAIN: ClassVar[tuple[str, ...]] = (
        "n_references",
        "n_learned",
        "n_reference",
        "units_a_day",
        "level",
        "provisional",
        "started_ns",
        "since_ns",
        "crossed_ns",
        "crossed_at_unit",
        "n_to_recover",
        "in_alarm",
        "n_monitors",
        "alarm_text",
    )

    def __init__(
        self,
        spec: Spec,
        place: PlaceKey,
        settings: MonitorSettings,
        *,
        pins_itself: bool = True,
    ) -> None:
        self.spec = spec
        self.place = place
        self.settings = settings
        self.pins_itself = pins_itself
        self.reference: Any = self._new_reference() if pins_itself else None
        self.detector: Any = None
        self.recent: deque[Recent] = deque(maxlen=_N_RECENT)
        self.history: list[tuple[int, float]] = []
        self.n_references = 0
        self.n_learned = 0
        self.n_reference = 0
        self.units_a_day = 1.0
        self.level = NO_LEVEL
        self.provisional = True
        self.started_ns = -1
        self.since_ns = -1  # since when it has been in its state
        self.crossed_ns = -1  # when the evidence last reached the threshold …
        self.crossed_at_unit = 0  # … how many units had been judged by then …
        self.n_to_recover = 0  # … and how many quiet ones end the alarm
        self.in_alarm = False
        self.n_monitors = 1
        self.alarm_text = ""

    # What a kind of monitor adds.

    @abstractmethod
    def _new_reference(self) -> Reference:
        """Return an empty reference."""

    @abstractmethod
    def _learn(self, units: Units) -> None:
        """Add units to the reference."""

    @abstractmethod
    def _pinned(self, *, gate_factor: float, seasonal: bool) -> DriftDetector:
        """Return a detector that compares with the reference."""

    @abstractmethod
    def _judge(self, units: Units, threshold: float) -> tuple[int, npt.NDArray[np.float64]]:
        """Judge units until the threshold; return how many, and each one's weight."""

    @abstractmethod
    def _effect(self, since: Sequence[Recent]) -> Effect:
        """Describe the change, given the recent units since its onset."""

    @abstractmethod
    def _levels(self) -> tuple[float | None, float | None]:
        """Return the statistic in the reference and of the recent units."""

    def _reference_from(self, tree: Tree) -> Any:
        return type(self._new_reference()).from_tree(tree)  # type: ignore[attr-defined]

    @abstractmethod
    def _detector_from(self, tree: Tree) -> Any:
        """Return the detector of a tree."""

    # What all of them share.

    @property
    def log_e(self) -> float:
        """Natural log of the evidence, at least 0: evidence below 1 says nothing."""
        return max(0.0, self.detector.log_e) if self.detector else 0.0

    @property
    def log_threshold(self) -> float:
        """Natural log of the evidence at which to alarm, from the budget."""
        units_a_day = self.settings.units_a_day or self.units_a_day
        return log_threshold(
            self.n_monitors,
            units_a_day,
            self.settings.false_pages_budget,
            self.settings.budget_days,
        )

    @property
    def is_quiet(self) -> bool:
        """Whether nothing hints at a change: only then is learned, and a reference renewed."""
        return not self.in_alarm and self.log_e < self.log_threshold / 2

    def observe(self, units: Units, clock_ns: int, n_monitors: int) -> list[Finding]:
        """Judge units, learn from them, and say what was found.

        Args:
            units: In time order; may be empty.
            clock_ns: What time it is.
            n_monitors: Monitors that share the budget of false pages.
        """
        self.n_monitors = n_monitors
        findings = self._watch(units) if self.detector and len(units) else []
        if self.reference is not None and len(units) and self.is_quiet:
            if self.started_ns < 0:
                self.started_ns = started_at(units.at_ns, clock_ns)
            before = self.reference.n_units
            self._learn(units.where(is_known(units.learn)))
            self.n_learned += self.reference.n_units - before
        if self.in_alarm and self._is_over(clock_ns):
            self.in_alarm = False
            self.since_ns = clock_ns
            self.detector.reset()
        if self.pins_itself:
            self._pin_if_due(clock_ns)
        if self.detector:
            self._record(clock_ns)
        return findings

    def _is_over(self, clock_ns: int) -> bool:
        """Whether the change has passed: had it lasted, it would have been found again."""
        is_low = self.log_e < self.log_threshold / 2
        n_units = self.detector.n_units - self.crossed_at_unit
        is_late = clock_ns - self.crossed_ns >= self.settings.cooldown_s * 1e9
        return is_low and is_late and n_units >= self.n_to_recover

    def _pin_if_due(self, clock_ns: int) -> None:
        if self.reference is None or self.started_ns < 0 or not self.is_quiet:
            return
        if self.reference.n_units < self.settings.min_reference_units:
            return
        elapsed_s = (clock_ns - self.started_ns) / 1e9
        level = reference_level(elapsed_s, self.settings.reference_s)
        if level > self.level:
            units_a_day = self.reference.n_units / elapsed_s * 86_400.0
            self.pin(clock_ns, elapsed_s, level, units_a_day)
            if level == 0:
                self.reference = None

    def pin(self, clock_ns: int, elapsed_s: float, level: int, units_a_day: float) -> None:
        """Watch against what was learned; evidence against the former reference is forgotten.

        Args:
            clock_ns: What time it is.
            elapsed_s: How long was learned, in seconds.
            level: As in `reference_level`.
            units_a_day: Units that come in a day.
        """
        self.provisional = elapsed_s < SEASON_S
        self.detector = self._pinned(
            gate_factor=PROVISIONAL_GATE if self.provisional else 1.0,
            seasonal=not self.provisional,
        )
        self.n_reference = self.reference.n_units
        self.units_a_day = max(1.0, units_a_day)
        self.level = level
        self.n_references += 1
        self.crossed_at_unit = 0
        self.recent.clear()
        if self.n_references == 1:
            self.since_ns = clock_ns

    def start_reference(self) -> None:
        """Begin to learn a new reference; what watches goes on watching."""
        self.reference = self._new_reference()

    def _watch(self, units: Units) -> list[Finding]:
        findings: list[Finding] = []
        units = units.where(is_known(units.values))
        start, threshold = 0, self.log_threshold
        while start < len(units):
            rest = units.where(np.arange(len(units)) >= start)
            n, weights = self._judge(rest, threshold)
            self._remember(rest, n, weights)
            start += n
            if self.detector.log_e >= threshold:
                at_ns = int(rest.at_ns[n - 1])
                if not self.in_alarm:
                    findings.append(self._finding(at_ns))
                    self.in_alarm = True
                    self.since_ns = at_ns
                    self.n_to_recover = 0
                self.crossed_ns = at_ns
                self.crossed_at_unit = self.detector.n_units
                n_to_recover = RECOVERY_FACTOR * self.detector.n_since_onset
                self.n_to_recover = max(self.n_to_recover, n_to_recover)
                self._record(at_ns)
                self.detector.reset()
        return findings

    def _remember(self, units: Units, n: int, weights: npt.NDArray[np.float64]) -> None:
        last = slice(max(0, n - _N_RECENT), n)
        values = units.values if units.values.ndim == 1 else weights
        numbers = (units.at_ns[last], values[last], weights[last])
        traces = [trace.tobytes() for trace in units.traces[last]]
        texts = [text[: words.MAX_TEXT] for text in units.texts[last]] or [""] * len(traces)
        rows = zip(*(column.tolist() for column in numbers), traces, texts, strict=True)
        self.recent.extend(map(Recent._make, rows))

    def forget(self, traces: Collection[bytes], texts: Collection[str]) -> None:
        """Blank the texts of some traces; see `Monitors.forget`."""
        for i, unit in enumerate(self.recent):
            if unit.text and (unit.trace in traces or unit.text in texts):
                self.recent[i] = unit._replace(text="")

    def _record(self, at_ns: int) -> None:
        """Keep the evidence for the page: dense for the last while, sparse for long ago."""
        spacing_ns = int(self.settings.session_idle_s * 1e8)
        if [value for _, value in self.history[-2:]] == [self.log_e] * 2:
            self.history[-1] = (at_ns, self.log_e)  # a level stretch is two points
            return
        if self.history and at_ns - self.history[-1][0] < spacing_ns:
            last_ns, last = self.history[-1]
            self.history[-1] = (last_ns, max(last, self.log_e))
            return
        if len(self.history) >= _N_HISTORY:
            half = _N_HISTORY // 2
            self.history = self.history[:half:2] + self.history[half:]
        self.history.append((at_ns, self.log_e))

    def _finding(self, at_ns: int) -> Finding:
        service, environment, feature = self.place
        onset_ns = self.detector.onset_ns
        since = [unit for unit in self.recent if unit.at_ns > onset_ns] or list(self.recent)[-1:]
        effect = self._effect(since)
        where = f"feature {feature}" if feature else f"service {service}"
        self.alarm_text = effect.summary.rstrip(",")
        summary = f"{where}: {effect.summary} since {words.clock(onset_ns, at_ns)}"
        examples = list(dict.fromkeys(unit.trace.hex() for unit in effect.carriers))
        # With the time: counts begin anew when the state was lost or a place was renewed.
        counts = (self.n_references, self.detector.n_units)
        identity = (self.spec.name, *self.place, at_ns, *counts)
        return Finding(
            id=hashlib.sha256(repr(identity).encode()).hexdigest()[:32],
            monitor=self.spec.name,
            kind=self.spec.kind,
            level="watch" if self._is_good_news(effect) else "page",
            service=service,
            environment=environment,
            feature=feature,
            at_ns=at_ns,
            onset_ns=onset_ns,
            summary=summary,
            log_e=self.detector.log_e,
            log_threshold=self.log_threshold,
            reference=effect.reference,
            current=effect.current,
            unit=self.spec.unit,
            evidence={**effect.evidence, "n_reference": self.n_reference},
            examples=tuple(examples[:_N_EXAMPLES]),
            provisional=self.provisional,
        )

    def _is_good_news(self, effect: Effect) -> bool:
        if not isinstance(self.spec, MeanSpec) or self.spec.better == "nowhere":
            return False
        if effect.reference is None or effect.current is None:
            return False
        return (effect.current < effect.reference) == (self.spec.better == "lower")

    def status(self, now_ns: int) -> MonitorStatus:
        """Return how the monitor stands."""
        service, environment, feature = self.place
        reference, current = self._levels() if self.detector else (None, None)
        state: Literal["learning", "watching", "alarm"] = (
            "alarm" if self.in_alarm else "watching" if self.detector else "learning"
        )
        return MonitorStatus(
            monitor=self.spec.name,
            kind=self.spec.kind,
            service=service,
            environment=environment,
            feature=feature,
            state=state,
            words=self._status_words(now_ns),
            log_e=self.log_e,
            log_threshold=self.log_threshold,
            reference=reference,
            current=current,
            unit=self.spec.unit,
            n_units=self.detector.n_units if self.detector else 0,
            n_reference=self.n_reference if self.detector else self.n_learned,
            history=tuple(self.history),
        )

    def _status_words(self, now_ns: int) -> str:
        if not self.detector:
            if not self.n_learned:
                return "waiting: nothing of this kind has come yet"
            return f"learning, {self.n_learned} of {self.settings.min_reference_units} sessions"
        since = words.clock(self.since_ns, now_ns)
        if self.in_alarm:
            return f"alarm since {since}: {self.alarm_text}"
        reference = f"a provisional reference of {self.n_reference} sessions"
        return f"quiet since {since}" + (f", on {reference}" if self.provisional else "")

    def to_tree(self) -> Tree:
        """Return the state."""
        recent = list(self.recent)
        return {
            **{name: getattr(self, name) for name in self._PLAIN},
            "reference": self.reference and self.reference.to_tree(),
            "detector": self.detector and self.detector.to_tree(),
            "history": [list(point) for point in self.history],
            "recent": {
                "at_ns": np.array([unit.at_ns for unit in recent], np.int64),
                "value": np.array([unit.value for unit in recent], np.float64),
                "weight": np.array([unit.weight for unit in recent], np.float64),
                "trace": np.frombuffer(b"".join(unit.trace for unit in recent), np.uint8),
                "text": [unit.text for unit in recent] if any(u.text for u in recent) else [],
            },
        }

    def restore(self, tree: Tree) -> None:
        """Take over the state of `to_tree`; this monitor must be new."""
        for name in self._PLAIN:
            setattr(self, name, tree[name])
        self.reference = tree["reference"] and self._reference_from(tree["reference"])
        self.detector = tree["detector"] and self._detector_from(tree["detector"])
        self.history = [(at, value) for at, value in tree["history"]]
        kept = tree["recent"]
        traces = kept["trace"].reshape(-1, 16)
        texts = kept["text"] or [""] * len(traces)
        columns = (kept["at_ns"].tolist(), kept["value"].tolist(), kept["weight"].tolist())
        for at_ns, value, weight, trace, text in zip(*columns, traces, texts, strict=True):
            self.recent.append(Recent(at_ns, value, weight, trace.tobytes(), text))

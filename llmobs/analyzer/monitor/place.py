"""One place: a service's feature in an environment, with its sessions and its monitors."""

from __future__ import annotations

import hashlib
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.monitor import words
from llmobs.analyzer.monitor.calls import Calls, PlaceKey
from llmobs.analyzer.monitor.catalog import LANGUAGE, MEANS, OUTPUT_EMBEDDING, RATES, TOPIC
from llmobs.analyzer.monitor.context import N_DIRECTIONS, Context, ContextSample
from llmobs.analyzer.monitor.kinds import (
    LanguageMonitor,
    MeanMonitor,
    RateMonitor,
    TopicMonitor,
    WitnessMonitor,
)
from llmobs.analyzer.monitor.monitor import (
    NO_LEVEL,
    PAUSE_S,
    Monitor,
    Units,
    is_known,
    reference_level,
    started_at,
)
from llmobs.analyzer.monitor.sessions import Closed, Sessions
from llmobs.analyzer.monitor.settings import MonitorSettings
from llmobs.measures.drift import OPENED, TURNED, Tree
from llmobs.records import Finding, FloatArray, MonitorStatus

__all__ = ["Place"]

# Flags of a session: its first call was seen, had a topic, had a language; then for each rate
# whether it was judged and whether it turned positive.
_SAMPLED, _TOPIC, _LANGUAGE, _OPENED, _TURNED = 0, 1, 2, 3, 3 + len(RATES)
_N_FLAGS: Final = 3 + 2 * len(RATES)

# Columns of a session's sums: the means; answer length and answers against the next reference
# (learned); answers against the pinned one.
_GIVEN_INPUT: Final = next(j for j, spec in enumerate(MEANS) if spec.given_input)
_N_ANSWER: Final = N_DIRECTIONS + 1
_LENGTH_LEARNED: Final = len(MEANS)
_ANSWER: Final = slice(_LENGTH_LEARNED + 1, _LENGTH_LEARNED + 1 + _N_ANSWER)
_ANSWER_LEARNED: Final = slice(_ANSWER.stop, _ANSWER.stop + _N_ANSWER)
_N_SUMS: Final = _ANSWER_LEARNED.stop

# A new version is news where the model was called so often without it.
_MIN_MODEL_CALLS: Final = 100
_MAX_MODELS: Final = 64


class Place:
    """Turns the calls of one place into units, and lets its monitors judge them.

    Three monitors compare with a *context*, what answers look like given the question: topics,
    answer length, answers. It is fitted to a first part of a reference and the monitors learn
    within it, so they begin and pin their references together.
    """

    def __init__(self, key: PlaceKey, settings: MonitorSettings, now_ns: int = 0) -> None:
        self.key = key
        self.settings = settings
        self.sessions = Sessions(
            n_flags=_N_FLAGS,
            n_sums=_N_SUMS,
            idle_s=settings.session_idle_s,
            cap_s=settings.session_cap_s,
            max_open=settings.max_open_sessions,
        )
        self.context: Context | None = None  # pinned
        self.next_context: Context | None = None  # learned within
        self.sample: ContextSample | None = ContextSample.of()
        self.level = NO_LEVEL
        self.started_ns = -1
        self.last_ns = now_ns
        self.n_sessions = 0
        self.n_since_fit = 0
        self.models: dict[str, dict[str, int]] = {}
        self.means = [
            MeanMonitor(spec, key, settings, pins_itself=not spec.given_input) for spec in MEANS
        ]
        self.rates = [RateMonitor(spec, key, settings) for spec in RATES]
        self.topic = TopicMonitor(TOPIC, key, settings, pins_itself=False)
        self.language = LanguageMonitor(LANGUAGE, key, settings)
        self.answers = WitnessMonitor(OUTPUT_EMBEDDING, key, settings, pins_itself=False)

    @property
    def monitors(self) -> list[Monitor]:
        """All monitors, in the order in which they judge."""
        return [self.topic, self.language, *self.means, self.answers, *self.rates]

    @property
    def has_learned(self) -> bool:
        """Whether any of them has had a reference."""
        return any(monitor.n_references for monitor in self.monitors)

    @property
    def _in_context(self) -> list[Monitor]:
        return [self.topic, self.means[_GIVEN_INPUT], self.answers]

    def observe(self, calls: Calls | None, clock_ns: int, n_monitors: int) -> list[Finding]:
        """Judge the calls of a batch (None: none came) and what time closed.

        Args:
            calls: Of this place, in order of their end.
            clock_ns: What time it is.
            n_monitors: Monitors that share the budget of false pages.
        """
        findings: list[Finding] = []
        if calls is not None and len(calls):
            self._skip_pause(clock_ns)
            if self.started_ns < 0:
                self.started_ns = started_at(calls.at_ns, clock_ns)
            self.last_ns = clock_ns
            findings += self._versions(calls)
            slots = self.sessions.assign(calls.sessions, calls.at_ns, calls.traces)
            codes = _codes(self.context, calls)
            next_codes = _codes(self.next_context, calls)
            self._add_values(calls, slots, codes, next_codes)
            findings += self._judge_topics(calls, slots, codes, next_codes, clock_ns, n_monitors)
            findings += self._judge_languages(calls, slots, clock_ns, n_monitors)
            findings += self._judge_rates(calls, slots, clock_ns, n_monitors)
            self._sample(calls, slots)
        else:
            none = np.zeros(0, np.int64)
            nothing = Units(none, np.zeros((0, 16), np.uint8), none, none)
            for monitor in (self.topic, self.language, *self.rates):
                monitor.observe(nothing, clock_ns, n_monitors)
        findings += self._judge_closed(self.sessions.close(clock_ns), clock_ns, n_monitors)
        self._advance(clock_ns)
        return findings

    def _skip_pause(self, clock_ns: int) -> None:
        too_long_ns = clock_ns - self.last_ns - int(PAUSE_S * 1e9)
        if too_long_ns > 0:
            learners: list[Place | Monitor] = [self, *self.monitors]
            for learner in learners:
                if learner.started_ns >= 0:
                    learner.started_ns += too_long_ns

    def _add_values(
        self,
        calls: Calls,
        slots: npt.NDArray[np.int64],
        codes: npt.NDArray[np.int64],
        next_codes: npt.NDArray[np.int64],
    ) -> None:
        """Add what the calls say to the sums of their sessions."""
        values = np.full((len(calls), _N_SUMS), np.nan)
        values[:, : len(MEANS)] = calls.means
        lengths = calls.means[:, _GIVEN_INPUT]
        values[:, _GIVEN_INPUT] = np.nan
        if self.context is not None:
            values[:, _GIVEN_INPUT] = self.context.residual_lengths(codes, lengths)
            values[:, _ANSWER] = self.context.residual_answers(codes, calls.outputs)
        if self.next_context is not None:
            context = self.next_context
            values[:, _LENGTH_LEARNED] = context.residual_lengths(next_codes, lengths)
            values[:, _ANSWER_LEARNED] = context.residual_answers(next_codes, calls.outputs)
        self.sessions.add(slots, values)

    def _judge_topics(
        self,
        calls: Calls,
        slots: npt.NDArray[np.int64],
        codes: npt.NDArray[np.int64],
        next_codes: npt.NDArray[np.int64],
        clock_ns: int,
        n_monitors: int,
    ) -> list[Finding]:
        known = np.flatnonzero((codes >= 0) | (next_codes >= 0))
        rows = known[self.sessions.first(slots[known], _TOPIC)]
        texts = [calls.texts[row] for row in rows]
        at_ns, traces = calls.at_ns[rows], calls.traces[rows]
        units = Units(at_ns, traces, codes[rows], next_codes[rows], texts)
        return self.topic.observe(units, clock_ns, n_monitors)

    def _judge_languages(
        self, calls: Calls, slots: npt.NDArray[np.int64], clock_ns: int, n_monitors: int
    ) -> list[Finding]:
        known = np.flatnonzero([bool(label) for label in calls.languages])
        rows = known[self.sessions.first(slots[known], _LANGUAGE)]
        codes = self.language.codes([calls.languages[row] for row in rows])
        units = Units(calls.at_ns[rows], calls.traces[rows], codes, codes)
        return self.language.observe(units, clock_ns, n_monitors)

    def _judge_rates(
        self, calls: Calls, slots: npt.NDArray[np.int64], clock_ns: int, n_monitors: int
    ) -> list[Finding]:
        findings: list[Finding] = []
        for j, monitor in enumerate(self.rates):
            judged = np.flatnonzero(calls.rates[:, j] >= 0)
            opened = judged[self.sessions.first(slots[judged], _OPENED + j)]
            positive = np.flatnonzero(calls.rates[:, j] == 1)
            turned = positive[self.sessions.first(slots[positive], _TURNED + j)]
            rows = np.concatenate([opened, turned])
            events = np.repeat([OPENED, TURNED], [len(opened), len(turned)])
            order = np.lexsort((events, rows))
            rows, events = rows[order], events[order]
            units = Units(calls.at_ns[rows], calls.traces[rows], events, events)
            findings += monitor.observe(units, clock_ns, n_monitors)
        return findings

    def _judge_closed(self, closed: Closed, clock_ns: int, n_monitors: int) -> list[Finding]:
        findings: list[Finding] = []
        with np.errstate(divide="ignore", invalid="ignore"):
            means = closed.sums / closed.counts  # NaN where nothing contributed
            logs_of_sums = np.log(np.where(closed.counts > 0, closed.sums, np.nan))
        for j, monitor in enumerate(self.means):
            values = logs_of_sums[:, j] if monitor.spec.is_sum else means[:, j]
            learn = means[:, _LENGTH_LEARNED] if monitor.spec.given_input else values
            units = _known(closed, values, learn)
            findings += monitor.observe(units, clock_ns, n_monitors)
        units = _known(closed, means[:, _ANSWER], means[:, _ANSWER_LEARNED])
        findings += self.answers.observe(units, clock_ns, n_monitors)
        return findings

    def _sample(self, calls: Calls, slots: npt.NDArray[np.int64]) -> None:
        rows = self.sessions.first(slots, _SAMPLED)
        self.n_sessions += len(rows)
        self.n_since_fit += len(rows)
        if self.sample is None or not all(monitor.is_quiet for monitor in self._in_context):
            return
        if self.next_context is None:
            for monitor in self._in_context:
                monitor.n_learned += len(rows)
        lengths = calls.means[rows, _GIVEN_INPUT]
        self.sample.add(calls.inputs[rows], calls.outputs[rows], lengths)

    def _advance(self, clock_ns: int) -> None:
        """Fit a context when there is enough to fit to; pin it when enough was learned in it."""
        if self.sample is None or self.started_ns < 0:
            return
        half = self.settings.min_reference_units // 2
        if self.next_context is None:
            if self.sample.sample.n_seen >= half:
                self._fit()
            return
        elapsed_s = (clock_ns - self.started_ns) / 1e9
        level = reference_level(elapsed_s, self.settings.reference_s)
        if level <= self.level or self.n_since_fit < half:
            return
        if not all(monitor.is_quiet for monitor in self._in_context):
            return
        ready = [m for m in self._in_context if m.reference.n_units >= half // 2]
        if not ready and self.n_since_fit < 2 * half:
            return  # sessions have opened, but none has closed yet
        self.level = level
        self.context = self.next_context
        for monitor in self._in_context:
            monitor.detector = None  # it compared within the former context
            if monitor in ready:
                monitor.pin(clock_ns, elapsed_s, level, self.n_sessions / elapsed_s * 86_400.0)
        for into, learned in ((_GIVEN_INPUT, _LENGTH_LEARNED), (_ANSWER, _ANSWER_LEARNED)):
            for table in (self.sessions.sums, self.sessions.counts):
                table[:, into] = table[:, learned]
        if level == 0:
            self.sample = self.next_context = None
            for monitor in self._in_context:
                monitor.reference = None
        else:
            self._fit()

    def _fit(self) -> None:
        assert self.sample is not None
        self.next_context = Context.fit(self.sample)
        book = self.next_context.book
        self.n_since_fit = 0
        self.topic.start(book.n_codes if book else 1)
        self.means[_GIVEN_INPUT].start_reference()
        self.answers.start_reference()
        for table in (self.sessions.sums, self.sessions.counts):
            table[:, _LENGTH_LEARNED] = 0
            table[:, _ANSWER_LEARNED] = 0

    def _versions(self, calls: Calls) -> list[Finding]:
        """Find models that answer as another version than before: an event, not a drift."""
        findings: list[Finding] = []
        for row, (asked, answered) in enumerate(calls.models):
            if not asked or not answered:
                continue
            if asked not in self.models and len(self.models) >= _MAX_MODELS:
                continue
            known = self.models.setdefault(asked, {})
            n_calls = sum(known.values())
            is_new = answered not in known and len(known) < _MAX_MODELS
            if is_new and n_calls >= _MIN_MODEL_CALLS:
                at_ns, trace = int(calls.at_ns[row]), calls.traces[row].tobytes().hex()
                findings.append(self._version_finding(asked, answered, at_ns, trace))
            if is_new or answered in known:
                known[answered] = known.get(answered, 0) + 1
        return findings

    def _version_finding(self, asked: str, answered: str, at_ns: int, trace: str) -> Finding:
        service, environment, feature = self.key
        known = self.models[asked]
        usual = max(known, key=lambda name: known[name])
        where = f"feature {feature}" if feature else f"service {service}"
        identity = ("model.version", *self.key, asked, answered)
        return Finding(
            id=hashlib.sha256(repr(identity).encode()).hexdigest()[:32],
            monitor="model.version",
            kind="model",
            level="watch",
            service=service,
            environment=environment,
            feature=feature,
            at_ns=at_ns,
            onset_ns=at_ns,
            summary=f"{where}: {asked} answers as {answered} (so far {usual}) "
            f"since {words.clock(at_ns, at_ns)}",
            log_e=0.0,
            log_threshold=0.0,
            reference=None,
            current=None,
            unit="",
            evidence={"request_model": asked, "response_model": answered, "known": dict(known)},
            examples=(trace,),
            provisional=False,
        )

    def statuses(self, now_ns: int) -> list[MonitorStatus]:
        """Return how each monitor stands."""
        return [monitor.status(now_ns) for monitor in self.monitors]

    _PLAIN: Final = (
        "level",
        "started_ns",
        "last_ns",
        "n_sessions",
        "n_since_fit",
        "models",
    )

    def to_tree(self) -> Tree:
        """Return the state."""
        return {
            "key": list(self.key),
            **{name: getattr(self, name) for name in self._PLAIN},
            "sessions": self.sessions.to_tree(),
            "context": self.context and self.context.to_tree(),
            "next_context": self.next_context and self.next_context.to_tree(),
            "sample": self.sample and self.sample.to_tree(),
            "monitors": {monitor.spec.name: monitor.to_tree() for monitor in self.monitors},
        }

    @classmethod
    def from_tree(cls, tree: Tree, settings: MonitorSettings) -> Place:
        """Return the place that `to_tree` was called on."""
        place = cls(cast(PlaceKey, tuple(tree["key"])), settings)
        for name in cls._PLAIN:
            setattr(place, name, tree[name])
        place.sessions.restore(tree["sessions"])
        place.context = tree["context"] and Context.from_tree(tree["context"])
        place.next_context = tree["next_context"] and Context.from_tree(tree["next_context"])
        place.sample = tree["sample"] and ContextSample.from_tree(tree["sample"])
        for monitor in place.monitors:
            monitor.restore(tree["monitors"][monitor.spec.name])
        return place


def _codes(context: Context | None, calls: Calls) -> npt.NDArray[np.int64]:
    return context.codes(calls.inputs) if context else np.full(len(calls), -1, np.int64)


def _known(closed: Closed, values: FloatArray, learn: FloatArray) -> Units:
    """Return closed sessions as units, without those that say nothing."""
    units = Units(closed.at_ns, closed.traces, values, learn)
    return units.where(is_known(values) | is_known(learn))

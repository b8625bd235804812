"""The kinds of monitors: means, rates, categories and embeddings, each with its words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.monitor import words
from llmobs.analyzer.monitor.catalog import MeanSpec, RateSpec, WitnessSpec
from llmobs.analyzer.monitor.context import N_DIRECTIONS
from llmobs.analyzer.monitor.monitor import Effect, Monitor, Recent, Units
from llmobs.measures.drift import (
    OPENED,
    TURNED,
    CategoryE,
    CategoryReference,
    MeanE,
    MeanReference,
    RateE,
    RateReference,
    Tree,
    WitnessE,
    WitnessReference,
    hour_cells,
    jeffreys_interval,
    jensen_shannon,
    mean_shift_sd,
    population_stability_index,
    rate_ratio,
)

__all__ = ["LanguageMonitor", "MeanMonitor", "RateMonitor", "TopicMonitor", "WitnessMonitor"]

# Shares up to (1 + lift) times the reference are no change, nor 0.4 points more of all sessions:
# with these, simulated traffic with seasons and sessions gave no false alarm in a month.
_RATE_LIFT: Final = 0.2
_CATEGORY_LIFT: Final = 0.25
_CATEGORY_FLOOR: Final = 0.004
_N_MOVERS: Final = 5
_N_TEXTS_SHOWN: Final = 3
# Units that the page's "current" looks back on.
_N_CURRENT: Final = 64


class MeanMonitor(Monitor):
    """Watches a mean over sessions."""

    spec: MeanSpec
    reference: MeanReference | None
    detector: MeanE | None

    def _new_reference(self) -> MeanReference:
        return MeanReference.of()

    def _learn(self, units: Units) -> None:
        assert self.reference is not None
        self.reference.learn(hour_cells(units.at_ns), units.learn)

    def _pinned(self, *, gate_factor: float, seasonal: bool) -> MeanE:
        assert self.reference is not None
        return self.reference.detector(gate=self.spec.gate * gate_factor, seasonal=seasonal)

    def _judge(self, units: Units, threshold: float) -> tuple[int, npt.NDArray[np.float64]]:
        assert self.detector is not None
        cells = hour_cells(units.at_ns)
        return self.detector.update(units.at_ns, cells, units.values, threshold)

    def _effect(self, since: Sequence[Recent]) -> Effect:
        assert self.detector is not None
        mean, expected, n = self.detector.since_onset
        sign = 1.0 if self.detector.is_rise else -1.0
        carriers = [unit for unit in since if sign * unit.weight > 0]
        shift = mean_shift_sd(expected, mean, self.detector.sd)
        current, reference = self._shown(mean), self._shown(expected)
        verb = "rose" if sign > 0 else "fell"
        unit = "" if self.spec.unit == "score" else f" {self.spec.unit}"
        times = f" (×{current / reference:.2g})" if self.spec.is_log else ""
        summary = (
            f"{'typical ' if self.spec.is_log else ''}{self.spec.what}"
            f"{', given the topic,' if self.spec.given_input else ''} {verb} from "
            f"{words.number(reference)} to {words.number(current)}{unit}{times}"
        )
        evidence = {
            "n_since_onset": n,
            "mean_shift_sd": shift,
            "reference_sd": self.detector.sd,
            "gate_sd": self.detector.gate,
            "scale": "log" if self.spec.is_log else "linear",
        }
        carriers.sort(key=lambda unit: -sign * unit.weight)
        return Effect(summary, reference, current, evidence, carriers)

    def _levels(self) -> tuple[float | None, float | None]:
        assert self.detector is not None
        latest = [unit.value for unit in list(self.recent)[-_N_CURRENT:]]
        current = self._shown(float(np.mean(latest))) if latest else None
        return self._shown(float(self.detector.profile.mean())), current

    def _shown(self, mean: float) -> float:
        """Return the mean as people read it: a log mean as the geometric mean."""
        return float(np.exp(mean)) if self.spec.is_log else mean

    def _detector_from(self, tree: Tree) -> MeanE:
        return MeanE.from_tree(tree)


class RateMonitor(Monitor):
    """Watches the share of sessions with at least one positive call; units are its events."""

    spec: RateSpec
    reference: RateReference | None
    detector: RateE | None

    def _new_reference(self) -> RateReference:
        return RateReference()

    def _learn(self, units: Units) -> None:
        assert self.reference is not None
        self.reference.learn(units.learn)

    def _pinned(self, *, gate_factor: float, seasonal: bool) -> RateE:
        # A rare rate has too few events for an hour of its own.
        assert self.reference is not None
        return self.reference.detector(lift=_RATE_LIFT * gate_factor, floor=self.spec.floor)

    def _judge(self, units: Units, threshold: float) -> tuple[int, npt.NDArray[np.float64]]:
        assert self.detector is not None
        n = self.detector.update(units.at_ns, units.values, threshold)
        return n, (units.values == TURNED).astype(np.float64)

    def _effect(self, since: Sequence[Recent]) -> Effect:
        assert self.detector is not None
        n_positive, n = self.detector.since_onset
        rate, before = n_positive / n, self.detector.reference_rate
        n_before = round(before * self.n_reference)  # before is at most 1
        ratio, low, high = rate_ratio((n_before, self.n_reference), (n_positive, n))
        summary = (
            f"share of sessions with {self.spec.what} rose from "
            f"{words.percent(before)} to {words.percent(rate)}"
        )
        evidence = {
            "n_positive": n_positive,
            "n_since_onset": n,
            "interval": list(jeffreys_interval(n_positive, n)),
            "reference_interval": list(jeffreys_interval(n_before, self.n_reference)),
            "rate_ratio": ratio,
            "rate_ratio_interval": [low, high],
            "null_rate": self.detector.null_rate,
        }
        return Effect(summary, before, rate, evidence, [u for u in since if u.weight > 0])

    def _levels(self) -> tuple[float | None, float | None]:
        assert self.detector is not None
        events = [unit.value for unit in self.recent]
        n_opened = events.count(OPENED)
        current = min(1.0, events.count(TURNED) / n_opened) if n_opened else None
        return self.detector.reference_rate, current

    def _detector_from(self, tree: Tree) -> RateE:
        return RateE.from_tree(tree)


class CategoryMonitor(Monitor):
    """Watches shares of categories among first calls.

    Attributes:
        n_categories: Of the reference that is being learned.
        counts: Units of each category in the pinned reference.
    """

    n_categories: int
    counts: npt.NDArray[np.float64]
    reference: CategoryReference | None
    detector: CategoryE | None

    def _new_reference(self) -> CategoryReference:
        return CategoryReference.of(self.n_categories)

    def _learn(self, units: Units) -> None:
        assert self.reference is not None
        self.reference.learn(hour_cells(units.at_ns), units.learn)

    def _pinned(self, *, gate_factor: float, seasonal: bool) -> CategoryE:
        assert self.reference is not None
        self.counts = self.reference.counts.sum(0)
        return self.reference.detector(
            lift=_CATEGORY_LIFT * gate_factor, floor=_CATEGORY_FLOOR, seasonal=seasonal
        )

    def _judge(self, units: Units, threshold: float) -> tuple[int, npt.NDArray[np.float64]]:
        assert self.detector is not None
        cells = hour_cells(units.at_ns)
        n = self.detector.update(units.at_ns, cells, units.values, threshold)
        return n, np.ones(len(units))

    def _effect(self, since: Sequence[Recent]) -> Effect:
        assert self.detector is not None
        codes = np.array([int(unit.value) for unit in since], np.int64)
        now = np.bincount(codes, minlength=len(self.counts)).astype(np.float64)
        top = self.detector.top(_N_MOVERS)
        movers = [self._mover(code, now, since) for code in top]
        # The strongest evidence belongs to the first; what fell most is told beside it.
        falls = now / now.sum() - self.counts / max(self.counts.sum(), 1.0)
        fallen = self._mover(int(falls.argmin()), now, since)
        first = movers[0]
        summary = (
            f"share of sessions {first['name']} rose from "
            f"{words.percent(first['reference'])} to {words.percent(first['current'])}"
        )
        risen = [mover for mover in movers if mover["current"] > mover["reference"]]
        evidence = {
            "movers": risen,
            "fallen": fallen,
            "n_since_onset": len(since),
            "jensen_shannon": jensen_shannon(self.counts, now),
            "population_stability_index": population_stability_index(self.counts, now),
        }
        rank = {mover["code"]: place for place, mover in enumerate(risen)}
        carriers = [unit for unit in since if int(unit.value) in rank]
        carriers.sort(key=lambda unit: rank[int(unit.value)])
        return Effect(summary, first["reference"], first["current"], evidence, carriers)

    def _mover(
        self, code: int, now: npt.NDArray[np.float64], since: Sequence[Recent]
    ) -> dict[str, Any]:
        n_before, n_now = int(self.counts.sum()), int(now.sum())
        return {
            "code": code,
            "name": self._name(code, since),
            "reference": float(self.counts[code]) / max(n_before, 1),
            "current": float(now[code]) / max(n_now, 1),
            "reference_interval": list(jeffreys_interval(int(self.counts[code]), n_before)),
            "current_interval": list(jeffreys_interval(int(now[code]), n_now)),
            **self._sample_of(code, since),
        }

    def _name(self, code: int, since: Sequence[Recent]) -> str:
        """Return the category as it stands after "share of sessions"."""
        raise NotImplementedError

    def _sample_of(self, code: int, since: Sequence[Recent]) -> dict[str, Any]:
        """Return details of a mover that only this kind has."""
        return {}

    def _levels(self) -> tuple[float | None, float | None]:
        """Return the share of the category that speaks loudest."""
        assert self.detector is not None
        top = self.detector.top(1)[0]
        codes = [int(unit.value) for unit in self.recent]
        current = codes.count(top) / len(codes) if codes else None
        return float(self.counts[top] / max(self.counts.sum(), 1.0)), current

    def _detector_from(self, tree: Tree) -> CategoryE:
        return CategoryE.from_tree(tree)

    def to_tree(self) -> Tree:
        """Return the state."""
        return {**super().to_tree(), "n_categories": self.n_categories, "counts": self.counts}

    def restore(self, tree: Tree) -> None:
        """Take over the state of `to_tree`; this monitor must be new."""
        self.n_categories, self.counts = tree["n_categories"], tree["counts"]
        super().restore(tree)


class LanguageMonitor(CategoryMonitor):
    """Watches languages. A label that the reference never had counts as "another"."""

    MAX_LABELS: Final = 15

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.n_categories = self.MAX_LABELS + 1
        self.counts = np.zeros(self.n_categories)
        self.labels: list[str] = []
        super().__init__(*args, **kwargs)

    def codes(self, labels: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the code of each label; -1 where there is none."""
        if self.reference is not None and self.is_quiet:
            for label in labels:
                if label and label not in self.labels and len(self.labels) < self.MAX_LABELS:
                    self.labels.append(label)
        code = {"": -1} | {label: i for i, label in enumerate(self.labels)}
        return np.array([code.get(label, self.MAX_LABELS) for label in labels], np.int64)

    def _name(self, code: int, since: Sequence[Recent]) -> str:
        return f"in «{self.labels[code]}»" if code < len(self.labels) else "in another language"

    def to_tree(self) -> Tree:
        """Return the state."""
        return {**super().to_tree(), "labels": self.labels}

    def restore(self, tree: Tree) -> None:
        """Take over the state of `to_tree`; this monitor must be new."""
        self.labels = tree["labels"]
        super().restore(tree)


class TopicMonitor(CategoryMonitor):
    """Watches topics: clusters of input embeddings, and "far" from all of them.

    Attributes:
        texts: A few texts of each topic of the pinned reference.
        learned_texts: The same, of the reference that is being learned.
    """

    _N_TEXTS: Final = 8

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.n_categories = 1
        self.counts = np.zeros(1)
        self.texts: dict[int, list[str]] = {}
        self.learned_texts: dict[int, list[str]] = {}
        super().__init__(*args, **kwargs)

    def start(self, n_categories: int) -> None:
        """Begin to learn a reference over so many topics, the last of them "far"."""
        self.n_categories = n_categories
        self.learned_texts = {}
        self.start_reference()

    def _learn(self, units: Units) -> None:
        super()._learn(units)
        for code, text in zip(units.learn.tolist(), units.texts, strict=True):
            kept = self.learned_texts.setdefault(code, [])
            if text and len(kept) < self._N_TEXTS:
                kept.append(text[: words.MAX_TEXT])

    def forget(self, traces: Collection[bytes], texts: Collection[str]) -> None:
        """Blank the texts of some traces, those of the reference too."""
        super().forget(traces, texts)
        for kept in (*self.texts.values(), *self.learned_texts.values()):
            kept[:] = [text for text in kept if text not in texts]

    def _pinned(self, *, gate_factor: float, seasonal: bool) -> CategoryE:
        self.texts, self.learned_texts = self.learned_texts, {}
        return super()._pinned(gate_factor=gate_factor, seasonal=seasonal)

    def _name(self, code: int, since: Sequence[Recent]) -> str:
        """Name a topic by what sets its recent texts apart from all of the reference."""
        is_far = code == len(self.counts) - 1
        recent = [unit.text for unit in since if int(unit.value) == code and unit.text]
        others = [text for other, kept in self.texts.items() if other != code for text in kept]
        terms = words.distinguishing_words(recent or self.texts.get(code, []), others)
        named = f"«{', '.join(terms)}»" if terms else f"topic {code}"
        if is_far:
            return "about something new" + (f" ({named})" if terms else "")
        return f"about {named}"

    def _sample_of(self, code: int, since: Sequence[Recent]) -> dict[str, Any]:
        recent = [unit.text for unit in since if int(unit.value) == code and unit.text]
        return {"texts": recent[-_N_TEXTS_SHOWN:]}

    def to_tree(self) -> Tree:
        """Return the state."""
        return {
            **super().to_tree(),
            "texts": [[code, kept] for code, kept in self.texts.items()],
            "learned_texts": [[code, kept] for code, kept in self.learned_texts.items()],
        }

    def restore(self, tree: Tree) -> None:
        """Take over the state of `to_tree`; this monitor must be new."""
        super().restore(tree)
        self.texts = dict(tree["texts"])
        self.learned_texts = dict(tree["learned_texts"])


class WitnessMonitor(Monitor):
    """Watches the mean of embeddings of answers, given the topic of the input."""

    spec: WitnessSpec
    reference: WitnessReference | None
    detector: WitnessE | None

    def _new_reference(self) -> WitnessReference:
        return WitnessReference.of(N_DIRECTIONS + 1)

    def _learn(self, units: Units) -> None:
        assert self.reference is not None
        self.reference.learn(units.learn)

    def _pinned(self, *, gate_factor: float, seasonal: bool) -> WitnessE:
        # Given the topic, answers have no hours of their own.
        assert self.reference is not None
        return self.reference.detector(gate=self.spec.gate * gate_factor)

    def _judge(self, units: Units, threshold: float) -> tuple[int, npt.NDArray[np.float64]]:
        assert self.detector is not None
        return self.detector.update(units.at_ns, units.values, threshold)

    def _effect(self, since: Sequence[Recent]) -> Effect:
        assert self.detector is not None
        shift, n = self.detector.since_onset
        summary = (
            f"{self.spec.what} differ from the reference by {shift:.1f} {self.spec.unit}, "
            "given the topic,"
        )
        evidence = {"n_since_onset": n, "gate_sd": self.detector.gate}
        carriers = sorted((u for u in since if u.weight > 0), key=lambda unit: -unit.weight)
        return Effect(summary, 0.0, shift, evidence, carriers)

    def _levels(self) -> tuple[float | None, float | None]:
        latest = [unit.weight for unit in list(self.recent)[-_N_CURRENT:]]
        return 0.0, float(np.mean(latest)) if latest else None

    def _detector_from(self, tree: Tree) -> WitnessE:
        return WitnessE.from_tree(tree)

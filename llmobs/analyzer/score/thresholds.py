"""Verdicts by thresholds of the user's own, by service and language."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.score.base import Scorer, ScoringInput, Target, Verdicts
from llmobs.analyzer.score.language import Language
from llmobs.errors import ConfigurationError
from llmobs.records import FloatArray

__all__ = ["Rule", "with_thresholds"]


@dataclass(frozen=True, slots=True)
class Rule:
    """From which value on, or below which, a score fails.

    Attributes:
        score: Name of the scorer.
        target: What was judged.
        threshold: The value.
        fails_below: Whether values below it fail, and not those from it on.
        service: Of the span; "": any.
        language: ISO 639 code of what the user wrote; "": any.
    """

    score: str
    target: Target
    threshold: float
    fails_below: bool
    service: str = ""
    language: str = ""

    @property
    def rank(self) -> tuple[bool, bool]:
        """The rule of a higher rank speaks of less, and wins."""
        return bool(self.service), bool(self.language)

    def fails(self, values: FloatArray) -> npt.NDArray[np.bool_]:
        """Return which values fail; NaN does not."""
        return values < self.threshold if self.fails_below else values >= self.threshold


class _WithThresholds:
    """A scorer whose labels follow rules. Its version changes with them."""

    def __init__(self, scorer: Scorer, rules: Sequence[Rule], language: Language) -> None:
        self._scorer, self._language = scorer, language
        self._rules = sorted(rules, key=lambda rule: rule.rank)
        self.name, self.targets = scorer.name, scorer.targets
        told = repr([astuple(rule) for rule in self._rules])
        self.version = f"{scorer.version}+{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge as the scorer does, and label by the rules."""
        said = self._scorer.score(batch, target)
        values = np.asarray(said.values, np.float64)
        labels = np.array(said.labels, dtype=object)
        explanations = np.array(said.explanations, dtype=object)
        for rule in self._rules:
            if rule.target != target:
                continue
            rows = ~np.isnan(values) & self._speaks_of(rule, batch)
            fails = rule.fails(values)
            labels[rows & fails], labels[rows & ~fails] = "fail", "pass"
            explanations[rows & ~fails] = ""
            side = "is below" if rule.fails_below else "reaches"
            unexplained = rows & fails & (explanations == "")
            explanations[unexplained] = f"the value {side} {rule.threshold:g}"
        return Verdicts(values, labels.tolist(), explanations.tolist())

    def _speaks_of(self, rule: Rule, batch: ScoringInput) -> npt.NDArray[np.bool_]:
        rows = np.ones(len(batch.spans), np.bool_)
        if rule.service:
            rows &= np.array(batch.spans.texts("service"), np.str_) == rule.service
        if rule.language:
            labels = self._language.score(batch, "input").labels
            rows &= np.array(labels, np.str_) == rule.language
        return rows


def with_thresholds(scorers: Sequence[Scorer], rules: Collection[Rule]) -> list[Scorer]:
    """Return scorers whose verdicts follow the rules; those without a rule as they are.

    Where several rules speak of a span, one of its service wins over one of its language, and
    one of both over either.

    Raises:
        ConfigurationError: A rule is of no scorer or target here, or two say the same place.
    """
    known = {(scorer.name, target) for scorer in scorers for target in scorer.targets}
    places = [(rule.score, rule.target, rule.service, rule.language) for rule in rules]
    for score, target, *_ in places:
        if (score, target) not in known:
            there = ", ".join(sorted(f"{name} ({of})" for name, of in known))
            raise ConfigurationError(
                f"a threshold is of score {score!r} and target {target!r}; there are {there}"
            )
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ConfigurationError(f"two thresholds are of {' '.join(filter(None, twice))}")
    language = Language()
    of: dict[str, list[Rule]] = {}
    for rule in rules:
        of.setdefault(rule.score, []).append(rule)
    return [
        _WithThresholds(scorer, of[scorer.name], language) if scorer.name in of else scorer
        for scorer in scorers
    ]

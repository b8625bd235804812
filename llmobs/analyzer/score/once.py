"""Scorers that another scorer asks as well."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import TypeAlias, TypeVar

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts

__all__ = ["once_a_batch"]

_Self = TypeVar("_Self")
_Score: TypeAlias = Callable[[_Self, ScoringInput, Target], Verdicts]


def once_a_batch(score: _Score[_Self]) -> _Score[_Self]:
    """Let a batch be judged once, whichever instance of the scorer is asked how often.

    For scorers that are made without arguments, so that all instances say the same. What was
    said of the last batch is kept.
    """
    last: tuple[Callable[[], object], Target | None, Verdicts | None]
    last = (lambda: None), None, None

    @wraps(score)
    def remembered(self: _Self, batch: ScoringInput, target: Target) -> Verdicts:
        nonlocal last
        judged, of, verdicts = last
        if verdicts is None or judged() is not batch or of != target:
            verdicts = score(self, batch, target)
            last = weakref.ref(batch), target, verdicts
        return verdicts

    return remembered

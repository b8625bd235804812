"""Answers of a model that is stuck."""

from __future__ import annotations

from typing import Final

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.once import once_a_batch
from llmobs.analyzer.score.verdicts import spread
from llmobs.measures.text import REPETITION_THRESHOLD, REPETITION_VERSION, stuck

__all__ = ["Repetition"]


class Repetition:
    """Value: share of the answer that it has said twice before; high is bad."""

    name: Final = "repetition"
    targets: Final[tuple[Target, ...]] = ("output",)
    version: Final = REPETITION_VERSION

    @once_a_batch
    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Look for loops in answers of 32 words or more."""
        distinct = batch.distinct("output")
        values, starts = stuck(distinct.features)
        fails = values >= REPETITION_THRESHOLD  # NaN is not
        explanations = [
            f"from word {start} on it says again what it has said twice: {value:.0%} of it"
            if fail
            else ""
            for value, start, fail in zip(values.tolist(), starts.tolist(), fails, strict=True)
        ]
        return spread(
            distinct.rows, values, ["fail" if fail else "pass" for fail in fails], explanations
        )

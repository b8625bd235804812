"""The language that users write in."""

from __future__ import annotations

from typing import Final

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.once import once_a_batch
from llmobs.analyzer.score.verdicts import spread
from llmobs.measures.text import LANGUAGE_VERSION, language

__all__ = ["Language"]


class Language:
    """Value: confidence; label: the ISO 639 code. NaN where nothing can be told."""

    name: Final = "language"
    targets: Final[tuple[Target, ...]] = ("input",)
    version: Final = LANGUAGE_VERSION

    @once_a_batch
    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Identify the language of the users' messages."""
        distinct = batch.distinct("input")
        labels, confidences = language(distinct.texts)
        return spread(distinct.rows, confidences, labels, [""] * len(labels))

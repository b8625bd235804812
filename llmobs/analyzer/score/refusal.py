"""Answers that decline to answer."""

from __future__ import annotations

from typing import Final

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.once import once_a_batch
from llmobs.analyzer.score.verdicts import head_verdicts
from llmobs.measures.text import load_head

__all__ = ["Refusal"]


class Refusal:
    """Value: probability that the answer refuses, in full or in part."""

    name: Final = "refusal"
    targets: Final[tuple[Target, ...]] = ("output",)

    def __init__(self) -> None:
        self._head = load_head("refusal")
        self.version = self._head.version

    @once_a_batch
    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge how answers open."""
        return head_verdicts(batch.distinct("output"), self._head, _explanation)


def _explanation(probability: float, position: int) -> str:
    return f"the answer opens like a refusal with probability {probability:.2f}"

"""Insults, hate and obscenity, in answers and in what users write."""

from __future__ import annotations

from typing import Final

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.verdicts import head_verdicts
from llmobs.measures.text import load_head

__all__ = ["Toxicity"]


class Toxicity:
    """Value: probability of a toxic text. Blind to negation, quotes and irony."""

    name: Final = "toxicity"
    targets: Final[tuple[Target, ...]] = ("output", "input")

    def __init__(self) -> None:
        self._head = load_head("toxicity")
        self.version = self._head.version

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge answers, or the users' messages."""
        texts = batch.distinct("input" if target == "input" else "output")
        return head_verdicts(texts, self._head, _explanation)


def _explanation(probability: float, position: int) -> str:
    where = "the text" if position < 0 else f"the passage from word {position}"
    return f"{where} is toxic with probability {probability:.2f}"

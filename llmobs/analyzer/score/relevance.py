"""Whether answers are about what was asked."""

from __future__ import annotations

from typing import Final

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.once import once_a_batch
from llmobs.analyzer.score.pairs import distinct_pairs
from llmobs.analyzer.score.verdicts import spread
from llmobs.measures.text import load_relevance

__all__ = ["Relevance"]


class Relevance:
    """Value: probability that the answer belongs to the message; low is bad.

    It can't tell a wrong answer from a right one, only one about something else.
    """

    name: Final = "relevance"
    targets: Final[tuple[Target, ...]] = ("pair",)

    def __init__(self) -> None:
        self._model = load_relevance()
        self.version = self._model.version

    @once_a_batch
    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge every different pair of message and answer once."""
        inputs, outputs = batch.distinct("input"), batch.distinct("output")
        pairs = distinct_pairs(inputs, outputs)
        judged = self._model.judge(
            inputs.features.take(pairs.first), outputs.features.take(pairs.second)
        )
        fails = judged < self._model.threshold  # NaN is not
        return spread(
            pairs.rows,
            judged,
            ["fail" if fail else "pass" for fail in fails],
            ["the answer is about something else" if fail else "" for fail in fails],
        )

"""Whether answers keep to the documents and tool results that were put before the model."""

from __future__ import annotations

from typing import Final

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.once import once_a_batch
from llmobs.analyzer.score.pairs import distinct_pairs
from llmobs.analyzer.score.verdicts import spread
from llmobs.measures.text import load_grounding

__all__ = ["Groundedness"]


class Groundedness:
    """Value: share of the answer's sentences that its context supports; low is bad.

    It can't tell a fact that was turned round in the context's own words.
    """

    name: Final = "groundedness"
    targets: Final[tuple[Target, ...]] = ("output",)

    def __init__(self) -> None:
        self._model = load_grounding()
        self.version = self._model.version

    @once_a_batch
    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge every different pair of answer and context once; NaN without a context."""
        outputs, contexts = batch.distinct("output"), batch.distinct("context")
        pairs = distinct_pairs(outputs, contexts)
        values, counts, places = self._model.judge(
            [outputs.texts[i] for i in pairs.first.tolist()],
            [contexts.texts[i] for i in pairs.second.tolist()],
        )
        verdicts = [
            _verdict(value, n, place, self._model.threshold)
            for value, n, place in zip(values.tolist(), counts.tolist(), places, strict=True)
        ]
        return spread(
            pairs.rows,
            values,
            [label for label, _ in verdicts],
            [explanation for _, explanation in verdicts],
        )


def _verdict(
    value: float, n_sentences: int, place: tuple[int, int], threshold: float
) -> tuple[str, str]:
    """Return label and explanation."""
    if not n_sentences:
        return "", ""
    label = "fail" if value <= threshold else "pass"
    if value == 1:
        return label, ""
    return label, (
        f"{round(n_sentences * (1 - value))} of {n_sentences} sentences are not borne out by the "
        f"documents and tool results, least of all characters {place[0]} to {place[1]}"
    )

"""Orders hidden in what tools and documents bring in, which may look like ordinary requests."""

from __future__ import annotations

from typing import Final

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.verdicts import spread
from llmobs.measures.text import load_indirect

__all__ = ["IndirectInjection"]


class IndirectInjection:
    """Value: probability that a document or a tool result holds an order to its reader."""

    name: Final = "indirect_injection"
    targets: Final[tuple[Target, ...]] = ("input",)

    def __init__(self) -> None:
        self._model = load_indirect()
        self.version = self._model.version

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge documents and tool results by their worst sentence; NaN where there are none."""
        distinct = batch.distinct("context")
        values, places = self._model.judge(distinct.texts)
        fails = values >= self._model.threshold  # NaN is not
        explanations = [
            f"characters {start} to {end} read like an order to whoever reads this, "
            f"with probability {value:.2f}"
            if fail
            else ""
            for value, (start, end), fail in zip(values.tolist(), places, fails, strict=True)
        ]
        return spread(
            distinct.rows, values, ["fail" if fail else "pass" for fail in fails], explanations
        )

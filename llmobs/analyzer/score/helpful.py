"""Whether an answer was of use, as far as the other scores tell."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np

from llmobs.analyzer.score.base import Scorer, ScoringInput, Target, Verdicts
from llmobs.analyzer.score.form import Format
from llmobs.analyzer.score.grounded import Groundedness
from llmobs.analyzer.score.refusal import Refusal
from llmobs.analyzer.score.relevance import Relevance
from llmobs.analyzer.score.repetition import Repetition

__all__ = ["Helpfulness"]


class Helpfulness:
    """Value: 1 where nothing tells against the answer, 0 where one of five scores does.

    No judgement of its own: the answer is about what was asked, isn't a refusal, isn't stuck,
    keeps to the documents where there are any, and has the form where one was asked for. Whether
    an answer is about what was asked isn't looked at where it had to be JSON, which shares few
    words with the question. NaN where nothing fails and neither relevance nor form is known.
    """

    name: Final = "helpfulness"
    targets: Final[tuple[Target, ...]] = ("pair",)

    def __init__(self) -> None:
        self._relevance = Relevance()
        self._format = Format()
        self._others: tuple[tuple[str, Scorer], ...] = (
            ("refuses", Refusal()),
            ("is stuck", Repetition()),
            ("is not borne out by its documents", Groundedness()),
        )
        parts = (self._relevance, self._format, *(scorer for _, scorer in self._others))
        versions = " ".join(part.version for part in parts)
        self.version = f"1+{zlib.crc32(versions.encode()):08x}"

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Ask the five scores."""
        form = self._format.score(batch, "output")
        relevance = self._relevance.score(batch, "pair")
        asked = np.isfinite(form.values)
        columns = [
            ("has not the form asked for", np.array(form.labels) == "fail"),
            ("is about something else", (np.array(relevance.labels) == "fail") & ~asked),
            *(
                (words, np.array(scorer.score(batch, "output").labels) == "fail")
                for words, scorer in self._others
            ),
        ]
        fails = np.any([column for _, column in columns], axis=0)
        values = np.where(fails, 0.0, 1.0)
        values[~(fails | asked | np.isfinite(relevance.values))] = np.nan
        return Verdicts(
            values,
            [{0.0: "fail", 1.0: "pass"}.get(value, "") for value in values.tolist()],
            [
                "the answer " + " and ".join(words for words, column in columns if column[i])
                if fails[i]
                else ""
                for i in range(len(values))
            ],
        )

"""The seam of the score stage: a batch in, a column out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.measures.text import TextFeatures
from llmobs.records import FloatArray, SpanBatch

__all__ = ["DistinctTexts", "Scorer", "ScoringInput", "Source", "Target", "Verdicts"]

Target: TypeAlias = Literal["input", "output", "pair"]
"""What a score is about, as in `ScoreColumn.target`."""

Source: TypeAlias = Literal["input", "output", "context"]
"""Which text of a span. ``context``: what a tool, a retrieval or a document put in."""


class Verdicts(NamedTuple):
    """What a scorer says about every span of a batch.

    Attributes:
        values: Shape (n,); NaN: nothing to say, and then label and explanation are "".
        labels: ``pass``, ``fail``, a category, or "".
        explanations: One short sentence, or "". Never a text's own words.
    """

    values: FloatArray
    labels: Sequence[str]
    explanations: Sequence[str]


class DistinctTexts(Protocol):
    """The texts of one source, each once. Most traffic repeats itself."""

    @property
    def texts(self) -> Sequence[str]:
        """The different texts, in order of their first appearance; never ""."""

    @property
    def features(self) -> TextFeatures:
        """Their shared features, computed at most once a batch."""

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Shape (n,): which of `texts` each span has; -1: none to judge."""


class ScoringInput(Protocol):
    """One batch and the texts that all scorers share."""

    @property
    def spans(self) -> SpanBatch:
        """The batch itself."""

    @property
    def is_inference(self) -> npt.NDArray[np.bool_]:
        """Shape (n,): the span asked a model for an answer."""

    def distinct(self, source: Source) -> DistinctTexts:
        """Return the texts to judge.

        ``input`` and ``output`` are the user's last message and the answer of inference spans.
        ``context`` is what came from outside: documents and tool results in an inference
        span's input, and what a tool or a retrieval span returned.
        """


class Scorer(Protocol):
    """Judges every span of a batch at once. Deterministic: replayed spans get the same scores."""

    @property
    def name(self) -> str:
        """What is measured, as in ``gen_ai.evaluation.name``."""

    @property
    def version(self) -> str:
        """Changes whenever the same span could get another score."""

    @property
    def targets(self) -> Sequence[Target]:
        """What is judged; one column each."""

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge one of the targets."""

"""The seam of the score stage: a batch in, a column out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from llmobs.measures.text import TextFeatures
from llmobs.records import FloatArray, SpanBatch

__all__ = ["Scorer", "ScoringInput"]


class ScoringInput(Protocol):
    """One batch and the text features that all scorers share, each computed at most once.

    Rows are the rows of `spans`. Texts are "" where there is nothing to judge.
    """

    @property
    def spans(self) -> SpanBatch:
        """The batch itself."""

    @property
    def is_inference(self) -> npt.NDArray[np.bool_]:
        """Shape (n,): the span asked a model for an answer."""

    def texts(self, target: Literal["input", "output"]) -> Sequence[str]:
        """Return the user's last message, or the answer, per span."""

    def features(self, target: Literal["input", "output"]) -> TextFeatures:
        """Return the shared features of those texts."""


class Scorer(Protocol):
    """Judges every span of a batch at once."""

    @property
    def name(self) -> str:
        """What is measured, as in ``gen_ai.evaluation.name``."""

    @property
    def version(self) -> str:
        """Changes whenever the same span could get another score."""

    @property
    def target(self) -> Literal["input", "output", "pair"]:
        """Which text is judged."""

    def score(self, batch: ScoringInput) -> tuple[FloatArray, Sequence[str], Sequence[str]]:
        """Return (values, labels, explanations), each of length n.

        A value is NaN, its label and explanation "", where there is nothing to say.
        """

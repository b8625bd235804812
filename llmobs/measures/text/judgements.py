"""What the packaged heads say about texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.encoder import as_features
from llmobs.measures.text.features import TextFeatures
from llmobs.measures.text.heads import load_head

__all__ = ["injection", "refusal", "toxicity"]

_Floats: TypeAlias = npt.NDArray[np.float64]


def toxicity(texts: Sequence[str] | TextFeatures) -> _Floats:
    """Return how likely each text is toxic or hateful, shape (n,); NaN without a word."""
    return load_head("toxicity").judge(as_features(texts)).probabilities


def injection(texts: Sequence[str] | TextFeatures) -> _Floats:
    """Return how likely each text is an injection or jailbreak, shape (n,); NaN without a word."""
    return load_head("injection").judge(as_features(texts)).probabilities


def refusal(texts: Sequence[str] | TextFeatures) -> _Floats:
    """Return how likely each answer refuses in full or in part, shape (n,); NaN without a word."""
    return load_head("refusal").judge(as_features(texts)).probabilities

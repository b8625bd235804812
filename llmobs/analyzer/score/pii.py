"""Personal data and secrets in messages and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.verdicts import spread
from llmobs.measures.text import PII_VERSION, PiiSpan, pii

__all__ = ["Pii"]


class Pii:
    """Value: how many pieces of personal data or secrets; fail from one on."""

    name: Final = "pii"
    targets: Final[tuple[Target, ...]] = ("output", "input")
    version: Final = PII_VERSION

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Count them in answers, or in the users' messages."""
        distinct = batch.distinct("input" if target == "input" else "output")
        found = pii(distinct.texts)
        return spread(
            distinct.rows,
            np.array([len(spans) for spans in found], np.float64),
            ["fail" if spans else "pass" for spans in found],
            [_explanation(spans) for spans in found],
        )


def _explanation(spans: Sequence[PiiSpan]) -> str:
    """Say what kinds there are. The values themselves must not travel on."""
    counts = Counter(span.kind for span in spans)
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))

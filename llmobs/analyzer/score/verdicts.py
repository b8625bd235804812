"""From what a measure says about distinct texts to what a column says about spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.score.base import DistinctTexts, Scorer, Target, Verdicts
from llmobs.measures.text import Head
from llmobs.records import FloatArray, ScoreColumn

__all__ = ["as_column", "head_verdicts", "spread"]


def spread(
    rows: npt.NDArray[np.int64],
    values: FloatArray,
    labels: Sequence[str],
    explanations: Sequence[str],
) -> Verdicts:
    """Hand every span the verdict on its text, or pair of texts.

    Args:
        rows: Which of the texts each span has; -1: none, and then NaN and "" are said of it.
        values: Of the texts; NaN: nothing to say of this one.
        labels: Likewise.
        explanations: Likewise.
    """
    known = [*map(bool, np.isfinite(values)), False]  # -1 finds the last: no text
    return Verdicts(
        np.append(values, np.nan)[rows],
        [labels[row] if known[row] else "" for row in rows.tolist()],
        [explanations[row] if known[row] else "" for row in rows.tolist()],
    )


def head_verdicts(
    distinct: DistinctTexts, head: Head, explain: Callable[[float, int], str]
) -> Verdicts:
    """Judge texts by a head: fail from its threshold on.

    Args:
        distinct: The texts.
        head: Judges them.
        explain: Gets the probability and the position of the deciding window in words (-1: the
            whole text) of a text that fails.
    """
    values, positions = head.judge(distinct.features)
    fails = values >= head.threshold  # NaN is not
    explanations = [
        explain(value, position) if fail else ""
        for value, position, fail in zip(values.tolist(), positions.tolist(), fails, strict=True)
    ]
    return spread(
        distinct.rows, values, ["fail" if fail else "pass" for fail in fails], explanations
    )


def as_column(
    scorer: Scorer, target: Target, verdicts: Verdicts, n_spans: int
) -> ScoreColumn | str:
    """Return verdicts as a column that the next stages can trust, or what is wrong with them."""
    values = np.asarray(verdicts.values, np.float64)
    labels, explanations = list(verdicts.labels), list(verdicts.explanations)
    lengths = {len(labels), len(explanations)}
    if values.shape != (n_spans,) or lengths != {n_spans}:
        return (
            f"returned values of shape {values.shape}, {sorted(lengths)} texts for {n_spans} spans"
        )
    if np.isinf(values).any():
        return "returned an infinite value"
    if not all(isinstance(text, str) for text in (*labels, *explanations)):
        return "returned labels or explanations that are no texts"
    return ScoreColumn(scorer.name, scorer.version, target, values, labels, explanations)

"""The score stage: every answer is judged by every scorer, a batch at a time."""

from llmobs.analyzer.score.base import (
    DistinctTexts,
    Scorer,
    ScoringInput,
    Source,
    Target,
    Verdicts,
)
from llmobs.analyzer.score.stage import Batch, ScoreStage, load_scorers

__all__ = [
    "Batch",
    "DistinctTexts",
    "ScoreStage",
    "Scorer",
    "ScoringInput",
    "Source",
    "Target",
    "Verdicts",
    "load_scorers",
]

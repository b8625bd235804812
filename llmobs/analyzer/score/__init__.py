"""The score stage: every answer is judged by every scorer, a batch at a time."""

from llmobs.analyzer.score.base import (
    DistinctTexts,
    Scorer,
    ScoringInput,
    Source,
    Target,
    Verdicts,
)
from llmobs.analyzer.score.load import GROUP, load_file, load_scorers
from llmobs.analyzer.score.own import NAME, FunctionScorer, Verdict, scorer
from llmobs.analyzer.score.stage import Batch, ScoreStage
from llmobs.analyzer.score.thresholds import Rule, with_thresholds
from llmobs.analyzer.score.verdicts import as_column

__all__ = [
    "GROUP",
    "NAME",
    "Batch",
    "DistinctTexts",
    "FunctionScorer",
    "Rule",
    "ScoreStage",
    "Scorer",
    "ScoringInput",
    "Source",
    "Target",
    "Verdict",
    "Verdicts",
    "as_column",
    "load_file",
    "load_scorers",
    "scorer",
    "with_thresholds",
]

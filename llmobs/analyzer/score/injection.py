"""Prompt injections and jailbreaks: by the user, and by what tools and documents bring in."""

from __future__ import annotations

from typing import Final

import numpy as np

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.verdicts import head_verdicts
from llmobs.measures.text import load_head

__all__ = ["Injection"]


class Injection:
    """Value: probability of an attack, the higher of the user's message and the context.

    The parts are judged apart, never joined: what is harmless around an attack hides it.
    """

    name: Final = "injection"
    targets: Final[tuple[Target, ...]] = ("input",)

    def __init__(self) -> None:
        self._head = load_head("injection")
        self.version = self._head.version

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge messages, documents and tool results."""
        direct = head_verdicts(batch.distinct("input"), self._head, _explain_direct)
        indirect = head_verdicts(batch.distinct("context"), self._head, _explain_indirect)
        # fmax takes the one that is a number, where only one is.
        values = np.fmax(direct.values, indirect.values)
        which = np.where(values == direct.values, 0, 1).tolist()
        labels = zip(direct.labels, indirect.labels, strict=True)
        explanations = zip(direct.explanations, indirect.explanations, strict=True)
        return Verdicts(
            values,
            [pair[i] for pair, i in zip(labels, which, strict=True)],
            [pair[i] for pair, i in zip(explanations, which, strict=True)],
        )


def _explain_direct(probability: float, position: int) -> str:
    return _explanation("the message", probability, position)


def _explain_indirect(probability: float, position: int) -> str:
    return _explanation("a document or tool result", probability, position)


def _explanation(what: str, probability: float, position: int) -> str:
    where = "" if position < 0 else f" from word {position}"
    return f"{what} reads like an attack{where}, with probability {probability:.2f}"

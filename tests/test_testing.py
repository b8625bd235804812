from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import llmobs
from llmobs.analyzer.score import ScoringInput, Target, Verdict, Verdicts, load_scorers
from llmobs.testing import check_scorer


@dataclass
class Fake:
    act: Callable[[ScoringInput], Any]
    name: str = "fake"
    version: str = "1"
    targets: tuple[Any, ...] = ("output",)

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        verdicts: Verdicts = self.act(batch)
        return verdicts


def of_answers(batch: ScoringInput) -> Verdicts:
    lengths = [float(len(text)) or np.nan for text in batch.spans.texts("output_text")]
    words = ["" if np.isnan(length) else "pass" for length in lengths]
    return Verdicts(np.array(lengths), words, words)


def constant(batch: ScoringInput) -> Verdicts:
    n = len(batch.spans)
    return Verdicts(np.ones(n), ["pass"] * n, [""] * n)


def of_the_batch(batch: ScoringInput) -> Verdicts:
    made = of_answers(batch)
    return made._replace(values=made.values * len(batch.spans))


def by_place(batch: ScoringInput) -> Verdicts:
    made = of_answers(batch)
    return made._replace(values=made.values + np.arange(len(batch.spans)))


def one_short(batch: ScoringInput) -> Verdicts:
    made = of_answers(batch)
    return made._replace(labels=made.labels[1:])


def wordy(batch: ScoringInput) -> Verdicts:
    n = len(batch.spans)
    return Verdicts(np.full(n, np.nan), ["pass"] * n, [""] * n)


def quoting(batch: ScoringInput) -> Verdicts:
    made = of_answers(batch)
    return made._replace(explanations=batch.spans.texts("output_text"))


def proud(batch: ScoringInput) -> Verdicts:
    return of_answers(batch) if len(batch.spans) else 1 / 0  # type: ignore[return-value]


@pytest.mark.parametrize("scorer", load_scorers(), ids=lambda scorer: scorer.name)
def test_every_packaged_scorer_keeps_the_contract(scorer: Any) -> None:
    check_scorer(scorer)


def test_a_scorer_that_keeps_the_contract_passes() -> None:
    check_scorer(Fake(of_answers))


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (Fake(of_answers, name="Bad Name"), "does not match"),
        (Fake(of_answers, version=""), "version"),
        (Fake(of_answers, targets=()), "targets"),
        (Fake(of_answers, targets=("answer",)), "targets"),
        (Fake(constant), "without text"),
        (Fake(of_the_batch), "alone than beside others"),
        (Fake(by_place), "in another order"),
        (Fake(one_short), "spans"),
        (Fake(wordy), "where it has no number"),
        (Fake(quoting), "quotes a text"),
        (Fake(proud), "raises ZeroDivisionError"),
    ],
)
def test_a_scorer_that_breaks_the_contract_is_told_how(scorer: Fake, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer)


def test_a_function_that_says_another_thing_each_time_is_found() -> None:
    numbers = itertools.count()

    @llmobs.scorer
    def counting(text: str) -> Verdict:
        return Verdict(next(numbers))

    with pytest.raises(AssertionError, match="asked again"):
        check_scorer(counting)

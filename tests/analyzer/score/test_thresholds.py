"""Thresholds of the user's own decide, the narrowest first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llmobs.analyzer.score import Batch, Rule, Scorer, scorer, with_thresholds
from llmobs.analyzer.score.relevance import Relevance
from llmobs.analyzer.score.toxicity import Toxicity
from llmobs.errors import ConfigurationError
from llmobs.measures.text import TextEncoder
from llmobs.testing import chat, check_scorer, spans

ENGLISH = "Could you please tell me when the shop in the main street opens tomorrow?"
GERMAN = "Können Sie mir bitte sagen, wann der Laden in der Hauptstraße morgen öffnet?"


@scorer(version="1", target=("input", "output"), fail_from=1)
def words(text: str) -> float:
    return float(len(text.split()))


def labels(of: Scorer, *rows: tuple[str, str]) -> Sequence[str]:
    """Judge the questions of (service, question)."""
    batch = spans([{**chat(question, "yes"), "service": service} for service, question in rows])
    return of.score(Batch(batch, TextEncoder.load()), "input").labels


def ruled(*rules: Rule) -> Scorer:
    (one,) = with_thresholds([words], rules)
    return one


def test_the_rule_that_says_more_wins() -> None:
    of = ruled(
        Rule("words", "input", 5, False, "shop", "de"),
        Rule("words", "input", 100, False),
        Rule("words", "input", 200, False, service="shop"),
        Rule("words", "input", 6, False, language="de"),
    )
    places = [("shop", GERMAN), ("shop", ENGLISH), ("app", GERMAN), ("app", ENGLISH)]
    assert labels(of, *places) == ["fail", "pass", "fail", "pass"]


def test_a_place_without_a_rule_keeps_the_scorers_own_verdict() -> None:
    of = ruled(Rule("words", "input", 100, False, service="shop"))
    assert labels(of, ("app", ENGLISH), ("shop", ENGLISH)) == ["fail", "pass"]
    other_target = ruled(Rule("words", "output", 100, False))
    assert labels(other_target, ("app", ENGLISH)) == ["fail"]


@pytest.mark.parametrize(("fails_below", "verdicts"), [(False, "pff"), (True, "fpp")])
def test_a_value_at_the_threshold_fails_from_it_and_not_below_it(
    fails_below: bool, verdicts: str
) -> None:
    of = ruled(Rule("words", "input", 2, fails_below))
    found = labels(of, ("", "one"), ("", "one two"), ("", "one two three"))
    assert "".join(label[0] for label in found) == verdicts


def test_what_has_no_score_has_no_verdict_and_what_fails_says_why() -> None:
    of = ruled(Rule("words", "input", 2, False))
    batch = Batch(
        spans([chat("", "x"), chat("one two", "x"), chat("one", "x")]), TextEncoder.load()
    )
    said = of.score(batch, "input")
    assert said.labels == ["", "fail", "pass"]
    assert said.explanations == ["", "the value reaches 2", ""]


def test_the_version_changes_with_the_rules_and_not_with_their_order() -> None:
    one, other = Rule("words", "input", 1, False), Rule("words", "input", 2, False, "shop")
    assert ruled(one, other).version == ruled(other, one).version
    assert ruled(one).version != ruled(other).version
    assert ruled(one).version.startswith("1+")
    assert with_thresholds([words], []) == [words]


@pytest.mark.parametrize("packaged", [Toxicity(), Relevance()])
def test_a_packaged_scorer_keeps_its_contract_with_rules(packaged: Scorer) -> None:
    target = packaged.targets[0]
    rules = [
        Rule(packaged.name, target, 0.9, packaged.name == "relevance"),
        Rule(packaged.name, target, 0.5, packaged.name == "relevance", language="en"),
    ]
    check_scorer(*with_thresholds([packaged], rules))


def test_a_rule_of_nothing_here_and_two_of_one_place_are_said() -> None:
    with pytest.raises(
        ConfigurationError, match=r"score 'words' and target 'pair'.*words \(input\)"
    ):
        ruled(Rule("words", "pair", 1, False))
    with pytest.raises(ConfigurationError, match="two thresholds are of words input shop"):
        ruled(Rule("words", "input", 1, False, "shop"), Rule("words", "input", 2, False, "shop"))

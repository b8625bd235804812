"""Groundedness, format, repetition, and helpfulness, which is made of them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from llmobs.analyzer.score import Batch, Verdicts
from llmobs.analyzer.score.form import Format
from llmobs.analyzer.score.grounded import Groundedness
from llmobs.analyzer.score.helpful import Helpfulness
from llmobs.analyzer.score.repetition import Repetition
from llmobs.measures.text import TextEncoder
from llmobs.testing import check_scorer
from tests.analyzer.score.spans import chat, spans

SHOP = "The shop in Harbour Street opens at 9 on weekdays. It is closed on public holidays."
QUESTION = "When does the shop in Harbour Street open on weekdays?"
ANSWER = "The shop in Harbour Street opens at 9 on weekdays."
INVENTED = "It was a bakery in the time of Queen Victoria."
SCHEMA = json.dumps({"type": "object", "required": ["opens"]})


def batch(*rows: dict[str, Any]) -> Batch:
    return Batch(spans(rows), TextEncoder.load())


def attributes(**texts: str) -> dict[str, Any]:
    return {"attributes_s": [(key.replace("__", "."), text) for key, text in texts.items()]}


def asked(answer: str, **columns: Any) -> dict[str, Any]:
    return chat(QUESTION, answer, **(attributes(gen_ai__output__type="json") | columns))


def columns(verdicts: Verdicts) -> tuple[list[float | None], list[str]]:
    values = [None if math.isnan(value) else value for value in verdicts.values.tolist()]
    return values, list(verdicts.labels)


@pytest.mark.parametrize("make", [Format, Groundedness, Helpfulness, Repetition])
def test_they_keep_the_contract_of_scorers(make: Any) -> None:
    check_scorer(make())


def test_answers_are_held_against_the_context_of_their_own_span() -> None:
    verdicts = Groundedness().score(
        batch(
            chat(QUESTION, ANSWER, context_text=SHOP),
            chat(QUESTION, f"{ANSWER} {INVENTED}", context_text=SHOP),
            chat(QUESTION, ANSWER, context_text="Our prices rise in May, says the manager."),
            chat(QUESTION, ANSWER),
            chat(QUESTION, "Yes.", context_text=SHOP),
            chat(QUESTION, ANSWER, context_text=SHOP),
            {"operation": "retrieval", "context_text": SHOP, "output_text": SHOP},
        ),
        "output",
    )
    values = [1.0, 0.5, 0.0, None, None, 1.0, None]
    assert columns(verdicts) == (values, ["pass", "fail", "fail", "", "", "pass", ""])
    start = len(ANSWER) + 1
    assert verdicts.explanations[:2] == [
        "",
        "1 of 2 sentences are not borne out by the documents and tool results, "
        f"least of all characters {start} to {start + len(INVENTED)}",
    ]


def test_json_that_was_asked_for_is_read() -> None:
    cut_off = "no JSON from character 1 on; the answer was cut off at its token limit"
    verdicts = Format().score(
        batch(
            asked('{"opens": 9}'),
            asked('```json\n{"opens": 9}\n```'),
            asked("{", finish_reason="length"),
            asked("I look that up.", finish_reason="tool_call"),
            asked(""),
            asked('{"a": 1}\n{"a": 1}', attributes_n=[("gen_ai.request.choice.count", 2.0)]),
            chat(QUESTION, ANSWER),
            chat(QUESTION, ANSWER, **attributes(gen_ai__output__type="text")),
        ),
        "output",
    )
    values = [1.0, 0.0, 0.0, None, None, None, None, None]
    assert columns(verdicts) == (values, ["pass", "fail", "fail", "", "", "", "", ""])
    fence = "a code fence stands around the JSON"
    assert verdicts.explanations == ["", fence, cut_off, "", "", "", "", ""]


@pytest.mark.parametrize(
    "sent",
    [
        attributes(gen_ai__request__structured_output_schema=SCHEMA),
        attributes(ai__schema=SCHEMA),
        {
            "attributes_s": [
                (
                    "llm.invocation_parameters",
                    json.dumps(
                        {
                            "response_format": {
                                "type": "json_schema",
                                "json_schema": {"name": "hours", "schema": json.loads(SCHEMA)},
                            }
                        }
                    ),
                )
            ]
        },
    ],
)
def test_the_schema_is_found_where_libraries_put_it(sent: dict[str, Any]) -> None:
    verdicts = Format().score(
        batch(chat(QUESTION, '{"opens": 9}', **sent), chat(QUESTION, "{}", **sent)), "output"
    )
    assert columns(verdicts) == ([1.0, 0.0], ["pass", "fail"])
    assert verdicts.explanations == ["", "/opens is missing"]


@pytest.mark.parametrize(
    ("parameters", "value"),
    [
        ('{"response_format": {"type": "json_object"}}', 0.0),
        ('{"response_format": {"type": "text"}}', None),
        ('{"response_format": "json"}', None),
        ('{"response_format', None),
    ],
)
def test_parameters_that_ask_for_no_json_ask_for_no_form(
    parameters: str, value: float | None
) -> None:
    row = chat(QUESTION, ANSWER, **attributes(llm__invocation_parameters=parameters))
    assert columns(Format().score(batch(row), "output"))[0] == [value]


def test_an_answer_that_goes_round_in_circles_fails() -> None:
    stuck = "The shop opens at nine, as I said. " * 30
    verdicts = Repetition().score(
        batch(chat(QUESTION, stuck), chat(QUESTION, ANSWER), chat(QUESTION, ANSWER * 4)), "output"
    )
    assert verdicts.labels == ["fail", "", "pass"]
    assert verdicts.explanations[0].startswith("from word ")


def test_an_answer_is_helpful_where_no_score_tells_against_it() -> None:
    verdicts = Helpfulness().score(
        batch(
            chat(QUESTION, ANSWER),
            chat(QUESTION, "I'm sorry, but I can't assist with that."),
            chat(
                "How do I bake sourdough bread at home?",
                "The Eiffel Tower in Paris was completed in 1889 for a world fair.",
            ),
            chat(QUESTION, f"{ANSWER} " * 30),
            chat(QUESTION, f"{ANSWER} {INVENTED}", context_text=SHOP),
            asked('{"opens": 9}'),
            asked(f'Sure! {{"{ANSWER}": 9}}'),
            chat(QUESTION, "Nine."),
            chat(QUESTION),
        ),
        "pair",
    )
    values = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, None, None]
    assert columns(verdicts)[0] == values
    assert verdicts.explanations == [
        "",
        "the answer is about something else and refuses",
        "the answer is about something else",
        "the answer is stuck",
        "the answer is not borne out by its documents",
        "",
        "the answer has not the form asked for",
        "",
        "",
    ]


def test_explanations_hold_no_words_of_answer_or_context() -> None:
    row = asked('{"zebra": zebra}', context_text=f"zebra {SHOP}")
    loop = chat(QUESTION, "The zebra sleeps in the street. " * 40, context_text=SHOP)
    for scorer in (Format(), Groundedness(), Helpfulness(), Repetition()):
        verdicts = scorer.score(batch(row, loop), scorer.targets[0])
        assert np.isfinite(verdicts.values).any()
        assert "zebra" not in "".join(verdicts.explanations)

"""Feedback from here, from later and from elsewhere."""

from __future__ import annotations

import pytest

import llmobs
from llmobs.sdk import context
from tests.sdk.conftest import Start

EVENT = "gen_ai.evaluation.result"


def test_feedback_within_a_span_is_about_that_span(start: Start) -> None:
    otlp = start()

    @llmobs.observe
    def flow() -> None:
        llmobs.feedback(0.5, "fine", "could be shorter", user_id="u-1")

    flow()
    llmobs.flush(10)
    (event,) = otlp.events
    span = otlp.spans[0]
    assert event.name == EVENT
    assert (event.trace_id, event.span_id) == (span.trace_id, span.span_id)
    assert event.attributes == {
        "gen_ai.evaluation.name": "user_feedback",
        "gen_ai.evaluation.score.value": 0.5,
        "gen_ai.evaluation.score.label": "fine",
        "gen_ai.evaluation.explanation": "could be shorter",
        "user.id": "u-1",
        "llmobs.feedback.source": "user",
    }


def test_feedback_comes_hours_later_by_ids(start: Start) -> None:
    otlp = start()
    llmobs.feedback(True, trace_id="ab" * 16, span_id="cd" * 8)
    llmobs.feedback(False, response_id="r-1", name="accuracy", source="reviewer")
    llmobs.feedback(label="resolved", session_id="s-1")
    llmobs.feedback(1, trace_id="ab" * 16)
    llmobs.flush(10)
    first, second, third, fourth = otlp.events
    assert (first.trace_id, first.span_id) == ("ab" * 16, "cd" * 8)
    assert first.attributes["gen_ai.evaluation.score.value"] == 1.0
    assert second.attributes["gen_ai.response.id"] == "r-1"
    assert second.attributes["gen_ai.evaluation.score.value"] == 0.0
    assert second.attributes["gen_ai.evaluation.name"] == "accuracy"
    assert third.attributes["session.id"] == "s-1"
    assert fourth.trace_id == "ab" * 16


def test_bad_feedback_raises_nothing(start: Start) -> None:
    llmobs.feedback(1)
    otlp = start()
    llmobs.feedback()
    llmobs.feedback(1, trace_id="no hex")
    llmobs.flush(10)
    assert otlp.events == []


def test_a_comment_is_masked_where_content_is(start: Start) -> None:
    otlp = start(capture_content="redacted")
    llmobs.feedback(0, comment="reach me at jo@x.org", session_id="s")
    llmobs.flush(10)
    assert otlp.events[0].attributes["gen_ai.evaluation.explanation"] == "reach me at [EMAIL]"


def test_feedback_lands_under_the_feature_and_service_that_are_judged(start: Start) -> None:
    otlp = start()

    @llmobs.observe(feature="checkout")
    def flow() -> llmobs.Ids | None:
        llmobs.feedback(1)
        return llmobs.current_ids()

    with llmobs.session("s-1"):
        ids = flow()
    assert ids is not None
    with llmobs.session("s-2", "u-2", feature="thumbs"):  # of the request that brings the thumb
        llmobs.feedback(1, trace_id=ids.trace_id, span_id=ids.span_id)
        llmobs.feedback(1, trace_id=ids.trace_id)
        llmobs.feedback(1, trace_id="ab" * 16, span_id="cd" * 8)
        llmobs.feedback(1, response_id="r-1", feature="search", session_id="s-3")
    llmobs.flush(10)
    told = [
        (e.attributes["llmobs.feature"], e.attributes["session.id"], e.attributes.get("user.id"))
        for e in otlp.events
    ]
    assert told == [
        ("checkout", "s-1", None),
        ("checkout", "s-1", "u-2"),
        ("checkout", "s-1", "u-2"),
        ("thumbs", "s-2", "u-2"),  # of an unknown answer nothing better is known
        ("search", "s-3", "u-2"),
    ]
    assert {event.resource["service.name"] for event in otlp.events} == {"shop"}


def test_what_is_remembered_of_ids_is_bounded(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_REMEMBERED_IDS", 10)
    start()

    @llmobs.observe(feature="f")
    def flow() -> None:
        llmobs.current_ids()

    for _ in range(20):
        flow()
    assert len(context._sessions) == 10


@pytest.mark.parametrize("bad", ["ab" * 17, "-" + "a" * 31, "no hex", "\ud800" * 32])
def test_ids_from_a_page_that_are_none_harm_no_other_feedback(start: Start, bad: str) -> None:
    otlp = start()
    llmobs.feedback(1, trace_id=bad)
    llmobs.feedback(1, trace_id="ab" * 16, span_id=bad)
    llmobs.feedback(1, trace_id="", span_id="", session_id="s-1")
    llmobs.flush(10)
    assert [event.attributes["session.id"] for event in otlp.events] == ["s-1"]
    assert llmobs.status().dropped == {}


def test_a_lone_surrogate_in_a_comment_costs_itself_alone(start: Start) -> None:
    otlp = start()
    llmobs.feedback(1, comment="a\ud800b\0", session_id="s")
    llmobs.flush(10)
    assert otlp.events[0].attributes["gen_ai.evaluation.explanation"] == "a?b\0"

"""Feedback from here, from later and from elsewhere."""

from __future__ import annotations

import llmobs
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

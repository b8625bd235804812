"""What users say of an answer, sent as the conventions' evaluation event."""

from __future__ import annotations

import re
from time import time_ns
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from llmobs import semconv
from llmobs.sdk import runtime as process
from llmobs.sdk.content import Redactor
from llmobs.sdk.context import current_ids, remembered_session, session_of
from llmobs.sdk.events import event_record
from llmobs.sdk.foreign import EventItem
from llmobs.sdk.guarded import guarded, report
from llmobs.sdk.span import Session

__all__ = ["feedback"]

_TRACE_ID: Final = re.compile("[0-9a-f]{32}", re.IGNORECASE)
_SPAN_ID: Final = re.compile("[0-9a-f]{16}", re.IGNORECASE)


def feedback(
    score: float | bool | None = None,
    label: str | None = None,
    comment: str | None = None,
    *,
    trace_id: str | None = None,
    span_id: str | None = None,
    response_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    feature: str | None = None,
    name: str = "user_feedback",
    source: str = "user",
) -> None:
    """Send what somebody says of an answer: from here and now, or from anywhere later.

    Without ids it is about the current span. Ids come from `llmobs.current_ids`, so a page can
    send them back with the thumb, hours later and to another process. Never raises or waits; what
    has no score, label or comment, or ids that are none, is not sent, and said in the log.

    Args:
        score: A number, higher is better; True is 1 and False is 0.
        label: A word such as ``helpful``.
        comment: Free text. It is content that the caller hands over on purpose, so it is sent
            in any capture mode, masked in ``redacted``.
        trace_id: In hex, of the trace that is judged.
        span_id: In hex, of the span that is judged; goes with `trace_id`.
        response_id: The provider's id of the answer, where there is no span id.
        session_id: The session that is judged; else that of the ids, where this process has handed
            them out not too long ago, else the current one.
        user_id: Who says it; else the user of the current session.
        feature: The part of the app that is judged; else as for `session_id`.
        name: What is judged, as in ``gen_ai.evaluation.name``.
        source: Who judges, as in ``llmobs.feedback.source``: ``user``, ``reviewer`` …
    """
    active = process.active
    if active is None:
        report("feedback before init is not sent")
        return
    with guarded("send feedback"):
        if score is None and label is None and comment is None:
            report("feedback without score, label and comment is not sent")
            return
        if not (_is_id(trace_id, _TRACE_ID) and _is_id(span_id, _SPAN_ID)):
            report("feedback with ids that are none is not sent")
            return
        if trace_id is None and span_id is None and response_id is None and session_id is None:
            ids = current_ids()
            trace_id, span_id = (None, None) if ids is None else ids
        here = session_of() or Session()
        judged = remembered_session(trace_id, span_id) or here
        settings = active.settings
        if comment is not None:
            redactor = Redactor(settings.max_characters, settings.redact)
            comment = redactor.apply(comment, masked=settings.content == "redacted")
        facts: dict[str, Any] = {
            semconv.GEN_AI_EVALUATION_NAME: name,
            semconv.GEN_AI_EVALUATION_SCORE_VALUE: None if score is None else float(score),
            semconv.GEN_AI_EVALUATION_SCORE_LABEL: label,
            semconv.GEN_AI_EVALUATION_EXPLANATION: comment,
            semconv.GEN_AI_RESPONSE_ID: response_id,
            semconv.SESSION_ID: session_id or judged.session_id,
            semconv.USER_ID: user_id or here.user_id,
            semconv.LLMOBS_FEATURE: feature or judged.feature,
            semconv.LLMOBS_FEEDBACK_SOURCE: source,
        }
        record = event_record(
            active,
            semconv.EVENT_GEN_AI_EVALUATION_RESULT,
            {key: value for key, value in facts.items() if value is not None},
            at_ns=time_ns(),
            context=_context(trace_id, span_id),
        )
        active.buffer.put(EventItem(record, is_foreign=False))


def _is_id(said: str | None, pattern: re.Pattern[str]) -> bool:
    """Return whether an id is none or well-formed: these come from pages, and so from anybody."""
    return not said or pattern.fullmatch(said) is not None


def _context(trace_id: str | None, span_id: str | None) -> Context:
    """Return a context of the judged span; a log record takes its ids from there."""
    of_trace = int(trace_id, 16) if trace_id else 0
    of_span = int(span_id, 16) if span_id else 0
    where = SpanContext(of_trace, of_span, is_remote=True)
    return trace.set_span_in_context(trace.NonRecordingSpan(where), Context())

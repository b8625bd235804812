"""Who is served and where we are: sessions, the current span, its ids."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any, Final, NamedTuple

from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.util.types import AnyValue

from llmobs import semconv
from llmobs.sdk import runtime as process
from llmobs.sdk.content import freeze, word
from llmobs.sdk.guarded import guarded, report
from llmobs.sdk.span import (
    LIVE_KEY,
    OPERATIONS,
    SESSION_KEY,
    Kind,
    LiveSpan,
    Session,
    Spec,
    detach,
    open_span,
)

__all__ = [
    "Handle",
    "Ids",
    "current",
    "current_ids",
    "remembered_session",
    "session",
    "session_of",
    "span",
    "trace_id",
]

# Ids that were handed out and whose session is kept, at most: some hours of a busy page, 5 MB.
_REMEMBERED_IDS: Final = 20_000


class Handle:
    """What `current` returns outside a span: takes every call and does nothing."""

    __slots__ = ()

    def set(self, **facts: Any) -> None:
        """Do nothing."""

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Do nothing."""

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Do nothing."""

    def attempt(self) -> None:
        """Do nothing."""

    def fail(self, error: BaseException) -> None:
        """Do nothing."""


_NO_SPAN: Final = Handle()
_sessions: Final[dict[str, Session]] = {}


class Ids(NamedTuple):
    """Ids of a span in lower-case hex, to hand to a page that will ask for feedback."""

    trace_id: str
    span_id: str


def current() -> LiveSpan | Handle:
    """Return the innermost span of ours, to say what arguments and results don't show.

    Outside a span, and before `llmobs.init`, what is returned takes every call and does nothing.
    """
    live = context_api.get_value(LIVE_KEY)
    return live if isinstance(live, LiveSpan) else _NO_SPAN


def current_ids() -> Ids | None:
    """Return the ids of the innermost span of ours, else of the current one; None outside.

    Whose they are is remembered for a while, for the feedback that may come with them.
    """
    live = context_api.get_value(LIVE_KEY)
    at = live if isinstance(live, LiveSpan) else trace.get_current_span()
    where = at.get_span_context()
    if not where.is_valid:
        return None
    ids = Ids(trace.format_trace_id(where.trace_id), trace.format_span_id(where.span_id))
    said = live.session if isinstance(live, LiveSpan) else session_of()
    if said is not None:
        for known in ids:
            _sessions[known] = said
        with suppress(KeyError, RuntimeError, StopIteration):  # another thread was first
            while len(_sessions) > _REMEMBERED_IDS:
                del _sessions[next(iter(_sessions))]
    return ids


def remembered_session(trace_id: str | None, span_id: str | None) -> Session | None:
    """Return the session of ids that `current_ids` has handed out here, None of unknown ones."""
    return _sessions.get(span_id or "") or _sessions.get(trace_id or "")


def trace_id() -> str | None:
    """Return the current trace's id in lower-case hex, None outside a trace."""
    ids = current_ids()
    return None if ids is None else ids.trace_id


def session_of(context: Context | None = None) -> Session | None:
    """Return the session that a context is in: one begun here, or one that came as baggage."""
    own = context_api.get_value(SESSION_KEY, context)
    if isinstance(own, Session):
        return own
    carried = baggage.get_all(context)
    if not carried:
        return None
    names = (semconv.SESSION_ID, semconv.USER_ID, semconv.LLMOBS_FEATURE)
    said = [value if isinstance(value := carried.get(name), str) else None for name in names]
    return Session(said[0], said[1], said[2]) if any(said) else None


class session:  # noqa: N801 - used as a statement: `with llmobs.session("s-1"):`
    """Put a session, a user and a feature on every span within, other instrumentations' included.

    Sessions nest: what an inner one doesn't say, the outer one does. For ``with`` and
    ``async with``; one object may serve many tasks at a time. Ids that are no texts become texts.

    Args:
        session_id: Sent as ``gen_ai.conversation.id`` and ``session.id``.
        user_id: Sent as ``user.id``.
        feature: The part of the app that calls, sent as ``llmobs.feature``; a few dozen values.
        propagate: Hand the three on as W3C baggage too, to the services that are called within.
            Off by default: baggage goes to whoever is called, third parties included.
        attributes: Further attributes for every span within, by name.
    """

    def __init__(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        feature: str | None = None,
        *,
        propagate: bool = False,
        **attributes: AnyValue,
    ) -> None:
        self._said = Session()
        self._propagate = propagate
        self._tokens: list[Token[Context]] = []
        with guarded("read a session"):
            self._said = Session(
                word(session_id), word(user_id), word(feature), freeze(attributes)[0]
            )

    def __enter__(self) -> None:
        with guarded("begin a session"):
            outer = session_of() or Session()
            said = self._said
            inner = Session(
                said.session_id if said.session_id is not None else outer.session_id,
                said.user_id if said.user_id is not None else outer.user_id,
                said.feature if said.feature is not None else outer.feature,
                {**outer.attributes, **said.attributes},
            )
            context = context_api.set_value(SESSION_KEY, inner)
            if self._propagate:
                context = _with_baggage(inner, context)
            self._tokens.append(context_api.attach(context))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with guarded("end a session"):
            # The last one that this context has attached: tasks may share the object.
            for token in reversed(self._tokens.copy()):
                if detach(token):
                    self._tokens.remove(token)
                    return
            if len(self._tokens) == 1:  # closed in another context: nothing to restore
                self._tokens.clear()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def _with_baggage(said: Session, context: Context) -> Context:
    for name, value in (
        (semconv.SESSION_ID, said.session_id),
        (semconv.USER_ID, said.user_id),
        (semconv.LLMOBS_FEATURE, said.feature),
    ):
        if value is not None:
            context = baggage.set_baggage(name, value, context)
    return context


class span:  # noqa: N801 - used as a statement: `with llmobs.span("tool", name="search") as s:`
    """Make a span of what is no function.

    Args:
        kind: As in `llmobs.observe`.
        name: Of the workflow, agent or tool; the data source of a retrieval.
        model: The model asked for.
        provider: As in ``gen_ai.provider.name``.
        feature: The part of the app that calls; holds for all within.
        input: Prompt, messages, query or arguments.
        attributes: Any attributes by name.
    """

    def __init__(
        self,
        kind: Kind = "workflow",
        *,
        name: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        feature: str | None = None,
        input: Any = None,  # noqa: A002 - the word that people look for
        attributes: Mapping[str, AnyValue] | None = None,
    ) -> None:
        if kind not in OPERATIONS:
            report("a span of unknown kind is a workflow", kind=str(kind))
            kind = "workflow"
        self._spec = Spec(kind, name or kind, model, provider, feature)
        self._input = input
        self._attributes = attributes
        self._open: list[tuple[LiveSpan, Token[Context]]] = []

    def __enter__(self) -> LiveSpan | Handle:
        active = process.active
        if active is None:
            return _NO_SPAN
        with guarded("begin a span"):
            live, context = open_span(active, self._spec)
            live.set(input=self._input, attributes=self._attributes)
            self._open.append((live, context_api.attach(context)))
            return live
        return _NO_SPAN

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._open:
            return
        live, token = self._open.pop()
        with guarded("end a span"):
            detach(token)
            if error is not None:
                live.fail(error)
            live.finish()

    async def __aenter__(self) -> LiveSpan | Handle:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

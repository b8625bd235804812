"""The span that lives in the calling thread: ids, clocks, references; all else is done later."""

from __future__ import annotations

import traceback
import types
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, field
from time import perf_counter_ns, time_ns
from typing import Any, Final, Literal, Protocol, TypeAlias

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AnyValue

from llmobs import semconv
from llmobs.sdk.batch import Batch
from llmobs.sdk.content import LONGEST_SECRET, ContentMode, freeze
from llmobs.sdk.guarded import guarded
from llmobs.sdk.runtime import Runtime, Settings
from llmobs.sdk.usage import Answer

__all__ = [
    "Call",
    "Failure",
    "Kind",
    "LiveSpan",
    "Reading",
    "Session",
    "Spec",
    "detach",
    "open_span",
]

Kind: TypeAlias = Literal[
    "workflow", "agent", "tool", "mcp", "chat", "batch", "embeddings", "retrieval", "rerank"
]

OPERATIONS: Final[Mapping[str, str]] = {
    "workflow": semconv.OPERATION_INVOKE_WORKFLOW,
    "agent": semconv.OPERATION_INVOKE_AGENT,
    "tool": semconv.OPERATION_EXECUTE_TOOL,
    "mcp": semconv.OPERATION_EXECUTE_TOOL,
    "chat": semconv.OPERATION_CHAT,
    "batch": semconv.OPERATION_CHAT,
    "embeddings": semconv.OPERATION_EMBEDDINGS,
    "retrieval": semconv.OPERATION_RETRIEVAL,
    "rerank": semconv.OPERATION_RETRIEVAL,
}
# Kinds of call that leave the process: for a model, a store or a tool's server.
CLIENT_KINDS: Final = frozenset({"chat", "batch", "embeddings", "retrieval", "rerank", "mcp"})

# The key under which OpenTelemetry keeps the current span, learned through its public door.
SPAN_KEY: Final = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
LIVE_KEY: Final = context_api.create_key("llmobs-span")
SESSION_KEY: Final = context_api.create_key("llmobs-session")

_SAMPLED: Final = TraceFlags.SAMPLED
_RANDOM: Final = 0x02  # W3C Trace Context level 2: the trace id is random
_SPAN_BYTES: Final = 1_000  # what a span weighs in memory beside its content, about
# As in OpenTelemetry's SpanLimits.
_MAX_ATTRIBUTES: Final = 128
_MAX_FRAMES: Final = 32
# What of a span serves nobody once it has been sent.
_SENT: Final = frozenset({
    "agent", "answer", "attributes", "batch", "chunk_ns", "chunks", "events", "facts", "links",
    "outer", "output", "reading", "updates",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """Who is served: put on every span within.

    Attributes:
        attributes: Further attributes, by their names on the span.
    """

    session_id: str | None = None
    user_id: str | None = None
    feature: str | None = None
    attributes: Mapping[str, AnyValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spec:
    """What never changes between the calls of one decorated function.

    Attributes:
        name: Of the workflow, agent or tool; the data source of a retrieval.
        model: The model asked for, where no argument of the call says it.
        content: Overrides how much content this function's spans carry.
    """

    kind: Kind
    name: str
    model: str | None = None
    provider: str | None = None
    feature: str | None = None
    content: ContentMode | None = None
    prompt_name: str | None = None
    prompt_version: str | None = None
    description: str | None = None
    attributes: Mapping[str, AnyValue] = field(default_factory=dict)

    @property
    def is_client(self) -> bool:
        """Whether the call goes to a model or a store rather than within the process."""
        return self.kind in CLIENT_KINDS


@dataclass(slots=True)
class Call:
    """Snapshot of a call's arguments.

    Attributes:
        input: The prompt, the messages or the query.
        request: Model, temperature and what else of the request has a name in the conventions.
        arguments: All arguments by name, where the kind of span shows them all.
    """

    input: Any = None
    request: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of an exception: no frame, so no object of the application stays alive.

    Attributes:
        message: Empty where none may leave.
        frames: (file, line, function) of the innermost calls, outermost first.
    """

    type: str
    message: str
    frames: Sequence[tuple[str, int, str]]

    @classmethod
    def of(cls, error: BaseException, max_characters: int) -> Failure:
        """Take from an exception what can be told of it later.

        Args:
            error: The exception.
            max_characters: Longest message that is kept; 0: it is not even asked for.
        """
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ not in {"builtins", "__main__"}:
            name = f"{kind.__module__}.{name}"
        message = ""
        if max_characters:
            with guarded("read an exception"):  # __str__ of someone else's class
                message = str(error)[:max_characters]
        frames: deque[tuple[str, int, str]] = deque(maxlen=_MAX_FRAMES)
        step: types.TracebackType | None = error.__traceback__
        while step is not None:
            if not str(step.tb_frame.f_globals.get("__name__")).startswith("llmobs.sdk."):
                code = step.tb_frame.f_code
                frames.append((code.co_filename, step.tb_lineno, code.co_name))
            step = step.tb_next
        return cls(name, message, tuple(frames))

    def stacktrace(self) -> str:
        """Return the frames as Python prints them, without source lines."""
        summary = traceback.StackSummary.from_list([(*frame, "") for frame in self.frames])
        return "Traceback (most recent call last):\n" + "".join(summary.format()).rstrip()


class Reading(Protocol):
    """What an integration has kept of a client's call, to be read off the hot path."""

    @property
    def size(self) -> int:
        """About how many bytes of memory are kept."""

    def read(self, span: LiveSpan) -> None:
        """Set ``call``, ``answer``, ``facts`` and ``chunk_ns`` of the finished span."""


class LiveSpan(trace.Span):
    """A span of ours while it runs, and its snapshot once it has ended.

    It is a whole OpenTelemetry span to everyone else: it can be the current span, children of
    other instrumentations hang below it, and their attributes and events are sent with it.
    """

    # Defaults stand here, so that a call only sets what it knows: OpenTelemetry's base class has no
    # slots, and an object's own dict is not made before it is needed.
    _context: SpanContext | None = None
    agent: LiveSpan | None = None
    answer: Answer | None = None  # where an integration has read it
    attributes: dict[str, AnyValue] | None = None
    batch: Batch | None = None  # results that were yielded, added up
    chunks: list[Any] | None = None
    chunk_ns: list[int] | None = None
    content_above: ContentMode | None = None  # what a decorator around a client's call says of it
    covers_clients = False  # clients that the call goes through make no span of their own
    end_ns = 0
    events: list[tuple[str, int, Mapping[str, AnyValue]]] | None = None
    facts: Mapping[str, AnyValue] | None = None  # attributes that hold nothing of anybody's
    failure: Failure | None = None
    has_model_child = False
    links: list[tuple[SpanContext, Mapping[str, AnyValue]]] | None = None
    n_attempts = 0
    n_inference_calls = 0
    n_tool_calls = 0
    other_name: str | None = None
    outer: LiveSpan | None = None
    output: Any = None
    parent_id = 0  # 0: a root
    parent_is_remote = False
    provider: str | None = None
    reading: Reading | None = None
    sequence = -1
    session: Session | None = None
    trace_state: TraceState | None = None
    updates: dict[str, Any] | None = None
    trace_id: int
    span_id: int
    flags: int

    def __init__(self, runtime: Runtime, spec: Spec, call: Call | None, size: int) -> None:
        self._runtime = runtime
        self._epoch = runtime.epoch
        self.spec = spec
        self.call = call
        self.size = size + _SPAN_BYTES
        # The wall clock may be set while the call runs: it says when, the other says how long.
        self.start_ns = time_ns()
        self._clock_ns = perf_counter_ns()

    # --- ours ---

    @property
    def settings(self) -> Settings:
        """What the process was initialized with when the span began."""
        return self._runtime.settings

    @property
    def content(self) -> ContentMode:
        """How much content this span may carry."""
        return self.spec.content or self.content_above or self._runtime.settings.content

    @property
    def nearest_agent(self) -> LiveSpan | None:
        """The agent that calls made below this span belong to."""
        return self if self.spec.kind == "agent" else self.agent

    @property
    def is_sampled(self) -> bool:
        """Whether the span is sent, and not only counted in metrics."""
        return bool(self.flags & _SAMPLED)

    @property
    def duration_ns(self) -> int:
        """How long the call took, in ns."""
        return self.end_ns - self.start_ns

    def now_ns(self) -> int:
        """Return the time since 1970 in ns, by a clock that nobody sets while the span runs."""
        return self.start_ns + perf_counter_ns() - self._clock_ns

    def set(
        self,
        *,
        input: Any = None,  # noqa: A002 - the word that people look for
        output: Any = None,
        usage: Any = None,
        model: str | None = None,
        provider: str | None = None,
        response_id: str | None = None,
        finish_reason: str | Sequence[str] | None = None,
        documents: Sequence[Any] | None = None,
        system: Any = None,
        attributes: Mapping[str, AnyValue] | None = None,
    ) -> None:
        """Say what the arguments and the return value don't show. Later words win; never raises.

        Args:
            input: Prompt, messages or query.
            output: Answer, messages or result.
            usage: `llmobs.Usage`, or what the provider reports: an object or a dict.
            model: The model that answered.
            provider: As in ``gen_ai.provider.name``.
            response_id: The provider's id of the answer; feedback can refer to it.
            finish_reason: One, or one per choice.
            documents: What a retrieval found: dicts with ``id``, ``score``, ``content`` …
            system: System instructions.
            attributes: Any attributes by name.
        """
        if self.end_ns:
            return
        with guarded("set facts of a span"):
            updates = {} if self.updates is None else self.updates
            # A plain name per fact; what is None was not said.
            said = {
                "input": input,
                "output": output,
                "usage": usage,
                "model": model,
                "provider": provider,
                "response_id": response_id,
                "finish_reason": finish_reason,
                "documents": documents,
                "system": system,
            }
            for name, value in said.items():
                if value is not None:
                    updates[name], size = freeze(value)
                    self.size += size
            self.updates = updates
        if attributes:
            self.set_attributes(attributes)

    def attempt(self) -> None:
        """Count one try of a call that may take several; the span stands for all of them.

        Called before each, from the loop or from a library's hook::

            @llmobs.observe(kind="chat")
            @tenacity.retry(before=lambda _: llmobs.current().attempt())
            def ask(prompt): ...
        """
        self.n_attempts += 1

    def fail(self, error: BaseException) -> None:
        """Note the exception that ends the call."""
        may_leave = self.content in {"full", "redacted"}
        n_characters = self.settings.max_characters + LONGEST_SECRET if may_leave else 0
        self.failure = Failure.of(error, n_characters)
        self.size += len(self.failure.message)

    def heed_decorators(self) -> None:
        """Carry as much content as the nearest decorator above says that says it.

        For clients' calls, which are made within functions and have no decorator of their own.
        """
        self.content_above = None if self.outer is None else self.outer.content_below

    @property
    def content_below(self) -> ContentMode | None:
        """How much content clients' calls below may carry; None where no decorator says it."""
        span: LiveSpan | None = self
        while span is not None and span.spec.content is None:
            span = span.outer
        return None if span is None else span.spec.content

    def mark_model_child(self, kind: Kind) -> None:
        """Note a span of a model's call below this one, by us or by an instrumented client.

        A span of the same kind around it, be it with workflows between, only wraps that call: it
        steps back, else every token would count twice.

        Args:
            kind: Of the call: ``chat`` or ``embeddings``.
        """
        wrapper: LiveSpan | None = self
        while wrapper is not None and wrapper.spec.kind == "workflow":
            wrapper = wrapper.outer
        agent = self.nearest_agent
        is_counted = False
        if (
            wrapper is not None
            and wrapper.spec.kind == kind
            and not (wrapper.has_model_child or wrapper.end_ns)
        ):
            wrapper.has_model_child = True
            is_counted = wrapper.agent is agent  # the agent has counted the wrapper as its call
        if kind == "chat" and agent is not None and not is_counted:
            agent.n_inference_calls += 1

    def finish(self) -> None:
        """End the span and queue it. Ends once; what a fork copied ends in the parent."""
        if self.end_ns:
            return
        self.end_ns = self.start_ns + perf_counter_ns() - self._clock_ns
        runtime = self._runtime
        if runtime.epoch != self._epoch:
            return
        if self.flags & _SAMPLED:
            self.sequence = runtime.buffer.next_number()
        if self.reading is not None:
            self.size += self.reading.size
        runtime.buffer.put(self)

    def finish_failed(self, error: BaseException) -> None:
        """End the span of a call that raised; raises nothing itself."""
        with guarded("end a span"):
            self.fail(error)
        with guarded("end a span"):
            self.finish()

    def release(self) -> None:
        """Let go of all that has been sent: a task that outlives the call holds the span itself."""
        own = self.__dict__
        for name in _SENT & own.keys():
            own.pop(name, None)
        self.call = None

    # --- OpenTelemetry's interface, for other instrumentations and for propagation ---

    def get_span_context(self) -> SpanContext:
        """Return ids, flags and trace state."""
        if self._context is None:
            flags = TraceFlags(self.flags)
            self._context = SpanContext(self.trace_id, self.span_id, False, flags, self.trace_state)
        return self._context

    def is_recording(self) -> bool:
        """Return whether attributes that are set now will be sent."""
        return not self.end_ns and self.is_sampled

    def end(self, end_time: int | None = None) -> None:
        """End the span."""
        self.finish()

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Set one attribute."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Set attributes; beyond 128 of them further ones are left out."""
        if self.end_ns:
            return
        with guarded("set attributes"):
            own = {} if self.attributes is None else self.attributes
            for key, value in attributes.items():
                has_room = len(own) < _MAX_ATTRIBUTES or key in own
                if value is not None and isinstance(key, str) and has_room:
                    own[key], size = freeze(value)
                    self.size += size
            self.attributes = own

    def add_event(
        self,
        name: str,
        attributes: Mapping[str, AnyValue] | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Add an event."""
        with guarded("add an event"):
            events = [] if self.events is None else self.events
            if not self.end_ns and len(events) < _MAX_ATTRIBUTES:
                kept, size = freeze(dict(attributes or {}))
                self.size += size
                events.append((name, timestamp or time_ns(), kept))
            self.events = events

    def add_link(
        self, context: SpanContext, attributes: Mapping[str, AnyValue] | None = None
    ) -> None:
        """Link another span."""
        with guarded("add a link"):
            links = [] if self.links is None else self.links
            if not self.end_ns and len(links) < _MAX_ATTRIBUTES:
                links.append((context, freeze(dict(attributes or {}))[0]))
            self.links = links

    def update_name(self, name: str) -> None:
        """Name the span otherwise than the conventions do."""
        self.other_name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Note a failure; that all went well is what an unset status means."""
        code = status.status_code if isinstance(status, Status) else status
        if code is StatusCode.ERROR and self.failure is None:
            text = status.description if isinstance(status, Status) else description
            self.failure = Failure(semconv.ERROR_TYPE_OTHER, text or "", ())

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, AnyValue] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception that the application has handled as an event."""
        kind = type(exception)
        facts: dict[str, AnyValue] = {semconv.EXCEPTION_TYPE: kind.__qualname__}
        if self.content in {"full", "redacted"}:
            with guarded("read an exception"):
                facts[semconv.EXCEPTION_MESSAGE] = str(exception)
        self.add_event("exception", {**facts, **(attributes or {})}, timestamp)


def open_span(
    runtime: Runtime, spec: Spec, call: Call | None = None, size: int = 0
) -> tuple[LiveSpan, Context]:
    """Begin a span below the current one.

    Args:
        runtime: What the process records with.
        spec: What the function's spans have in common.
        call: Snapshot of the arguments, None where nothing of them is wanted.
        size: Bytes that the snapshot holds, about.

    Returns:
        The span, and the context in which it is the current one; the caller attaches it.
    """
    span = LiveSpan(runtime, spec, call, size)
    context = context_api.get_current()
    span.span_id = runtime.random_bits(64) or 1
    _place(runtime, span, context)
    enclosing = context.get(LIVE_KEY)
    if isinstance(enclosing, LiveSpan):
        span.outer = enclosing
        span.agent = enclosing.nearest_agent
        if spec.kind in {"chat", "embeddings"}:
            enclosing.mark_model_child(spec.kind)
        elif spec.kind in {"tool", "mcp"} and span.agent is not None:
            span.agent.n_tool_calls += 1
    session = context.get(SESSION_KEY)
    if isinstance(session, Session):
        span.session = session
    values: dict[str, object] = {**context, SPAN_KEY: span, LIVE_KEY: span}
    if spec.feature is not None:
        # What runs below belongs to the same feature, instrumented clients included.
        span.session = _with_feature(span.session, spec.feature)
        values[SESSION_KEY] = span.session
    return span, Context(values)


def detach(token: Token[Context]) -> bool:
    """Make the context from before an `attach` the current one again.

    Returns:
        False where it was attached in another context: a generator or a coroutine that is closed by
        the garbage collector, or with its loop, is closed elsewhere. There is nothing to restore
        there, and OpenTelemetry's own function would log an error.
    """
    try:
        token.var.reset(token)
    except ValueError:
        return False
    except AttributeError:  # a token of another kind: OTEL_PYTHON_CONTEXT chooses how contexts live
        context_api.detach(token)
    return True


def _with_feature(session: Session | None, feature: str) -> Session:
    if session is None:
        return Session(feature=feature)
    return Session(session.session_id, session.user_id, feature, session.attributes)


def _place(runtime: Runtime, span: LiveSpan, context: Context) -> None:
    """Give the span its trace, its parent and a sampling decision."""
    parent = context.get(SPAN_KEY)
    if type(parent) is LiveSpan:
        span.trace_id, span.parent_id = parent.trace_id, parent.span_id
        span.flags, span.trace_state = parent.flags, parent.trace_state
    else:
        of_parent = parent.get_span_context() if isinstance(parent, trace.Span) else None
        if of_parent is not None and of_parent.is_valid:
            span.trace_id, span.parent_id = of_parent.trace_id, of_parent.span_id
            span.parent_is_remote = of_parent.is_remote
            span.flags, span.trace_state = int(of_parent.trace_flags), of_parent.trace_state
        else:
            span.trace_id = runtime.random_bits(128) or 1
            span.flags = _SAMPLED | _RANDOM
    if not (runtime.keeps_all and span.flags & _SAMPLED):
        _ask_sampler(runtime, span, context)


def _ask_sampler(runtime: Runtime, span: LiveSpan, context: Context) -> None:
    spec = span.spec
    attributes: dict[str, AnyValue] = {semconv.GEN_AI_OPERATION_NAME: OPERATIONS[spec.kind]}
    if spec.provider:
        attributes[semconv.GEN_AI_PROVIDER_NAME] = spec.provider
    if spec.model:
        attributes[semconv.GEN_AI_REQUEST_MODEL] = spec.model
    with guarded("ask the sampler"):  # may be the application's own
        kind = SpanKind.CLIENT if spec.is_client else SpanKind.INTERNAL
        name = f"{OPERATIONS[spec.kind]} {spec.name}"
        result = runtime.sampler.should_sample(
            context, span.trace_id, name, kind, attributes, (), span.trace_state
        )
        sampled = _SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else 0
        span.flags = (span.flags & ~_SAMPLED) | sampled
        if result.trace_state is not None:
            span.trace_state = result.trace_state
        if result.attributes:
            more = {k: v for k, v in result.attributes.items() if k not in attributes}
            span.attributes = more or None

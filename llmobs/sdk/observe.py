"""`@llmobs.observe`: a span per call of a function, of any of Python's kinds of function."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, Final, TypeVar, get_args, overload

from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.util.types import AnyValue

from llmobs.errors import ConfigurationError
from llmobs.sdk import runtime as process
from llmobs.sdk.arguments import ArgumentReader
from llmobs.sdk.content import CONTENT_MODES, ContentMode, freeze, freeze_each, pack
from llmobs.sdk.guarded import guarded, note_fault
from llmobs.sdk.runtime import Runtime
from llmobs.sdk.span import Kind, LiveSpan, Spec, detach, open_span
from llmobs.sdk.stream import Recorder, drive, drive_async, observed_stream
from llmobs.sdk.usage import provider_of_module

__all__ = ["observe"]

# Bound to the decorated function's own type, which so keeps its signature, its overloads, and
# whether it is a coroutine or a generator function.
F = TypeVar("F", bound=Callable[..., Any])

KINDS: Final = get_args(Kind)


@overload
def observe(function: F, /) -> F: ...


@overload
def observe(
    function: None = None,
    /,
    *,
    kind: Kind = "workflow",
    name: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    feature: str | None = None,
    capture_content: ContentMode | None = None,
    prompt_name: str | None = None,
    prompt_version: str | None = None,
    attributes: Mapping[str, AnyValue] | None = None,
) -> Callable[[F], F]: ...


def observe(
    function: Any = None,
    /,
    *,
    kind: Kind = "workflow",
    name: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    feature: str | None = None,
    capture_content: ContentMode | None = None,
    prompt_name: str | None = None,
    prompt_version: str | None = None,
    attributes: Mapping[str, AnyValue] | None = None,
) -> Any:
    """Make a span of every call of a function.

    For functions, coroutines, generators, async generators, methods, class and static methods
    (above or below their decorator) and callable instances. Arguments, results and exceptions
    pass unchanged. Before `llmobs.init` the function just runs.

    Args:
        function: What is decorated, where the decorator has no arguments.
        kind: What the function is: ``chat`` asks a model and is what tokens and cost are counted
            of; where an instrumented client makes that span within, the function's own steps
            back and becomes a ``workflow``. ``batch`` fetches the results of a batch API, whose
            usage is added up; ``mcp`` calls a tool of an MCP server.
        name: Of the workflow, agent or tool, the data source of a retrieval; by default the
            function's own.
        model: The model asked for, where no argument ``model`` says it.
        provider: As in ``gen_ai.provider.name``; by default the one whose client library made
            the response.
        feature: The part of the app that calls; holds for all within.
        capture_content: Overrides `llmobs.init` for this function.
        prompt_name: Name of the prompt template.
        prompt_version: Version of the prompt template.
        attributes: Attributes for every span.

    Raises:
        ConfigurationError: At decoration, never at a call: an unknown kind or mode, or a class.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    if capture_content is not None and capture_content not in CONTENT_MODES:
        raise ConfigurationError(
            f"capture_content is {capture_content!r}; choose one of {', '.join(CONTENT_MODES)}"
        )

    def decorate(target: Any) -> Any:
        if isinstance(target, (classmethod, staticmethod)):
            return type(target)(decorate(target.__func__))
        if isinstance(target, type) or not callable(target):
            raise ConfigurationError(
                f"observe decorates functions and callable instances, not {target!r}; "
                "decorate the class's methods"
            )
        own = getattr(target, "__name__", type(target).__name__)
        about = inspect.getdoc(target) if kind == "tool" else None
        spec = Spec(
            kind=kind,
            name=name or own,
            model=model,
            provider=provider,
            feature=feature,
            content=capture_content,
            prompt_name=prompt_name,
            prompt_version=prompt_version,
            description=about.partition("\n")[0] if about else None,
            attributes=freeze(dict(attributes or {}))[0],
        )
        return _Observer(target, spec).wrapped()

    return decorate if function is None else decorate(function)


class _Observer:
    """Begins and ends the spans of one function."""

    __slots__ = ("_arguments", "_function", "_names_provider", "_reads_all", "_snapshot", "_spec")

    def __init__(self, function: Callable[..., Any], spec: Spec) -> None:
        self._function = function
        self._spec = spec
        self._arguments = ArgumentReader(function, spec.kind)
        # Usage and model are no content; they are read whatever is captured.
        self._reads_all = spec.kind in {"chat", "batch", "embeddings"}
        self._names_provider = self._reads_all and spec.provider is None
        self._snapshot = {"chat": pack, "batch": freeze_each}.get(spec.kind, freeze)

    def wrapped(self) -> Callable[..., Any]:
        """Return a function of the same kind that does the same under a span."""
        function = self._function
        plain = function if inspect.isroutine(function) else _unpartial(function)
        if inspect.isasyncgenfunction(plain):
            wrapper = self._async_generator()
        elif inspect.isgeneratorfunction(plain):
            wrapper = self._generator()
        elif inspect.iscoroutinefunction(plain):
            wrapper = self._coroutine()
        else:
            wrapper = self._plain()
        # An instance's __dict__ is its state and is no business of the wrapper.
        updated = ("__dict__",) if inspect.isroutine(function) else ()
        return functools.update_wrapper(wrapper, function, updated=updated)

    def begin(
        self, runtime: Runtime, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[LiveSpan, Context] | None:
        """Begin a span; None where that fails, and the function runs without one."""
        try:
            mode = self._spec.content or runtime.settings.content
            call, size = self._arguments.read(args, kwargs, with_content=mode != "off")
            return open_span(runtime, self._spec, call, size)
        except Exception as error:  # arguments are objects of the application's
            note_fault("begin a span", type(error))
            return None

    def end(self, span: LiveSpan, result: Any) -> None:
        """Take a snapshot of the result and end the span."""
        try:
            if self._reads_all or span.content != "off":
                span.output, size = self._snapshot(result)
                span.size += size
            if self._names_provider:
                span.provider = provider_of_module(type(result).__module__)
        except Exception as error:  # a result is an object of the application's
            note_fault("read a result", type(error))
        span.finish()

    def _plain(self) -> Callable[..., Any]:
        function, begin = self._function, self.begin

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            runtime = process.active
            opened = None if runtime is None else begin(runtime, args, kwargs)
            if opened is None:
                return function(*args, **kwargs)
            span, context = opened
            token = context_api.attach(context)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                span.finish_failed(error)
                raise
            finally:
                detach(token)
            return self._pass_on(span, context, result)

        return wrapper

    def _pass_on(self, span: LiveSpan, context: Context, result: Any) -> Any:
        """End the span with the result, or let it go on where the result is only a promise."""
        kind = type(result)
        if kind is str or kind is dict:  # what most functions return
            self.end(span, result)
            return result
        with guarded("observe a result"):
            if kind is types.GeneratorType:
                return drive(result, Recorder(span), context)
            if kind is types.AsyncGeneratorType:
                return drive_async(result, Recorder(span), context)
            if kind is types.CoroutineType:
                return self._await(result, span, context)
            if self._spec.kind == "chat" and (
                hasattr(kind, "__next__") or hasattr(kind, "__anext__")
            ):
                return observed_stream(result, span)
        self.end(span, result)
        return result

    async def _await(self, coroutine: Any, span: LiveSpan, context: Context) -> Any:
        token = context_api.attach(context)
        try:
            result = await coroutine
        except BaseException as error:
            span.finish_failed(error)
            raise
        finally:
            detach(token)
        return self._pass_on(span, context, result)

    def _coroutine(self) -> Callable[..., Any]:
        function, begin = self._function, self.begin

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            runtime = process.active
            opened = None if runtime is None else begin(runtime, args, kwargs)
            if opened is None:
                return await function(*args, **kwargs)
            span, context = opened
            token: Token[Context] = context_api.attach(context)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                span.finish_failed(error)
                raise
            finally:
                detach(token)
            return self._pass_on(span, context, result)

        return wrapper

    def _generator(self) -> Callable[..., Any]:
        function, begin = self._function, self.begin

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            runtime = process.active
            opened = None if runtime is None else begin(runtime, args, kwargs)
            if opened is None:
                return (yield from function(*args, **kwargs))
            span, context = opened
            return (yield from drive(function(*args, **kwargs), Recorder(span), context))

        return wrapper

    def _async_generator(self) -> Callable[..., Any]:
        function, begin = self._function, self.begin

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            runtime = process.active
            opened = None if runtime is None else begin(runtime, args, kwargs)
            generator = function(*args, **kwargs)
            if opened is not None:
                span, context = opened
                generator = drive_async(generator, Recorder(span), context)
            # No `yield from` for async generators: pass on by hand what is sent and thrown.
            sent: Any = None
            thrown: BaseException | None = None
            while True:
                try:
                    step = generator.asend(sent) if thrown is None else generator.athrow(thrown)
                    item = await step
                except StopAsyncIteration:
                    return
                sent = thrown = None
                try:
                    sent = yield item
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as error:
                    thrown = error

        return wrapper


def _unpartial(function: Any) -> Any:
    """Return what says of which kind a callable object is: its function, or its ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__

"""Clients that come from Stainless' generator, as OpenAI's and Anthropic's do.

All their calls go through ``SyncAPIClient.request`` or ``AsyncAPIClient.request``: ``create``,
``parse``, ``stream``, raw and streaming responses, and every retry. There the span begins and
ends. ``_build_request`` and ``_process_response`` show what goes over the wire within. Returned
objects are the client's own, and nothing is put in front of them.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context

from llmobs.sdk import runtime as process
from llmobs.sdk.foreign import is_model_span
from llmobs.sdk.guarded import guarded, note_fault
from llmobs.sdk.integrations.base import Integration, Patches
from llmobs.sdk.integrations.exchange import Api, Exchange
from llmobs.sdk.runtime import Runtime
from llmobs.sdk.span import LIVE_KEY, SPAN_KEY, LiveSpan, Spec, detach, open_span

__all__ = ["ProviderOf", "install", "is_covered", "is_within_call"]

ProviderOf = Callable[[Any], str]

# Under this key the official instrumentations note their inference span, on whatever library above.
_OFFICIAL_KEY: Final = "opentelemetry.genai.client.inference.context"
# Models that were asked for, at most: each has what never changes between its calls.
_MAX_SPECS: Final = 1_000
_STREAM_CLASS: Final = "SyncByteStream"


def install(
    module: ModuleType,
    integration: Integration,
    patches: Patches,
    apis: Mapping[str, Api],
    provider_of: ProviderOf,
) -> None:
    """Put the span around every call of a client's interfaces.

    Args:
        module: The client's top module.
        integration: Whether it is on, and what it may do.
        patches: Takes what is replaced.
        apis: Interface by path.
        provider_of: Says of a client object who answers.

    Raises:
        AttributeError: The client is not built as expected.
        ImportError: Likewise.
    """
    base = import_module(f"{module.__name__}._base_client")
    watch = _Watch(integration, apis, provider_of)
    patches.replace(base.SyncAPIClient, "request", watch.request)
    patches.replace(base.AsyncAPIClient, "request", watch.async_request)
    patches.replace(base.BaseClient, "_build_request", _build_request)
    patches.replace(base.SyncAPIClient, "_process_response", _process_response)
    patches.replace(base.AsyncAPIClient, "_process_response", _process_response)


class _Watch:
    """Begins and ends the spans of one client library's calls."""

    def __init__(
        self, integration: Integration, apis: Mapping[str, Api], provider_of: ProviderOf
    ) -> None:
        self._integration = integration
        self._apis = apis
        self._provider_of = provider_of
        self._specs: dict[tuple[Api, str, str], Spec] = {}

    def request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the method of the plain client."""
        begin = self._begin

        def request(client: Any, *args: Any, **kwargs: Any) -> Any:
            runtime = process.active
            opened = None if runtime is None else begin(runtime, client, args, kwargs)
            if opened is None:
                return original(client, *args, **kwargs)
            span, context = opened
            token = context_api.attach(context)
            try:
                result = original(client, *args, **kwargs)
            except BaseException as error:
                span.finish_failed(error)
                raise
            finally:
                detach(token)
            _end(span)
            return result

        return request

    def async_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the method of the client for coroutines."""
        begin = self._begin

        async def request(client: Any, *args: Any, **kwargs: Any) -> Any:
            runtime = process.active
            opened = None if runtime is None else begin(runtime, client, args, kwargs)
            if opened is None:
                return await original(client, *args, **kwargs)
            span, context = opened
            token = context_api.attach(context)
            try:
                result = await original(client, *args, **kwargs)
            except BaseException as error:
                span.finish_failed(error)
                raise
            finally:
                detach(token)
            _end(span)
            return result

        return request

    def _begin(
        self, runtime: Runtime, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[LiveSpan, Context] | None:
        """Begin a span where the call is one of a model's that nobody above has a span for."""
        if not self._integration.is_on:
            return None
        try:
            options = kwargs["options"] if "options" in kwargs else args[1]
            api = self._apis.get(options.url.partition("?")[0])
            if api is None or options.method.lower() != "post" or is_covered():
                return None
            body = options.json_data
            model = body.get("model") if isinstance(body, dict) else None
            spec = self._spec(api, model if isinstance(model, str) else "", client)
            opened = open_span(runtime, spec)
            opened[0].reading = Exchange(api)
            opened[0].heed_decorators()
            if self._integration.options.stream_usage and api.openai_type == "chat_completions":
                _ask_for_usage(options, body)
        except Exception as error:  # someone else's library, of any version
            note_fault("begin a client's span", type(error))
            return None
        return opened

    def _spec(self, api: Api, model: str, client: Any) -> Spec:
        provider = self._provider_of(client)
        key = (api, model, provider)
        spec = self._specs.get(key)
        if spec is None:
            if len(self._specs) >= _MAX_SPECS:
                self._specs.clear()
            spec = Spec(api.kind, model or api.kind, model or None, provider)
            self._specs[key] = spec
        return spec


def is_covered() -> bool:
    """Return whether a span above stands for the call already, or none is wanted."""
    context = context_api.get_current()
    if context.get(_SUPPRESS_INSTRUMENTATION_KEY) or context.get(_OFFICIAL_KEY) is not None:
        return True
    live = context.get(LIVE_KEY)
    if isinstance(live, LiveSpan) and live.covers_clients and not live.end_ns:
        return True
    current = context.get(SPAN_KEY)
    return current is not None and type(current) is not LiveSpan and is_model_span(current)


def _ask_for_usage(options: Any, body: Any) -> None:
    if isinstance(body, dict) and body.get("stream") is True and "stream_options" not in body:
        options.json_data = {**body, "stream_options": {"include_usage": True}}


def _end(span: LiveSpan) -> None:
    """End the span, where no stream goes on."""
    exchange = span.reading
    if isinstance(exchange, Exchange) and exchange.pieces is None:
        with guarded("end a client's span"):
            span.finish()


def _exchange() -> tuple[LiveSpan, Exchange] | None:
    """Return the span of the call that this is part of, None where there is none."""
    span = context_api.get_current().get(LIVE_KEY)
    if isinstance(span, LiveSpan) and not span.end_ns and isinstance(span.reading, Exchange):
        return span, span.reading
    return None


def is_within_call() -> bool:
    """Return whether a span of ours stands for the call that is being made."""
    return _exchange() is not None


def _build_request(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what makes the request of each attempt, so that its bytes are kept."""

    def _build_request(client: Any, *args: Any, **kwargs: Any) -> Any:
        request = original(client, *args, **kwargs)
        with guarded("keep a request"):
            if (found := _exchange()) is not None:
                _, exchange = found
                exchange.n_attempts += 1
                exchange.url = request.url
                exchange.request = request.content
        return request

    return _build_request


def _process_response(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what reads a successful response; of the coroutine function it returns the coroutine."""

    def _process_response(client: Any, *args: Any, **kwargs: Any) -> Any:
        with guarded("keep a response"):
            if (found := _exchange()) is not None:
                _keep(kwargs["response"], *found)
        return original(client, *args, **kwargs)

    return _process_response


def _keep(response: Any, span: LiveSpan, exchange: Exchange) -> None:
    """Keep a whole body; note the pieces of one that is still to come as they pass by."""
    if response.is_stream_consumed or response.is_closed:
        exchange.keep(response.content)
        return
    headers = response.headers
    exchange.content_type = headers.get("content-type", exchange.content_type)
    exchange.encoding = headers.get("content-encoding", "")
    noting = _noting_class(_library_of(response))(response.stream, span, exchange)
    exchange.pieces = []  # last: from now on the stream ends the span
    response.stream = noting


def _library_of(response: Any) -> ModuleType:
    """Return the HTTP library that a response, be it of an application's class, comes from."""
    names = [kind.__module__.partition(".")[0] for kind in type(response).__mro__]
    return next(sys.modules[name] for name in names if hasattr(sys.modules[name], _STREAM_CLASS))


_classes: Final[dict[str, type[Any]]] = {}


def _noting_class(library: ModuleType) -> type[Any]:
    """Return the class for a body's stream: a subclass of both that the HTTP library knows."""
    found = _classes.get(library.__name__)
    if found is None:
        bases = (_Noting, library.SyncByteStream, library.AsyncByteStream)
        found = _classes[library.__name__] = type("NotingStream", bases, {})
    return found


class _Noting:
    """The body of a response on its way to the client, each piece noted; its end ends the span.

    That is when it is read to its end, fails, is closed, or is forgotten half-way.
    """

    def __init__(self, inner: Any, span: LiveSpan, exchange: Exchange) -> None:
        self._inner = inner
        self._span = span
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __iter__(self) -> Iterator[bytes]:
        note, now_ns = self._exchange.note, self._span.now_ns
        try:
            for data in self._inner:
                note(data, now_ns())
                yield data
        except GeneratorExit:
            raise
        except BaseException as error:
            self._span.finish_failed(error)
            raise
        self._finish()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        note, now_ns = self._exchange.note, self._span.now_ns
        try:
            async for data in self._inner:
                note(data, now_ns())
                yield data
        except GeneratorExit:
            raise
        except BaseException as error:
            self._span.finish_failed(error)
            raise
        self._finish()

    def close(self) -> None:
        self._finish()
        self._inner.close()

    async def aclose(self) -> None:
        self._finish()
        await self._inner.aclose()

    def _finish(self) -> None:
        with guarded("end a client's stream"):
            self._span.finish()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._finish()

"""LiteLLM: its functions are wrapped, and the clients that it goes through make no span then."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry.context import Context

from llmobs import semconv
from llmobs.sdk import runtime as process
from llmobs.sdk.arguments import ArgumentReader
from llmobs.sdk.content import freeze
from llmobs.sdk.guarded import guarded, note_fault
from llmobs.sdk.integrations.base import Integration, Patches
from llmobs.sdk.integrations.stainless import is_covered
from llmobs.sdk.runtime import Runtime
from llmobs.sdk.span import Call, Kind, LiveSpan, Spec, detach, open_span
from llmobs.sdk.stream import observed_stream

__all__ = ["INTEGRATION"]

_FUNCTIONS: Final[Mapping[str, Kind]] = {
    "completion": "chat",
    "acompletion": "chat",
    "responses": "chat",
    "aresponses": "chat",
    "embedding": "embeddings",
    "aembedding": "embeddings",
    "rerank": "rerank",
    "arerank": "rerank",
}
# LiteLLM's names of providers -> gen_ai.provider.name, where they differ.
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "text-completion-openai": "openai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_MAX_MODELS: Final = 1_000


def _install(module: ModuleType, integration: Integration, patches: Patches) -> None:
    targets = _Targets(module, integration)
    for name in _FUNCTIONS:
        original = getattr(module, name)
        wrapper = targets.wrapped(original, name)
        # Modules hold the function by `from litellm import completion`, LiteLLM's own among them.
        for holder in list(sys.modules.values()):
            for key, value in list(getattr(holder, "__dict__", {}).items()):
                if value is original:
                    patches.replace(holder, key, partial(_instead, wrapper))


def _instead(wrapper: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    return wrapper


class _Targets:
    """Wraps the functions, and knows which provider and model a name means."""

    def __init__(self, module: ModuleType, integration: Integration) -> None:
        self._module = module
        self._integration = integration
        self._known: dict[tuple[Any, ...], tuple[str, str]] = {}

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function with a span around it."""
        kind = _FUNCTIONS[name]
        reader = ArgumentReader(function, kind)

        def begin(
            args: tuple[Any, ...], kwargs: Mapping[str, Any]
        ) -> tuple[LiveSpan, Context] | None:
            runtime = process.active
            # LiteLLM's coroutines call its plain functions, and mark that.
            if runtime is None or not self._integration.is_on or kwargs.get(f"a{name}"):
                return None
            return self._begin(runtime, kind, reader, args, kwargs)

        if name.startswith("a"):

            @functools.wraps(function)
            async def wrapper_async(*args: Any, **kwargs: Any) -> Any:
                opened = begin(args, kwargs)
                if opened is None:
                    return await function(*args, **kwargs)
                span, context = opened
                token = context_api.attach(context)
                try:
                    result = await function(*args, **kwargs)
                except BaseException as error:
                    span.finish_failed(error)
                    raise
                finally:
                    detach(token)
                return _pass_on(span, result)

            return wrapper_async

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            opened = begin(args, kwargs)
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
            return _pass_on(span, result)

        return wrapper

    def _begin(
        self,
        runtime: Runtime,
        kind: Kind,
        reader: ArgumentReader,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[LiveSpan, Context] | None:
        if is_covered():
            return None
        try:
            # Always with content, of which a stream without usage is reckoned.
            call, size = reader.read(args, kwargs, with_content=True)
            call = call or Call()
            model, provider = self._meaning(call.request.get("model"), kwargs)
            call.request = {**call.request, "model": model}
            opened = open_span(runtime, Spec(kind, model, model, provider), call, size)
        except Exception as error:  # arguments are objects of the application's
            note_fault("begin a client's span", type(error))
            return None
        opened[0].covers_clients = True
        opened[0].heed_decorators()
        return opened

    def _meaning(self, said: Any, kwargs: Mapping[str, Any]) -> tuple[str, str]:
        """Return model and provider of a name such as ``anthropic/claude-sonnet-4-5``."""
        name = said if isinstance(said, str) else ""
        provider = kwargs.get("custom_llm_provider")
        address = kwargs.get("api_base") or kwargs.get("base_url")
        said_as = (name, provider, str(address))
        known = self._known.get(said_as)
        if known is None:
            model = name
            with suppress(Exception):  # of a name that it doesn't know
                model, provider, *_ = self._module.get_llm_provider(name, provider, address)
            known = (
                model,
                _PROVIDERS.get(str(provider), str(provider or semconv.PROVIDER_UNKNOWN)),
            )
            if len(self._known) >= _MAX_MODELS:
                self._known.clear()
            self._known[said_as] = known
        return known


def _pass_on(span: LiveSpan, result: Any) -> Any:
    """End the span with the result; a stream ends it by itself."""
    with guarded("read a client's result"):
        if hasattr(type(result), "__next__") or hasattr(type(result), "__anext__"):
            return observed_stream(result, span)
        span.output, size = freeze(result)
        span.size += size
    with guarded("end a client's span"):
        span.finish()
    return result


INTEGRATION: Final = Integration("litellm", "litellm", (1, 80), (2, 0), _install)

"""Anthropic's client: its own service, and Claude on Bedrock and on Vertex AI."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from llmobs.sdk.integrations import stainless
from llmobs.sdk.integrations.base import Integration, Patches
from llmobs.sdk.integrations.exchange import Api

__all__ = ["INTEGRATION"]

_APIS: Final = {"/v1/messages": Api("chat")}  # of the beta too, which adds a query
_OWN_SPANS: Final = "start_api_call_span"
_PLACES: Final = {"Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai"}


def _provider_of(client: Any) -> str:
    # By the names of its classes: an application's own may be derived from them.
    names = [kind.__name__ for kind in type(client).__mro__]
    found = (provider for name in names for place, provider in _PLACES.items() if place in name)
    return next(found, "anthropic")


def _install(module: ModuleType, integration: Integration, patches: Patches) -> None:
    stainless.install(module, integration, patches, _APIS, _provider_of)
    # Since version 2 the client can make spans by itself, and does where a tracer provider is set.
    base = import_module(f"{module.__name__}._base_client")
    if _OWN_SPANS in vars(base):
        patches.replace(base, _OWN_SPANS, _start_span)


def _start_span(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what begins the client's own span: there is none where ours is."""

    def start_api_call_span(*args: Any, **kwargs: Any) -> Any:
        return None if stainless.is_within_call() else original(*args, **kwargs)

    return start_api_call_span


INTEGRATION: Final = Integration("anthropic", "anthropic", (0, 40), (3, 0), _install)

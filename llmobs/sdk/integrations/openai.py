"""OpenAI's client, and all who are spoken to with it: Azure, vLLM, Ollama, Groq, DeepSeek."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from llmobs import semconv
from llmobs.sdk.integrations import stainless
from llmobs.sdk.integrations.base import Integration, Patches
from llmobs.sdk.integrations.exchange import Api

__all__ = ["INTEGRATION"]

_APIS: Final = {
    "/chat/completions": Api("chat", openai_type="chat_completions"),
    "/completions": Api("chat", "prompt", operation=semconv.OPERATION_TEXT_COMPLETION),
    "/responses": Api("chat", "input", "instructions", openai_type="responses"),
    "/embeddings": Api("embeddings", "input"),
}
# End of the host -> gen_ai.provider.name. Any other host that speaks OpenAI's language is called
# openai, as the conventions ask where it can't be told apart.
_HOSTS: Final = {
    ".openai.azure.com": "azure.ai.openai",
    ".cognitiveservices.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.inference",
    ".models.ai.azure.com": "azure.ai.inference",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
}
_AZURE: Final = frozenset({"AzureOpenAI", "AsyncAzureOpenAI"})
_SEEN: Final = "_llmobs_provider"


def _provider_of(client: Any) -> str:
    """Return whom a client speaks to: worked out once per client and address."""
    url = client._base_url
    seen = client.__dict__.get(_SEEN)
    if seen is not None and seen[0] is url:
        return str(seen[1])
    host = str(url.host)
    provider = next((name for end, name in _HOSTS.items() if host.endswith(end)), None)
    if provider is None:
        # By the names of its classes: an application's own may be derived from them.
        is_azure = any(kind.__name__ in _AZURE for kind in type(client).__mro__)
        provider = "azure.ai.openai" if is_azure else "openai"
    client.__dict__[_SEEN] = (url, provider)
    return provider


def _install(module: ModuleType, integration: Integration, patches: Patches) -> None:
    stainless.install(module, integration, patches, _APIS, _provider_of)


INTEGRATION: Final = Integration("openai", "openai", (1, 40), (4, 0), _install)

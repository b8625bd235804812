"""Observability for LLM applications: decorate a function, and its calls are traced.

::

    import llmobs

    llmobs.init("shop", capture_content="redacted")

    @llmobs.observe(kind="chat", model="gpt-4o-mini")
    def ask(prompt: str) -> str: ...

The names of the SDK are here, and are loaded when first used: the analyzer, the command line
and others who import a part of the package never load it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from llmobs.sdk.configure import Status, flush, init, shutdown, status
    from llmobs.sdk.context import Handle, Ids, current, current_ids, session, span, trace_id
    from llmobs.sdk.feedback import feedback
    from llmobs.sdk.observe import observe
    from llmobs.sdk.usage import Usage

__all__ = [
    "Handle",
    "Ids",
    "Status",
    "Usage",
    "current",
    "current_ids",
    "feedback",
    "flush",
    "init",
    "observe",
    "session",
    "shutdown",
    "span",
    "status",
    "trace_id",
]

_HOMES: Final = {
    "Handle": "context",
    "Ids": "context",
    "Status": "configure",
    "Usage": "usage",
    "current": "context",
    "current_ids": "context",
    "feedback": "feedback",
    "flush": "configure",
    "init": "configure",
    "observe": "observe",
    "session": "context",
    "shutdown": "configure",
    "span": "context",
    "status": "configure",
    "trace_id": "context",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"llmobs.sdk.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Observability for LLM applications: decorate a function, and its calls are traced.

::

    import llmobs

    llmobs.init("shop", capture_content="redacted")

    @llmobs.observe(kind="chat", model="gpt-4o-mini")
    def ask(prompt: str) -> str: ...

The names of the SDK are here, and are loaded when first used: the analyzer, the command line
and others who import a part of the package never load it. ``scorer`` and ``Verdict``, for scores
of one's own, need the server's packages; so ``__all__``, what ``import *`` loads, leaves them out.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from llmobs.analyzer.score.own import Verdict as Verdict
    from llmobs.analyzer.score.own import scorer as scorer
    from llmobs.sdk.configure import Status, flush, init, shutdown, status
    from llmobs.sdk.context import Handle, Ids, current, current_ids, session, span, trace_id
    from llmobs.sdk.feedback import feedback
    from llmobs.sdk.instrument import instrument, uninstrument
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
    "instrument",
    "observe",
    "session",
    "shutdown",
    "span",
    "status",
    "trace_id",
    "uninstrument",
]

_HOMES: Final = {
    "Handle": "sdk.context",
    "Ids": "sdk.context",
    "Status": "sdk.configure",
    "Usage": "sdk.usage",
    "Verdict": "analyzer.score.own",
    "current": "sdk.context",
    "current_ids": "sdk.context",
    "feedback": "sdk.feedback",
    "flush": "sdk.configure",
    "init": "sdk.configure",
    "instrument": "sdk.instrument",
    "observe": "sdk.observe",
    "scorer": "analyzer.score.own",
    "session": "sdk.context",
    "shutdown": "sdk.configure",
    "span": "sdk.context",
    "status": "sdk.configure",
    "trace_id": "sdk.context",
    "uninstrument": "sdk.instrument",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"llmobs.{home}"), name)
    except ModuleNotFoundError as error:
        if home.startswith("sdk.") or (error.name or "").startswith("llmobs"):
            raise
        raise ModuleNotFoundError(
            f"llmobs.{name} needs the server's packages ({error.name} is missing): "
            "pip install 'llmobs[server]'",
            name=error.name,
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

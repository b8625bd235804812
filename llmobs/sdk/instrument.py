"""Instrumentations of GenAI libraries, switched on where installed: our own, and official ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Final, Literal

from llmobs.sdk import runtime as process
from llmobs.sdk.guarded import guarded, logger, report
from llmobs.sdk.integrations import anthropic, imports, litellm, openai
from llmobs.sdk.integrations.base import Integration
from llmobs.sdk.runtime import Settings

__all__ = ["CAPTURE_IS_OURS", "CAPTURE_VARIABLE", "activate", "instrument", "uninstrument"]

CAPTURE_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# Beside it where we have set it: children inherit both, and it is not their owner's word.
CAPTURE_IS_OURS: Final = "_LLMOBS_CAPTURE_IS_OURS"
GROUP: Final = "opentelemetry_instrumentor"
# Our own, on the hot path. They win over the official ones of the same clients.
OWN: Final = {one.INTEGRATION.name: one.INTEGRATION for one in (openai, anthropic, litellm)}
# Others whose spans conform, by distribution. Not here: botocore and openai-v2, which patch the
# same clients by older conventions, and other vendors', which are loaded by name alone.
OFFICIAL: Final = frozenset(
    {
        "opentelemetry-instrumentation-google-genai",
        *(
            f"opentelemetry-instrumentation-genai-{library}"
            for library in (
                "agno",
                "bedrock",
                "dspy",
                "langchain",
                "llama-index",
                "openai-agents",
                "portkey",
                "qwen-agent",
                "qwenpaw",
                "smolagents",
            )
        ),
    }
)


def instrument(*names: str, stream_usage: bool = False) -> list[str]:
    """Trace the calls of GenAI clients. What happens before `llmobs.init` is not recorded.

    The order of this, of `llmobs.init` and of the clients' imports is free: a client that is not
    imported yet is instrumented when it is. `uninstrument` takes all back.

    Args:
        names: ``openai``, ``anthropic``, ``litellm``, or other entry points of the group
            ``opentelemetry_instrumentor``; none: our own and the official ones that are installed.
        stream_usage: Let OpenAI's chat streams ask for their usage where the caller doesn't. The
            application then gets one more chunk, without choices, at each stream's end. Without
            it the tokens of such streams are reckoned from their texts and marked as estimated.

    Returns:
        Names of those that are on, or will be when their library is imported.
    """
    if not names or openai.INTEGRATION.name in names:
        openai.INTEGRATION.options.stream_usage = stream_usage
    settings = None if process.active is None else process.active.settings
    with guarded("instrument"):
        return activate(names or "auto", settings)
    return []


def uninstrument(*names: str) -> list[str]:
    """Take instrumentations back; without names all.

    Returns:
        Names of those that were on.
    """
    with guarded("uninstrument"):
        return _take_back(names)
    return []


def activate(wanted: Literal["auto"] | Sequence[str], settings: Settings | None) -> list[str]:
    """Switch instrumentations on, each in its own guard.

    Args:
        wanted: ``auto`` for all that are installed, or names.
        settings: What may leave the process: the official instrumentations are told by their
            variable. None before `llmobs.init`.

    Returns:
        Names of those that are on.
    """
    wants_content = settings is not None and settings.content in {"full", "redacted"}
    if wants_content and CAPTURE_VARIABLE not in os.environ:
        # On spans alone: content is not sent twice, and is masked on its way through our queue.
        os.environ[CAPTURE_VARIABLE] = "SPAN_ONLY"
        os.environ[CAPTURE_IS_OURS] = "1"
    own = [one for name, one in OWN.items() if wanted == "auto" or name in wanted]
    started = [one.name for one in own if _start_own(one)]
    found = [entry for entry in entry_points(group=GROUP) if entry.name not in OWN]
    official = [e for e in found if e.dist is not None and _normal(e.dist.name) in OFFICIAL]
    if wanted == "auto":
        chosen = official
    else:
        # Two by one name patch one library: then the official one.
        chosen = list({e.name: e for e in (*found, *official) if e.name in wanted}.values())
        for missing in set(wanted) - {entry.name for entry in chosen} - set(started):
            report("instrumentation not installed", instrumentation=missing)
    started += [entry.name for entry in chosen if _start(entry)]
    logger.info("instrumentations", extra={"started": started})
    return started


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _start_own(integration: Integration) -> bool:
    """Patch a library now, or as soon as it is imported; return whether that is so."""
    with guarded(f"instrument {integration.name}"):
        if find_spec(integration.module) is None or not integration.is_supported():
            return False
        integration.is_on = True
        if integration.is_imported:
            integration.apply(sys.modules[integration.module])
        else:
            imports.when_imported(integration.module, integration.apply)
        return integration.is_on
    return False


def _start(entry: EntryPoint) -> bool:
    with guarded(f"instrument {entry.name}"):  # someone else's code, and a library of any version
        made: Any = entry.load()()
        if not made.is_instrumented_by_opentelemetry:
            made.instrument()
        return bool(made.is_instrumented_by_opentelemetry)
    return False


def _take_back(names: Iterable[str]) -> list[str]:
    wanted = set(names)
    if not wanted and CAPTURE_IS_OURS in os.environ:
        del os.environ[CAPTURE_IS_OURS]
        os.environ.pop(CAPTURE_VARIABLE, None)
    stopped = []
    for integration in OWN.values():
        if integration.is_on and (not wanted or integration.name in wanted):
            imports.forget(integration.module)
            integration.remove()
            stopped.append(integration.name)
    for entry in entry_points(group=GROUP):
        is_ours = entry.dist is not None and _normal(entry.dist.name) in OFFICIAL
        if entry.name in OWN or not (entry.name in wanted or (not wanted and is_ours)):
            continue
        with guarded(f"uninstrument {entry.name}"):
            made: Any = entry.load()()
            if made.is_instrumented_by_opentelemetry:
                made.uninstrument()
                stopped.append(entry.name)
    return stopped

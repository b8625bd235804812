"""Official OpenTelemetry instrumentations of GenAI libraries, switched on where installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Literal

from llmobs.sdk.guarded import guarded, logger, report
from llmobs.sdk.runtime import Settings

__all__ = ["CAPTURE_VARIABLE", "instrument"]

CAPTURE_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
GROUP: Final = "opentelemetry_instrumentor"
# Those whose spans conform, by distribution. Not here: botocore and openai-v2, which patch the same
# clients by older conventions, and other vendors', which are loaded by name alone.
OFFICIAL: Final = frozenset(
    {
        "opentelemetry-instrumentation-google-genai",
        *(
            f"opentelemetry-instrumentation-genai-{library}"
            for library in (
                "agno",
                "anthropic",
                "bedrock",
                "dspy",
                "langchain",
                "llama-index",
                "openai",
                "openai-agents",
                "portkey",
                "qwen-agent",
                "qwenpaw",
                "smolagents",
            )
        ),
    }
)


def instrument(wanted: Literal["auto"] | Sequence[str], settings: Settings) -> list[str]:
    """Switch instrumentations on, each in its own guard.

    Args:
        wanted: ``auto`` for all official ones that are installed, or names of entry points.
        settings: What may leave the process: the instrumentations are told by their variable.

    Returns:
        Names of those that are on.
    """
    if settings.content in {"full", "redacted"}:
        # On spans alone: content is not sent twice, and is masked on its way through our queue.
        os.environ.setdefault(CAPTURE_VARIABLE, "SPAN_ONLY")
    found = list(entry_points(group=GROUP))
    if wanted == "auto":
        chosen = [e for e in found if e.dist is not None and _normal(e.dist.name) in OFFICIAL]
    else:
        chosen = [entry for entry in found if entry.name in wanted]
        for missing in set(wanted) - {entry.name for entry in chosen}:
            report("instrumentation not installed", instrumentation=missing)
    started = [entry.name for entry in chosen if _start(entry)]
    logger.info("instrumentations", extra={"started": started})
    return started


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _start(entry: EntryPoint) -> bool:
    with guarded(f"instrument {entry.name}"):  # someone else's code, and a library of any version
        made: Any = entry.load()()
        if not made.is_instrumented_by_opentelemetry:
            made.instrument()
        return bool(made.is_instrumented_by_opentelemetry)
    return False

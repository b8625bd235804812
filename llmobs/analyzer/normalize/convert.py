"""Readers of single values: from a producer's wording to the conventions'."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from llmobs.analyzer.normalize.mapping import VALUES
from llmobs.analyzer.normalize.messages import loads, unquoted

__all__ = ["ABSURD", "instant_ns", "model_asked_for", "reader", "sampling_weight", "usage"]

ABSURD: Final = 1e15
"""No count of tokens and no wait in ns (11 days) is above it: a wrong unit or a broken producer."""

_THRESHOLD = re.compile(r"(?:^|,)\s*ot=(?:[^,]*;)?th:([0-9a-f]{1,14})(?=[;,\s]|$)")


def reader(name: str) -> Callable[[str], str]:
    """Return how values of a table in `VALUES` are read; "" reads them as they are."""
    if not name:
        return str
    table = VALUES.get(name, {})

    def read(text: str) -> str:
        return table.get(text, table.get("*", text))

    return {"finish_reason": _finish_reason, "provider": _provider}.get(name, read)


def _finish_reason(text: str) -> str:
    if text.startswith("["):  # one for each choice: the first
        values = loads(text)
        text = str(values[0]) if isinstance(values, list) and values else ""
    text = unquoted(text).removeprefix("FinishReason.")
    return VALUES["finish_reason"].get(text, text)


def _provider(text: str) -> str:
    """Read ``OpenAI``, ``openai.chat`` and ``azure.ai.openai`` alike."""
    table = VALUES["provider"]
    text = text.lower()
    # Vercel names the API behind a dot; names of the conventions have dots of their own.
    short = text.rpartition(".")[0] if text.endswith(_APIS) else text
    return table.get(text, table.get(short, short))


_APIS: Final = (".chat", ".responses", ".messages", ".completion", ".embedding", ".embeddings")


def sampling_weight(trace_state: str) -> float:
    """Return how many spans a sampled one stands for: 1 / (1 - T / 2^56) of ``ot=th:T``.

    References:
        OpenTelemetry, "TraceState: Probability Sampling".
    """
    found = _THRESHOLD.search(trace_state)
    if not found:
        return 1.0
    threshold = int(found[1].ljust(14, "0"), 16)
    return 2.0**56 / (2**56 - threshold)


def model_asked_for(text: str) -> str:
    """Return the model in OpenInference's ``llm.invocation_parameters``, "" for none."""
    parameters = loads(text)
    model = parameters.get("model") if isinstance(parameters, dict) else None
    return model if isinstance(model, str) else ""


def instant_ns(text: str) -> int | None:
    """Return a time in ISO 8601, quoted or not, as ns since 1970; None for anything else."""
    try:
        at = datetime.fromisoformat(text.strip('"'))
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def usage(text: str) -> Mapping[str, float]:
    """Read a JSON object of counts: Langfuse's ``usage_details``, LangChain's ``usage_metadata``.

    Returns:
        Columns and counts, cached and reasoning tokens included in input and output. Langfuse's
        own names are of disjoint counts; those of OpenAI, whose counts include them already,
        are read as well, nested as they are.
    """
    details = loads(text)
    if not isinstance(details, dict):
        return {}
    for name in [name for name in details if isinstance(details[name], dict)]:
        details |= {f"{name}.{inner}": count for inner, count in details[name].items()}
    counts = {
        name: float(count)
        for name, count in details.items()
        if isinstance(count, (int, float)) and 0 <= count <= ABSURD
    }
    out: dict[str, float] = {}
    for column, names in _USAGE.items():
        if found := [counts[name] for name in names if name in counts]:
            out[column] = found[0]
    for column, whole, prefix in (
        ("input_tokens", "prompt_tokens", ("input", "cache_")),
        ("output_tokens", "completion_tokens", ("output",)),
    ):
        parts = [
            count for name, count in counts.items() if name.startswith(prefix) and "." not in name
        ]
        if whole in counts:
            out[column] = counts[whole]
        elif parts:
            out[column] = sum(parts)
    return out


_USAGE: Final = {
    "cache_read_tokens": (
        "input_cached_tokens",
        "input_cache_read",
        "cache_read_input_tokens",
        "input_cache_read_tokens",
        "prompt_tokens_details.cached_tokens",
        "input_token_details.cache_read",
    ),
    "cache_write_tokens": (
        "cache_creation_input_tokens",
        "input_cache_creation",
        "input_cache_write_tokens",
        "input_token_details.cache_creation",
    ),
    "reasoning_tokens": (
        "output_reasoning_tokens",
        "output_reasoning",
        "completion_tokens_details.reasoning_tokens",
        "output_token_details.reasoning",
    ),
}
